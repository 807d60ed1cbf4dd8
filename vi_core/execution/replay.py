"""Replayed steps: the tensor operations of a step as a list, which torch's interpreter goes through without Python.

The operations of one step, forward, backward and update, are recorded while they are done, and written down n times for
the interpreter, less those that would compute the same again. They have the random numbers and the results of eager
steps. An operation whose result Python looks at is refused, and a second step, from another state, is compared with an
eager one bit for bit, so that a step that depends on more than its tensors is found.

The interpreter is TorchScript's, which is deprecated. Nothing else of the program uses it; where a newer torch lacks a
name in `NEEDED`, runs go on with eager steps.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from vi_core.execution.functional import Function, FunctionalSteps, Watching, repeated
from vi_core.execution.subexpressions import eliminate_common
from vi_core.training.checkpoint import same_draws_after

SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}  # operations that return what they are given
NEEDED = ("Graph", "ListType", "TensorType", "TupleType", "_create_function_from_graph")  # of torch._C
FORMATS = [torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d]  # as numbered
WIDE = (torch.float32, torch.float64)  # a number beside a tensor takes these; in narrower types it is rounded later


class ReplayedSteps(FunctionalSteps):
    """Several steps in a call, as a list of their operations; the same numbers as eager steps, on a processor."""

    device_type = "cpu"

    def _make(self) -> Function:
        require_torchscript()
        state = [tensor.clone() for tensor in self.inputs]
        with same_draws_after(self.device):
            step, constants = record(self._one_step, [*state, *self.leaves])
            expected = self._eager_result(state, self.leaves)
            found = interpreted(step, constants)(*state, *self.leaves)
        if not all(map(same, [*found, *state], expected)):
            raise RuntimeError("a step depends on more than its tensors")
        steps = repeated(step, len(state), self.count, self.every, self.shared)
        return interpreted(eliminate_common(steps), constants)


def same(new: Tensor, old: Tensor) -> bool:
    """Whether two tensors agree to the last bit, NaN with NaN."""
    return torch.equal(new.isnan(), old.isnan()) and torch.equal(new.nan_to_num(), old.nan_to_num())


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> tuple[Graph, nn.Module]:
    """Call `function` on `inputs`; return a graph of its tensor operations, and a module that holds their constants.

    Raises:
        RuntimeError: Where Python looks at a value.
    """
    with _Notes(inputs) as notes:
        results = function(*inputs)
    notes.graph.output(tuple(notes.node(result) for result in results))
    notes.graph.eliminate_dead_code()
    return notes.graph, notes.constants


class _Notes(Watching):
    """Does operations, and notes them in a graph."""

    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.graph, self.constants = Graph(), nn.Module()
        self.nodes: Any = WeakTensorKeyDictionary()
        for index, tensor in enumerate(inputs):
            self.nodes[tensor] = self.graph.placeholder(f"input_{index}")

    def node(self, tensor: Tensor) -> Node:
        """Return the node of a tensor; a tensor that is neither an input nor a result is a constant."""
        if tensor not in self.nodes:
            name = f"constant_{len(list(self.constants.buffers()))}"
            self.constants.register_buffer(name, tensor)
            self.nodes[tensor] = self.graph.get_attr(name)
        return self.nodes[tensor]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func in SAME:
            self.nodes[result] = self.node(args[0])
            return result
        noted_args, noted_kwargs = pytree.tree_map_only(Tensor, self.node, (args, kwargs or {}))
        done = self.graph.call_function(func, tuple(noted_args), noted_kwargs)
        done.meta["dtype"] = next((part.dtype for part in args if isinstance(part, Tensor)), None)
        if isinstance(result, Tensor):
            self.nodes[result] = done
            return result
        parts = result or ()
        done.meta["parts"] = len(parts)
        for index, part in enumerate(parts):
            if part is not None:
                self.nodes[part] = self.graph.call_function(operator.getitem, (done, index))
        return result


def require_torchscript() -> None:
    """Raise `RuntimeError` naming the first interface that this torch lacks."""
    for name in NEEDED:
        if not hasattr(torch._C, name):
            raise RuntimeError(f"torch {torch.__version__} has no torch._C.{name}; the replay needs it")


def interpreted(graph: Graph, constants: nn.Module) -> Function:
    """Return a graph of tensor operations as a TorchScript function, which changes what the operations change.

    Args:
        graph: As `record` makes it, with the types and the number of results in the nodes' `meta`.
        constants: Holds the tensors that the graph's `get_attr` nodes name.
    """
    script = _Script(constants)
    for node in graph.nodes:
        script.add(node)
    function: Any = torch._C._create_function_from_graph("steps", script.graph)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        # Without TorchScript's optimizer: it would watch two calls, fuse nothing, and drop what only changes a list.
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            return function(*tensors)

    return run


class _Script:
    """A TorchScript graph that is written node by node."""

    def __init__(self, constants: nn.Module):
        self.graph: Any = torch._C.Graph()
        self.constants, self.values = constants, dict[Any, Any]()

    def add(self, node: Node) -> None:
        """Write the TorchScript value, or the list of values, of a node."""
        if node.op == "placeholder":
            self.values[node] = self.graph.addInput(node.name)
        elif node.op == "get_attr":
            self.values[node] = self.graph.insertConstant(self.constants.get_buffer(str(node.target)))
        elif node.op == "output":
            (whole,) = self._insert("prim::TupleConstruct", [self.values[part] for part in node.args[0]], 1)  # type: ignore
            whole.setType(torch._C.TupleType([torch._C.TensorType.get() for _ in whole.node().inputs()]))
            self.graph.registerOutput(whole)
        elif node.target is operator.getitem:
            self.values[node] = self.values[node.args[0]][node.args[1]]
        else:
            self.values[node] = self._call(node, node.target)

    def _call(self, node: Node, target: Any) -> Any:
        """Write an operation and return its result, or a list of its results."""
        schema, inputs = target._schema, []
        for index, argument in enumerate(schema.arguments):
            positional = index < len(node.args)
            given: Any = node.args[index] if positional else node.kwargs.get(argument.name, argument.default_value)
            number = str(argument.type) == "Tensor" and isinstance(given, (int, float))
            if number and (node.meta["dtype"] in WIDE or index == 0):  # TorchScript has no operations on a number alone
                given = torch.tensor(given, dtype=node.meta["dtype"])
            inputs.append(self._value(given, argument.type))
        results = self._insert(schema.name, inputs, len(schema.returns))
        if [str(value.type) for value in schema.returns] == ["List[Tensor]"]:
            results[0].setType(torch._C.ListType.ofTensors())
            results = self._insert("prim::ListUnpack", results, node.meta["parts"])
        return results if "parts" in node.meta else results[0]

    def _value(self, given: Any, kind: Any) -> Any:
        """Return the value for an argument of type `kind`."""
        if isinstance(given, Node):
            return self.values[given]
        if isinstance(given, (list, tuple)) and (not given or "Tensor" in str(kind)):
            (whole,) = self._insert("prim::ListConstruct", [self._value(part, None) for part in given], 1)
            whole.setType(kind if "Tensor" in str(kind) else torch._C.ListType.ofInts())
            return whole
        if isinstance(given, torch.memory_format):
            given = FORMATS.index(given)
        if isinstance(given, int) and str(kind) in ("float", "Optional[float]"):
            given = float(given)
        return self.graph.insertConstant(list(given) if isinstance(given, tuple) else given)

    def _insert(self, name: str, inputs: list[Any], outputs: int) -> list[Any]:
        return list(self.graph.insertNode(self.graph.create(name, inputs, outputs)).outputs())
