"""Building blocks of all sections of the parameters: the base class, names, seeds, switchable entries."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, get_args

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
from pydantic_core.core_schema import no_info_before_validator_function, with_info_after_validator_function

NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"
FACTORY_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
PATTERNS = {  # in words
    NAME_PATTERN: "expected a name of letters, digits, '.', '_' and '-' that begins with a letter or a digit",
    FACTORY_PATTERN: "expected package.module:function, such as network:Network for class Network of network.py",
}
UNKNOWN_KEY = "unknown_key"  # pydantic's type of that error
NO_MAPPING = "no_mapping"
UNKNOWN_KIND = "unknown_kind"
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


@dataclass(frozen=True)
class ByKind:
    """Annotates a union of sections that their `kind` tells apart, so that a mistake is answered with known kinds."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = [kind for section in get_args(source) for kind in get_args(section.model_fields["kind"].annotation)]
        return no_info_before_validator_function(lambda content: self._check(content, kinds), handler(source))

    @staticmethod
    def _check(content: Any, kinds: Sequence[str]) -> Any:
        if isinstance(content, BaseModel) or (isinstance(content, dict) and content.get("kind") in kinds):
            return content
        given = content.get("kind") if isinstance(content, dict) else content
        meant = next(iter(get_close_matches(str(given).lower(), kinds, n=1)), kinds[0])
        raise PydanticCustomError(
            UNKNOWN_KIND,
            "expected a mapping such as {example}; known kinds: {known}",
            {"example": f"{{kind: {meant}}}", "known": ", ".join(kinds)},
        )


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
        if not isinstance(content, dict | BaseModel):
            needed = [name for name, field in cls.model_fields.items() if field.is_required()] or [*cls.model_fields][
                :1
            ]
            context = {
                "example": f"{{{', '.join(f'{name}: …' for name in needed)}}}",
                "known": ", ".join(sorted(cls.model_fields)),
            }
            raise PydanticCustomError(NO_MAPPING, "expected a mapping such as {example}; known keys: {known}", context)
        for key in content if isinstance(content, dict) else ():
            if key not in cls.model_fields:
                context = {"key": key, "known": ", ".join(sorted(cls.model_fields))}
                raise PydanticCustomError(UNKNOWN_KEY, "unknown key; known here: {known}", context)
        return content
