"""Adam: ascent along m̂ / (√v̂ + eps), with bias-corrected moving averages of the gradient and of its square.

Kingma, Ba 2015. The arithmetic is one call of torch's fused kernel, a third of the time of separate operations on a
million weights. A compiler is given the separate operations, which it fuses itself.

The correction of v, a division by 1 − β_2^t, belongs to v_0 = 0. With `initial_square` v_0 > 0, v_t keeps a share
β_2^t v_0, which is divided all the same: √v̂_1 is about √(v_0/(1 − β_2)), thirty times √v_0, and the first steps are
small by as much, so that the rate warms up over some 1/(1 − β_2) steps. This is the rule of the code of Burda, Grosse,
Salakhutdinov 2015. A correction that held for v_0 would subtract β_2^t v_0, and v_0 would have no effect.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

from vi_core.errors import require
from vi_core.execution.recording import is_tracing
from vi_core.optimizers.averaging import Averaging
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate


class Adam(Optimizer):
    """λ ← λ + lr · m̂ / (√v̂ + eps).

    Args:
        lr: One learning rate, or one for each replicate.
        beta1, beta2: Decay of the moving averages of g and g².
        eps: Added outside the root.
        initial_square: v_0, where the moving average of g² begins; not negative.
        schedule: What multiplies lr in the course of the run.
        averaging: What puts averages of iterates in the place of parameters.
    """

    clock: Tensor
    """Steps made; float32, which is what the kernel reads on every device."""

    def __init__(
        self,
        *,
        lr: PerReplicate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        initial_square: float = 0.0,
        schedule: Schedule | None = None,
        averaging: Averaging | None = None,
    ):
        super().__init__(lr=lr, schedule=schedule, averaging=averaging)
        for name, value in {"beta1": beta1, "beta2": beta2}.items():
            require(0 <= value < 1, f"optimizer.{name}={value} must lie in [0, 1).")
        require(0 < eps < math.inf, f"optimizer.eps={eps} must be positive and finite.")
        valid = 0 <= initial_square < math.inf
        require(valid, f"optimizer.initial_square={initial_square} must be finite and not negative.")
        self.first_lr = float(self.lr.reshape(-1)[0])
        self.beta1, self.beta2, self.eps, self.initial_square = beta1, beta2, eps, initial_square

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        self.state("mean", parameters)
        self.state("square", parameters)
        for square in self.states("square", len(parameters)):
            square.fill_(self.initial_square)
        self.register_buffer("clock", torch.zeros((), dtype=torch.float32, device=parameters[0].device))

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        if is_tracing():
            return self._written_out(gradients)
        directions = [torch.zeros_like(mean) for mean in self.states("mean", len(gradients))]
        self._fused(directions, gradients, 1.0, None)
        return directions

    def forward(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], alive: Tensor) -> None:
        if len(alive) > 1 or self.confine is not None or is_tracing():
            return super().forward(parameters, gradients, alive)
        lr = self.first_lr if self.schedule is None else self.rate().reshape(())
        return self._fused(parameters, gradients, lr, (~alive).to(torch.float32).squeeze(0))

    def _written_out(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return m̂ / (√v̂ + eps) by elementwise operations; the kernel, which maximises, keeps −m."""
        self.clock.add_(1)
        clock = self.clock.to(gradients[0].dtype)
        first, second = 1 - self.beta1**clock, (1 - self.beta2**clock).sqrt()
        directions = []
        for index, gradient in enumerate(gradients):
            mean, square = self.get_buffer(f"mean_{index}"), self.get_buffer(f"square_{index}")
            mean.lerp_(-gradient, 1 - self.beta1)
            square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            directions.append(-mean / first / (square.sqrt() / second + self.eps))
        return directions

    def _fused(
        self, targets: Sequence[Tensor], gradients: Sequence[Tensor], lr: float | Tensor, dead: Tensor | None
    ) -> None:
        """Move `targets` by lr times the direction; where the scalar `dead` is one, they stay, and so do the averages.

        The kernel walks through storage and takes no notice of strides. It wants a clock for each tensor.
        """
        count = len(targets)
        adam(
            list(targets),
            [gradient.contiguous() for gradient in gradients],
            self.states("mean", count),
            self.states("square", count),
            [],
            [self.clock.clone() for _ in targets],
            fused=True,
            found_inf=dead,
            lr=lr.to(torch.float32) if isinstance(lr, Tensor) and not lr.is_cpu else lr,  # the type read on a device
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=True,
        )
        self.clock.add_(1)
