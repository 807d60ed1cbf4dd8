"""Several steps as machine code.

The step is run once on tensors that only note what is done to them (`make_fx`); TorchInductor makes machine code of
that list, n times over.

Machine code is stored under a hash of the graph of one step, with all numbers that are in it, and of the shapes that go
in: a later run traces the same step, which is quick, and reads the code back.

The random numbers are those of the eager step, in the same order (`fallback_random`), so that results differ by the
rounding of fused arithmetic and nothing else.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from vi_core.algorithms.base import Step
from vi_core.execution.base import Function, SeveralSteps, repeated
from vi_core.execution.recording import tracing
from vi_core.training.batches import Batches

log = logging.getLogger(__name__)
SETTINGS = {
    "fallback_random": True,
    "compile_threads": 1,
    "force_pointwise_cat": True,  # else each part of a stack of numbers is a view, made anew in each step by Python
    "size_asserts": False,  # the shapes are those of the state, which is ours
    "alignment_asserts": False,
}
"""Of TorchInductor. On one replicate of black-box VI the last three save a third of the time."""


class NotStored(Exception):
    """No earlier run has left machine code of these steps."""


class CompiledSteps(SeveralSteps):
    """Steps in machine code.

    Args:
        step, batches, count, every: Of `SeveralSteps`.
        folder: Where machine code is stored, or None for nowhere.
        compiles: Whether to compile where none is stored, instead of raising `NotStored`.
    """

    def __init__(
        self, step: Step, batches: Batches, count: int, every: int, folder: Path | None = None, compiles: bool = True
    ):
        self.folder, self.compiles = folder, compiles
        super().__init__(step, batches, count, every)

    def _make(self) -> Function:
        from torch.fx import GraphModule
        from torch.fx.experimental.proxy_tensor import make_fx

        inputs = [*self.inputs, *self.example_batches()]
        width = len(self.state)
        with tracing():
            trace = make_fx(self._one_step, tracing_mode="fake", _allow_non_fake_inputs=True)
            step = trace(*inputs[: width + self.leaves])
        path = self._path(step, inputs)
        stored = None if path is None else read_code(path)
        self.was_stored = stored is not None
        if stored is not None:
            return stored
        if not self.compiles:
            raise NotStored
        graph = repeated(step.graph, width, self.count, self.every, self.shared)
        return lower(GraphModule(step, graph), inputs, path)

    def _path(self, step: Any, inputs: list[Tensor]) -> Path | None:
        """Return the file for the code of this step; None where nothing is stored, or tensors are part of the graph."""
        if self.folder is None or any(node.op == "get_attr" for node in step.graph.nodes):
            return None
        shapes = [(tuple(x.shape), x.stride(), str(x.dtype), str(x.device)) for x in inputs]
        run = (self.count, self.every, self.shared, torch.get_num_threads(), torch.__version__, SETTINGS)
        content = f"{step.graph} {shapes} {run} {torch.backends.cpu.get_cpu_capability()}"
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.bin"


@contextmanager
def all_in_cpp(inputs: list[Tensor]) -> Iterator[None]:
    """Have the calls between the compiled loops made by C++ too, on a processor; a call from Python takes 2 to 10 µs.

    C++ reaches any operation through torch's dispatcher, but TorchInductor would call Python where one takes a random
    generator. Those of a step take torch's own, which is none at all for the dispatcher.
    """
    from torch._inductor import config
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    known, draws = CppWrapperCpu._compatible_with_stableivalue, torch.ops.aten._standard_gamma.default
    callable_from_cpp = staticmethod(lambda op: op is draws or known(op))
    told = logging.getLogger("torch._inductor.ir")  # warns of each operation that it calls in this way
    with (
        config.patch(SETTINGS | {"cpp_wrapper": all(x.device.type == "cpu" for x in inputs)}),
        mock.patch.object(CppWrapperCpu, "_compatible_with_stableivalue", callable_from_cpp),
        mock.patch.object(told, "disabled", True),
    ):
        yield


def lower(graph: Any, inputs: list[Tensor], path: Path | None) -> Function:
    """Make machine code of a graph of tensor operations, for inputs with the shapes of `inputs`; store it at `path`."""
    from torch._inductor import standalone_compile

    with torch.no_grad(), all_in_cpp(inputs):
        code = standalone_compile(graph, [*inputs], dynamic_shapes="from_example_inputs")
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            code.save(path=str(path))
        except (OSError, RuntimeError, AssertionError) as error:  # what torch raises where it cannot store the code
            log.info("the compiled steps are not stored (%s)", str(error).partition("\n")[0])
    return code


def read_code(path: Path) -> Function | None:
    """Return stored machine code, or None where there is none that this torch can read."""
    if not path.is_file():
        return None
    from torch._inductor import CompiledArtifact, config

    try:
        with torch.no_grad(), config.patch(SETTINGS):
            return CompiledArtifact.load(path=str(path))
    except Exception as error:  # of a damaged file anything may come
        log.info("%s cannot be read (%s); the steps are compiled anew", path, type(error).__name__)
        return None
