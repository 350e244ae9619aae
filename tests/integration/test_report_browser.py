"""The report page in a real browser: from a file, without network, by pointer and by keyboard."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from leakpipe.files.storage import write_text
from leakpipe.report.page import load_figure
from leakpipe.tables.headline import summarize
from tests.unit.report_pages import PARAMS, draw_pictures, many_rows, page, tables

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install 'leakpipe[browser]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

NARROW = {"width": 400, "height": 900}
UNNAMED = """() => [...document.querySelectorAll("button, select, input, canvas[role], [role=region], [tabindex]")]
    .filter((element) => !(element.labels?.length || element.textContent.trim() && element.tagName === "BUTTON"
        || element.ariaLabel || element.getAttribute("aria-labelledby")))
    .map((element) => element.outerHTML.slice(0, 80))"""
PIXEL = (
    """([id, x, y]) => [...document.getElementById(id).getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3)"""
)
TIME = """async (press) => { const start = performance.now(); eval(press); await new Promise(requestAnimationFrame);
    return performance.now() - start; }"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses to run as root
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield launched
        launched.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file without network; the page may neither fail nor ask for anything else."""
    contexts, wrong = [], []

    def show(path: Path, state: str = "", **look: Any) -> Any:
        context = browser.new_context(**look)
        contexts.append(context)
        context.set_offline(True)
        opened = context.new_page()
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        opened.on(
            "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url)
        )
        opened.goto(path.as_uri() + state)
        opened.wait_for_selector("#rows tr")
        return opened

    yield show
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the rows of `tables`, and pictures."""
    folder = tmp_path_factory.mktemp("small")
    write_text(folder / "report.html", page(folder, pictures=draw_pictures(tables()[0], side=8)))
    return folder / "report.html"


def column(opened: Any, name: str) -> list[str]:
    number = opened.locator("#head th").evaluate_all(
        "(all, name) => all.findIndex((th) => th.dataset.column === name)", name
    )
    return opened.locator(f"#rows tr td:nth-child({number + 1})").all_inner_texts()


def test_filters_choose_rows_and_stay_in_the_url(show: Callable[..., Any], small: Path) -> None:
    opened, (leakage, _) = show(small), tables()
    opened.click("#clear")
    assert opened.inner_text("#row-count") == f"{len(leakage)} of {len(leakage)} rows"
    for name, value in (("client", "many"), ("defense", "quiet"), ("seed", "1"), ("attack", "main"), ("round", "3")):
        opened.select_option(f"#choose-{name}", value)
        leakage = leakage[leakage[name].astype(str) == value]
        assert opened.inner_text("#row-count").startswith(f"{len(leakage)} of ")
    assert set(column(opened, "client")) == {"many"}
    again = show(small, opened.evaluate("location.hash"))
    assert again.input_value("#choose-defense") == "quiet"
    assert again.inner_text("#row-count") == opened.inner_text("#row-count")


def test_filters_offer_only_what_was_run(show: Callable[..., Any], small: Path) -> None:
    opened = show(small, "#client=many")
    offered = "(all) => all.filter((each) => !each.disabled).map((each) => each.value)"
    assert opened.locator("#choose-attack option").evaluate_all(offered) == ["", "main"]
    assert opened.locator("#choose-client option").evaluate_all(offered) == ["", "alone", "many"]
    opened.click("#clear")
    assert opened.locator("#choose-attack option").evaluate_all(offered) == ["", "main", "other"]


def test_however_many_lines_every_client_has_one(show: Callable[..., Any], tmp_path: Path) -> None:
    leakage = tables()[0]
    more = [leakage.query("client == 'alone'").assign(attack=f"other-{number}") for number in range(50)]
    attacks = {**PARAMS["attacks"], **{f"other-{number}": PARAMS["attacks"]["other"] for number in range(50)}}
    rows = pd.concat([*more, leakage], ignore_index=True)
    write_text(tmp_path / "report.html", page(tmp_path, {**PARAMS, "attacks": attacks}, leakage=rows))
    opened = show(tmp_path / "report.html", "#x=noise")
    opened.click("#clear")
    assert opened.locator("#legend li").count() == 36
    assert any("many" in label for label in opened.locator("#legend li").all_inner_texts())
    assert "36 of " in opened.inner_text("#chart-note")


def test_the_chart_says_its_intervals(show: Callable[..., Any], tmp_path: Path) -> None:
    leakage, _ = tables()
    rows = pd.concat([leakage.assign(seed=leakage.seed + 2 * n, ssim=leakage.ssim + 0.1 * n) for n in range(3)])
    write_text(tmp_path / "report.html", page(tmp_path, leakage=rows.reset_index(drop=True)))
    opened = show(tmp_path / "report.html", "#client=alone&attack=main&x=noise&y=gain")
    opened.focus("#chart")
    opened.keyboard.press("ArrowRight")
    assert "95 % interval [" in opened.inner_text("#readout")
    opened.select_option("#choose-seed", "1")
    opened.focus("#chart")
    opened.keyboard.press("ArrowRight")
    assert "95 % interval" not in opened.inner_text("#readout")


def test_headings_of_tables_stay(show: Callable[..., Any], small: Path) -> None:
    opened = show(small, viewport={"width": 1400, "height": 300})
    opened.click("#clear")
    scroll = opened.locator(".scroll", has=opened.locator("#rows"))
    before = opened.locator("#head th").nth(1).bounding_box()["y"] - scroll.bounding_box()["y"]
    scroll.evaluate("(element) => { element.scrollTop = 400; }")
    after = opened.locator("#head th").nth(1).bounding_box()["y"] - scroll.bounding_box()["y"]
    assert scroll.evaluate("(element) => element.scrollTop") > 0
    assert 0 <= after <= before


def test_figures_are_dark_on_a_dark_page(show: Callable[..., Any], tmp_path: Path) -> None:
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90">{}</svg>'
    write_text(tmp_path / "f.svg", drawing.format('<rect width="90" height="90" style="fill: #ffffff"/>'))
    write_text(tmp_path / "f.txt", "White.")
    figure = load_figure("f", tmp_path / "f.svg", tmp_path / "f.txt", heading="F")
    write_text(tmp_path / "report.html", page(tmp_path, figures=[figure]))
    colors = []
    for theme in ("light", "dark"):
        opened = show(tmp_path / "report.html", color_scheme="light")
        opened.select_option("#theme", theme)
        shot = Image.open(io.BytesIO(opened.locator(".picture img").screenshot())).convert("RGB")
        colors.append(shot.getpixel((shot.width // 2, shot.height // 2)))
    assert colors == [(255, 255, 255), (22, 22, 22)]


@pytest.mark.parametrize("state", ["#client=nobody&x=moon&y=sun&sort=-shoe&row=-1&seed=1", "#row=999&sort=ssim"])
def test_a_url_of_another_page_does_no_harm(show: Callable[..., Any], small: Path, state: str) -> None:
    assert show(small, state).input_value("#choose-client") == ""


def test_links_to_sections_leave_the_filters_alone(show: Callable[..., Any], small: Path) -> None:
    opened = show(small, "#client=many")
    opened.click("nav a[href='#numbers']")
    assert opened.input_value("#choose-client") == "many"


def test_columns_sort_both_ways(show: Callable[..., Any], small: Path) -> None:
    opened, expected = show(small, "#client=alone"), sorted(tables()[0].query("client == 'alone'")["ssim"].round(3))
    header = opened.locator("#head th[data-column=ssim]")
    for order, values in (("descending", expected[::-1]), ("ascending", expected)):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == order
        assert [float(value) for value in column(opened, "ssim")] == values
    assert opened.locator("#head [aria-sort=ascending]").count() == 1


def test_the_slider_divides_two_pictures(show: Callable[..., Any], small: Path) -> None:
    opened = show(small)

    def pixel(name: str, x: float) -> list[int]:
        side = opened.evaluate("(id) => document.getElementById(id).width", name)
        return opened.evaluate(PIXEL, [name, int(side * x), side // 2])

    opened.fill("#wipe", "50")
    assert pixel("wiped", 0.3) == pixel("original", 0.3)
    assert pixel("wiped", 0.7) == pixel("rebuilt", 0.7) != pixel("original", 0.7)
    opened.focus("#wipe")
    opened.keyboard.press("End")
    assert pixel("wiped", 0.7) == pixel("original", 0.7)
    opened.keyboard.press("Home")
    opened.check("input[value=prior]")
    assert pixel("wiped", 0.3) == pixel("prior", 0.3) == [128, 128, 128]
    assert opened.get_attribute("#wipe", "aria-valuetext") == "0 % private image, the rest prior"
    opened.hover("#wiped", position={"x": 5, "y": 20})  # waits until the picture no longer moves
    box = opened.locator("#wiped").bounding_box()
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
    opened.mouse.up()
    assert opened.input_value("#wipe") == "75"
    assert pixel("wiped", 0.7) == pixel("original", 0.7)


def test_a_row_shows_its_pictures(show: Callable[..., Any], small: Path) -> None:
    opened = show(small, "#client=many&sort=ssim")
    button = opened.locator("#rows button").nth(2)
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert opened.locator("#rows [aria-pressed=true]").count() == 1
    assert column(opened, "ssim")[2] in opened.inner_text("#compared")
    opened.click("#row-on")
    assert opened.inner_text("#compared-place").startswith("Row 4 of")
    assert column(opened, "ssim")[3] in opened.inner_text("#compared")


def test_the_chart_is_read_with_the_keyboard_and_the_pointer(show: Callable[..., Any], small: Path) -> None:
    opened, (leakage, _) = show(small, "#client=alone&attack=main&x=noise&y=gain"), tables()
    rows = leakage.query("client == 'alone' and attack == 'main'")
    gains = (rows["ssim"].round(3) - 0.3).groupby(rows["defense"]).mean()
    opened.focus("#chart")
    for name, accuracy in (("none", "0.900"), ("quiet", "0.800"), ("loud", "0.700")):
        opened.keyboard.press("ArrowRight")
        said = opened.inner_text("#readout")
        assert f"mean SSIM gained over the prior {gains[name]:.2f}".replace("-", "−") in said
        assert "(n = 2, seeds: 2)" in said
        assert f"test accuracy {accuracy}" in said
    box = opened.locator("#chart .u-over").bounding_box()
    opened.locator("#chart .u-over").hover(position={"x": box["width"] * 0.06, "y": 20})
    assert f"{gains['none']:.2f}" in opened.inner_text("#readout")
    opened.locator("summary", has_text="The chart as a table").click()
    assert opened.locator("#chart-rows tr").count() == 3


def test_an_axis_shows_all_its_places(show: Callable[..., Any], small: Path) -> None:
    opened = show(small, "#client=alone&attack=main&round=3&defense=quiet")
    assert opened.locator("#chart-rows tr").count() == 1
    opened.select_option("#choose-x", "accuracy")
    assert opened.input_value("#choose-defense") == ""
    assert opened.input_value("#choose-round") == "3"
    assert opened.locator("#chart-rows tr").count() == 3
    opened.select_option("#choose-x", "round")
    assert opened.input_value("#choose-round") == ""


def test_colours_follow_the_system_and_the_reader(show: Callable[..., Any], small: Path) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    light, dark = (show(small, color_scheme=scheme).evaluate(back) for scheme in ("light", "dark"))
    assert light == "rgb(255, 255, 255)" != dark
    opened = show(small, color_scheme="light")
    opened.select_option("#theme", "dark")
    assert opened.evaluate(back) == dark


def test_everything_has_a_name_and_fits_a_telephone(show: Callable[..., Any], small: Path) -> None:
    opened = show(small, viewport=NARROW, reduced_motion="reduce")
    assert opened.evaluate(UNNAMED) == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert opened.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    opened.focus("#theme")
    visited = []
    for _ in range(14):
        opened.keyboard.press("Tab")
        visited.append(opened.evaluate("document.activeElement.id"))
    filters = [f"choose-{name}" for name in ("client", "round", "defense", "attack", "seed")]
    assert [name for name in visited if name in filters] == filters


def test_two_thousand_rows_stay_fast(show: Callable[..., Any], tmp_path: Path) -> None:
    leakage = many_rows(2000)
    made = page(
        tmp_path,
        leakage=leakage,
        metrics=summarize(leakage, tables()[1]),
        pictures=draw_pictures(leakage, side=32),
    )
    write_text(tmp_path / "report.html", made)
    opened = show(tmp_path / "report.html")
    for press in (
        "document.querySelector('[data-column=ssim] button').click()",
        "document.getElementById('clear').click()",
        "document.getElementById('page-on').click()",
    ):
        assert opened.evaluate(TIME, press) < 1000, press  # milliseconds; 30 to 120 on two cores


def test_a_page_without_pictures_still_compares_numbers(show: Callable[..., Any], tmp_path: Path) -> None:
    write_text(tmp_path / "report.html", page(tmp_path))
    opened = show(tmp_path / "report.html")
    opened.locator("#rows button").nth(1).click()
    assert "SSIM" in opened.inner_text("#compared")
    assert opened.locator("canvas#original").count() == 0
