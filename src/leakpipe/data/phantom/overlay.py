"""The text that scanners burn into a film: an invented patient's name, birth date, and a side marker."""

import numpy as np

from leakpipe.data.phantom.burned_text import BurnedText, render_glyphs
from leakpipe.randomness import derive_seed

# At most twelve characters together with the space between them.
FAMILY = ("MILLER", "GARCIA", "SCHMIDT", "ROSSI", "NOVAK", "NGUYEN", "HANSEN", "SILVA", "PETROV", "TANAKA", "OKAFOR")
GIVEN = ("ANNA", "JOHN", "EVA", "OMAR", "LENA", "MARK", "ROSA", "IVAN", "MEI", "PAUL", "ZOE", "HUGO")


def write_overlay(index: int, size: int) -> tuple[BurnedText, ...]:
    """Returns name, birth date and side marker of patient number `index`, for a film of `size` pixels.

    The marker is an L at the viewer's right, where the patient's left is.
    """
    rng = np.random.default_rng(derive_seed("cxr-phantom text", index))
    name = f"{rng.choice(FAMILY)} {rng.choice(GIVEN)}"
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(1930, 2006)
    font, margin = max(8, size // 20), max(2, size // 56)
    _, high, wide = render_glyphs(font).shape
    return (
        BurnedText(name, left=margin, top=margin, size=font),
        BurnedText(f"{day:02} {month:02} {year}", left=margin, top=margin + high + 1, size=font),
        BurnedText("L", left=size - margin - wide, top=margin + high + 1, size=font),
    )
