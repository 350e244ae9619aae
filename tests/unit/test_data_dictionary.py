"""The data dictionary describes every column of every table, in order."""

import re

import pytest

from leakpipe.accounting.table import PRIVACY_COLUMNS
from leakpipe.tables.comparisons import COMPARISON_COLUMNS, PAIR_COLUMNS
from leakpipe.tables.defenses import DEFENSE_COLUMNS
from leakpipe.tables.table import ACCURACY_COLUMNS, LEAKAGE_COLUMNS, identifiability_columns
from leakpipe.tables.verdicts import VERDICT_COLUMNS
from tests.conftest import PROJECT

TEXT = (PROJECT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
TABLES = {
    "leakage.csv": LEAKAGE_COLUMNS,
    "accuracy.csv": ACCURACY_COLUMNS,
    "identifiability.csv": identifiability_columns((1, 5)),
    "attacks.csv": COMPARISON_COLUMNS,
    "verdicts.csv": VERDICT_COLUMNS,
    "differences.csv": PAIR_COLUMNS,
    "privacy.csv": PRIVACY_COLUMNS,
    "defenses.csv": DEFENSE_COLUMNS,
}


def cells_of(table: str) -> list[list[str]]:
    """Rows of the table under the heading `table`, without its two header lines."""
    (section,) = re.findall(rf"^## {re.escape(table)}\n(.*?)(?=^##? |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines[0] == "| column | meaning | unit | range | empty |"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_it_has_a_section_per_table() -> None:
    assert re.findall(r"^## (.+)$", TEXT, flags=re.MULTILINE) == list(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_it_lists_exactly_the_columns_of_a_table(table: str) -> None:
    assert [row[0] for row in cells_of(table)] == [f"`{column}`" for column in TABLES[table]]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning_a_range_and_when_it_is_empty(table: str) -> None:
    for column, meaning, _unit, values, empty in cells_of(table):
        assert meaning, column
        assert values, column
        assert empty, column
