"""Input of the report page's script: pictures cut and laid out as they should be, whatever the experiment."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from skimage.measure import block_reduce

from leakpipe.attacks.files import save_reconstruction
from leakpipe.cli.main import main
from leakpipe.data.files import save_dataset, save_split
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.errors import LeakpipeError
from leakpipe.figures.images import Pictures, list_files, load_pictures
from leakpipe.figures.style import FAINT, GRID, INK, MUTED
from leakpipe.report.explorer import describe_rows
from leakpipe.report.page import DARK, darken, read_part
from leakpipe.report.pictures import MAX_SIDE, MAX_VALUES, PagePictures, arrange_pictures, choose_side
from leakpipe.report.vendor import SHA256, VERSION, read_vendored
from leakpipe.tables.headline import summarize
from leakpipe.tables.statistics import bootstrap_mean
from leakpipe.tables.verdicts import judge_cells
from tests.unit.report_pages import ACCURACY, PARAMS, draw_pictures, many_rows, page, tables

CELLS = 2000
MEBIBYTE = 2**20


def tile(pictures: PagePictures, number: int) -> np.ndarray:
    """The pixels of one tile, as a reader of the JSON must find them."""
    sheet, rest = divmod(number, pictures.per_sheet)
    encoded = pictures.sheets[sheet].removeprefix("data:image/png;base64,")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    line, column = divmod(rest, pictures.columns)
    return pixels[line * pictures.side :, column * pictures.side :][: pictures.side, : pictures.side]


def levels(picture: np.ndarray) -> np.ndarray:
    """8-bit levels of a (channels, height, width) picture, as (height, width) or (height, width, channels)."""
    rounded = np.floor(picture * 255 + 0.5).astype(np.uint8)
    return rounded[0] if len(rounded) == 1 else np.moveaxis(rounded, 0, -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_row_has_its_own_pictures(channels: int) -> None:
    leakage, _ = tables()
    leakage["reconstruction"] = np.where(leakage.image == 5, 1, 0)  # not in the order of the images
    rng = np.random.default_rng(0)
    originals = rng.random((7, channels, 6, 6))
    shape = (2, channels, 6, 6)
    cells = leakage.groupby(["defense", "seed", "client", "attack"], sort=False)
    stored = {key: (rng.random(shape), rng.random(shape), sorted(rows.image)) for key, rows in cells}
    shown = Pictures(originals, lambda cell: stored[cell["defense"], cell["seed"], cell["client"], cell["attack"]])
    pictures = arrange_pictures(leakage, shown)
    assert (pictures.side, pictures.original_side) == (6, 6)
    for numbers, row in zip(pictures.tiles, leakage.itertuples(), strict=True):
        rebuilt, priors, images = stored[row.defense, row.seed, row.client, row.attack]
        expected = (originals[row.image], rebuilt[row.reconstruction], priors[images.index(row.image)])
        for number, picture in zip(numbers, expected, strict=True):
            np.testing.assert_array_equal(tile(pictures, number), levels(picture))


def test_the_same_picture_is_kept_once_and_many_fill_several_sheets() -> None:
    rows = many_rows(CELLS)
    pictures = draw_pictures(rows, side=4)
    originals, rebuilt, priors = (set(column) for column in zip(*pictures.tiles, strict=True))
    assert len(originals) == rows["image"].nunique()
    assert len(rebuilt) == CELLS
    assert len(priors) == 1
    assert len(pictures.sheets) == -(-(len(originals) + CELLS + 1) // pictures.per_sheet)


def test_large_pictures_are_shown_smaller_as_means_of_their_pixels() -> None:
    leakage = many_rows(1)
    picture = np.random.default_rng(0).random((1, 1, 224, 224))
    shown = arrange_pictures(leakage, Pictures(picture, lambda _: (picture, picture, [0])))
    assert (shown.side, shown.original_side) == (MAX_SIDE, 224)
    means = block_reduce(picture[0], (1, 2, 2), np.mean)
    assert np.abs(tile(shown, 0).astype(int) - levels(means)).max() <= 1  # of 255: rounding
    assert len({*shown.tiles[0]}) == 1


def test_sides_shrink_only_where_a_page_would_grow_too_large() -> None:
    assert choose_side(32, tiles=2 * CELLS, channels=1) == 32
    assert choose_side(224, tiles=100, channels=1) == MAX_SIDE
    for tiles in (1, 5_000, 10**7, 10**9):
        side = choose_side(224, tiles=tiles, channels=3)
        assert side == 1 or tiles * 3 * side**2 <= MAX_VALUES


def test_pictures_beyond_their_range_are_cut_off() -> None:
    picture = np.array([[[[-3.0, 0.0], [1.0, 7.0]]]])
    shown = arrange_pictures(many_rows(1), Pictures(picture, lambda _: (picture, picture, [0])))
    assert tile(shown, 0).tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize(("images", "rebuilt"), [([3], 1), ([0], 0)])
def test_a_file_of_another_attack_is_refused(images: list[int], rebuilt: int) -> None:
    picture = np.zeros((1, 1, 4, 4))
    with pytest.raises(LeakpipeError, match=r"reconstruction of defense none, seed 0, round 3, client alone, attack"):
        arrange_pictures(many_rows(1), Pictures(picture, lambda _: (picture[:rebuilt], picture, images)))


def test_a_page_of_two_thousand_cells_is_small_enough_to_send(tmp_path: Path) -> None:
    leakage = many_rows(CELLS)
    metrics = summarize(leakage, tables()[1])
    small = page(tmp_path, leakage=leakage, metrics=metrics, pictures=draw_pictures(leakage, side=32))
    assert len(small.encode()) < 10 * MEBIBYTE
    assert "Shown at" not in small


def test_a_page_says_that_its_pictures_are_smaller_than_the_images(tmp_path: Path) -> None:
    leakage, _ = tables()
    shown = page(tmp_path, pictures=draw_pictures(leakage, side=224))
    assert "Shown at 112 × 112 pixels; attacked and measured at 224 × 224." in shown


def test_filters_list_what_the_table_holds_in_the_order_of_the_parameters() -> None:
    leakage, _ = tables()
    worst = judge_cells(leakage)[0]
    data = describe_rows(leakage, params=PARAMS, accuracy=ACCURACY, worst=worst, pictures=None)
    assert {name: [value for value, _ in values] for name, values in data["filters"].items()} == {
        "client": ["alone", "many"],
        "round": ["3"],
        "defense": ["none", "quiet", "loud"],
        "attack": ["main", "other"],
        "seed": ["0", "1"],
    }
    assert data["start"] == {"attack": "main", "round": "3"}
    lead = dict(zip(data["columns"], data["rows"][data["lead"]], strict=True))
    assert (lead["client"], lead["defense"]) == ("alone", "none")
    assert lead["ssim"] == round(leakage["ssim"].max(), 3)
    assert data["noise"] == {"none": 0.0, "quiet": 1.0, "loud": 20.0}
    one = describe_rows(leakage.query("seed == 1"), params=PARAMS, accuracy=ACCURACY, worst=worst, pictures=None)
    assert [value for value, _ in one["filters"]["seed"]] == ["1"]
    json.dumps(data, allow_nan=False)


def test_intervals_of_the_chart_are_over_seeds_from_three_on() -> None:
    leakage, _ = tables()
    worst = judge_cells(leakage)[0]
    assert describe_rows(leakage, params=PARAMS, accuracy=ACCURACY, worst=worst, pictures=None)["intervals"] == {}
    rows = pd.concat([leakage.assign(seed=leakage.seed + 2 * n, ssim=leakage.ssim + 0.1 * n) for n in range(3)])
    rows = rows.assign(rdlv=rows.ssim / 0.3 - 1)
    found = describe_rows(rows, params=PARAMS, accuracy=ACCURACY, worst=worst, pictures=None)["intervals"]
    cells = rows.groupby(["client", "defense", "attack", "round"])
    assert set(found) == {json.dumps([str(part) for part in name], separators=(",", ":")) for name, _ in cells}
    there = rows.query("client == 'many' and defense == 'loud'")
    low, high = bootstrap_mean(there.ssim, clusters=there.seed, seed=1)
    ends = found['["many","loud","main","3"]']
    assert ends["ssim"] == pytest.approx([low, high], abs=0.02)
    assert ends["gain"] == pytest.approx([low - 0.3, high - 0.3], abs=0.02)


def test_figures_have_dark_colours_too() -> None:
    """Every colour that figures share is named as matplotlib writes it; a dark page's colours contrast."""
    made = darken(b'<?xml?>\n<svg width="1pt"><path style="fill: #1a1a1a; stroke: #666666"/></svg>').decode()
    assert made.index("<style>") == made.index('<svg width="1pt">') + len('<svg width="1pt">')
    assert "prefers-color-scheme: dark" in made
    assert set(DARK) >= {INK, MUTED, FAINT, GRID, "#ffffff"}
    for color in DARK:
        assert f'[style*="fill: {color}"]' in made
        assert f'[style*="stroke: {color}"]' in made


def test_vendored_files_are_those_that_were_published() -> None:
    for name, digest in SHA256.items():
        assert hashlib.sha256(read_vendored(name).encode()).hexdigest() == digest
    assert f"(v{VERSION})" in read_vendored("uPlot.iife.min.js")
    assert "Permission is hereby granted" in read_vendored("uPlot.LICENSE.txt")
    with pytest.raises(LeakpipeError, match=r"'d3\.js' is not vendored"):
        read_vendored("d3.js")


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, #rrggbb, by WCAG 2.2."""

    def luminance(color: str) -> float:
        levels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        return sum(share * level for share, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_from_what_is_behind_them() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    named = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", read_part("page.css"))
    colors = {name: shades for name, *shades in named}
    needed = {"ink": 4.5, "soft": 4.5, "accent": 4.5, **{f"line-{index}": 3 for index in range(6)}}  # text, graphics
    for name, ratio in needed.items():
        for behind in ("back", "card"):
            for ours, theirs in zip(colors[name], colors[behind], strict=True):
                assert contrast(ours, theirs) >= ratio, (name, behind)


@pytest.mark.parametrize("name", ["rows.js", "chart.js", "page.js"])
def test_scripts_cannot_end_their_own_element(name: str) -> None:
    assert "</" not in read_part(name)
    assert "</script" not in read_vendored("uPlot.iife.min.js").lower()


def test_the_page_is_valid_html(tmp_path: Path) -> None:
    html5lib = pytest.importorskip("html5lib", reason="needs pip install 'leakpipe[browser]'")
    leakage, _ = tables()
    for pictures in (None, draw_pictures(leakage, side=8)):
        html5lib.HTMLParser(strict=True).parse(page(tmp_path, pictures=pictures))


def test_patterns_stand_for_one_file_per_attack() -> None:
    table = pd.DataFrame({"defense": ["b", "a", "a"], "seed": [1, 2, 2], "client": ["x", "x", "y"]})
    assert list_files("{defense}/{seed}.json", table) == [Path("a/2.json"), Path("b/1.json")]
    assert list_files("one.json", table) == [Path("one.json")]
    with pytest.raises(LeakpipeError, match=r"\{sed\}\.json: names 'sed', expected columns: defense, seed, client"):
        list_files("{sed}.json", table)
    with pytest.raises(LeakpipeError, match=r"\{seed\.json: .*expected a path with columns"):
        list_files("{seed.json", table)


def test_pictures_are_read_from_the_files_of_the_pipeline(tmp_path: Path) -> None:
    leakage = many_rows(2).assign(seed=4, image=1, defense=["none", "loud"])
    rng = np.random.default_rng(0)
    images = rng.random((3, 1, 5, 5)).astype(np.float32)
    save_dataset(tmp_path / "images.safetensors", LabeledImages(images, np.zeros(3, dtype=np.int64), ("face",)))
    save_split(tmp_path / "4.json", Split({"alone": (2, 1)}, (), (0,), ()), seed=4)
    stored = {}
    for defense in leakage.defense:
        stored[defense] = rng.random((2, 1, 5, 5)).astype(np.float32), rng.random((2, 1, 5, 5)).astype(np.float32)
        rebuilt, prior = stored[defense]
        path, labels = tmp_path / f"{defense}-3.safetensors", np.zeros(2, dtype=np.int64)
        save_reconstruction(path, rebuilt, labels=labels, prior=prior, cell={"defense": defense}, iterations=1)
    pattern = f"{tmp_path}/{{defense}}-{{round}}.safetensors"
    shown = load_pictures(tmp_path / "images.safetensors", [tmp_path / "4.json"], pattern)
    pictures = arrange_pictures(leakage, shown)
    for numbers, defense in zip(pictures.tiles, leakage.defense, strict=True):
        rebuilt, prior = stored[defense]
        for number, picture in zip(numbers, (images[1], rebuilt[0], prior[1]), strict=True):
            np.testing.assert_array_equal(tile(pictures, number), levels(picture))
    with pytest.raises(LeakpipeError, match="split of seed 5 is missing"):
        arrange_pictures(leakage.assign(seed=5), shown)


def test_options_for_pictures_go_together(tmp_path: Path) -> None:
    files = [f"--{name}=x" for name in ("leakage", "accuracy", "metrics", "verdicts", "claims", "defense-table", "out")]
    records = ["--federation-record=x", "--attack-record=x"]
    refused = CliRunner().invoke(main, ["report", "--params={}", *files, *records, f"--images={tmp_path}/x"])
    assert refused.exit_code == 2
    assert "--images, --split and --reconstruction go together" in refused.output
