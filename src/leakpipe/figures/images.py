"""The images that rows of the leakage table are about: where their files are, and which of them to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from leakpipe.errors import LeakpipeError
from leakpipe.tables.wording import Clients, count, order_clients, select

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CELL = ("defense", "seed", "round", "client", "attack")


class Pictures:
    """Images of shape (channels, height, width) with values in [0, 1], found by a row of the leakage table.

    Args:
        originals: The data set, (N, channels, height, width); the table's `image` is an index into it.
        load_attacked: Takes the columns `CELL` of a row, as a mapping, and returns the attack's reconstructions and
            priors, each (images, channels, height, width), and the indices of the true images, in the order of the
            priors. It is called again when another attack is asked for: one attack's images are in memory at a time.
    """

    def __init__(self, originals: np.ndarray, load_attacked: Callable[[Mapping[str, Any]], Attacked]) -> None:
        self.originals = originals
        self.load_attacked = load_attacked
        self._cell: dict[str, Any] = {}
        self._attacked: Attacked

    def find(self, row: Mapping[Any, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The original, the prior image that the attack started from, and the reconstruction of a row.

        Raises:
            LeakpipeError: The attack's files are missing or hold something else than the row is about.
        """
        cell = {name: row[name] for name in CELL}
        if cell != self._cell:
            self._attacked, self._cell = self.load_attacked(cell), cell
        rebuilt, priors, images = self._attacked
        image, match = row["image"], row["reconstruction"]
        if image not in images or match >= len(rebuilt) or rebuilt.shape[1:] != self.originals.shape[1:]:
            described = ", ".join(f"{name} {value}" for name, value in cell.items())
            raise LeakpipeError(f"the reconstruction of {described} is not the one of the leakage table")
        return self.originals[image], priors[list(images).index(image)], rebuilt[match]


Attacked = tuple["np.ndarray", "np.ndarray", Sequence[int]]


def load_pictures(images: Path, splits: Iterable[Path], reconstruction: str) -> Pictures:
    """The pictures of the files of an experiment.

    Args:
        images: The data set.
        splits: The split of every seed.
        reconstruction: Path of an attack's reconstructions, with the columns of `CELL` in braces.
    """
    from leakpipe.attacks.files import load_reconstruction
    from leakpipe.data.files import load_dataset, load_split

    name_columns(reconstruction, CELL)
    dataset = load_dataset(images)
    by_seed = {seed: split for split, seed in (load_split(each, images=len(dataset.images)) for each in splits)}

    def load_attacked(cell: Mapping[str, Any]) -> Attacked:
        if cell["seed"] not in by_seed:
            raise LeakpipeError(f"the split of seed {cell['seed']} is missing: name its file with --split")
        found = load_reconstruction(Path(reconstruction.format(**cell)))
        return (
            middle_slices(found.candidates),
            middle_slices(found.prior),
            by_seed[cell["seed"]].images_of(cell["client"]),
        )

    return Pictures(middle_slices(dataset.images), load_attacked)


def middle_slices(images: np.ndarray) -> np.ndarray:
    """Returns what figures show of images: of volumes, (N, channels, depth, height, width), the slice in the middle."""
    return images[:, :, images.shape[2] // 2] if images.ndim == 5 else images


def list_files(pattern: str, table: pd.DataFrame) -> list[Path]:
    """Files that a pattern like `seed{seed}/{client}.json` stands for: one for each combination that a table holds.

    Raises:
        LeakpipeError: The pattern names something that is no column of the table.
    """
    names = name_columns(pattern, list(table.columns))
    rows = table.drop_duplicates(names).to_dict("records") if names else [{}]
    return sorted({Path(pattern.format(**{str(name): value for name, value in row.items()})) for row in rows})


def name_columns(pattern: str, columns: Sequence[str]) -> list[str]:
    """The columns that a pattern names; `LeakpipeError` if one is not among `columns`."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise LeakpipeError(f"{pattern}: {error}, expected a path with columns of the table in braces") from None
    for name in names:
        if name not in columns:
            raise LeakpipeError(f"{pattern}: names {name!r}, expected columns: {', '.join(columns)}")
    return names


def choose_images(rows: pd.DataFrame, defense: str, clients: Clients, images_per_client: int) -> pd.DataFrame:
    """The rows of the images to show of each client: those with the largest RDLV under a defence, largest first.

    Args:
        rows: Rows of the leakage table of one attack and one round.
        defense: Defence under which images are ranked.
        clients: The `federation.clients` section of the parameters.
        images_per_client: Most rows of one client.

    Returns:
        Some of the rows, each image once, clients with the fewest images first.
    """
    import pandas as pd

    ranked = select(rows, defense=defense).sort_values(
        ["rdlv", "ssim", "seed", "image"], ascending=[False, False, True, True], na_position="last", kind="stable"
    )
    ranked = ranked.drop_duplicates(["client", "image"])
    return pd.concat(
        [ranked[ranked["client"] == name].head(images_per_client) for name in order_clients(ranked, clients)]
    )


def describe_shown(rows: pd.DataFrame, shown: pd.DataFrame) -> str:
    """`site-9: 2 of 5 attacked images; …`: how many of each client's images `choose_images` chose."""
    parts = []
    for client in shown["client"].unique():
        attacked = rows[rows["client"] == client]["image"].nunique()
        parts.append(f"{client}: {(shown['client'] == client).sum()} of {count(attacked, 'attacked image')}")
    return "; ".join(parts)
