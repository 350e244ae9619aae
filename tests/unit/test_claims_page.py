"""The tables of docs/claims.md are what results/<experiment>/claims.json says (`--fix` writes them)."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import PROJECT

PAGE = PROJECT / "docs" / "claims.md"
BLOCK = r"(<!-- {name}: .*? -->\n).*?(<!-- /{name} -->)"


def number(estimate: Mapping[str, Any] | None) -> str:
    """Mean and interval; the mean alone of too few draws for one."""
    if estimate is None:
        return ""
    shown = [
        f"{round(estimate[name], 2) + 0.0:.2f}".replace("-", "−")
        for name in ("mean", "low", "high")
        if estimate[name] is not None
    ]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if len(shown) > 1 else shown[0]


def table(judged: Mapping[str, Any]) -> str:
    """A row per claim: what is asked, the number that decides, and the verdict, with what is missing for another."""
    lines = ["| claim or question | statistic | draws | verdict |", "|---" * 4 + "|"]
    for claim in judged["claims"]:
        draws = claim["estimate"]["draws"] if claim["estimate"] else ""
        missing = f" (missing: {claim['missing']})" if claim["missing"] else ""
        verdict = f"**{claim['verdict']}**{missing}"
        lines.append(f"| {claim['sentence']} | {number(claim['estimate'])} | {draws} | {verdict} |")
    return "\n".join(lines) + "\n"


def block(experiment: str) -> str:
    """The table of an experiment, or a sentence where it has not been run to its end."""
    verdicts = PROJECT / "results" / experiment / "claims.json"
    if not verdicts.exists():
        return f"No verdicts yet: `experiments/{experiment}.yaml` has not been run to its end.\n"
    return table(json.loads(verdicts.read_text()))


@pytest.mark.parametrize("experiment", ["claims-cxr", "claims"])
def test_the_page_shows_the_verdicts_of_the_experiment(experiment: str, request: pytest.FixtureRequest) -> None:
    rows, text = block(experiment), PAGE.read_text()
    fresh, found = re.subn(
        BLOCK.format(name=experiment), lambda match: match[1] + rows + match[2], text, flags=re.DOTALL
    )
    assert found == 1
    if request.config.getoption("--fix"):
        PAGE.write_text(fresh)
    assert PAGE.read_text() == fresh, "run: pytest tests/unit/test_claims_page.py --fix"


def test_the_table_says_what_is_missing() -> None:
    estimate = {"mean": -0.104, "low": None, "high": None, "draws": 2}
    claims = [
        {"sentence": "A.", "estimate": estimate, "verdict": "cannot tell", "missing": "5 draws"},
        {"sentence": "B.", "estimate": {**estimate, "low": -0.2, "high": 0.004}, "verdict": "leaks", "missing": None},
        {"sentence": "C.", "estimate": None, "verdict": "not tested", "missing": "attack x"},
    ]
    assert table({"claims": claims}).splitlines()[2:] == [
        "| A. | −0.10 | 2 | **cannot tell** (missing: 5 draws) |",
        "| B. | −0.10 [−0.20, 0.00] | 2 | **leaks** |",
        "| C. |  |  | **not tested** (missing: attack x) |",
    ]
