"""What the attacks rebuilt: originals beside the prior and the reconstructions under every defence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from leakpipe.errors import LeakpipeError
from leakpipe.figures.selection import count, describe_client, order_clients, select
from leakpipe.figures.style import COLORS, FAINT, MUTED, in_style

PICTURE, GAP, GROUP_GAP, LEFT, TOP, CAPTION = 0.92, 0.12, 0.14, 1.0, 1.12, 0.24  # inches
GAIN = COLORS[0]

_Scores = dict[tuple[str, int, str, int], dict[Any, Any]]


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


@in_style
def plot_reconstructions(
    leakage: pd.DataFrame,
    pictures: Pictures,
    *,
    attack: str,
    captured_round: int,
    defenses: Mapping[str, str],
    clients: Mapping[str, Mapping[str, Any]],
    images_per_client: int = 2,
) -> Figure:
    """Draw one row per image: the original, the prior, the reconstruction under each defence, SSIM below.

    Each client shows the images that leaked most (largest RDLV under the first defence), most leaked
    first, each once; a client that was attacked under several seeds is represented by its images of all.

    Args:
        leakage: The leakage table.
        pictures: The images it is about.
        attack: Attack whose reconstructions are shown.
        captured_round: Round they are of.
        defenses: Heading of the column of each defence, in order; images are ranked under the first.
        clients: The `federation.clients` section of the parameters.
        images_per_client: Most rows of one client.
    """
    rows = select(leakage, attack=attack, round=captured_round)
    shown = choose_images(rows, list(defenses), clients, images_per_client)
    scores: _Scores = {
        (row["defense"], row["seed"], row["client"], row["image"]): row for row in rows.to_dict("records")
    }
    sheet = _Sheet(
        width=_left(2 + len(defenses)),
        height=TOP + len(shown) * (PICTURE + CAPTION) + shown["client"].nunique() * GROUP_GAP,
    )
    sheet.write("What the attack rebuilds from one update", 0.1, 0.17, weight="bold", fontsize=11)
    sheet.write("bars: SSIM to the original, from 0 to 1; orange: gained over the prior", 0.1, 0.4, fontsize=9)
    for column, heading in enumerate(["original", "prior\n(the start)", *defenses.values()]):
        sheet.write(heading, _left(column) + PICTURE / 2, TOP - 0.24, ha="center", fontsize=9.5)
    top = TOP
    for client in shown["client"].unique():
        label = describe_client(client, clients[client]).replace(": ", "\n").replace(", ", ",\n")
        sheet.write(label, 0.1, top + PICTURE / 2, weight="bold", fontsize=9.5)
        for row in shown[shown["client"] == client].itertuples():
            _draw_row(sheet, (row.seed, client, row.image), scores, pictures, list(defenses), top)
            top += PICTURE + CAPTION
        top += GROUP_GAP
    return sheet.figure


def describe_reconstructions(
    leakage: pd.DataFrame,
    *,
    attack: str,
    captured_round: int,
    defenses: Mapping[str, str],
    clients: Mapping[str, Mapping[str, Any]],
    images_per_client: int = 2,
) -> str:
    """Say in words what `plot_reconstructions` draws for the same arguments: the caption."""
    rows = select(leakage, attack=attack, round=captured_round)
    shown = choose_images(rows, list(defenses), clients, images_per_client)
    parts = []
    for client in shown["client"].unique():
        attacked = rows[rows["client"] == client]["image"].nunique()
        parts.append(f"{client}: {(shown['client'] == client).sum()} of {count(attacked, 'attacked image')}")
    return (
        f"Originals, the prior image that attack {attack} starts from, and what it rebuilds from the update of "
        f"round {captured_round} under each defence. Below each picture its SSIM to the original (1: identical); "
        "orange is what the attack gained over the prior. Each client shows those images that leak most under "
        f"the first defence, most leaked first ({'; '.join(parts)})."
    )


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


class _Sheet:
    """A figure that is laid out in inches from its upper left corner."""

    def __init__(self, *, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def write(self, text: str, x: float, y: float, **look: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, **{"va": "center", **look})

    def fill(self, x: float, y: float, width: float, height: float, color: str) -> None:
        corner = (x / self.width, 1 - (y + height) / self.height)
        self.figure.add_artist(Rectangle(corner, width / self.width, height / self.height, color=color, linewidth=0))

    def show(self, image: np.ndarray, x: float, y: float) -> None:
        """Draw an image of shape (channels, height, width) and side `PICTURE`."""
        place = (x / self.width, 1 - (y + PICTURE) / self.height, PICTURE / self.width, PICTURE / self.height)
        axes = self.figure.add_axes(place)
        pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()


def _left(column: int) -> float:
    return LEFT + column * (PICTURE + GAP) + (GAP if column else 0)  # the original stands a little apart


def _draw_row(
    sheet: _Sheet,
    key: tuple[int, str, int],
    scores: _Scores,
    pictures: Pictures,
    defenses: Sequence[str],
    top: float,
) -> None:
    """Draw one image's row; `key` is (seed, client, image), `scores` the rows of the table."""
    seed, client, image = key
    prior = scores[defenses[0], *key]["ssim_prior"]
    sheet.show(pictures.originals[image], _left(0), top)
    sheet.write("SSIM:", _left(0) + PICTURE, top + PICTURE + 0.1, ha="right", fontsize=8.5, color=MUTED)
    sheet.show(pictures.priors[seed, image], _left(1), top)
    _draw_score(sheet, prior, prior, _left(1), top)
    for column, defense in enumerate(defenses, start=2):
        if (defense, *key) not in scores:
            sheet.write("not attacked", _left(column) + PICTURE / 2, top + PICTURE / 2, ha="center", color=MUTED)
            continue
        score = scores[defense, *key]
        if (defense, seed, client) not in pictures.rebuilt:
            raise LeakpipeError(f"the reconstruction of {client} under {defense}, seed {seed}, is missing")
        sheet.show(pictures.rebuilt[defense, seed, client][score["reconstruction"]], _left(column), top)
        _draw_score(sheet, score["ssim"], prior, _left(column), top)


def _draw_score(sheet: _Sheet, ssim: float, prior: float, left: float, top: float) -> None:
    """Below a picture: SSIM as a number and as a bar from 0 to 1, orange where it is above the prior's."""
    full, y = 0.58, top + PICTURE + 0.07
    known = min(max(ssim, 0.0), max(prior, 0.0))
    sheet.fill(left, y, full, 0.06, FAINT)
    sheet.fill(left, y, known * full, 0.06, MUTED)
    sheet.fill(left + known * full, y, max(ssim - known, 0.0) * full, 0.06, GAIN)
    look = {"weight": "bold", "color": GAIN} if ssim > prior else {"color": MUTED}
    sheet.write(f"{ssim:.2f}", left + PICTURE, y + 0.03, ha="right", fontsize=8.5, **look)
