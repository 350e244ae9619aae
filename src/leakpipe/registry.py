"""Things that users choose by name: data sets, models, defences, attack presets, figures."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from leakpipe.errors import LeakpipeError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Maps names to things, and is strict about the names.

    Args:
        kind: What the things are, for messages ("data set", "attack preset").

    Registering a name twice is a programming error (`ValueError`). Looking up an unknown name is a user's error
    (`LeakpipeError`), whose message lists the known ones.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Registers `thing` under `name`."""
        if name in self._things:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._things[name] = thing

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            known = ", ".join(sorted(self._things))
            raise LeakpipeError(f"unknown {self.kind} {name!r}; known: {known}")
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)
