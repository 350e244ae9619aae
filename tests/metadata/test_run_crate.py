"""The RO-Crate of a run, read by rocrate-validator as a Provenance Run Crate.

Without network: of the two vocabularies that a crate names by address, one is that which the package `rocrate` carries,
with the terms of Bioschemas as RO-Crate 1.1 has them; of the other the crate uses one term.
"""

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from requests import Response

from leakpipe.records.crate import CONTEXT
from tests.unit.test_crate import FOLDER, build
from tests.unit.test_crate import _made as made  # noqa: F401  # the fixture that makes two jobs

PROFILES = ("process-run-crate", "workflow-run-crate", "provenance-run-crate")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rocrate", "rocrate_validator"):
        pytest.importorskip(name, reason=f"{name} is not installed: make test-metadata")
    shipped = json.loads((files("rocrate") / "data" / "ro-crate.jsonld").read_text())["@context"]
    terms = {name: place.replace("bioschemas.org/terms/", "bioschemas.org/") for name, place in shipped.items()}
    run_terms = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
    known = dict(zip(CONTEXT, ({"@context": terms}, {"@context": run_terms}), strict=True))
    monkeypatch.setattr(
        "rdflib.plugins.shared.jsonld.context.source_to_json", lambda address, *_, **__: (known[str(address)], None)
    )

    def answer(_: object, address: str, **__: object) -> Response:
        response = Response()
        response.status_code, response._content = 200, json.dumps(known[address]).encode()
        response.headers["Content-Type"] = "application/ld+json"
        return response

    monkeypatch.setattr("rocrate_validator.utils.http.HttpRequester.get", answer, raising=False)


def issues(profile: str, severity: str) -> list[str]:
    from rocrate_validator.models import Severity, ValidationSettings
    from rocrate_validator.services import validate

    settings = ValidationSettings(
        rocrate_uri=str(FOLDER),
        profile_identifier=profile,
        requirement_severity=Severity[severity],
        offline=True,
        abort_on_first=False,
    )
    return [f"{issue.check.identifier}: {issue.message}" for issue in validate(settings).get_issues()]


def write(crate: dict[str, Any]) -> None:
    (FOLDER / "ro-crate-metadata.json").write_text(json.dumps(crate))


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_that_is_required_is_missing(profile: str) -> None:
    write(build())
    assert issues(profile, "REQUIRED") == []


def test_what_is_recommended_and_missing_is_what_the_documentation_gives_reasons_for() -> None:
    write(build())
    missing = {re.split(r"[_:]", issue)[0] + issue[issue.index(":") :] for issue in issues(PROFILES[-1], "RECOMMENDED")}
    reasons = {
        "process-run-crate-0.5: The SoftwareApplication id SHOULD be an absolute URI",
        "process-run-crate-0.5: The Application SHOULD have a url",
        "process-run-crate-0.5: The Action SHOULD have an agent that is a Person or Organization",
        "workflow-ro-crate-1.0: The README.md SHOULD be about the crate",
        "workflow-ro-crate-1.0: The README.md SHOULD have text/markdown as its encodingFormat",
        "ro-crate-1.1: The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
        "ro-crate-1.1: The organization SHOULD have a URL.",
    }
    assert missing == reasons


def test_the_validator_would_notice() -> None:
    crate = build()
    for entity in crate["@graph"]:
        if entity["@type"] == "ControlAction":
            del entity["instrument"]
    write(crate)
    assert any("HowToStep" in issue for issue in issues("provenance-run-crate", "REQUIRED"))
