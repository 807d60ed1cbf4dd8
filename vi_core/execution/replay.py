"""Several steps as a list of tensor operations that torch's interpreter goes through: no Python, and no compiler.

The operations of one step, forward, backward and update, are noted while they are done, and written down n times for
the interpreter of TorchScript. They are those of the eager step one by one, with the same random numbers and the same
results. What a step does that depends on values would be noted as it was once: such steps are refused, and a second
step, from another state, has to be what it is in eager mode.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from vi_core.execution.base import Function, SeveralSteps, Watching, repeated, same_draws_after
from vi_core.execution.recording import recording

SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}
"""Operations that return what they are given."""
FORMATS = [torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d]
"""Memory formats by the numbers that they have in TorchScript."""


class ReplayedSteps(SeveralSteps):
    """Steps repeated from a list."""

    def _make(self) -> Function:
        if self.device.type != "cpu":
            raise RuntimeError(f"{self.device} does not replay; use trainer.compile=chunk")
        state, batch = [tensor.clone() for tensor in self.inputs], pytree.tree_leaves(self.example)
        with recording(), same_draws_after(self.device):
            step, constants = record(self._one_step, [*state, *batch])
            self._verify(interpreted(step, constants), state, batch)
        return interpreted(repeated(step, len(state), self.count, self.every, self.shared), constants)

    def _verify(self, step: Function, state: Sequence[Tensor], batch: Sequence[Tensor]) -> None:
        """Raise if a further step, which changes `state`, is not what it is in eager mode."""
        copy = [tensor.clone() for tensor in state]
        with same_draws_after(self.device):
            expected = self._one_step(*copy, *batch)
        found = step(*state, *batch)
        if not all(map(same, [*found, *state], [*expected, *copy])):
            raise RuntimeError("a step depends on more than its tensors")


def same(new: Tensor, old: Tensor) -> bool:
    """Whether two tensors agree to the last bit, NaN with NaN."""
    return torch.equal(new.isnan(), old.isnan()) and torch.equal(new.nan_to_num(), old.nan_to_num())


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> tuple[Graph, nn.Module]:
    """Call `function` on `inputs`; return the tensor operations that it did as a graph, and what holds its constants.

    Raises:
        RuntimeError: Where it looks at a value.
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
        """Return what stands for a tensor: one that is neither put in nor made on the way is a constant."""
        if tensor not in self.nodes:
            name = f"constant_{len(list(self.constants.buffers()))}"
            self.constants.register_buffer(name, tensor)
            self.nodes[tensor] = self.graph.get_attr(name)
        return self.nodes[tensor]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags or has_open_shape(func, args):
            raise RuntimeError(f"{func} looks at a value")
        result = func(*args, **(kwargs or {}))
        if func in SAME:
            self.nodes[result] = self.node(args[0])
            return result
        noted_args, noted_kwargs = pytree.tree_map_only(Tensor, self.node, (args, kwargs or {}))
        done = self.graph.call_function(func, tuple(noted_args), noted_kwargs)
        done.meta["dtype"] = next((part.dtype for part in args if isinstance(part, Tensor)), None)
        if isinstance(result, Tensor):
            self.nodes[result] = done
        else:
            parts = result or ()
            done.meta["parts"] = len(parts)
            for index, part in enumerate(parts):
                if part is not None:
                    self.nodes[part] = self.graph.call_function(operator.getitem, (done, index))
        return result


def has_open_shape(func: Any, args: Any) -> bool:
    """Whether the shape of a result depends on values: so it does for a mask as an index, not for numbers."""
    if func is torch.ops.aten.index.Tensor:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def is_real(dtype: torch.dtype | None) -> bool:
    """Whether a number beside a tensor of this type takes its type: in narrower ones it is rounded later."""
    return dtype in (torch.float32, torch.float64)


def interpreted(graph: Graph, constants: nn.Module) -> Function:
    """Return a graph of tensor operations as a TorchScript function, which changes what the operations change."""
    script = _Script()
    for node in graph.nodes:
        script.add(node, constants)
    function: Any = torch._C._create_function_from_graph("steps", script.graph)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        # Without TorchScript's optimizer: it would watch two calls, fuse nothing, and drop what only changes a list.
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            return function(*tensors)

    return run


class _Script:
    """A TorchScript graph that is written node by node."""

    def __init__(self) -> None:
        self.graph: Any = torch._C.Graph()
        self.values: dict[Node, Any] = {}
        self.constants: dict[tuple[type, str], Any] = {}

    def add(self, node: Node, constants: nn.Module) -> None:
        """Write what stands for a node."""
        if node.op == "placeholder":
            self.values[node] = self.graph.addInput(node.name)
        elif node.op == "get_attr":
            self.values[node] = self.graph.insertConstant(constants.get_buffer(str(node.target)))
        elif node.op == "output":
            results: Any = node.args[0]
            whole = self._new("prim::TupleConstruct", [self.values[part] for part in results])
            whole.setType(torch._C.TupleType([torch._C.TensorType.get() for _ in results]))
            self.graph.registerOutput(whole)
        elif node.target is operator.getitem:
            parts, index = node.args
            self.values[node] = self.values[cast(Node, parts)][index]
        else:
            self._call(node)

    def _call(self, node: Node) -> None:
        target: Any = node.target
        schema = target._schema
        inputs = []
        for index, argument in enumerate(schema.arguments):
            positional = index < len(node.args)
            given = node.args[index] if positional else node.kwargs.get(argument.name, argument.default_value)
            if str(argument.type) == "Tensor" and isinstance(given, (int, float)) and is_real(node.meta["dtype"]):
                given = torch.tensor(given, dtype=node.meta["dtype"])
            inputs.append(self._value(given, argument.type))
        returned = [str(value.type) for value in schema.returns]
        if returned == ["List[Tensor]"]:
            whole = self._new(schema.name, inputs)
            whole.setType(torch._C.ListType.ofTensors())
            self.values[node] = self._insert("prim::ListUnpack", [whole], node.meta["parts"])
        elif len(returned) == 1:
            self.values[node] = self._new(schema.name, inputs)
        else:
            self.values[node] = self._insert(schema.name, inputs, len(returned))

    def _value(self, given: Any, kind: Any) -> Any:
        """Return the value for an argument of type `kind`."""
        if isinstance(given, Node):
            return self.values[given]
        if isinstance(given, (list, tuple)) and "Tensor" in str(kind):
            whole = self._new("prim::ListConstruct", [self._value(part, None) for part in given])
            whole.setType(kind)
            return whole
        if isinstance(given, (list, tuple)) and not given:
            whole = self._new("prim::ListConstruct", [])
            whole.setType(torch._C.ListType.ofInts())
            return whole
        if isinstance(given, (list, tuple)):
            return self.graph.insertConstant(list(given))
        if isinstance(given, torch.memory_format):
            given = FORMATS.index(given)
        if isinstance(given, int) and str(kind) in ("float", "Optional[float]"):
            given = float(given)
        if isinstance(given, Tensor):
            return self.graph.insertConstant(given)
        key = type(given), repr(given)  # 0.0 and -0.0 are two
        if key not in self.constants:
            self.constants[key] = self.graph.insertConstant(given)
        return self.constants[key]

    def _new(self, name: str, inputs: list[Any]) -> Any:
        return self._insert(name, inputs, 1)[0]

    def _insert(self, name: str, inputs: list[Any], outputs: int) -> list[Any]:
        return list(self.graph.insertNode(self.graph.create(name, inputs, outputs)).outputs())
