"""The table of docs/defenses.md is that of results/defenses/defenses.csv (`--fix` writes it)."""

import math
import re
from typing import Any

import pandas as pd
import pytest

from leakpipe.tables.defenses import DEFENSE_COLUMNS
from tests.conftest import PROJECT

RESULTS = PROJECT / "results" / "defenses" / "defenses.csv"
DOCUMENT = PROJECT / "docs" / "defenses.md"
BLOCK = r"(<!-- defenses: .*? -->\n).*?(<!-- /defenses -->)"


def with_interval(row: dict[str, Any], name: str) -> str:
    value, low, high = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    if math.isnan(value):
        return "–"
    interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}{interval}".replace("-", "−")


def draw(table: pd.DataFrame) -> str:
    lines = ["| defence | RDLV, naive | RDLV, adaptive | verdict | test accuracy | ε |", "|---" * 6 + "|"]
    for row in table.to_dict("records"):
        accuracy = with_interval(row, "accuracy") + (" (at chance)" if row["destroyed"] else "")
        epsilon = f"{row['epsilon']:.3g}" if row["epsilon"] < math.inf else "none"
        leaks = f"{with_interval(row, 'naive_rdlv')} | {with_interval(row, 'adaptive_rdlv')}"
        lines.append(f"| `{row['defense']}` | {leaks} | {row['verdict']} | {accuracy} | {epsilon} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_the_document_is_that_of_the_results(request: pytest.FixtureRequest) -> None:
    table = pd.read_csv(RESULTS)
    assert list(table.columns) == DEFENSE_COLUMNS
    text, rows = DOCUMENT.read_text(), draw(table)
    fresh, found = re.subn(BLOCK, lambda match: match[1] + rows + match[2], text, flags=re.DOTALL)
    assert found == 1, "docs/defenses.md has no place for the table"
    if request.config.getoption("--fix"):
        DOCUMENT.write_text(fresh)
    assert DOCUMENT.read_text() == fresh, "run: pytest tests/unit/test_defense_results.py --fix"
