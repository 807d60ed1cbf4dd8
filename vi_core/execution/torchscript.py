"""A graph of tensor operations as a function of TorchScript, whose interpreter runs it without Python.

TorchScript is deprecated. Nothing else of the program uses it; where a newer torch lacks a name in `NEEDED`, runs go on
with eager steps.
"""

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from vi_core.execution.functional import Function

NEEDED = ("Graph", "ListType", "TensorType", "TupleType", "_create_function_from_graph")  # of torch._C
FORMATS = [torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d]  # as numbered
WIDE = (
    torch.float32,
    torch.float64,
)  # a number beside a tensor takes these types; in narrower ones it is rounded later


def require_torchscript() -> None:
    """Raise `RuntimeError` naming the first interface that this torch lacks."""
    for name in NEEDED:
        if not hasattr(torch._C, name):
            raise RuntimeError(f"torch {torch.__version__} has no torch._C.{name}; the replay needs it")


def interpreted(graph: Graph, constants: nn.Module) -> Function:
    """Return a graph of tensor operations as a TorchScript function, which changes what the operations change.

    Args:
        graph: As `record` in `replay` makes it, with the types and the number of results in the nodes' `meta`.
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
            if str(argument.type) == "Tensor" and isinstance(given, (int, float)) and node.meta["dtype"] in WIDE:
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
