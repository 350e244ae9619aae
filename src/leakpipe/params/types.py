"""Building blocks of all sections of the parameters: the base class, names, seeds, switchable entries."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import with_info_after_validator_function

NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"
UNKNOWN_KEY = "unknown_key"  # pydantic's type of that error
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
# A class may be a folder's name: anything but a path, a hidden file or control characters.
ClassName = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class Registered:
    """Annotates the name of something registered, for instance a "model".

    This room sees no registry. `leakpipe.experiment` does: it checks names through pydantic's validation context,
    which has known names by kind, and lists them in the JSON schema. Without a context any name is accepted.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "registry": self.kind}

    def _check(self, name: str, info: ValidationInfo) -> str:
        known = (info.context or {}).get(self.kind, [name])
        if name not in known:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(sorted(known))}")
        return name


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuses values of which two are equal (a pydantic validator)."""
    if len(set(values)) != len(values):
        raise ValueError(f"values must differ, got {list(values)}")
    return values


def _drop_switched_off(entries: Any) -> Any:
    """Removes entries that an overlay set to null: YAML overlays can add and override, not delete."""
    if isinstance(entries, dict):
        return {name: entry for name, entry in entries.items() if entry is not None}
    return entries


class _NullableEntries:
    """Lets the JSON schema of a mapping admit null for an entry."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        entries = schema["patternProperties"]
        schema["patternProperties"] = {name: {"anyOf": [entry, {"type": "null"}]} for name, entry in entries.items()}
        return schema


Entry = TypeVar("Entry")
Switchable = Annotated[dict[Name, Entry], BeforeValidator(_drop_switched_off), _NullableEntries()]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)]


def _refuse_conversions(node: Any) -> None:
    """Makes all numbers and truth values in a schema strict. Lists stay lax: strict ones would have to be tuples."""
    if isinstance(node, dict):
        if node.get("type") in ("int", "float", "bool"):
            node["strict"] = True
        node = [*node.values()]
    for each in node if isinstance(node, list) else ():
        _refuse_conversions(each)


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values cannot change after loading.

    Text is no number, and true is not 1, as in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _refuse_conversions(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, content: Any) -> Any:
        for key in content if isinstance(content, dict) else ():
            if key not in cls.model_fields:
                context = {"key": key, "known": ", ".join(sorted(cls.model_fields))}
                raise PydanticCustomError(UNKNOWN_KEY, "unknown key; known here: {known}", context)
        return content
