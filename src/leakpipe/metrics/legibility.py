"""The share of burned-in text that can be read in a reconstruction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leakpipe.data.phantom import ALPHABET, BurnedText, render_glyphs

UNREADABLE = "?"


@dataclass(frozen=True)
class Legibility:
    """The part of a text that was read.

    Attributes:
        read: The reader's guess for each character that is not a space; `?` where there was nothing to see. A space
            between two texts.
        accuracy: Share of characters that were read right, in [0, 1].
        prior_accuracy: The same of the prior image: what could be read before the attack.
        chance: Accuracy that the same guesses would have in random order, the mean over all permutations: high where
            the reader says a letter that the text is full of, whatever it sees.
    """

    read: str
    accuracy: float
    prior_accuracy: float
    chance: float


def measure_legibility(reconstruction: np.ndarray, prior: np.ndarray, *texts: BurnedText) -> Legibility:
    """Read what is known to be written in the original, in the reconstruction and in the prior image.

    Args:
        reconstruction: Shape (channels, height, width).
        prior: Same shape: the image that the attack started from.
        texts: What the original says, and where; shares are of the characters of all together.

    Raises:
        LeakpipeError: Where the text does not lie whole inside the images.
    """
    read = [read_text(reconstruction, text) for text in texts]
    read_before = [read_text(prior, text) for text in texts]
    guesses, written = "".join(read), "".join(text.characters for text in texts)
    return Legibility(
        read=" ".join(read),
        accuracy=_agreement(guesses, written),
        prior_accuracy=_agreement("".join(read_before), written),
        chance=_chance(guesses, written),
    )


def score_texts(reconstruction: np.ndarray, prior: np.ndarray, texts: Sequence[BurnedText]) -> dict[str, Any]:
    """`measure_legibility` as columns of the leakage table; none for an image without text."""
    if not texts:
        return {}
    found = measure_legibility(reconstruction, prior, *texts)
    return {
        "text_accuracy": found.accuracy,
        "text_accuracy_prior": found.prior_accuracy,
        "text_chance": found.chance,
        "text_read": found.read,
    }


def read_text(image: np.ndarray, text: BurnedText) -> str:
    """Read an image where the text is, by the glyph of the known font that correlates best with each cell.

    A reader who knows font and place: an upper limit of what a person sees, and blind to text that the attack found a
    pixel beside its place. Letters are brighter than their ground; channels are averaged.

    Args:
        image: Shape (channels, height, width), values of any range.
        text: Its places are looked at, not its letters.

    Returns:
        A guess for each character that is not a space; `?` for a cell of one value.
    """
    cells = _standardize(text.cut_cells(image.astype(np.float64)).mean(axis=1))
    glyphs = _standardize(render_glyphs(text.size))
    correlation = np.einsum("nyx,gyx->ng", cells, glyphs)
    guesses = correlation.argmax(axis=1)
    return "".join(ALPHABET[guess] if cell.any() else UNREADABLE for guess, cell in zip(guesses, cells, strict=True))


def _standardize(cells: np.ndarray) -> np.ndarray:
    """Mean 0 and norm 1 for each cell, so that products of cells are correlations; all 0 for a cell of one value."""
    centred = cells - cells[:, :1, :1]  # exactly 0 where all values are equal
    centred -= centred.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True))
    standard: np.ndarray = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    return standard


def _agreement(read: str, written: str) -> float:
    return sum(guess == character for guess, character in zip(read, written, strict=True)) / len(written)


def _chance(read: str, written: str) -> float:
    """Mean agreement over all orders of the guesses: each meets each character equally often."""
    guesses, characters = Counter(read), Counter(written)
    return sum(guesses[character] * count for character, count in characters.items()) / len(written) ** 2
