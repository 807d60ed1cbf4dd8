"""A step as one function of flat tensors: draws, bound, gradient, update and what the trace records.

The functions here take the state (parameters, the optimizer's averages, masks, counters) as arguments and change it in
place, so that the operations of a step can be recorded once and repeated without Python. In eager mode Python takes
longer to start the operations of a small problem than the arithmetic takes.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vi_core.algorithms.base import Metrics, Step, recorded_parameters
from vi_core.execution.base import Rows, rehearse
from vi_core.training.batches import Batches
from vi_core.training.checkpoint import same_draws_after

Function = Callable[..., tuple[Tensor, ...]]


class FunctionalSteps(ABC):
    """An executor that makes `count` steps by one function of the state.

    Args:
        step: The algorithm.
        batches: Decodes stored batches, as a part of the step.
        count: n, steps in a call.
        every: Steps in a row of the trace: a divisor of n, or more than n.

    Raises:
        RuntimeError: Where the step cannot be repeated, or not on its device.

    Attributes:
        device_type: The only type of device that the executor works on; None for any.
    """

    device_type: str | None = None

    def __init__(self, step: Step, batches: Batches, count: int, every: int):
        self.count, self.every, self.shared = count, every, batches.full is not None
        self.device = step.alive.device
        if self.device_type not in (None, self.device.type):
            raise RuntimeError(f"they need device={self.device_type}, and this is {self.device.type}")
        self.body, self.example = _Recorded(step, batches), batches.example()
        self.state = self._tensors()
        self.inputs = [tensor.detach() for tensor in self.state.values()]
        self.leaves, self.structure = pytree.tree_flatten(self.example)
        self.names = list(rehearse(step, batches))
        for name, tensor in self._tensors().items():
            if tensor is not self.state[name]:
                raise RuntimeError(f"a step puts another tensor in the place of {name}")
        self.function = self._make()

    def __call__(self, batches: Sequence[Any]) -> Rows:
        with torch.no_grad():
            firsts = range(0, len(batches), self.count)
            found = [self.function(*self.inputs, *self._flat(batches[i : i + self.count])) for i in firsts]
            metrics, *parameters = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
        return Rows(self.names, metrics, parameters[0] if parameters else metrics.new_empty(0))

    def _flat(self, batches: Sequence[Any]) -> list[Tensor]:
        return self.leaves if self.shared else pytree.tree_leaves([*batches])

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self.body.named_parameters()), **dict(self.body.named_buffers())}

    @abstractmethod
    def _make(self) -> Function:
        """Return a function of the state and of n flat batches, or of one batch where all steps see the same.

        The function returns the metrics (n, M, R) and, where rows are complete, the parameters (rows, R, P + 1).
        """

    def _example_batches(self) -> list[Tensor]:
        """Return flat batches as arguments after the state; copies, since a tracer takes one tensor for one input."""
        examples = [pytree.tree_map(torch.clone, self.example) for _ in range(1 if self.shared else self.count)]
        return pytree.tree_leaves(examples)

    def _one_step(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Make a step on a flat state, in place, and a flat batch; return metrics (M, R) and parameters (R, P + 1)."""
        moving = {name for name, _ in self.body.named_parameters()}
        state = {
            name: tensor.detach().requires_grad_() if name in moving else tensor
            for name, tensor in zip(self.state, inputs[: len(self.state)], strict=True)
        }
        x = pytree.tree_unflatten(list(inputs[len(self.state) :]), self.structure)
        # A module that two parts share is put back once: functional_call would put what was traced in place of its own.
        metrics, parameters = torch.func.functional_call(self.body, state, (x,), tie_weights=False)
        return torch.stack([value.detach() for value in metrics.values()]), parameters.detach()

    def _eager_result(self, state: Sequence[Tensor], batch: Sequence[Tensor]) -> list[Tensor]:
        """Return results and new state of an eager step from `state`, which stays as it is, as the streams do."""
        copy = [tensor.clone() for tensor in state]
        with same_draws_after(self.device):
            return [*self._one_step(*copy, *batch), *copy]


class _Recorded(nn.Module):
    """A step, and what the trace records after it."""

    def __init__(self, step: Step, batches: Batches):
        super().__init__()
        self.step, self.decode = step, batches.decode

    def forward(self, stored: Any) -> tuple[Metrics, Tensor]:
        return self.step(self.decode(stored)), recorded_parameters(self.step)


def repeated(step: Graph, width: int, count: int, every: int, shared: bool) -> Graph:
    """Return the graph of `count` steps out of the graph of one, whose first `width` inputs are the state."""
    inputs = [node for node in step.nodes if node.op == "placeholder"]
    graph = Graph()
    state = [graph.placeholder(f"state_{index}") for index in range(width)]
    batches = [
        [graph.placeholder(f"batch_{index}_{leaf}") for leaf in range(len(inputs) - width)]
        for index in range(1 if shared else count)
    ]
    seen: list[Any] = [
        graph.graph_copy(step, dict(zip(inputs, state + batches[0 if shared else index], strict=True)))
        for index in range(count)
    ]
    metrics = graph.call_function(torch.ops.aten.stack.default, ([metrics for metrics, _ in seen],))
    closing = [parameters for _, parameters in seen[every - 1 :: every]]
    rows = [graph.call_function(torch.ops.aten.stack.default, (closing,))] if closing else []
    graph.output((metrics, *rows))
    return graph


class Watching(TorchDispatchMode):
    """Mode that sees every tensor operation, forward and backward, and refuses those whose result Python looks at."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation would import a compiler, which takes longer than a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags or has_open_shape(func, args):
            raise RuntimeError(f"{func} looks at a value{_cause()}")
        return func(*args, **(kwargs or {}))


def _cause() -> str:
    """Return the likely cause of a look at a value: checks of `torch.distributions`, if one of its laws is at work."""
    frame, inside = sys._getframe(2), False
    while frame is not None and not inside:
        inside = frame.f_globals.get("__name__") == "torch.distributions.distribution"
        frame = frame.f_back
    return ", as laws of torch.distributions do to check it: give them validate_args=False" if inside else ""


def has_open_shape(func: Any, args: Any) -> bool:
    """Whether the shape of a result depends on values: so it does for a mask as an index, not for numbers."""
    if func is torch.ops.aten.index.Tensor:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags
