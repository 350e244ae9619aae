"""Reads parameters: YAML to mappings, overlays merged, a section validated with a one-sentence error."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from leakpipe.errors import LeakpipeError
from leakpipe.params.types import PATTERNS, UNKNOWN_KEY

Model = TypeVar("Model", bound=BaseModel)
LONGEST_VALUE = 200  # characters of a wrong value that an error shows


class InvalidError(LeakpipeError):
    """Parameters that are not valid: one sentence for one problem; for several their number, then a line for each.

    Args:
        problems: Sentences that begin with the field; each is said once.
        source: What was read.
        files: Parameters and overlays in the order of merging, if it is files: each problem then begins with the one
            that its field was last set in.
    """

    def __init__(self, problems: Iterable[str], *, source: str, files: Sequence[Path] = ()) -> None:
        contents = {path: read_yaml(path) for path in files} if len(files) > 1 else {}
        said = [f"{_set_in(problem, contents) or source}: {problem}" for problem in dict.fromkeys(problems)]
        super().__init__(said[0] if len(said) == 1 else "\n  ".join([f"{source}: {len(said)} problems", *said]))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON mapping; raises `LeakpipeError` with the file and line that are wrong."""
    import yaml  # no job reads YAML, and every job starts anew

    from leakpipe.params.yaml_loader import Loader

    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: not UTF-8; too many digits
        reason = " ".join(str(error).split())
        raise LeakpipeError(f"{path}: cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise LeakpipeError(f"{path}: expected a mapping of parameters, got {type(content).__name__}")
    return content


def parse_value(text: str) -> Any:
    """Returns a value as it would stand in a YAML file; text that is no YAML is itself."""
    import yaml

    from leakpipe.params.yaml_loader import Loader

    try:
        return yaml.load(text, Loader)
    except (ValueError, RecursionError, yaml.YAMLError):
        return text


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Merges mappings deeply; any other value in `overlay` replaces that in `base`."""
    merged = dict(base)
    for key, value in overlay.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_mappings else value
    return merged


def parse_section(
    section: type[Model],
    content: object,
    *,
    source: str,
    files: Sequence[Path] = (),
    known: Mapping[str, Collection[str]] | None = None,
) -> Model:
    """Validates one section.

    Args:
        section: The section's class.
        content: As read from YAML or JSON.
        source: Beginning of the sentences.
        files: The files that the content was merged from, if any (`InvalidError`).
        known: Registered names by kind (`leakpipe.params.types.Registered`); None accepts any name.

    Raises:
        InvalidError: The content is not valid; it has a sentence for each problem.
    """
    try:
        return section.model_validate(content, context=known)
    except ValidationError as error:
        found = error.errors(include_url=False)
    # The check of a section's keys ends with the first unknown one: they are taken out one by one until none is left.
    misspelt: dict[tuple[int | str, ...], str] = {}
    while unknown := {_path(each): _say(each) for each in found if each["type"] == UNKNOWN_KEY}:
        if unknown.keys() <= misspelt.keys():
            break
        misspelt |= unknown
        for path in unknown:
            content = _without(content, path)
        try:
            section.model_validate(content, context=known)
            found = []
        except ValidationError as error:
            found = error.errors(include_url=False)
    sections = {path[:-1] for path in misspelt}  # a misspelt key is also a missing one
    others = [_say(each) for each in found if not (each["type"] == "missing" and each["loc"][:-1] in sections)]
    raise InvalidError([*misspelt.values(), *others], source=source, files=files)


def _path(problem: ErrorDetails) -> tuple[int | str, ...]:
    """Returns where a problem is; that of an unknown key is at the key, not at its section."""
    return (*problem["loc"], *([problem["ctx"]["key"]] if problem["type"] == UNKNOWN_KEY else []))


def _say(problem: ErrorDetails) -> str:
    """Puts a problem into words: field, value, expectation, remedy."""
    keys, message = _path(problem), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == UNKNOWN_KEY:
        meant = get_close_matches(str(keys[-1]), problem["ctx"]["known"].split(", "), n=1)
        message += f"; did you mean {meant[0]!r}?" if meant else "; remove it"
    elif problem["type"] == "missing":
        message = "required, but missing: add it"
    elif problem["type"] != "value_error":
        message = f"{_show(problem['input'])} is not valid: {_expectation(problem)}"
    where = ".".join(map(str, keys))
    return f"{where}: {message}" if where else message


def _show(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _expectation(problem: ErrorDetails) -> str:
    """Returns what was expected, in the words of YAML where pydantic's are those of Python."""
    kind, value, message = problem["type"], problem["input"], problem["msg"]
    if kind in ("tuple_type", "list_type"):
        import yaml

        example = [] if value is None else [value]
        return f"expected a list, such as {yaml.safe_dump(example, default_flow_style=True, sort_keys=False).strip()}"
    if kind == "dict_type":
        return "expected a mapping, such as {name: value}"
    if kind == "string_pattern_mismatch" and problem["ctx"]["pattern"] in PATTERNS:
        return PATTERNS[problem["ctx"]["pattern"]]
    return f"{message[0].lower()}{message[1:]}"


def _without(content: Any, path: tuple[int | str, ...]) -> Any:
    """Returns a copy of nested content without the entry at a path (which may hold the tag of a union)."""
    first, *rest = path
    if isinstance(content, Mapping):
        if first not in content:
            return _without(content, tuple(rest))
        if rest:
            return {**content, first: _without(content[first], tuple(rest))}
        return {key: value for key, value in content.items() if key != first}
    if isinstance(content, Sequence) and isinstance(first, int):
        return [_without(each, tuple(rest)) if place == first else each for place, each in enumerate(content)]
    return _without(content, tuple(rest))


def _set_in(problem: str, contents: Mapping[Path, Any]) -> Path | None:
    """Returns the file that has most of the field that a sentence begins with, of several the last; None if none."""
    depths = {path: _depth(content, problem.partition(": ")[0]) for path, content in contents.items()}
    deepest = max(depths.values(), default=0)
    return [path for path, depth in depths.items() if depth == deepest][-1] if deepest else None


def _depth(content: Any, field: str) -> int:
    """Returns how many parts of a dotted field are in nested content; names may have dots themselves."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if field == str(key) or field.startswith((f"{key}.", f"{key} ")):
            return 1 + _depth(value, field.removeprefix(str(key)).lstrip(". "))
    return 0
