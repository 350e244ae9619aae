"""An attack's step compiled by torch.compile's backend, for attacks of thousands of steps.

Importing this is cheap: torch's compiler, which takes seconds, is imported where something is compiled.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten

from leakpipe.attacks.recording import Recorded, RecordingError
from leakpipe.errors import LeakpipeError

Result = TypeVar("Result")
INSTEAD = "set compile: false"


class Compiled(Generic[Result]):
    """A function of tensors that is compiled when it is first called, for each shape of its arguments.

    Results agree with the function's own up to rounding. Another call, or another process, gives the same bytes.

    Args:
        function: As `leakpipe.attacks.recording.Recorded` takes it.
    """

    def __init__(self, function: Callable[..., Result]) -> None:
        self.function = function
        self._programs: dict[str, Callable[..., Result]] = {}

    def __call__(self, *arguments: Any) -> Result:
        """The function's result.

        Raises:
            LeakpipeError: It cannot be compiled, or nothing can be on this machine.
        """
        leaves, structure = tree_flatten(arguments)
        shapes = f"{structure} {[(leaf.shape, leaf.dtype) for leaf in leaves if isinstance(leaf, Tensor)]}"
        if shapes not in self._programs:
            self._programs[shapes] = self._compile(*arguments)
        return self._programs[shapes](*arguments)

    def _compile(self, *arguments: Any) -> Callable[..., Result]:
        try:
            recorded = Recorded(self.function, *arguments)
        except RecordingError as error:
            said = f"compile: true, but the attack's step is not one fixed list of operations: {error}; {INSTEAD}"
            raise LeakpipeError(said) from error
        return recorded.runner(compile_graph(recorded.graph, [*recorded.inputs, *recorded.constants]))


def compile_graph(graph: fx.GraphModule, tensors: list[Tensor]) -> Callable[..., list[Tensor]]:
    """A graph as a program that computes the same, on as many threads as torch is set to.

    torch keeps programs on disk (`TORCHINDUCTOR_CACHE_DIR`) and finds them again for other values of the same shapes.

    Args:
        graph: Takes `tensors`, returns a list of tensors.
        tensors: What it is compiled for the shapes and memory formats of.

    Raises:
        LeakpipeError: There is no C++ compiler, or torch cannot compile the graph.
    """
    from torch import _inductor
    from torch._inductor.exc import InvalidCxxCompiler

    threads = {"cpp.threads": torch.get_num_threads(), "compile_threads": torch.get_num_threads()}
    try:
        with torch.no_grad():
            # As specialised to the tensors, without which torch would not look for it on disk.
            return _inductor.standalone_compile(
                graph, [*tensors], dynamic_shapes="from_example_inputs", options={"config_patches": threads}
            )
    except Exception as error:  # whatever goes wrong in a compiler, the attack can do without
        cause = getattr(error, "inner_exception", error)
        if isinstance(cause, InvalidCxxCompiler):
            said = f"compile: true, expected a C++ compiler and found none; install g++, or {INSTEAD}"
        else:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            said = f"compile: true, but torch.compile failed ({first}); {INSTEAD}"
        raise LeakpipeError(said) from error
