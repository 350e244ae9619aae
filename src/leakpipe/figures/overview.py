"""Every client's training images, framed by how much of them leaked: page one for a privacy officer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakpipe.figures.registry import figure
from leakpipe.figures.sheet import Sheet, blend
from leakpipe.figures.style import COLORS, INK, MUTED, Drawing
from leakpipe.tables.strongest import EACH_DRAW, keep_strongest, name_attacks
from leakpipe.tables.wording import Clients, count, select, stack_description, write_gain

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from leakpipe.data.images import LabeledImages
    from leakpipe.data.partition import Split

# Ever darker, so that gray print shows it too; what is not above the prior is as light as it gets.
SHADES = ("#eeeeee", COLORS[4], COLORS[0], "#5c2800")
LEFT, WIDTH, TOP, GROUP_GAP = 1.2, 7.2, 0.9, 0.16  # inches


@dataclass(frozen=True)
class _Grid:
    """The layout of a client's images, in inches."""

    side: float
    frame: float
    below: float
    most_rows: int

    @property
    def columns(self) -> int:
        return int((WIDTH - LEFT) / self.pitch)

    @property
    def pitch(self) -> float:
        return self.side + 2 * self.frame + 0.06

    @property
    def row(self) -> float:
        return self.pitch + self.below


ATTACKED = _Grid(side=0.56, frame=0.05, below=0.16, most_rows=3)
UNATTACKED = _Grid(side=0.3, frame=0.0, below=0.0, most_rows=2)


@figure(
    "overview",
    heading="Which training images leaked",
    about="The training images of all clients of one draw, framed and numbered by how much SSIM the strongest attack "
    "gained over the prior image; pale where a client was not attacked.",
)
def draw_overview(
    leakage: pd.DataFrame,
    dataset: LabeledImages,
    splits: Mapping[int, Split],
    *,
    defense: str,
    captured_round: int,
    clients: Clients,
) -> Drawing:
    """Draw the images of all clients of one seed: large and framed where attacked, small and pale elsewhere.

    Args:
        leakage: The leakage table. The seed drawn is the one under which most clients were attacked, the first of
            several in the order of `splits`; of each client, the gains of the strongest attack are drawn.
        dataset: The data set.
        splits: The split of every seed.
        defense: Defence whose rows are drawn.
        captured_round: Round whose rows are drawn.
        clients: The `federation.clients` section of the parameters.
    """
    drawn = keep_strongest(select(leakage, defense=defense, round=captured_round), each=EACH_DRAW)
    attacked = drawn.groupby("seed")["client"].nunique()
    seed = max(splits, key=lambda number: int(attacked.get(number, 0)))
    rows, holdings = select(drawn, seed=seed), splits[seed].clients
    keys = zip(rows["client"].tolist(), rows["image"].tolist(), strict=True)
    gains = dict(zip(keys, rows["gain"].tolist(), strict=True))
    blocks = [_Block.of(name, holdings[name], gains) for name in _order(holdings, gains)]
    title = "Which training images leaked from one shared update"
    sheet = Sheet(width=WIDTH, height=TOP + sum(block.height + GROUP_GAP for block in blocks), title=title)
    leaked, of = sum(gain > 0 for gain in gains.values()), count(len(gains), "attacked image")
    sheet.write(f"{leaked} of {of}: closer than the prior image", 0.1, 0.42, fontsize=9.5)
    bar = sheet.add_scale((5.1, 0.3, 1.9, 0.12), blend(SHADES), (0, 1), {0: "0: prior", 0.5: "0.5", 1: "1"}, size=8)
    bar.ax.set_title("SSIM gained over the prior", fontsize=8.5, weight="normal", loc="center", pad=3)
    top = TOP
    for block in blocks:
        _name_block(sheet, block, stack_description(block.client, clients[block.client]), top)
        _draw_block(sheet, block, dataset.images, top)
        top += block.height + GROUP_GAP
    return Drawing(sheet.figure, _describe(blocks, seed, name_attacks(rows), defense, captured_round))


@dataclass(frozen=True)
class _Block:
    """One client's images: those with a gain, most leaked first, or all of one that was not attacked."""

    client: str
    images: tuple[int, ...]
    gains: tuple[float, ...]
    grid: _Grid

    @classmethod
    def of(cls, client: str, held: Sequence[int], gains: Mapping[tuple[str, int], float]) -> _Block:
        found = sorted(((gains[client, image], image) for image in held if (client, image) in gains), reverse=True)
        if not found:
            return cls(client, tuple(held), (), UNATTACKED)
        return cls(client, tuple(image for _, image in found), tuple(gain for gain, _ in found), ATTACKED)

    @property
    def attacked(self) -> bool:
        return bool(self.gains)

    @property
    def shown(self) -> int:
        """The number of images that fit."""
        return min(len(self.images), self.grid.columns * self.grid.most_rows)

    @property
    def height(self) -> float:
        rows = -(-self.shown // self.grid.columns)
        return max(rows * self.grid.row, 0.55)


def _order(holdings: Mapping[str, Sequence[int]], gains: Mapping[tuple[str, int], float]) -> list[str]:
    """Attacked clients first, then those with the fewest images."""
    attacked = {client for client, _ in gains}
    return sorted(holdings, key=lambda name: (name not in attacked, len(holdings[name]), name))


def _name_block(sheet: Sheet, block: _Block, description: str, top: float) -> None:
    """Write what the client is at the left, and what is not shown of it."""
    look = {"weight": "bold", "color": INK} if block.attacked else {"color": MUTED}
    hidden = len(block.images) - block.shown
    lines = [description, *([] if block.attacked else ["not attacked"]), *([f"({hidden} not shown)"] if hidden else [])]
    sheet.write("\n".join(lines), 0.1, top, va="top", fontsize=9, **look)


def _draw_block(sheet: Sheet, block: _Block, images: np.ndarray, top: float) -> None:
    grid = block.grid
    for index, image in enumerate(block.images[: block.shown]):
        x = LEFT + (index % grid.columns) * grid.pitch
        y = top + (index // grid.columns) * grid.row
        if block.attacked:
            gain = block.gains[index]
            outer = grid.side + 2 * grid.frame
            sheet.fill(x, y, outer, outer, blend(SHADES)(min(max(gain, 0.0), 1.0)))
            look = {"weight": "bold"} if gain > 0 else {"color": MUTED}
            sheet.write(write_gain(gain), x + outer / 2, y + outer + 0.09, ha="center", fontsize=7.5, **look)
        sheet.show(images[image], x + grid.frame, y + grid.frame, side=grid.side, fade=0.0 if block.attacked else 0.6)


def _describe(blocks: Sequence[_Block], seed: int, attacks: str, defense: str, captured_round: int) -> str:
    parts = []
    for block in blocks:
        some = f", {block.shown} shown" if block.shown < len(block.images) else ""
        leaked = f", {sum(gain > 0 for gain in block.gains)} above the prior" if block.attacked else ", not attacked"
        parts.append(f"{block.client}: {count(len(block.images), 'image')}{some}{leaked}")
    return (
        f"The training images of all clients in the draw of seed {seed}. A frame, and the number below it, is how much "
        f"SSIM the strongest attack ({attacks}) gained over the prior image from the update of round {captured_round} "
        f"under defence {defense}: the darker, the more leaked; at 0 or below, it shows no more than the prior. Most "
        f"leaked first. Pale images belong to clients that were not attacked, of which nothing is known. "
        f"{'; '.join(parts)}. Single images of one draw: no interval."
    )
