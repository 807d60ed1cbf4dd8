"""CUDA graphs: one step as a graph of kernels, which the device starts by itself.

`torch.cuda.graph` records the kernels that a step starts, with the addresses of their arguments, and a replay starts
them again. The state lives at these addresses and is changed in place; a minibatch is copied to where the recorded step
reads it; results are copied from where it leaves them, since the next replay overwrites them. A replay draws from
torch's default generator of the device, whose state moves on as in an eager step, so that a resumed run goes on bit for
bit.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vi_core.execution.functional import Function, FunctionalSteps, Watching
from vi_core.training.checkpoint import same_draws_after

WARM_UP = 3  # calls before the recording, in which libraries allocate workspaces and choose kernels; as torch's manual
CLOSE = 1e-4  # largest relative error of a replayed step: sums of atomic additions run in any order on a device


class GraphedSteps(FunctionalSteps):
    """One step in a call, replayed from a CUDA graph.

    Attributes:
        cuda: The module that has streams and graphs.
    """

    device_type = "cuda"
    cuda: Any = torch.cuda

    def _make(self) -> Function:
        other, kept = ([tensor.clone() for tensor in self.inputs] for _ in range(2))
        batch = self.leaves if self.shared else self._example_batches()
        with same_draws_after(self.device):
            with Watching():
                self._one_step(*other, *batch)
            replay = captured(self._one_row, self.inputs, batch, self.cuda)
            put(other, self.inputs)
            expected = self._eager_result(self.inputs, batch)[2:]
            replay(*self.inputs, *batch)
            agree = all(map(close, self.inputs, expected))
            put(kept, self.inputs)
        if not agree:
            raise RuntimeError("a step depends on more than its tensors")
        return replay

    def _one_row(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(found.unsqueeze(0) for found in self._one_step(*inputs)[: 2 if self.every == 1 else 1])


def captured(function: Function, state: Sequence[Tensor], batch: Sequence[Tensor], cuda: Any = torch.cuda) -> Function:
    """Return `function`, which changes `state` in place, as a CUDA graph.

    Args:
        function: Maps the state and a flat batch to results.
        state: Live tensors, which the recording leaves as they are and each replay changes.
        batch: Tensors into which the batch of each replay is copied, unless they are that batch themselves.
        cuda: `torch.cuda`, or something with its streams and graphs.

    Returns:
        A function with the arguments of `function`, which has to be called with the same state.
    """
    copies, side = [tensor.clone() for tensor in state], cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        for _ in range(WARM_UP):
            function(*copies, *batch)
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        results = function(*state, *batch)

    def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
        put(inputs[len(state) :], batch)
        graph.replay()
        return tuple(result.clone() for result in results)

    return replay


def put(values: Sequence[Tensor], places: Sequence[Tensor]) -> None:
    """Copy values to places that are not the values themselves."""
    for value, place in zip(values, places, strict=True):
        if value is not place:
            place.copy_(value)


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two states agree but for rounding: relative error of the norm at most `CLOSE`, NaN with NaN."""
    found, expected = (tensor.to(torch.float64).nan_to_num() for tensor in (found, expected))
    return bool((found - expected).norm() <= CLOSE * expected.norm())
