"""The images that attacks rebuilt: originals beside the prior and the reconstructions under every defence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

from leakpipe.figures.images import Pictures, choose_images, describe_shown
from leakpipe.figures.registry import figure
from leakpipe.figures.sheet import Sheet
from leakpipe.figures.style import COLORS, FAINT, MUTED, Drawing
from leakpipe.tables.strongest import EACH_DRAW, keep_naive, keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, select, stack_description

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PICTURE, GAP, GROUP_GAP, LEFT, CAPTION = 0.92, 0.12, 0.14, 1.0, 0.24  # inches
TITLE, HEADING, LINE = 0.6, 0.52, 0.15  # inches: the figure's title; a heading of two lines; every further line
BAND = 8  # defences side by side; more go below, so that pictures stay large enough to be compared
HEADING_WIDTH = 13  # characters
LEAST_WIDTH = 5.4  # inches: what stands below the title
GAIN = COLORS[0]
NAIVE = "attacker who\ndoes not know\nthe defence"


@figure(
    "reconstructions",
    heading="What the attack rebuilds",
    about="Training images beside the prior image that attacks start from and what the strongest one rebuilds under "
    "each defence; below, what an attack gets that does not know the defence. A picture that looks like its original "
    "was leaked by one shared update.",
)
def draw_reconstructions(
    leakage: pd.DataFrame,
    pictures: Pictures,
    *,
    adaptive: Sequence[str],
    captured_round: int,
    defenses: Mapping[str, str],
    clients: Clients,
    images_per_client: int = 2,
) -> Drawing:
    """Draw one row per image: the original, the prior, the strongest reconstruction under each defence, SSIM below.

    The first image of a client that was also attacked without knowledge of the defence has a second row, of that. More
    defences than `BAND` go below, beside the original and the prior again. Each client shows the images that leaked
    most (largest RDLV under the first defence), most leaked first, each once; a client that was attacked under several
    seeds is represented by its images of all.

    Args:
        leakage: The leakage table.
        pictures: The images it is about.
        adaptive: Attacks that know the defence.
        captured_round: Round they are of.
        defenses: Heading of the column of each defence, in order; images are ranked under the first.
        clients: The `federation.clients` section of the parameters.
        images_per_client: Most rows of one client.
    """
    attacked = select(leakage, round=captured_round)
    rows = keep_strongest(attacked, each=EACH_DRAW)
    naive = keep_strongest(keep_naive(attacked, adaptive), each=EACH_DRAW)
    shown = choose_images(rows, next(iter(defenses)), clients, images_per_client)
    lines = _list_lines(shown, rows, naive)
    names = list(defenses)
    bands = [names[start : start + BAND] for start in range(0, len(names), BAND)]
    headings = [
        ["original", "prior\n(the start)", *(fill(defenses[name], HEADING_WIDTH) for name in band)] for band in bands
    ]
    height = TITLE
    for heads in headings:
        height += _measure(heads)
        height += len(lines) * (PICTURE + CAPTION)
        height += shown["client"].nunique() * GROUP_GAP
    sheet = Sheet(
        width=max(_left(2 + len(bands[0])), LEAST_WIDTH),
        height=height,
        title="What the attack rebuilds from one update",
    )
    sheet.write("bars: SSIM to the original, from 0 to 1; orange: gained over the prior", 0.1, 0.4, fontsize=9)
    top = TITLE
    for band, heads in zip(bands, headings, strict=True):
        for column, heading in enumerate(heads):
            middle = top + (_measure(heads) + 0.04) / 2
            sheet.write(heading, _left(column) + PICTURE / 2, middle, ha="center", fontsize=9.5)
        top += _measure(heads)
        for client in shown["client"].unique():
            sheet.write(stack_description(client, clients[client]), 0.1, top + PICTURE / 2, weight="bold", fontsize=9.5)
            for line in lines:
                if line.row["client"] != client:
                    continue
                if line.is_naive:
                    sheet.write(NAIVE, 0.1, top + PICTURE / 2, color=MUTED, fontsize=8)
                _draw_row(sheet, line.row, [line.scores.get(name) for name in band], pictures, top)
                top += PICTURE + CAPTION
            top += GROUP_GAP
    return Drawing(sheet.figure, _describe(name_attacks(rows), captured_round, describe_shown(rows, shown)))


@dataclass(frozen=True)
class _Line:
    """One image in one line of pictures: its row of the table under the first defence, and under each, by defence."""

    row: Mapping[Any, Any]
    scores: Mapping[str, Mapping[Any, Any]]
    is_naive: bool


def _list_lines(shown: pd.DataFrame, rows: pd.DataFrame, naive: pd.DataFrame) -> list[_Line]:
    lines, begun = [], set()
    for row in shown.to_dict("records"):
        lines.append(_Line(row, _score_by_defense(rows, row), is_naive=False))
        without = _score_by_defense(naive, row)
        if set(without) - {row["defense"]} and row["client"] not in begun:  # the first: nothing to know
            lines.append(_Line(row, without, is_naive=True))
        begun.add(row["client"])
    return lines


def _score_by_defense(rows: pd.DataFrame, image: Mapping[Any, Any]) -> dict[str, Mapping[Any, Any]]:
    same = [rows[name] == image[name] for name in ("seed", "client", "image")]
    return {row["defense"]: row for row in rows[same[0] & same[1] & same[2]].to_dict("records")}


def _describe(attacks: str, captured_round: int, sample: str) -> str:
    return (
        "Originals, the prior image that attacks start from, and what the strongest attack in each draw rebuilds from "
        f"the update of round {captured_round} under each defence ({attacks}); beside “{' '.join(NAIVE.split())}”, "
        "what the strongest attack that does not know the defence gets. Below each picture its SSIM to the original "
        "(1: identical); orange is what the attack gained over the prior. Each client shows those images that leak "
        f"most under the first defence, most leaked first ({sample}). Single images: no interval."
    )


def _measure(headings: Sequence[str]) -> float:
    """Height, in inches, that headings take."""
    return HEADING + LINE * max(heading.count("\n") - 1 for heading in headings)


def _left(column: int) -> float:
    return LEFT + column * (PICTURE + GAP) + (GAP if column else 0)  # the original stands a little apart


def _draw_row(
    sheet: Sheet,
    undefended: Mapping[Any, Any],
    under: Sequence[Mapping[Any, Any] | None],
    pictures: Pictures,
    top: float,
) -> None:
    """Draw one image's row: rows of the table under the first defence, and under each that is shown (None: not run)."""

    def draw(image: np.ndarray, ssim: float, column: int) -> None:
        sheet.show(image, _left(column), top, side=PICTURE)
        _draw_score(sheet, ssim, known, _left(column), top)

    known = undefended["ssim_prior"]
    original, prior, _ = pictures.find(undefended)
    sheet.show(original, _left(0), top, side=PICTURE)
    sheet.write("SSIM:", _left(0) + PICTURE, top + PICTURE + 0.1, ha="right", fontsize=8.5, color=MUTED)
    draw(prior, known, 1)
    for column, score in enumerate(under, start=2):
        if score is None:
            sheet.write("not attacked", _left(column) + PICTURE / 2, top + PICTURE / 2, ha="center", color=MUTED)
        else:
            draw(pictures.find(score)[2], score["ssim"], column)


def _draw_score(sheet: Sheet, ssim: float, prior: float, left: float, top: float) -> None:
    """Below a picture: SSIM as a number and as a bar from 0 to 1, orange where it is above the prior's."""
    full, y = 0.58, top + PICTURE + 0.07
    known = min(max(ssim, 0.0), max(prior, 0.0))
    sheet.fill(left, y, full, 0.06, FAINT)
    sheet.fill(left, y, known * full, 0.06, MUTED)
    sheet.fill(left + known * full, y, max(ssim - known, 0.0) * full, 0.06, GAIN)
    look = {"weight": "bold", "color": GAIN} if ssim > prior else {"color": MUTED}
    sheet.write(f"{ssim:.2f}", left + PICTURE, y + 0.03, ha="right", fontsize=8.5, **look)
