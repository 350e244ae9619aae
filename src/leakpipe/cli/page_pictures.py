"""Files that the report page reads one per attack: where they are, and the pictures that are cut from them."""

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    import pandas as pd

    from leakpipe.report.pictures import Attacked, PagePictures


def list_files(pattern: str, table: "pd.DataFrame") -> list[Path]:
    """Files that a pattern like `seed{seed}/{client}.json` stands for: one for each combination that a table holds.

    Raises:
        LeakpipeError: The pattern names something that is no column of the table.
    """
    names = _named(pattern, table)
    rows = table.drop_duplicates(names).to_dict("records") if names else [{}]
    return sorted({fill(pattern, row) for row in rows})


def fill(pattern: str, cell: Mapping[Any, Any]) -> Path:
    """The file of one attack."""
    return Path(pattern.format(**cell))


def load_page_pictures(leakage: "pd.DataFrame", *, images: Path, split: str, reconstruction: str) -> "PagePictures":
    """Read the pictures of all rows of the leakage table.

    Args:
        leakage: The leakage table.
        images: The data set.
        split: Pattern of the splits, with {seed}.
        reconstruction: Pattern of the reconstructions, with {defense}, {seed}, {round}, {client} and {attack}.
    """
    from leakpipe.attacks.files import load_reconstruction
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.report.pictures import arrange_pictures

    _named(reconstruction, leakage)
    clients = {seed: found.clients for found, seed in map(load_split, list_files(split, leakage))}

    def load_attacked(cell: Mapping[str, Any]) -> "Attacked":
        found = load_reconstruction(fill(reconstruction, cell))
        return found.images, found.prior, clients[cell["seed"]][cell["client"]]

    return arrange_pictures(leakage, load_dataset(images).images, load_attacked)


def _named(pattern: str, table: "pd.DataFrame") -> list[str]:
    """The columns that a pattern names."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise LeakpipeError(f"{pattern}: {error}, expected a path with columns of the table in braces") from None
    for name in names:
        if name not in table.columns:
            raise LeakpipeError(f"{pattern}: names {name!r}, expected columns: {', '.join(table.columns)}")
    return names
