"""Text burned into images, like names and dates by scanners: one font, one cell per character.

Burning text into images and reading it in reconstructions need the same glyphs, so both take them from here.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from leakpipe.errors import LeakpipeError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class BurnedText:
    """A text and its place in an image.

    Attributes:
        text: One line of characters of `ALPHABET` and spaces.
        left: First column of the first character's cell.
        top: First row of the cells.
        size: Size of the font in pixels.
    """

    text: str
    left: int
    top: int
    size: int

    def __post_init__(self) -> None:
        """Checks that there is at least one character, and a glyph for each."""
        unknown = set(self.text) - {*ALPHABET, " "}
        if unknown or not self.text.strip():
            raise LeakpipeError(
                f"text {self.text!r}: expected characters of {ALPHABET} and spaces, at least one character"
            )

    @property
    def characters(self) -> str:
        """The text without its spaces."""
        return self.text.replace(" ", "")

    def cut_cells(self, image: np.ndarray) -> np.ndarray:
        """Cuts out the part of the image around each of `characters`.

        Args:
            image: Shape (channels, height, width).

        Returns:
            A new array of shape (characters, channels, cell height, cell width).

        Raises:
            LeakpipeError: The text does not fit inside the image.
        """
        return np.stack([image[:, rows, columns] for rows, columns in self._cells(image)])

    def burn(self, image: np.ndarray, *, brightness: float = 1.0) -> np.ndarray:
        """Returns a copy of the image with the text drawn over it, with smooth edges.

        Args:
            image: Shape (channels, height, width).
            brightness: Value of the letters.

        Raises:
            LeakpipeError: The text does not fit inside the image.
        """
        burned = image.copy()
        for character, (rows, columns) in zip(self.characters, self._cells(image), strict=True):
            ink = render_glyphs(self.size)[ALPHABET.index(character)].astype(image.dtype)
            burned[:, rows, columns] += ink * (brightness - burned[:, rows, columns])
        return burned

    def _cells(self, image: np.ndarray) -> list[tuple[slice, slice]]:
        _, high, wide = render_glyphs(self.size).shape
        bottom, right = self.top + high, self.left + wide * len(self.text)
        if min(self.left, self.top) < 0 or bottom > image.shape[1] or right > image.shape[2]:
            raise LeakpipeError(
                f"text {self.text!r} covers rows {self.top} to {bottom} and columns {self.left} to {right}, "
                f"which do not lie in an image of {image.shape[1]}×{image.shape[2]} pixels"
            )
        starts = [self.left + wide * place for place, character in enumerate(self.text) if character != " "]
        return [(slice(self.top, bottom), slice(start, start + wide)) for start in starts]


@lru_cache
def render_glyphs(size: int) -> np.ndarray:
    """Renders every character of `ALPHABET` in a cell of the size of the largest, plus a column between letters.

    Args:
        size: Size of Pillow's own font in pixels, at least 6.

    Returns:
        Share of ink of each pixel, in [0, 1], read-only, of shape (36, cell height, cell width).

    Raises:
        LeakpipeError: The font is smaller, or Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size) if size >= 6 else None
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise LeakpipeError(f"text of {size} pixels: expected at least 6, and a Pillow with FreeType")
    lefts, tops, rights, bottoms = zip(*(font.getbbox(character) for character in ALPHABET), strict=True)
    left, top = min(lefts), min(tops)
    shape = int(max(rights) - left + 1), int(max(bottoms) - top)
    glyphs = []
    for character in ALPHABET:
        canvas = Image.new("L", shape)
        ImageDraw.Draw(canvas).text((-left, -top), character, font=font, fill=255)
        glyphs.append(np.asarray(canvas) / 255)
    stacked = np.stack(glyphs)
    stacked.flags.writeable = False
    return stacked
