"""What all sections of the parameters are built from: the base class, names, seeds, switchable entries."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
# A class may be a folder's name: anything but a path, a hidden file or control characters.
ClassName = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse values of which two are equal (a pydantic validator)."""
    if len(set(values)) != len(values):
        raise ValueError(f"values must differ, got {list(values)}")
    return values


def _drop_switched_off(entries: Any) -> Any:
    """Remove entries that an overlay set to null: YAML overlays can add and override, not delete."""
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


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
