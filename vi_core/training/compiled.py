"""Several steps as one compiled function of the state: draws, bound, gradient, update and what the trace records.

The step is run once on tensors that only note what is done to them (`make_fx`); TorchInductor makes machine code of
that list, n times over. Nothing is asked of Python afterwards, which in eager mode takes longer than the arithmetic of
a small problem. The state goes in and is changed in place: parameters, the optimizer's averages, masks, counters.

Machine code is stored under a hash of the graph of one step, with all numbers that are in it, and of the shapes that go
in: a later run traces the same step, which is quick, and reads the code back.

The random numbers are those of the eager step, in the same order (`fallback_random`), so that results differ by the
rounding of fused arithmetic and nothing else.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from vi_core.tracing import tracing
from vi_core.training.batches import Batches
from vi_core.training.checkpoint import random_state, restore_random_state
from vi_core.training.steps import Metrics, Step, recorded_parameters

log = logging.getLogger(__name__)
Function = Callable[..., tuple[Tensor, ...]]
SETTINGS = {
    "fallback_random": True,
    "compile_threads": 1,
    "force_pointwise_cat": True,  # else each part of a stack of numbers is a view, made anew in each step by Python
    "size_asserts": False,  # the shapes are those of the state, which is ours
    "alignment_asserts": False,
}
"""Of TorchInductor. On one replicate of black-box VI the last three save a third of the time."""


class Rows(NamedTuple):
    """What n steps leave for the trace."""

    names: list[str]
    """Of the metrics."""
    metrics: Tensor
    """(n, M, R) before each update."""
    parameters: Tensor
    """(rows, R, P + 1) after the last update of each row, the gradient's norm last; no rows where they are longer."""


class NotStored(Exception):
    """No earlier run has left machine code of these steps."""


class CompiledSteps:
    """`count` steps of `step` in one call.

    Args:
        step: The algorithm.
        batches: Decodes what is stored, as a part of the step.
        count: n, steps in a call.
        every: Steps in a row of the trace: a divisor of n, or more than n.
        folder: Where machine code is stored, or None for nowhere.
        compiles: Whether to compile where none is stored, instead of raising `NotStored`.
    """

    def __init__(
        self, step: Step, batches: Batches, count: int, every: int, folder: Path | None = None, compiles: bool = True
    ):
        from torch.utils import _pytree as pytree

        self.folder, self.compiles = folder, compiles
        self.count, self.every, self.shared = count, every, batches.full is not None
        self.body, x = _Recorded(step, batches), batches.example()
        self.state = {**dict(self.body.named_parameters()), **dict(self.body.named_buffers())}
        self.flatten = pytree.tree_leaves
        _, self.structure = pytree.tree_flatten(x)
        self.unflatten = pytree.tree_unflatten
        self.names = list(rehearse(step, batches))
        examples = [pytree.tree_map(torch.clone, x) for _ in range(count)]  # the same tensor twice would be one input
        self.function = self._compile(self._inputs(examples))
        self.inputs = self._inputs([x]) if self.shared else None

    def __call__(self, batches: Sequence[Any]) -> Rows:
        """Make the steps on n stored batches, and return what the trace records of them."""
        with torch.no_grad():
            metrics, *parameters = self.function(*(self.inputs or self._inputs(batches)))
        return Rows(self.names, metrics, parameters[0] if parameters else metrics.new_empty(0))

    def _inputs(self, batches: Sequence[Any]) -> list[Tensor]:
        seen = batches[:1] if self.shared else batches
        return [*(tensor.detach() for tensor in self.state.values()), *self.flatten(list(seen))]

    def _compile(self, inputs: list[Tensor]) -> Function:
        from torch.fx.experimental.proxy_tensor import make_fx

        width = len(self.state)
        leaves = (len(inputs) - width) // (1 if self.shared else self.count)
        with tracing():
            trace = make_fx(self._one_step, tracing_mode="fake", _allow_non_fake_inputs=True)
            step = trace(*inputs[: width + leaves])
        path = self._path(step, inputs)
        stored = None if path is None else read_code(path)
        self.was_stored = stored is not None
        if stored is not None:
            return stored
        if not self.compiles:
            raise NotStored
        return lower(repeated(step, width, self.count, self.every, self.shared), inputs, path)

    def _path(self, step: Any, inputs: list[Tensor]) -> Path | None:
        """Return the file for the code of this step; None where nothing is stored, or tensors are part of the graph."""
        if self.folder is None or any(node.op == "get_attr" for node in step.graph.nodes):
            return None
        shapes = [(tuple(x.shape), x.stride(), str(x.dtype), str(x.device)) for x in inputs]
        run = (self.count, self.every, self.shared, torch.get_num_threads(), torch.__version__, SETTINGS)
        content = f"{step.graph} {shapes} {run} {torch.backends.cpu.get_cpu_capability()}"
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.bin"

    def _one_step(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """A step as a function of flat tensors, which it changes: the metrics (M, R), and what is recorded after it."""
        moving = {name for name, _ in self.body.named_parameters()}
        state = {
            name: tensor.detach().requires_grad_() if name in moving else tensor
            for name, tensor in zip(self.state, inputs[: len(self.state)], strict=True)
        }
        x = self.unflatten(list(inputs[len(self.state) :]), self.structure)
        # A module that two parts share is put back once: functional_call would put what was traced in place of its own.
        metrics, parameters = torch.func.functional_call(self.body, state, (x,), tie_weights=False)
        return torch.stack([value.detach() for value in metrics.values()]), parameters.detach()


def repeated(step: Any, width: int, count: int, every: int, shared: bool) -> Any:
    """Return the graph of `count` steps out of the graph of one, whose first `width` inputs are the state."""
    from torch.fx import Graph, GraphModule

    inputs = [node for node in step.graph.nodes if node.op == "placeholder"]
    graph = Graph()
    state = [graph.placeholder(f"state_{index}") for index in range(width)]
    batches = [
        [graph.placeholder(f"batch_{index}_{leaf}") for leaf in range(len(inputs) - width)]
        for index in range(1 if shared else count)
    ]
    seen: list[Any] = [
        graph.graph_copy(step.graph, dict(zip(inputs, state + batches[0 if shared else index], strict=True)))
        for index in range(count)
    ]
    metrics = graph.call_function(torch.stack, ([metrics for metrics, _ in seen],))
    closing = [parameters for _, parameters in seen[every - 1 :: every]]
    rows = [graph.call_function(torch.stack, (closing,))] if closing else []
    graph.output((metrics, *rows))
    return GraphModule(step, graph)


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


class _Recorded(nn.Module):
    """A step, and what the trace records after it."""

    def __init__(self, step: Step, batches: Batches):
        super().__init__()
        self.step, self.decode = step, batches.decode

    def forward(self, stored: Any) -> tuple[Metrics, Tensor]:
        return self.step(self.decode(stored)), recorded_parameters(self.step)


def rehearse(step: Step, batches: Batches) -> Metrics:
    """Make one step and take it back, random numbers too; what the program keeps for later steps is then in place."""
    device = step.alive.device
    random, state = random_state(device), {name: value.clone() for name, value in step.state_dict().items()}
    try:
        return step(batches.decode(batches.example()))
    finally:
        step.load_state_dict(state)
        restore_random_state(random, device)


def count_operations(step: Step, batches: Batches) -> int:
    """Return the number of tensor operations in one step, forward and backward, by making it and taking it back."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        rehearse(step, batches)
    return counter.calls
