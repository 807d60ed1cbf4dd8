"""Several steps in one call, as one function of the state: draws, bound, gradient, update and what the trace records.

The state goes in and is changed in place: parameters, the optimizer's averages, masks, counters. Nothing is asked of
Python in between, which in eager mode takes longer than the arithmetic of a small problem.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vi_core.algorithms.base import Metrics, Step, recorded_parameters
from vi_core.training.batches import Batches
from vi_core.training.checkpoint import random_state, restore_random_state

Function = Callable[..., tuple[Tensor, ...]]


class Rows(NamedTuple):
    """What steps leave for the trace."""

    names: list[str]
    """Of the metrics."""
    metrics: Tensor
    """(steps, M, R) before each update."""
    parameters: Tensor
    """(rows, R, P + 1) after the last update of each row, the gradient's norm last; no rows where they are longer."""


class SeveralSteps(ABC):
    """`count` steps of `step` in one call.

    Args:
        step: The algorithm.
        batches: Decodes what is stored, as a part of the step.
        count: n, steps in a call.
        every: Steps in a row of the trace: a divisor of n, or more than n.
    """

    was_stored = False
    """Whether the function was read from a file."""

    def __init__(self, step: Step, batches: Batches, count: int, every: int):
        self.count, self.every, self.shared = count, every, batches.full is not None
        self.device = step.alive.device
        self.body, self.example = _Recorded(step, batches), batches.example()
        self.state = self._tensors()
        self.inputs = [tensor.detach() for tensor in self.state.values()]
        leaves, self.structure = pytree.tree_flatten(self.example)
        self.leaves = len(leaves)
        self.names = list(rehearse(step, batches))
        for name, tensor in self._tensors().items():
            if tensor is not self.state[name]:
                raise RuntimeError(f"a step puts another tensor in the place of {name}")
        self.function = self._make()
        if self.shared:
            self.inputs += leaves

    def __call__(self, batches: Sequence[Any]) -> Rows:
        """Make the steps on stored batches, some multiple of n, and return what the trace records of them."""
        calls = range(0, len(batches), self.count)
        with torch.no_grad():
            if self.shared:
                found = [self.function(*self.inputs) for _ in calls]
            else:
                parts = ([*batches[first : first + self.count]] for first in calls)
                found = [self.function(*self.inputs, *pytree.tree_leaves(part)) for part in parts]
            metrics, *parameters = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
        return Rows(self.names, metrics, parameters[0] if parameters else metrics.new_empty(0))

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self.body.named_parameters()), **dict(self.body.named_buffers())}

    @abstractmethod
    def _make(self) -> Function:
        """Return a function of the state and n flat batches, one where all steps see the same.

        It returns the metrics (n, M, R), and the parameters (rows, R, P + 1) where there are whole rows.
        """

    def example_batches(self) -> list[Tensor]:
        """Return what follows the state; no tensor twice, which would be one input for whoever traces a function."""
        examples = [pytree.tree_map(torch.clone, self.example) for _ in range(1 if self.shared else self.count)]
        return pytree.tree_leaves(examples)

    def _one_step(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """A step as a function of flat tensors, which it changes: the metrics (M, R), and what is recorded after it."""
        moving = {name for name, _ in self.body.named_parameters()}
        state = {
            name: tensor.detach().requires_grad_() if name in moving else tensor
            for name, tensor in zip(self.state, inputs[: len(self.state)], strict=True)
        }
        x = pytree.tree_unflatten(list(inputs[len(self.state) :]), self.structure)
        # A module that two parts share is put back once: functional_call would put what was traced in place of its own.
        metrics, parameters = torch.func.functional_call(self.body, state, (x,), tie_weights=False)
        return torch.stack([value.detach() for value in metrics.values()]), parameters.detach()


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


@contextmanager
def same_draws_after(device: torch.device) -> Iterator[None]:
    """Take back the random numbers that are drawn inside."""
    random = random_state(device)
    try:
        yield
    finally:
        restore_random_state(random, device)


def rehearse(step: Step, batches: Batches) -> Metrics:
    """Make one step and take it back, random numbers too; what the program keeps for later steps is then in place."""
    state = {name: value.clone() for name, value in step.state_dict().items()}
    with same_draws_after(step.alive.device):
        try:
            return step(batches.decode(batches.example()))
        finally:
            step.load_state_dict(state)


class Watching(TorchDispatchMode):
    """Sees every tensor operation, forward and backward, before it is done."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation would import a compiler, which takes longer than a second


def count_operations(step: Step, batches: Batches) -> int:
    """Return the number of tensor operations in one step, forward and backward, by making it and taking it back."""

    class Counter(Watching):
        calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        rehearse(step, batches)
    return counter.calls
