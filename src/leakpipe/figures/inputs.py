"""The files that figures read, and how each is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    import pandas as pd

# What a figure can read, by the name of its parameter, and the files that it takes: fields of `Files`.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "leakage": ("leakage",),
    "accuracy": ("accuracy",),
    "identifiability": ("identifiability",),
    "defense_table": ("defense_table",),
    "privacy": ("privacy",),
    "dataset": ("images",),
    "splits": ("splits",),
    "pictures": ("images", "splits", "reconstruction"),
}


@dataclass(frozen=True)
class Files:
    """The paths of the inputs of figures; None or () where a file was not given.

    Attributes:
        leakage: The leakage table.
        accuracy: The accuracy table.
        identifiability: The identifiability table.
        defense_table: The table of defences.
        privacy: The table of guarantees.
        images: The data set.
        splits: The split of every seed.
        reconstruction: Path of an attack's reconstructions, with {defense}, {seed}, {round}, {client} and {attack}.
    """

    leakage: Path | None = None
    accuracy: Path | None = None
    identifiability: Path | None = None
    defense_table: Path | None = None
    privacy: Path | None = None
    images: Path | None = None
    splits: tuple[Path, ...] = ()
    reconstruction: str | None = None

    def load(self, name: str, *, figure: str) -> Any:
        """Load what the parameter `name` of a figure stands for.

        Raises:
            LeakpipeError: A file that it takes was not given, or cannot be read.
        """
        for field in NEEDS[name]:
            if not getattr(self, field):
                option = {"splits": "split"}.get(field, field.replace("_", "-"))
                raise LeakpipeError(f"figure {figure!r} reads --{option}, which is missing")
        from leakpipe.data.files import load_dataset, load_split
        from leakpipe.figures.images import load_pictures

        images, reconstruction = self.images or Path(), self.reconstruction or ""
        loaders: dict[str, Callable[[], Any]] = {
            "dataset": lambda: load_dataset(images),
            "splits": lambda: {seed: split for split, seed in map(load_split, self.splits)},
            "pictures": lambda: load_pictures(images, self.splits, reconstruction),
        }
        return loaders[name]() if name in loaders else self._load_table(name)

    def _load_table(self, name: str) -> "pd.DataFrame":
        from leakpipe.accounting.table import PRIVACY_COLUMNS
        from leakpipe.tables.defenses import DEFENSE_COLUMNS
        from leakpipe.tables.table import ACCURACY_COLUMNS, LEAKAGE_COLUMNS, identifiability_columns, read_table

        columns = {
            "leakage": LEAKAGE_COLUMNS,
            "accuracy": ACCURACY_COLUMNS,
            "identifiability": identifiability_columns((1,)),
            "defense_table": DEFENSE_COLUMNS,
            "privacy": PRIVACY_COLUMNS,
        }
        return read_table(getattr(self, name), columns[name])
