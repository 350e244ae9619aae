"""Reads parameters: YAML to mappings, overlays merged, a section validated with a one-sentence error."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leakpipe.errors import LeakpipeError
from leakpipe.params.types import UNKNOWN_KEY

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
        problems = error.errors(include_url=False)
        misspelt = [problem for problem in problems if problem["type"] == UNKNOWN_KEY]
        problem = (misspelt or problems)[0]  # a misspelt key is also a missing one: name what was written
        keys = [problem["ctx"]["key"]] if misspelt else []
        where = ".".join(map(str, [*problem["loc"], *keys]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            message = "required, but missing"
        elif problem["type"] not in (UNKNOWN_KEY, "value_error"):
            message = f"{problem['input']!r} is not valid: {message[0].lower()}{message[1:]}"
        raise LeakpipeError(f"{source}: {where + ': ' if where else ''}{message}") from error
