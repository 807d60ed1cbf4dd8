"""Compiled steps: machine code of several steps on a processor, of one step in a CUDA graph on a CUDA device.

The step is run once on tensors that only record what is done to them (`make_fx`); TorchInductor makes machine code of
the recorded operations, n times over. Machine code is stored under a hash of the graph of one step, with all numbers in
it, and of the shapes of its inputs: a later run traces the same step, which is quick, and reads the code back.

The random numbers are those of the eager step, in the same order (`fallback_random`), so that results differ by the
rounding of fused arithmetic and nothing else.
"""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from vi_core.algorithms.base import Step
from vi_core.execution.base import NotStored
from vi_core.execution.cuda_graph import captured
from vi_core.execution.functional import Function, FunctionalSteps, repeated
from vi_core.execution.recording import tracing
from vi_core.storage.files import is_private
from vi_core.training.batches import Batches
from vi_core.training.checkpoint import same_draws_after

log = logging.getLogger(__name__)
SETTINGS = {  # of TorchInductor; on one replicate of black-box VI the last three save a third of the time
    "fallback_random": True,
    "compile_threads": 1,
    "force_pointwise_cat": True,  # else each part of a stack of numbers is a view, made anew in each step by Python
    "size_asserts": False,  # the shapes are those of the state, which is ours
    "alignment_asserts": False,
}


class CompiledSteps(FunctionalSteps):
    """Steps in machine code.

    Args:
        step, batches, count, every: As in `FunctionalSteps`.
        folder: Where machine code is stored, or None for nowhere.
        compiles: Whether to compile where no code is stored, instead of raising `NotStored`.

    Attributes:
        was_stored: Whether the code was read from a file.
    """

    was_stored = False

    def __init__(
        self, step: Step, batches: Batches, count: int, every: int, folder: Path | None = None, compiles: bool = True
    ):
        self.folder, self.compiles = folder, compiles
        super().__init__(step, batches, count, every)

    def _make(self) -> Function:
        code = self._code()
        if self.device.type != "cuda":
            return code
        batch = self.leaves if self.shared else self._example_batches()
        with torch.no_grad(), same_draws_after(self.device):
            return captured(code, self.inputs, batch)

    def _code(self) -> Function:
        """Return machine code of the steps, read or compiled."""
        from torch.fx import GraphModule
        from torch.fx.experimental.proxy_tensor import make_fx

        inputs = [*self.inputs, *self._example_batches()]
        width = len(self.state)
        with tracing():
            trace = make_fx(self._one_step, tracing_mode="fake", _allow_non_fake_inputs=True)
            step = trace(*inputs[: width + len(self.leaves)])
        path = self._path(step, inputs)
        if path is not None and (stored := read_code(path)) is not None:
            self.was_stored = True
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
        machine = (torch.backends.cpu.get_cpu_capability(), torch.get_float32_matmul_precision())
        content = f"{step.graph} {shapes} {run} {machine}"
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.bin"


def lower(graph: Any, inputs: list[Tensor], path: Path | None) -> Function:
    """Make machine code of a graph of tensor operations, for inputs with the shapes of `inputs`; store it at `path`.

    On a processor the calls between compiled loops are made by C++; one from Python takes 2 to 10 µs. C++ reaches any
    operation through torch's dispatcher, but TorchInductor would call Python where one takes a random generator. The
    operations of a step take torch's own generator, which the dispatcher is given as none.
    """
    from torch._inductor import config, standalone_compile
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    known, draws = CppWrapperCpu._compatible_with_stableivalue, torch.ops.aten._standard_gamma.default
    callable_from_cpp = staticmethod(lambda op: op is draws or known(op))
    told = logging.getLogger("torch._inductor.ir")  # warns of each operation that it calls in this way
    with (
        torch.no_grad(),
        config.patch(SETTINGS | {"cpp_wrapper": all(x.device.type == "cpu" for x in inputs)}),
        mock.patch.object(CppWrapperCpu, "_compatible_with_stableivalue", callable_from_cpp),
        mock.patch.object(told, "disabled", True),
        warnings.catch_warnings(action="ignore", category=FutureWarning),  # of torch about itself
    ):
        code = standalone_compile(graph, [*inputs], dynamic_shapes="from_example_inputs")
    if path is not None:
        store(code, path)
    return code


def store(code: Any, path: Path) -> None:
    """Write machine code to `path`, in folders that are made for this user alone; say so where that is not possible."""
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        code.save(path=str(path))
        path.chmod(0o600)
    except (OSError, RuntimeError, AssertionError) as error:  # what torch raises where it cannot store the code
        log.info("the compiled steps are not stored (%s)", str(error).partition("\n")[0])


def read_code(path: Path) -> Function | None:
    """Return stored machine code, or None where this torch cannot read it or another user can have written it."""
    if not path.is_file():
        return None
    from torch._inductor import CompiledArtifact, config

    for place in (path.parent, path):
        if not is_private(place):
            log.warning("%s is not read: another user can write it, and it holds machine code; remove it", place)
            return None
    try:
        with torch.no_grad(), config.patch(SETTINGS):
            return CompiledArtifact.load(path=str(path))
    except Exception as error:  # of a damaged file anything may come
        log.info("%s cannot be read (%s); the steps are compiled anew", path, type(error).__name__)
        return None
