"""Figures of pictures: every picture is the one that the table's row is about."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from leakpipe.defenses.naming import name_defenses
from leakpipe.errors import LeakpipeError
from leakpipe.figures import maps, overview
from leakpipe.figures.images import choose_images
from leakpipe.figures.reconstructions import BAND, NAIVE
from leakpipe.figures.sheet import blend
from leakpipe.tables.wording import write_gain
from tests.unit.figure_tables import (
    CLIENTS,
    DEFENSES,
    HOLDINGS,
    draw,
    flat_pictures,
    gray_of,
    images_of,
    leakage_table,
    make_pictures,
    strongest,
    texts_of,
    textured_pictures,
)


def test_reconstructions_stand_beside_their_own_original_under_each_defence() -> None:
    table, shown = leakage_table(), flat_pictures()
    quiet = table[(table.client == "one") & (table.defense == "quiet")]
    table = pd.concat([table, quiet.assign(attack="other", ssim=-0.5)], ignore_index=True)
    headings = name_defenses(DEFENSES)
    drawn = draw("reconstructions", leakage=table, pictures=shown)
    rows = strongest(table[table["round"] == 7], "client", "defense", "seed")
    chosen = choose_images(rows, next(iter(headings)), CLIENTS, 2)
    naive, expected = 0, []
    for row in chosen.itertuples():
        expected += [float(shown.originals[row.image].mean()), 0.5]
        for defense in headings:
            cell = rows[(rows.defense == defense) & (rows.seed == row.seed) & (rows.image == row.image)].iloc[0]
            expected.append(gray_of(defense, row.seed, row.client, cell.reconstruction))
        if row.client == "one" and not naive:  # its first image again, by the attack that does not know the defence
            naive += 1
            expected += [float(shown.originals[row.image].mean()), 0.5]
            expected += [gray_of(defense, row.seed, "one", 0) for defense in ("none", "quiet")]
    np.testing.assert_allclose([float(image.mean()) for image in images_of(drawn.figure)], expected, atol=1e-6)
    assert NAIVE in texts_of(drawn.figure)
    for row in chosen.itertuples():
        scores = rows[(rows.seed == row.seed) & (rows.image == row.image)].ssim
        assert {f"{score:.2f}" for score in scores} <= texts_of(drawn.figure)
    assert "one: 2 of 2 attacked images" in drawn.caption
    assert "eight: 2 of 3 attacked images" in drawn.caption


def test_many_defences_go_below_and_no_heading_is_wider_than_its_column() -> None:
    table, shown = leakage_table(), flat_pictures()
    table = table[(table.client == "one") & (table.attack == "main")]
    names = ["none", *(f"partial-sharing-of-{number}" for number in range(BAND))]
    copies = [table[table.defense == "none"].assign(defense=name) for name in names]
    rebuilt = {(name, seed, "one"): np.zeros((1, 1, 8, 8)) for name in names for seed in (0, 1)}
    drawn = draw(
        "reconstructions",
        leakage=pd.concat(copies),
        pictures=make_pictures(shown.originals, np.zeros((1, 8, 8)), rebuilt),
        defenses={name: name for name in names},
        images_per_client=1,
    )
    assert len(images_of(drawn.figure)) == (2 + BAND) + (2 + 1)
    FigureCanvasAgg(drawn.figure).draw()
    headings = [text for text in drawn.figure.texts if text.get_text().replace("\n", "") in names]
    assert len(headings) == len(names)
    boxes = [text.get_window_extent() for text in headings]
    assert all(not one.overlaps(other) for one, other in combinations(boxes, 2))
    pictures = [axes.get_window_extent() for axes in drawn.figure.axes]
    assert all(not box.overlaps(picture) for box in boxes for picture in pictures)


def test_the_images_shown_are_those_that_leaked_most_without_noise_each_once() -> None:
    rows = leakage_table()
    rows = rows[(rows["round"] == 7) & (rows.attack == "main")]
    chosen = choose_images(rows, "none", CLIENTS, 2)
    assert list(chosen.client) == ["one", "one", "eight", "eight"]
    undefended = rows[(rows.defense == "none") & (rows.client == "eight")]
    best = undefended.groupby("image").rdlv.max().sort_values(ascending=False)
    assert list(chosen.image[chosen.client == "eight"]) == list(best.index[:2])


def test_a_defence_that_an_image_was_not_attacked_under_is_said_so() -> None:
    table = leakage_table()
    table = table[(table.defense != "loud") | (table.client != "one")]
    headings = name_defenses(DEFENSES)
    figure = draw("reconstructions", leakage=table, images_per_client=1).figure
    assert len(figure.axes) == 2 * (2 + len(headings)) - 1
    assert NAIVE not in texts_of(figure), "without a defence there is nothing to know"
    assert "not attacked" in texts_of(figure)


def test_maps_show_where_ssim_grew() -> None:
    table, shown = leakage_table(), textured_pictures()
    drawn = draw("maps", leakage=table, pictures=shown, images_per_client=3)
    rows = strongest(table[(table["round"] == 7) & (table.defense == "none")], "client", "seed")
    pictures = images_of(drawn.figure)
    assert len(pictures) == (2 + 3) * 4
    for place, row in enumerate(choose_images(rows, "none", CLIENTS, 3).itertuples()):
        cell = rows[(rows.seed == row.seed) & (rows.image == row.image)].iloc[0]
        original, prior, rebuilt = (picture[0] for picture in shown.find(cell))
        for found, expected in zip(pictures[4 * place :], (original, prior, rebuilt), strict=False):
            np.testing.assert_array_equal(found, expected)
        local = [
            structural_similarity(
                image, original, data_range=1.0, gaussian_weights=True, use_sample_covariance=False, full=True
            )[1]
            for image in (rebuilt, prior)
        ]
        gain = pictures[4 * place + 3]
        np.testing.assert_allclose(gain[5:-5, 5:-5], (local[0] - local[1])[5:-5, 5:-5], atol=1e-10)
        assert write_gain(cell.ssim - cell.ssim_prior) in texts_of(drawn.figure)
    assert "one: 2 of 2 attacked images; eight: 3 of 3 attacked images" in drawn.caption
    assert "no interval" in drawn.caption


def test_a_reconstruction_of_another_attack_is_named() -> None:
    rebuilt = {("none", seed, client): np.zeros((0, 1, 8, 8)) for seed in (0, 1) for client in ("one", "eight")}
    shown = make_pictures(flat_pictures().originals, np.zeros((1, 8, 8)), rebuilt)
    with pytest.raises(LeakpipeError, match=r"reconstruction of defense none, seed \d, round 7, client one"):
        draw("maps", pictures=shown)


def test_the_overview_holds_every_image_of_every_client_in_order_of_leakage() -> None:
    table, originals = leakage_table(), textured_pictures(0).originals
    drawn = draw("overview", leakage=table)
    rows = strongest(table[(table.defense == "none") & (table["round"] == 7) & (table.seed == 0)], "client")
    by_gain = rows[rows.client == "eight"].sort_values("gain", ascending=False)
    order = [10, *by_gain.image]
    found = [float(image.mean()) for image in images_of(drawn.figure)]
    np.testing.assert_allclose(found[:4], [originals[image].mean() for image in order], atol=1e-6)
    pale = [0.6 + 0.4 * originals[image].mean() for image in HOLDINGS["unattacked"]]
    np.testing.assert_allclose(found[4:], pale, atol=1e-6)
    gains = [float(rows[rows.client == "one"].gain.iloc[0]), *by_gain.gain]
    frames = [artist.get_facecolor() for artist in drawn.figure.artists]
    for frame, gain in zip(frames, gains, strict=True):
        assert frame == pytest.approx(to_rgba(blend(overview.SHADES)(np.clip(gain, 0, 1))))
        assert write_gain(gain) in texts_of(drawn.figure)
    leaked = sum(gain > 0 for gain in gains)
    assert f"{leaked} of 4 attacked images: closer than the prior image" in texts_of(drawn.figure)
    assert "unattacked: 9 images, not attacked" in drawn.caption
    assert "seed 0" in drawn.caption


def test_the_overview_says_how_many_images_do_not_fit() -> None:
    clients = {**CLIENTS, "unattacked": {"images": 500, "batch_size": 4}}
    splits = {0: SimpleNamespace(clients={**HOLDINGS, "unattacked": [0] * 500})}
    drawn = draw("overview", clients=clients, splits=splits)
    shown = len(images_of(drawn.figure)) - 4
    assert 0 < shown < 100
    assert f"unattacked: 500 images, {shown} shown, not attacked" in drawn.caption
    assert any(f"({500 - shown} not shown)" in text for text in texts_of(drawn.figure))


def test_colours_carry_their_meaning_in_gray_print() -> None:
    places = np.linspace(0, 1, 101)
    leaked = rgb2gray(blend(overview.SHADES)(places)[:, :3])
    assert (np.diff(leaked) < 0).all(), "more leaked is darker"
    gain = rgb2gray(blend(maps.SHADES)(places)[:, :3])
    assert (np.diff(gain[:51]) > 0).all()
    assert (np.diff(gain[50:]) < 0).all()
    assert (gain[51:][::-1] - gain[:50] > 0.0).all(), "what was lost is darker than what was gained"


@pytest.mark.parametrize(("gain", "text"), [(0.724, "+0.72"), (-0.16, "−0.16"), (-0.004, "0.00"), (0.0, "0.00")])
def test_gains_are_signed(gain: float, text: str) -> None:
    assert write_gain(gain) == text


def test_images_of_one_draw_do_not_show_another_draws_gain() -> None:
    table = leakage_table()
    other = table.copy()
    other.loc[other.seed == 1, ["ssim", "ssim_prior"]] = 0.5
    shown = [draw("overview", leakage=rows) for rows in (table, other)]
    assert texts_of(shown[0].figure) == texts_of(shown[1].figure)
