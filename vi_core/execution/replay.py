"""Replayed steps: the tensor operations of a step as a list, which torch's interpreter goes through without Python.

The operations of one step, forward, backward and update, are recorded while they are done, and written down n times for
the interpreter. They are those of the eager step one by one, with the same random numbers and the same results. An
operation whose result Python looks at is refused, and a second step, from another state, is compared with an eager one
bit for bit, so that a step that depends on more than its tensors is found.
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
from vi_core.execution.recording import recording
from vi_core.execution.torchscript import interpreted, require_torchscript
from vi_core.training.checkpoint import same_draws_after

SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}  # operations that return what they are given


class ReplayedSteps(FunctionalSteps):
    """Several steps in a call, as a list of their operations; the same numbers as eager steps, on a processor."""

    device_type = "cpu"

    def _make(self) -> Function:
        require_torchscript()
        state = [tensor.clone() for tensor in self.inputs]
        with recording(), same_draws_after(self.device):
            step, constants = record(self._one_step, [*state, *self.leaves])
            expected = self._eager_result(state, self.leaves)
            found = interpreted(step, constants)(*state, *self.leaves)
        if not all(map(same, [*found, *state], expected)):
            raise RuntimeError("a step depends on more than its tensors")
        return interpreted(repeated(step, len(state), self.count, self.every, self.shared), constants)


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
