"""An attack's step compiled by torch.compile's inductor, for attacks of thousands of steps.

Importing this costs nothing; torch's compiler is imported where something is compiled (it takes seconds).
"""

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from leakpipe.attacks.recording import Recorded, RecordingError
from leakpipe.errors import LeakpipeError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
INSTEAD = "set compile: false"


class Compiled(Generic[Arguments, Result]):
    """A function of tensors that is compiled when it is first called, for each shape of its arguments.

    Results agree with the function's own up to rounding. Called again, or in another process, it gives the same bytes.

    Args:
        function: As `leakpipe.attacks.recording.Recorded` takes it, with arguments by position.
        backend: `backend(graph, tensors)` makes a callable of a graph and what it will be called with.
    """

    def __init__(
        self,
        function: Callable[Arguments, Result],
        *,
        backend: Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., list[Tensor]]] | None = None,
    ) -> None:
        self.function, self.backend = function, backend or compile_graph
        self._programs: dict[str, Callable[Arguments, Result]] = {}

    def __call__(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        """The function's result.

        Raises:
            LeakpipeError: It cannot be compiled, or nothing can be on this machine.
        """
        assert not named
        leaves, structure = tree_flatten(arguments)
        shapes = f"{structure} {[(leaf.shape, leaf.dtype) for leaf in leaves if isinstance(leaf, Tensor)]}"
        if shapes not in self._programs:
            self._programs[shapes] = self._compile(*arguments)
        return self._programs[shapes](*arguments)

    def _compile(self, *arguments: Arguments.args) -> Callable[Arguments, Result]:
        try:
            recorded = Recorded(self.function, *arguments)
        except RecordingError as error:
            raise LeakpipeError(f"compile: true, but the attack's step cannot be compiled: {error}; {INSTEAD}") from error
        with torch.no_grad():
            return recorded.runner(self.backend(recorded.graph, [*recorded.inputs, *recorded.constants]))


def compile_graph(graph: torch.fx.GraphModule, tensors: list[Tensor]) -> Callable[..., list[Tensor]]:
    """A graph as a program for the machine that the tensors are on, which keeps to torch's number of threads.

    torch keeps what it compiled on disk (`TORCHINDUCTOR_CACHE_DIR`), for any tensors of the same shapes.

    Raises:
        LeakpipeError: There is no C++ compiler, or torch cannot compile the graph.
    """
    import torch._inductor
    from torch._inductor.exc import InvalidCxxCompiler

    options = {"cpp.threads": torch.get_num_threads()}
    try:
        compiled = torch._inductor.compile(graph, tensors, options=options)
    except InvalidCxxCompiler as error:
        raise LeakpipeError(f"compile: true, expected a C++ compiler and found none; install g++ or {INSTEAD}") from error
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise LeakpipeError(f"compile: true, but torch.compile failed ({first}); {INSTEAD}") from error
    return compiled  # type: ignore[return-value]
