"""A function of tensors as a graph of torch's operations, seen while it runs once."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

ATEN = torch.ops.aten
INDEXING = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)


class RecordingError(Exception):
    """A function does what a graph cannot hold; the message says what."""


class Recorded:
    """What a function of tensors computed, as a graph that computes it of others of the same shapes.

    Gradients that the function takes inside are part of the graph. What does not depend on the arguments was computed
    while recording; the graph reads it as inputs, so that functions that differ only there have the same graph.

    Args:
        function: Of tensors, or nested dictionaries, lists and tuples of them, to the same. It must do the same
            whatever the values: no branch and no number may depend on them.
        arguments: What it runs on while it is recorded.

    Attributes:
        graph: Takes the tensors of the arguments, then `constants`, and returns a list of tensors.
        inputs: Tensors of the arguments.
        constants: What else it reads.

    Raises:
        RecordingError: The function reads a value, draws random numbers, or lets a shape depend on values.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        inputs = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        recorder = _Recorder(inputs)
        with recorder:
            results = function(*arguments)
        outputs, self._structure = tree_flatten(results)
        recorder.graph.output([recorder.node(value) for value in outputs])
        self.graph = fx.GraphModule(torch.nn.Module(), recorder.graph)
        self.inputs, self.constants = inputs, recorder.constants

    def runner(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """The recorded function, by a callable that does what `graph` does."""
        constants, structure = self.constants, self._structure

        def run(*arguments: Any) -> Any:
            inputs = [leaf.detach() for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
            with torch.no_grad():
                return tree_unflatten(list(compiled(*inputs, *constants)), structure)

        return run


class _Recorder(TorchDispatchMode):
    """Notes every operation on a tensor that depends on the inputs.

    Attributes:
        graph: What was noted.
        constants: Tensors that it reads and that do not depend on the inputs.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.constants = fx.Graph(), list[Tensor]()
        self._nodes: dict[int, fx.Node] = {}
        self._constant_nodes: dict[int, fx.Node] = {}
        self._written: set[int] = set()
        self._kept: list[Tensor] = []  # a tensor's id and place are its own only while it lives
        self._last_placeholder: fx.Node | None = None
        for value in inputs:
            self._follow(value, self._placeholder())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise RecordingError(f"it draws random numbers ({func})")
        if not any(id(leaf) in self._nodes for leaf in tree_leaves((args, kwargs))):
            return self._run_apart(func, args, kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            raise RecordingError(f"it reads a value ({func})")
        if func in INDEXING:
            args = (args[0], [number for index in args[1] for number in self._numbers(index)], *args[2:])
        elif torch.Tag.dynamic_output_shape in func.tags:
            raise RecordingError(f"a shape depends on values ({func})")
        for place, argument in enumerate(func._schema.arguments):
            if argument.is_write and place < len(args):
                self._make_writable(args[place])
        nodes, named = tree_map(self._argument, args), tree_map(self._argument, kwargs)
        node = self.graph.call_function(func, tuple(nodes), named)
        results = func(*args, **kwargs)
        if isinstance(results, Tensor):
            self._follow(results, node)
        elif isinstance(results, (tuple, list)):
            for place, value in enumerate(results):
                if isinstance(value, Tensor):
                    self._follow(value, self.graph.call_function(operator.getitem, (node, place)))
        return results

    def node(self, value: Tensor) -> fx.Node:
        """What holds the tensor in the graph."""
        if id(value) in self._nodes:
            return self._nodes[id(value)]
        if value.untyped_storage().data_ptr() in self._written:
            raise RecordingError("it reads another view of a tensor that it wrote to")
        if id(value) not in self._constant_nodes:
            self._kept.append(value)
            self.constants.append(value.detach())
            self._constant_nodes[id(value)] = self._placeholder()
        return self._constant_nodes[id(value)]

    def _run_apart(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that does not depend on the inputs."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in self._written:
                raise RecordingError("it reads another view of a tensor that it wrote to")
        return func(*args, **kwargs)

    def _make_writable(self, value: Any) -> None:
        """A constant that is written to depends on the inputs from then on; the graph writes to a copy."""
        if isinstance(value, Tensor) and id(value) not in self._nodes:
            self._written.add(value.untyped_storage().data_ptr())
            self._kept.append(value)
            self.constants.append(value.detach().clone())
            self._nodes[id(value)] = self.graph.call_function(ATEN.clone.default, (self._placeholder(),))

    def _numbers(self, index: Tensor | None) -> Sequence[Tensor | None]:
        """A mask as the numbers of the places that it chooses, of which a graph must know how many there are."""
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            return (index,)
        if id(index) in self._nodes:
            raise RecordingError("a mask that values are chosen by depends on values")
        return index.nonzero(as_tuple=True)

    def _argument(self, value: Any) -> Any:
        return self.node(value) if isinstance(value, Tensor) else value

    def _follow(self, value: Tensor, node: fx.Node) -> None:
        self._kept.append(value)
        self._nodes[id(value)] = node

    def _placeholder(self) -> fx.Node:
        """One more input, after those that there are."""
        before = self._last_placeholder
        place = self.graph.inserting_after(before) if before else self.graph.inserting_before()
        with place:
            self._last_placeholder = self.graph.placeholder(f"input_{len(self.graph.nodes)}")
        return self._last_placeholder
