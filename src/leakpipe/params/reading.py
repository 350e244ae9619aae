"""Reads parameters: YAML to mappings, overlays merged, a section validated with a one-sentence error."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leakpipe.errors import LeakpipeError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON mapping; raises `LeakpipeError` with the file and line that are wrong."""
    import yaml  # no job reads YAML, and every job starts anew

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise LeakpipeError(f"{path}: cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise LeakpipeError(f"{path}: expected a mapping of parameters, got {type(content).__name__}")
    return content


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Merges mappings deeply; any other value in `overlay` replaces that in `base`."""
    merged = dict(base)
    for key, value in overlay.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_mappings else value
    return merged


def parse_section(
    section: type[Model], content: object, *, source: str, known: Mapping[str, Collection[str]] | None = None
) -> Model:
    """Validates one section; the first problem becomes one sentence: source, field, value, expectation.

    Args:
        section: The section's class.
        content: As read from YAML or JSON.
        source: Beginning of the sentence.
        known: Registered names by kind (`leakpipe.params.types.Registered`); None accepts any name.

    Raises:
        LeakpipeError: The content is not valid.
    """
    try:
        return section.model_validate(content, context=known)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        misspelt = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        problem = (misspelt or problems)[0]  # a misspelt key is also a missing one: name what was written
        where = ".".join(str(part) for part in problem["loc"])
        value = problem["input"]
        if problem["type"] == "extra_forbidden":
            said = f"{where}: unknown key; known here: {', '.join(_known_keys(section, problem['loc'][:-1]))}"
        elif problem["type"] == "missing":
            said = f"{where}: required, but missing"
        elif problem["type"] == "value_error":
            said = f"{where + ': ' if where else ''}{problem['msg'].removeprefix('Value error, ')}"
        else:
            said = f"{where}: {value!r} is not valid: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise LeakpipeError(f"{source}: {said}") from error


def _known_keys(section: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """Follows an error's location through the schema to the keys allowed there."""
    schema = section.model_json_schema()
    node: Any = schema
    for part in location:
        node = _resolve(schema, node)
        options = [node, *(_resolve(schema, option) for option in node.get("anyOf", ()))]
        for option in options:
            entries = next(iter(option.get("patternProperties", {}).values()), None)
            tagged = option.get("discriminator", {}).get("mapping", {}).get(part)
            child = option.get("properties", {}).get(part) or entries or option.get("items")
            child = {"$ref": tagged} if tagged else child
            if isinstance(child, dict):
                node = child
                break
    node = _resolve(schema, node)
    for option in [node, *node.get("anyOf", ())]:
        keys = _resolve(schema, option).get("properties")
        if keys:
            return sorted(keys)
    return []


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
