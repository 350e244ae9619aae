"""One answer to every YAML: ours is DVC's (ruamel, YAML 1.2), or a refusal; and no value is converted on the way."""

import itertools
from collections.abc import Callable
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import params_schema, parse_params
from leakpipe.params.reading import read_yaml
from leakpipe.params.yaml_loader import Loader
from tests.conftest import PROJECT

SCALARS = [
    *("1e-3", "1E5", "1e5", "1.e+3", ".5e3", "-.5", ".5", "-2e1", "+1e1", "1_0e1", "1.0e-3", "1.", "5", "-7", "1_000"),
    *(
        "0x1f",
        "0b11",
        "0",
        "yes",
        "No",
        "ON",
        "off",
        "y",
        "true",
        "False",
        "TRUE",
        "null",
        "~",
        "Null",
        "none",
        "'yes'",
    ),
    *('"1e-3"', "'017'", "017", "08", "0o17", "-012", "1:30", "190:20:30", "1:30.5", "2001-01-01", "=", "<<", "inf"),
    *(".inf", "-.inf", "1,5"),
]
SHORT = ["".join(letters) for letters in itertools.product("0189.eE+-_:o", repeat=3)]


@pytest.fixture(scope="module")
def as_dvc_does() -> Callable[[str], Any]:
    serialize = pytest.importorskip("dvc.utils.serialize")
    return lambda text: serialize.parse_yaml(text, "params.yaml")["a"]


@pytest.mark.parametrize("scalars", [SCALARS, SHORT], ids=["chosen", "all of three characters"])
def test_a_value_is_what_dvc_reads_or_is_refused(scalars: list[str], as_dvc_does: Callable[[str], Any]) -> None:
    different, refused = [], 0
    for scalar in scalars:
        try:
            ours = yaml.load(f"a: {scalar}\n", Loader)["a"]
        except yaml.YAMLError:
            refused += 1
            continue
        theirs = as_dvc_does(f"a: {scalar}\n")
        theirs = str(theirs) if isinstance(theirs, date) else theirs
        if repr(ours) != repr(theirs):
            different.append((scalar, ours, theirs))
    assert different == []
    assert 0 < refused < len(scalars) / 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: yes\n", "line 2: 'yes' means different things"),
        ("a: [1, 1:30]", "line 1: '1:30' means"),
        ("a: {b: 017}", "write true, false or a decimal number, or put it in quotes"),
        ("yes: 1", "'yes' means"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands here and in line 1"),
        ("a: {b: 1, b: 2}", "the key 'b' stands here and in line 1"),
        ("1: x", "the key '1' is no text"),
        ("? [x]\n: 1", "is no text"),
        ("a:\t- 1\n", "cannot be read as YAML"),
        ("a: 1\n---\nb: 2", "cannot be read as YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "cannot be read as YAML: maximum recursion depth exceeded"),
        ("a: " + "9" * 5000, f"line 1: '{'9' * 40}' is larger than floating-point numbers can be"),
        ("a: 0x" + "f" * 5000, "is larger than floating-point numbers can be"),
        ("a: !!int " + "9" * 5000, "is larger than floating-point numbers can be"),
        ('a: "\\ud83d\\ude00"', "line 1: '\\ud83d\\ude00' has half a character"),
        ('"\\udcff": 1', "has half a character (\\ud800 to \\udfff); write the character itself"),
        ("- 1", "expected a mapping of parameters, got list"),
        ("", "expected a mapping of parameters, got NoneType"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(LeakpipeError) as caught:
        read_yaml(tmp_path / "params.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/params.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_merge_keys_anchors_and_explicit_types(tmp_path: Path, start: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{start}a: &a {{b: 1, c: !!str yes}}\nd: {{<<: *a, b: 2}}\n", encoding="utf-8")
    assert read_yaml(path) == {"a": {"b": 1, "c": "yes"}, "d": {"b": 2, "c": "yes"}}


def places(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, value in entries for found in places(value, (*path, key)))]


def test_nothing_is_converted_that_the_schema_would_refuse() -> None:
    """The JSON schema as an independent judge: what it refuses, the check refuses too (not the other way round)."""
    content = read_yaml(PROJECT / "params.yaml")
    judge = jsonschema.Draft202012Validator(params_schema())
    accepted = []
    for place in places(content)[1:]:
        for odd in ("1", True, 1.5):
            changed = deepcopy(content)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = odd
            if judge.is_valid(changed):
                continue
            try:
                parse_params(changed, source="test")
            except LeakpipeError:
                continue
            accepted.append((place, odd))
    assert accepted == []
