"""The pages under docs/attacks say of every preset what the code says."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from leakpipe.attacks import observation, presets
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.presets import PIXEL_DEVIATION, PRESETS
from leakpipe.experiment import parse_params
from leakpipe.params.attacks import AttackParams, AttackSettings, TargetParams, ThreatModel
from leakpipe.params.reading import merge, read_yaml
from tests.conftest import PROJECT

DOCS = PROJECT / "docs" / "attacks"
PAGES = [DOCS / f"{name}.md" for name in ("index", *PRESETS)]
HEADINGS = ["Paper", "Assumptions", "Formula", "Cost"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
TICKED = re.compile(r"`([^`\n]+)`")
EXAMPLES = [(page, code) for page in PAGES for kind, code in FENCED.findall(page.read_text()) if kind == "yaml"]

FIELDS = AttackSettings.model_fields.keys() | ThreatModel.model_fields.keys()
SECTIONS = {"threat_model", "attacks", *TargetParams.model_fields, *AttackParams.model_fields}


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def choices() -> set[str]:
    """Words that a field may be set to; they are no fields, though they look like it."""
    annotations = [f.annotation for model in (AttackSettings, ThreatModel) for f in model.model_fields.values()]
    return {choice for annotation in annotations for choice in get_args(annotation) if isinstance(choice, str)}


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_fields_named_on_a_page_exist(page: Path) -> None:
    others = SECTIONS | choices() | set(PRESETS) | {field.name for field in dataclasses.fields(Observation)}
    code = {*vars(presets), *vars(observation), "ThreatModel"}
    for token in TICKED.findall(prose(page)):
        if setting := re.fullmatch(r"([a-z]\w*): (\S+)", token):
            field = setting[1]
            models = [model for model in (AttackSettings, ThreatModel) if field in model.model_fields]
            assert models, token
            options = {word for model in models for word in get_args(model.model_fields[field].annotation)}
            assert setting[2] in options or options <= {int, float, bool, str}, token
        elif re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", token):
            assert token in FIELDS | SECTIONS, token
        elif re.fullmatch(r"[a-z]+", token):
            assert token in FIELDS | others, token
        elif re.fullmatch(r"[A-Z]\w+", token):
            assert token in code, token
        elif "/" in token and " " not in token:
            assert (PROJECT / token).exists(), token


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), target
        titles = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_are_at_most_120_characters(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []
