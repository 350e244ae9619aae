"""The figures by name: what each is called, shows, reads and takes, and how it is drawn.

A figure is a module of this package with a function that `@figure` registers. What the function's parameters are called
says what it reads (names of `leakpipe.figures.inputs.NEEDS`) and which settings it takes (all others: keys of
`leakpipe.figures.settings.choose_settings`). Nothing here or at the top of those modules imports matplotlib or pandas:
the Snakefile reads the registry on every start.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar

from leakpipe.errors import LeakpipeError
from leakpipe.figures.inputs import NEEDS, Files
from leakpipe.figures.style import in_style
from leakpipe.registry import Registry

if TYPE_CHECKING:
    from leakpipe.figures.style import Drawing

Draw = TypeVar("Draw", bound=Callable[..., "Drawing"])
EFFECT = "effect-"


@dataclass(frozen=True)
class Figure:
    """A figure that can be drawn.

    Attributes:
        name: Name of its files; a figure of a comparison is called `effect-<comparison>`.
        heading: Its title on pages that list figures.
        about: What it shows, in a sentence or two; its own caption has the numbers.
        module: The module that draws it.
        draw: Takes what it reads and its settings by keyword.
        reads: Names of what it reads.
        takes: Names of the settings that it takes, and whether each is required.
        comparison: The entry of the `comparisons` section that it is about, if any.
    """

    name: str
    heading: str
    about: str
    module: str
    draw: Callable[..., "Drawing"]
    reads: tuple[str, ...]
    takes: Mapping[str, bool]
    comparison: Mapping[str, Any] | None = None

    @property
    def files(self) -> set[str]:
        """Fields of `Files` that it needs."""
        return {file for name in self.reads for file in NEEDS[name]}

    def choose(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that it takes, out of all.

        Raises:
            LeakpipeError: One is missing.
        """
        known = {**settings, "comparison": self.comparison}
        for name, required in self.takes.items():
            if required and known.get(name) is None:
                raise LeakpipeError(f"settings: figure {self.name!r} takes {name!r}, which is missing")
        return {name: known[name] for name in self.takes if name in known}

    def load_and_draw(self, files: Files, settings: Mapping[str, Any]) -> "Drawing":
        """Draw it from files; `settings` may hold those of other figures too."""
        chosen = self.choose(settings)
        return self.draw(**{name: files.load(name, figure=self.name) for name in self.reads}, **chosen)


_FIGURES: Registry[Figure] = Registry("figure")


def figure(name: str, *, heading: str, about: str) -> Callable[[Draw], Draw]:
    """Register the function that draws the figure `name`; see `Figure`."""

    def register(draw: Draw) -> Draw:
        styled = in_style(draw)
        parameters = inspect.signature(draw).parameters.values()
        reads = tuple(each.name for each in parameters if each.name in NEEDS)
        takes = {each.name: each.default is each.empty for each in parameters if each.name not in NEEDS}
        _FIGURES.add(name, Figure(name, heading, about, draw.__module__, styled, reads, takes))
        return styled

    return register


@cache
def all_figures() -> Mapping[str, Figure]:
    """Every figure by name, sorted; those of comparisons as one, `effect`."""
    package = Path(__file__).parent
    for module in iter_modules([str(package)]):
        import_module(f"{__package__}.{module.name}")
    return dict(sorted(_FIGURES.items()))


def list_figures(chosen: Sequence[str], comparisons: Mapping[str, Any]) -> list[str]:
    """Names of the figures to draw: as the parameters choose them, with one for each comparison in place of `effects`.

    Args:
        chosen: The `figures` section of the parameters.
        comparisons: The `comparisons` section, by name.
    """
    effects = [EFFECT + name for name in comparisons]
    return [name for entry in chosen for name in (effects if entry == "effects" else [entry])]


def find_figure(name: str, comparisons: Mapping[str, Any]) -> Figure:
    """A figure by the name that `list_figures` gives it; that of a comparison has its title as heading.

    Args:
        name: Name of the figure.
        comparisons: The `comparisons` section, by name, as plain mappings.

    Raises:
        LeakpipeError: There is no such figure.
    """
    figures, about = all_figures(), name.removeprefix(EFFECT)
    effect = EFFECT.removesuffix("-")
    if name != effect and name in figures:
        return figures[name]
    if name == about or about not in comparisons:
        known = ", ".join(
            [*(other for other in figures if other != effect), *(EFFECT + other for other in comparisons)]
        )
        raise LeakpipeError(f"unknown figure {name!r}; known: {known}")
    title, entry = str(comparisons[about]["title"]), figures[effect]
    return replace(entry, name=name, heading=title, about=f"{title}: {entry.about}", comparison=comparisons[about])
