"""The table of docs/claims.md is what results/claims/claims.json says (`--fix` writes it)."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import PROJECT

PAGE = PROJECT / "docs" / "claims.md"
VERDICTS = PROJECT / "results" / "claims" / "claims.json"
BLOCK = r"(<!-- claims: .*? -->\n).*?(<!-- /claims -->)"


def number(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return ""
    mean, low, high = (f"{round(estimate[name], 2) + 0.0:.2f}".replace("-", "−") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def table(judged: Mapping[str, Any]) -> str:
    """A row per claim: what is asked, the number that decides, and the verdict."""
    lines = ["| claim or question | statistic | draws | verdict |", "|---" * 4 + "|"]
    for claim in judged["claims"]:
        draws = claim["estimate"]["draws"] if claim["estimate"] else ""
        lines.append(f"| {claim['sentence']} | {number(claim['estimate'])} | {draws} | **{claim['verdict']}** |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_verdicts_of_the_experiment(request: pytest.FixtureRequest) -> None:
    rows = table(json.loads(VERDICTS.read_text()))
    text = PAGE.read_text()
    fresh, found = re.subn(BLOCK, lambda match: match[1] + rows + match[2], text, flags=re.DOTALL)
    assert found == 1
    if request.config.getoption("--fix"):
        PAGE.write_text(fresh)
    assert PAGE.read_text() == fresh, "run: pytest tests/unit/test_claims_page.py --fix"
