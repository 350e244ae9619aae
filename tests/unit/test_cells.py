"""Files are of the cell that a job was started for, and the right cells are scored together."""

from pathlib import Path

import pytest

from leakpipe.cli.cells import require_cell, require_distinct
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.cells import Cell, group_cells, list_cells
from leakpipe.experiment.reading import load_params
from tests.conftest import PROJECT

FILE = Path("results/x/update.safetensors")
CELL = {"defense": "none", "seed": 1, "round": 2, "client": "site-9"}


@pytest.mark.parametrize("labels", [CELL, {"seed": "1"}, {"experiment": "default", "attack": "leakpipe"}, {}])
def test_a_file_of_the_jobs_cell_is_taken(labels: dict[str, object]) -> None:
    require_cell(FILE, CELL, labels)


@pytest.mark.parametrize(
    ("name", "other"), [("defense", "gaussian-1"), ("seed", "11"), ("round", 1), ("client", "site-1")]
)
def test_a_file_of_another_cell_is_refused(name: str, other: object) -> None:
    with pytest.raises(LeakpipeError) as caught:
        require_cell(FILE, CELL, {**CELL, name: other})
    assert str(caught.value) == f"{FILE}: is of {name} {CELL[name]!r}, expected {str(other)!r}"


def test_a_file_that_does_not_say_its_cell_is_refused() -> None:
    with pytest.raises(LeakpipeError, match="cell: does not say of which attack it is"):
        require_cell(FILE, CELL, {}, needs=("round", "attack"))


def test_what_is_no_name_of_a_cell_may_differ() -> None:
    require_cell(FILE, {"note": "ours"}, {"note": "theirs"})


def test_files_of_different_cells_are_taken() -> None:
    require_distinct([(Path(f"round{number}"), {**CELL, "round": number}) for number in (1, 2)])


def test_two_files_of_one_cell_are_refused() -> None:
    files = [(Path("a"), CELL), (Path("b"), {**CELL, "round": 1}), (Path("c"), {**CELL, "note": "a copy"})]
    with pytest.raises(LeakpipeError, match=r"^c: is of the same cell as a;"):
        require_distinct(files)


def test_groups_are_what_a_search_of_the_whole_design_finds() -> None:
    cells = list_cells(load_params(PROJECT / "params.yaml"))
    searched = {
        (defense, attack): [cell for cell in cells if (cell.defense, cell.attack) == (defense, attack)]
        for defense in {cell.defense for cell in cells}
        for attack in {cell.attack for cell in cells}
    }
    assert group_cells(cells) == {key: found for key, found in searched.items() if found}


def test_groups_keep_the_order_of_their_cells() -> None:
    cells = [Cell("none", seed, "site-9", "dlg") for seed in (2, 1)]
    assert group_cells(cells) == {("none", "dlg"): cells}
