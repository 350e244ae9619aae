"""The pictures of the page: every different one once, small, in a few PNG sheets that the page cuts its tiles from."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from leakpipe.figures.images import Pictures
from leakpipe.tables.table import KEY

MAX_SIDE = 112  # pixels; larger images are shown smaller
MAX_VALUES = 12_000_000  # pixel values of all tiles together: keeps a page below about 16 MB whatever the experiment
COLUMNS, ROWS = 32, 32  # tiles of a sheet: browsers decode no image much larger than 112 x 32 pixels a side


@dataclass(frozen=True)
class PagePictures:
    """Tiles on sheets, and which of them each row of the leakage table is about.

    Attributes:
        side: Width and height of a tile, in pixels.
        original_side: The same of the images that the attacks worked on.
        columns: Tiles in a line of a sheet.
        per_sheet: Tiles on a full sheet.
        sheets: PNG files, as data URIs.
        tiles: For each row, the tiles of its private image, reconstruction and prior.
    """

    side: int
    original_side: int
    columns: int
    per_sheet: int
    sheets: tuple[str, ...]
    tiles: tuple[tuple[int, int, int], ...]


def arrange_pictures(leakage: pd.DataFrame, pictures: Pictures) -> PagePictures:
    """Lay the pictures of all rows of the leakage table out on sheets."""
    shape = pictures.originals.shape[1:]
    side = choose_side(shape[-1], tiles=len(leakage) + leakage["image"].nunique(), channels=shape[0])
    tiles: dict[bytes, int] = {}
    found: dict[Any, tuple[int, int, int]] = {}
    for number, row in leakage.sort_values(list(KEY), kind="stable").to_dict("index").items():
        original, prior, rebuilt = pictures.find(row)
        first, second, third = (
            tiles.setdefault(_to_bytes(picture, side), len(tiles)) for picture in (original, rebuilt, prior)
        )
        found[number] = (first, second, third)
    return PagePictures(
        side=side,
        original_side=shape[-1],
        columns=COLUMNS,
        per_sheet=COLUMNS * ROWS,
        sheets=_draw_sheets(list(tiles), (side, side, shape[0])),
        tiles=tuple(found[number] for number in leakage.index),
    )


def choose_side(size: int, *, tiles: int, channels: int) -> int:
    """Side of a tile, in pixels: that of the images, at most `MAX_SIDE`, smaller where there are very many tiles."""
    return max(1, min(size, MAX_SIDE, math.isqrt(MAX_VALUES // max(1, tiles * channels))))


def _to_bytes(picture: np.ndarray, side: int) -> bytes:
    """8-bit (side, side, channels) pixels of a (channels, height, width) picture, each the mean of those it covers."""
    if picture.shape[-1] != side:
        from skimage.transform import resize_local_mean

        picture = resize_local_mean(picture, (side, side), channel_axis=0)
    levels: np.ndarray = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(1, 2, 0).tobytes()


def _draw_sheets(tiles: Sequence[bytes], shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Sheets of COLUMNS x ROWS tiles; the last is only as high as it must be."""
    per_sheet = COLUMNS * ROWS
    return tuple(_draw_sheet(tiles[start : start + per_sheet], shape) for start in range(0, len(tiles), per_sheet))


def _draw_sheet(tiles: Sequence[bytes], shape: tuple[int, int, int]) -> str:
    from PIL import Image

    side, _, channels = shape
    lines = math.ceil(len(tiles) / COLUMNS)
    grid = np.zeros((lines * COLUMNS, *shape), dtype=np.uint8)
    for place, tile in enumerate(tiles):
        grid[place] = np.frombuffer(tile, dtype=np.uint8).reshape(shape)
    in_lines = grid.reshape(lines, COLUMNS, *shape).swapaxes(1, 2)
    pixels = in_lines.reshape(lines * side, COLUMNS * side, channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
