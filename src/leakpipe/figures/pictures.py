"""Figures made of pictures: the images they show, which of them to show, and a sheet to put them on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from leakpipe.tables.wording import count, order_clients, select


@dataclass(frozen=True)
class Pictures:
    """The images that the rows of the leakage table are about, with values in [0, 1].

    Attributes:
        originals: The data set, (N, channels, height, width); the table's `image` is an index into it.
        priors: Prior image, (channels, height, width), that the attack on (seed, image) started from.
        rebuilt: All reconstructions of the attack on (defense, seed, client), (images, channels, height,
            width); the table's `reconstruction` is an index into them.
    """

    originals: np.ndarray
    priors: Mapping[tuple[int, int], np.ndarray]
    rebuilt: Mapping[tuple[str, int, str], np.ndarray]


def choose_images(
    rows: pd.DataFrame, defenses: Sequence[str], clients: Mapping[str, Mapping[str, Any]], images_per_client: int
) -> pd.DataFrame:
    """The images to show of each client: those with the largest RDLV under the first defence, largest first.

    Args:
        rows: Rows of the leakage table of one attack and one round.

    Returns:
        Columns `client`, `seed`, `image`, clients with the fewest images first.
    """
    ranked = select(rows, defense=defenses[0]).sort_values(
        ["rdlv", "ssim", "seed", "image"], ascending=[False, False, True, True], na_position="last", kind="stable"
    )
    ranked = ranked.drop_duplicates(["client", "image"])
    best = [ranked[ranked["client"] == name].head(images_per_client) for name in order_clients(ranked, clients)]
    return pd.concat(best)[["client", "seed", "image"]]


def describe_shown(rows: pd.DataFrame, shown: pd.DataFrame) -> str:
    """`site-9: 2 of 5 attacked images; …`: how many of each client's images `choose_images` chose."""
    parts = []
    for client in shown["client"].unique():
        attacked = rows[rows["client"] == client]["image"].nunique()
        parts.append(f"{client}: {(shown['client'] == client).sum()} of {count(attacked, 'attacked image')}")
    return "; ".join(parts)


class Sheet:
    """A figure that is laid out in inches from its upper left corner."""

    def __init__(self, *, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def write(self, text: str, x: float, y: float, **look: Any) -> None:
        """Write text whose left end (or as `look` says) is at a place."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **{"va": "center", **look})

    def fill(self, x: float, y: float, width: float, height: float, color: Any) -> None:
        """Fill a rectangle, behind all pictures."""
        corner = (x / self.width, 1 - (y + height) / self.height)
        self.figure.add_artist(
            Rectangle(corner, width / self.width, height / self.height, color=color, linewidth=0, zorder=-1)
        )

    def add_axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose frame is a rectangle."""
        left, bottom = x / self.width, 1 - (y + height) / self.height
        return self.figure.add_axes((left, bottom, width / self.width, height / self.height))

    def show(self, image: np.ndarray, x: float, y: float, *, side: float, fade: float = 0.0) -> None:
        """Draw an image of shape (channels, height, width) in [0, 1]; `fade` mixes that share of white into it."""
        axes = self.add_axes(x, y, side, side)
        pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
        axes.imshow(pixels + fade * (1 - pixels), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
