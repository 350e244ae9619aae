"""What the attacks rebuilt: originals beside the prior and the reconstructions under every defence."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from leakpipe.errors import LeakpipeError
from leakpipe.figures.pictures import Pictures, Sheet, choose_images, describe_shown
from leakpipe.figures.style import COLORS, FAINT, MUTED, Drawing, in_style
from leakpipe.tables.wording import select, stack_description

PICTURE, GAP, GROUP_GAP, LEFT, CAPTION = 0.92, 0.12, 0.14, 1.0, 0.24  # inches
TITLE, HEADING, LINE = 0.6, 0.52, 0.15  # inches: the figure's title; a heading of two lines; every further line
BAND = 8  # defences side by side; more go below, so that pictures stay large enough to be compared
HEADING_WIDTH = 13  # characters
GAIN = COLORS[0]

_Scores = dict[tuple[str, int, str, int], dict[Any, Any]]


@in_style
def draw_reconstructions(
    leakage: pd.DataFrame,
    pictures: Pictures,
    *,
    attack: str,
    captured_round: int,
    defenses: Mapping[str, str],
    clients: Mapping[str, Mapping[str, Any]],
    images_per_client: int = 2,
) -> Drawing:
    """Draw one row per image: the original, the prior, the reconstruction under each defence, SSIM below.

    More defences than `BAND` go below, beside the original and the prior again. Each client shows the images that
    leaked most (largest RDLV under the first defence), most leaked first, each once; a client that was attacked under
    several seeds is represented by its images of all.

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
    names = list(defenses)
    bands = [names[start : start + BAND] for start in range(0, len(names), BAND)]
    headings = [["original", "prior\n(the start)", *(_wrap(defenses[name]) for name in band)] for band in bands]
    height = TITLE
    for heads in headings:
        height += _measure(heads)
        height += len(shown) * (PICTURE + CAPTION)
        height += shown["client"].nunique() * GROUP_GAP
    sheet = Sheet(width=_left(2 + len(bands[0])), height=height)
    sheet.write("What the attack rebuilds from one update", 0.1, 0.17, weight="bold", fontsize=11)
    sheet.write("bars: SSIM to the original, from 0 to 1; orange: gained over the prior", 0.1, 0.4, fontsize=9)
    top = TITLE
    for band, heads in zip(bands, headings, strict=True):
        for column, heading in enumerate(heads):
            middle = top + (_measure(heads) + 0.04) / 2
            sheet.write(heading, _left(column) + PICTURE / 2, middle, ha="center", fontsize=9.5)
        top += _measure(heads)
        for client in shown["client"].unique():
            sheet.write(stack_description(client, clients[client]), 0.1, top + PICTURE / 2, weight="bold", fontsize=9.5)
            for row in shown[shown["client"] == client].itertuples():
                _draw_row(
                    sheet,
                    (row.seed, client, row.image),
                    scores=scores,
                    pictures=pictures,
                    undefended=names[0],
                    defenses=band,
                    top=top,
                )
                top += PICTURE + CAPTION
            top += GROUP_GAP
    return Drawing(sheet.figure, _describe(attack, captured_round, describe_shown(rows, shown)))


def _describe(attack: str, captured_round: int, sample: str) -> str:
    return (
        f"Originals, the prior image that attack {attack} starts from, and what it rebuilds from the update of "
        f"round {captured_round} under each defence. Below each picture its SSIM to the original (1: identical); "
        "orange is what the attack gained over the prior. Each client shows those images that leak most under "
        f"the first defence, most leaked first ({sample}). Single images: no interval."
    )


def _wrap(name: str) -> str:
    """Break a name after hyphens, so that no line is wider than its column."""
    lines = [""]
    for part in re.split("(?<=-)", name):
        if lines[-1] and len(lines[-1] + part) > HEADING_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _measure(headings: Sequence[str]) -> float:
    """Height, in inches, that headings take."""
    return HEADING + LINE * max(heading.count("\n") - 1 for heading in headings)


def _left(column: int) -> float:
    return LEFT + column * (PICTURE + GAP) + (GAP if column else 0)  # the original stands a little apart


def _draw_row(
    sheet: Sheet,
    key: tuple[int, str, int],
    *,
    scores: _Scores,
    pictures: Pictures,
    undefended: str,
    defenses: Sequence[str],
    top: float,
) -> None:
    """Draw one image's row; `key` is (seed, client, image), `scores` the rows of the table, with `undefended` in it."""
    seed, client, image = key
    prior = scores[undefended, *key]["ssim_prior"]
    sheet.show(pictures.originals[image], _left(0), top, side=PICTURE)
    sheet.write("SSIM:", _left(0) + PICTURE, top + PICTURE + 0.1, ha="right", fontsize=8.5, color=MUTED)
    sheet.show(pictures.priors[seed, image], _left(1), top, side=PICTURE)
    _draw_score(sheet, prior, prior, _left(1), top)
    for column, defense in enumerate(defenses, start=2):
        if (defense, *key) not in scores:
            sheet.write("not attacked", _left(column) + PICTURE / 2, top + PICTURE / 2, ha="center", color=MUTED)
            continue
        score = scores[defense, *key]
        if (defense, seed, client) not in pictures.rebuilt:
            raise LeakpipeError(f"the reconstruction of {client} under {defense}, seed {seed}, is missing")
        sheet.show(pictures.rebuilt[defense, seed, client][score["reconstruction"]], _left(column), top, side=PICTURE)
        _draw_score(sheet, score["ssim"], prior, _left(column), top)


def _draw_score(sheet: Sheet, ssim: float, prior: float, left: float, top: float) -> None:
    """Below a picture: SSIM as a number and as a bar from 0 to 1, orange where it is above the prior's."""
    full, y = 0.58, top + PICTURE + 0.07
    known = min(max(ssim, 0.0), max(prior, 0.0))
    sheet.fill(left, y, full, 0.06, FAINT)
    sheet.fill(left, y, known * full, 0.06, MUTED)
    sheet.fill(left + known * full, y, max(ssim - known, 0.0) * full, 0.06, GAIN)
    look = {"weight": "bold", "color": GAIN} if ssim > prior else {"color": MUTED}
    sheet.write(f"{ssim:.2f}", left + PICTURE, y + 0.03, ha="right", fontsize=8.5, **look)
