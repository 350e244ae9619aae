"""The choice of the engine that runs an attack."""

from collections.abc import Callable

from leakpipe.attacks.engines.autograd import Autograd
from leakpipe.attacks.engines.double_backward.engine import DoubleBackward
from leakpipe.attacks.engines.engine import Engine, UnfitError
from leakpipe.attacks.engines.released_tool import ReleasedTool, find_deviations
from leakpipe.attacks.problem import Problem
from leakpipe.registry import Registry

ENGINES: Registry[Callable[[Problem], Engine]] = Registry("engine")
ENGINES.add("double-backward", DoubleBackward)
ENGINES.add("autograd", Autograd)
ENGINES.add("released-tool", ReleasedTool)


def choose_engine(problem: Problem) -> tuple[Engine, list[str]]:
    """The engine that the settings ask for, or else autograd and a note that says why.

    An attack that compares no updates has nothing for the double backward to do, and gets no note.
    """
    wanted = problem.settings.engine
    other = "released-tool" if find_deviations(problem.settings) else "autograd"
    if wanted == "autograd" or not problem.explains:
        return ENGINES[other](problem), []
    try:
        return ENGINES[wanted](problem), []
    except UnfitError as reason:
        note = f"Autograd differentiated the simulated training in place of the double backward: {reason}."
        return ENGINES[other](problem), [note]
