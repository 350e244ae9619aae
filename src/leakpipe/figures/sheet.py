"""A figure made of pictures: a sheet that is laid out in inches from its upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import LinearSegmentedColormap


class Sheet:
    """A figure of `width` × `height` inches with a title."""

    def __init__(self, *, width: float, height: float, title: str) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        self.write(title, 0.1, 0.17, weight="bold", fontsize=11)

    def write(self, text: str, x: float, y: float, **look: Any) -> None:
        """Write text whose left end (or as `look` says) is at a place."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **{"va": "center", **look})

    def fill(self, x: float, y: float, width: float, height: float, color: Any) -> None:
        """Fill a rectangle, behind all pictures."""
        from matplotlib.patches import Rectangle

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

    def add_scale(
        self,
        place: tuple[float, float, float, float],
        colors: LinearSegmentedColormap,
        ends: tuple[float, float],
        ticks: dict[float, str],
        *,
        size: float,
        **look: Any,
    ) -> Colorbar:
        """Draw a horizontal colour bar in the rectangle `place`, with labels of `size` points at `ticks`."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        shades = ScalarMappable(Normalize(*ends), colors)
        bar = self.figure.colorbar(shades, cax=self.add_axes(*place), orientation="horizontal", **look)
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
        bar.ax.tick_params(labelsize=size)
        return bar


@cache
def blend(colors: Sequence[str]) -> LinearSegmentedColormap:
    """A colour map through colours, given as a tuple."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blend", list(colors))
