"""The places in an image that leaked: the local gain in SSIM over the prior, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from leakpipe.figures.images import Pictures, choose_images, describe_shown
from leakpipe.figures.registry import figure
from leakpipe.figures.sheet import Sheet, blend
from leakpipe.figures.style import COLORS, FAINT, MUTED, Drawing
from leakpipe.metrics.leakage_map import leakage_map
from leakpipe.tables.strongest import EACH_DRAW, keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, select, stack_description, write_gain

if TYPE_CHECKING:
    import pandas as pd

PICTURE, GAP, GROUP_GAP, LEFT, TOP, CAPTION, BOTTOM = 1.0, 0.12, 0.14, 1.05, 0.85, 0.24, 0.6  # inches
LARGEST = 1.0  # gain at which the colours end
GAINED = COLORS[0]
# The blue is dark, so that in gray print what was lost is darker than what was gained.
SHADES = ("#003b5c", COLORS[1], "white", COLORS[4], GAINED)
COLUMNS = ("original", "prior\n(the start)", "reconstruction", "local gain\nin SSIM")


@figure(
    "maps",
    heading="Where in an image the leak is",
    about="Original, prior image, reconstruction, and the local SSIM that the attack gained over the prior: orange "
    "where it shows more of the image, blue where less.",
)
def draw_maps(
    leakage: pd.DataFrame,
    pictures: Pictures,
    *,
    defense: str,
    captured_round: int,
    clients: Clients,
    images_per_client: int = 2,
) -> Drawing:
    """Draw one row per image: the original, the prior, the reconstruction, and the leakage map.

    Args:
        leakage: The leakage table; of each client, the strongest attack is shown.
        pictures: The images it is about.
        defense: Defence that they were made under.
        captured_round: Round that they are of.
        clients: The `federation.clients` section of the parameters.
        images_per_client: Most rows of one client: those that leaked most, most leaked first.
    """
    rows = keep_strongest(select(leakage, defense=defense, round=captured_round), each=EACH_DRAW)
    shown = choose_images(rows, defense, clients, images_per_client)
    content = len(shown) * (PICTURE + CAPTION) + shown["client"].nunique() * GROUP_GAP
    height = TOP + content + BOTTOM
    sheet = Sheet(width=_left(len(COLUMNS)), height=height, title="Where in an image the leak is")
    for column, heading in enumerate(COLUMNS):
        sheet.write(heading, _left(column) + PICTURE / 2, TOP - 0.24, ha="center", fontsize=9.5)
    top = TOP
    for client in shown["client"].unique():
        sheet.write(stack_description(client, clients[client]), 0.1, top + PICTURE / 2, weight="bold", fontsize=9.5)
        for row in shown[shown["client"] == client].to_dict("records"):
            _draw_row(sheet, pictures, row, top)
            top += PICTURE + CAPTION
        top += GROUP_GAP
    place = (_left(1) + PICTURE / 2, top + 0.1, _left(2) - _left(0), 0.12)
    ticks = {-LARGEST: "−1: lost", 0: "0: as the prior", LARGEST: "+1: gained"}
    sheet.add_scale(place, blend(SHADES), (-LARGEST, LARGEST), ticks, size=8.5, extend="both")
    caption = (
        "For each image the original, the prior image that the attack starts from, what the strongest attack "
        f"({name_attacks(rows)}) rebuilds from the update of round {captured_round} under defence {defense}, and the "
        "local SSIM of the reconstruction minus that of the prior: orange where the attack shows more of the image "
        "than the prior did, blue where less. Each value is of the 11×11 pixels around it; the outer 5 pixels (blank) "
        "have none. The mean of a map is what SSIM gained, written below it. Each client shows those images that leak "
        f"most, most leaked first ({describe_shown(rows, shown)}). Single images: no interval."
    )
    return Drawing(sheet.figure, caption)


def _left(column: int) -> float:
    return LEFT + column * (PICTURE + GAP)


def _draw_row(sheet: Sheet, pictures: Pictures, score: Mapping[Any, Any], top: float) -> None:
    """Draw one image's row; `score` is its row of the table."""
    original, prior, rebuilt = pictures.find(score)
    for column, image in enumerate((original, prior, rebuilt)):
        sheet.show(image, _left(column), top, side=PICTURE)
    axes = sheet.add_axes(_left(3), top, PICTURE, PICTURE)
    gain = leakage_map(rebuilt, original, prior, data_range=1.0)
    axes.imshow(np.ma.masked_invalid(gain), cmap=blend(SHADES), vmin=-LARGEST, vmax=LARGEST, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)
    total = score["ssim"] - score["ssim_prior"]
    texts = (f"SSIM {score['ssim_prior']:.2f}", f"SSIM {score['ssim']:.2f}", write_gain(total))
    for column, text in enumerate(texts, start=1):
        look = {"weight": "bold", "color": GAINED} if column == 3 and total > 0 else {"color": MUTED}
        sheet.write(text, _left(column) + PICTURE / 2, top + PICTURE + 0.1, ha="center", fontsize=8.5, **look)
