"""The pages under docs/attacks say of every preset what the code says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from leakpipe.attacks.presets import PIXEL_DEVIATION, PRESETS
from leakpipe.experiment.reading import parse_params
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.reading import merge, read_yaml
from tests.conftest import PROJECT

DOCS = PROJECT / "docs" / "attacks"
PAGES = [DOCS / f"{name}.md" for name in ("index", *PRESETS)]
HEADINGS = ["Paper", "Assumptions", "Formula", "Cost"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
TICKED = re.compile(r"`([^`\n]+)`")
EXAMPLES = [(page, code) for page in PAGES for kind, code in FENCED.findall(page.read_text()) if kind == "yaml"]


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def number(text: str) -> Any:
    """A cell's value: a word, a number, or a published number times or over a pixel's deviation."""
    if match := re.fullmatch(r"([\d.]+) ([*/]) ([\d.]+)", text):
        left, right = float(match[1]), float(match[3])
        assert right == PIXEL_DEVIATION
        return pytest.approx(left * right if match[2] == "*" else left / right)
    try:
        return pytest.approx(float(text))
    except ValueError:
        return text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_page_with_the_four_headings(name: str) -> None:
    found = re.findall(r"^## (.+)$", (DOCS / f"{name}.md").read_text(), flags=re.MULTILINE)
    assert found[:4] == HEADINGS
    assert found[4:] in ([], ["Differences from the published code"])


def test_the_index_lists_every_page_once() -> None:
    rows = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)\.md\) \|", (DOCS / "index.md").read_text(), flags=re.MULTILINE)
    assert sorted(rows) == sorted((name, name) for name in PRESETS)
    assert {page.stem for page in DOCS.glob("*.md")} - {"index", "results"} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_values_in_a_pages_table_are_the_presets(name: str) -> None:
    text = prose(DOCS / f"{name}.md")
    for field, value in re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, flags=re.MULTILINE):
        assert getattr(PRESETS[name].settings, field) == number(value), field


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"published-tool"}))
def test_a_page_names_every_field_that_its_preset_sets(name: str) -> None:
    settings, usual = PRESETS[name].settings, AttackSettings()
    differing = {field for field in AttackSettings.model_fields if getattr(settings, field) != getattr(usual, field)}
    assert differing <= {token.split(":")[0] for token in TICKED.findall(prose(DOCS / f"{name}.md"))}


def test_the_tools_deviations_are_what_it_changes_of_the_formulas() -> None:
    text = (DOCS / "published-tool.md").read_text()
    rows = re.findall(r"^\| (\d) \| `(\w+)` \| `([\w-]+)` \| `([\w-]+)` \|", text, flags=re.MULTILINE)
    tool, formulas = PRESETS["published-tool"].settings, PRESETS["bn-aware"].settings
    changed = [field for field in AttackSettings.model_fields if getattr(tool, field) != getattr(formulas, field)]
    assert [field for _, field, _, _ in rows] == changed
    for _, field, released, corrected in rows:
        assert (getattr(tool, field), getattr(formulas, field)) == (released, corrected)
    without_a_field = re.findall(r"^- \*\*(\d):\*\*", text, flags=re.MULTILINE)
    assert sorted({row[0] for row in rows} | set(without_a_field)) == list("123456789")


def test_every_page_shows_how_to_override_a_preset() -> None:
    assert {page.stem for page, _ in EXAMPLES} >= set(PRESETS)


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page.stem for page, _ in EXAMPLES])
def test_yaml_examples_are_valid_attacks(page: Path, code: str) -> None:
    example = yaml.safe_load(code)
    params = read_yaml(PROJECT / "params.yaml")
    parsed = parse_params(merge(params, example), source=page.name)
    assert example["attacks"].keys() <= parsed.attacks.keys()
    if page.stem in PRESETS:
        assert {parsed.attacks[name].preset for name in example["attacks"]} == {page.stem}
