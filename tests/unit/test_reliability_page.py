"""docs/reliability.md names every drill, and only tests that there are."""

import re

from tests.conftest import PROJECT
from tests.drills.__main__ import DRILLS

PAGE = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [row.split("|") for row in re.findall(r"^\|(.*)\|$", PAGE, flags=re.MULTILINE)][2:]


def test_every_row_names_what_holds_it() -> None:
    held = [re.findall(r"`([^`]+)`", row[2]) for row in ROWS]
    assert all(held)
    files = {name for names in held for name in names if name.startswith("tests/")}
    assert {name for names in held for name in names} - files == set(DRILLS)
    assert [name for name in files if not (PROJECT / name).is_file()] == []
