"""Reading burned-in text: everything when it is there, chance in noise, and in between under blur."""

from itertools import permutations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, shift

from leakpipe.data.phantom.burned_text import ALPHABET, BurnedText, render_glyphs
from leakpipe.errors import LeakpipeError
from leakpipe.metrics.legibility import measure_legibility, read_text, score_texts

TEXT = BurnedText("JANE DOE 1970", left=3, top=5, size=12)


def ground(seed: int = 0, *, channels: int = 1, width: int = 200) -> np.ndarray:
    """A smooth, dark picture to write on."""
    noise = np.random.default_rng(seed).random((channels, 40, width))
    return 0.3 + gaussian_filter(noise, (0, 4, 4)) - noise.mean()


def random_text(seed: int, *, length: int, size: int = 12) -> BurnedText:
    letters = np.random.default_rng(seed).choice(list(ALPHABET), length)
    return BurnedText("".join(letters), left=0, top=0, size=size)


@pytest.mark.parametrize("size", [8, 12, 20])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_there_is_read_whole(size: int, channels: int) -> None:
    text = BurnedText(ALPHABET, left=2, top=3, size=size)
    burned = text.burn(ground(channels=channels, width=60 * size))
    assert read_text(burned, text) == ALPHABET
    assert read_text(0.1 + 0.2 * burned, text) == ALPHABET, "brightness and contrast do not matter"
    found = measure_legibility(burned, ground(channels=channels, width=60 * size), text)
    assert (found.accuracy, found.chance) == (1, pytest.approx(1 / 36))
    assert found.prior_accuracy < 0.2


def test_spaces_are_not_read() -> None:
    assert read_text(TEXT.burn(ground()), TEXT) == TEXT.characters == "JANEDOE1970"


def test_noise_is_read_by_chance() -> None:
    """Means over 2000 characters: 1 of 36 is right, give or take four standard errors."""
    accuracies, chances = [], []
    for seed in range(100):
        text = random_text(seed, length=20)
        noise, prior = np.random.default_rng(1000 + seed).random((2, 1, 20, 300))
        found = measure_legibility(noise, prior, text)
        accuracies += [found.accuracy, found.prior_accuracy]
        chances.append(found.chance)
    error = 4 * np.sqrt(1 / 36 * 35 / 36 / 2000)
    assert np.mean(accuracies) == pytest.approx(1 / 36, abs=error)
    assert np.mean(chances) == pytest.approx(1 / 36, abs=error)


def test_blur_makes_it_harder() -> None:
    text = random_text(0, length=60)
    clear = text.burn(ground(width=1000))
    levels = [measure_legibility(gaussian_filter(clear, (0, s, s)), ground(width=1000), text) for s in (0, 2, 3, 20)]
    accuracies = [level.accuracy for level in levels]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == 1
    for level in levels[1:3]:
        assert level.chance + 0.1 < level.accuracy < 0.9
    assert accuracies[-1] < 0.2


def test_a_flat_image_has_nothing_to_read() -> None:
    found = measure_legibility(np.full((1, 40, 200), 0.1), ground(), TEXT)
    assert (found.read, found.accuracy, found.chance) == ("?" * 11, 0, 0)


@pytest.mark.parametrize(("size", "seed"), [(8, 0), (12, 1), (16, 2)])
def test_the_guess_has_the_largest_correlation_coefficient(size: int, seed: int) -> None:
    text = random_text(seed, length=8, size=size)
    image = np.random.default_rng(seed).random((1, 40, 200))
    _, high, wide = render_glyphs(size).shape
    for place, guess in enumerate(read_text(image, text)):
        cell = image[0, :high, place * wide : (place + 1) * wide]
        coefficients = [np.corrcoef(cell.ravel(), glyph.ravel())[0, 1] for glyph in render_glyphs(size)]
        assert guess == ALPHABET[int(np.argmax(coefficients))]


def test_chance_is_the_mean_over_permutations() -> None:
    text = BurnedText("AABAC", left=0, top=0, size=12)
    image = BurnedText("AACAA", left=0, top=0, size=12).burn(ground())
    found = measure_legibility(image, ground(), text)
    assert found.read == "AACAA"
    orders = list(permutations(found.read))
    hits = sum(sum(map(str.__eq__, order, text.text)) for order in orders)
    assert found.chance == pytest.approx(hits / len(orders) / 5)
    assert found.accuracy == pytest.approx(3 / 5)


def test_a_letter_is_drawn_as_pillow_draws_it() -> None:
    """Against Pillow's own text drawing: the same pixels, up to where the cell begins."""
    canvas = Image.new("L", (40, 40))
    ImageDraw.Draw(canvas).text((10, 10), "R", font=ImageFont.load_default(12), fill=255)
    drawn = np.asarray(canvas) / 255
    burned = BurnedText("R", left=5, top=5, size=12).burn(np.zeros((1, 40, 40)))[0]

    def trimmed(image: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(image)
        return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    np.testing.assert_allclose(trimmed(burned), trimmed(drawn), atol=1e-12)


def test_letters_do_not_touch() -> None:
    for size in (6, 8, 12, 20):
        assert (render_glyphs(size)[:, :, -1] == 0).all()


def test_a_shift_is_not_forgiven() -> None:
    text = random_text(3, length=40)
    moved = shift(text.burn(ground(width=600)), (0, 0, 7), order=0)
    assert measure_legibility(moved, ground(width=600), text).accuracy < 0.5


def test_what_cannot_be_written_is_said() -> None:
    with pytest.raises(LeakpipeError, match="text 'jane': expected characters of ABC"):
        BurnedText("jane", left=0, top=0, size=12)
    with pytest.raises(LeakpipeError, match="text ' ': expected"):
        BurnedText(" ", left=0, top=0, size=12)
    with pytest.raises(LeakpipeError, match=r"text 'JANE' covers rows 30 to \d+ .* an image of 40×200 pixels"):
        BurnedText("JANE", left=0, top=30, size=20).burn(ground())
    with pytest.raises(LeakpipeError, match="text of 5 pixels: expected at least 6"):
        BurnedText("JANE", left=0, top=0, size=5).burn(ground())


def test_several_texts_count_by_their_characters() -> None:
    """A name that is read and a date that is not: the share of all characters, and chance over all of them."""
    name, date = BurnedText("ANNA", left=0, top=0, size=12), BurnedText("11", left=0, top=20, size=12)
    image = BurnedText("77", left=0, top=20, size=12).burn(name.burn(ground()))
    found = measure_legibility(image, ground(), name, date)
    assert found.read == "ANNA 77"
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.chance == pytest.approx((2 * 2 + 2 * 2) / 36)


def test_scores_are_those_of_measure_legibility() -> None:
    image, prior = TEXT.burn(ground(1)), ground(2)
    found = measure_legibility(image, prior, TEXT)
    assert score_texts(image, prior, [TEXT]) == {
        "text_accuracy": found.accuracy,
        "text_accuracy_prior": found.prior_accuracy,
        "text_chance": found.chance,
        "text_read": "JANEDOE1970",
    }
    assert score_texts(image, prior, []) == {}
