"""Coordinate ascent: set one block of q to its optimum given the others, block after block.

For conjugate models log q*(z_i) = E_{q(z_−i)}[log p(x, z)] + const is in the family (Bishop 2006, equation 10.9), and
the ELBO never falls. It asks for no gradient and has no step size; `vi_core.training.steps` sweeps the blocks.
"""

from typing import Literal


class CoordinateAscent:
    """One sweep over the model's blocks per step, in the order of its latents.

    Args:
        keep: Which replicates are results: `all`, or the `best` alone, the one with the highest final ELBO. Replicates
            are then restarts, and the scatter of their ELBOs shows the local optima.
    """

    def __init__(self, *, keep: Literal["all", "best"] = "all"):
        self.keep = keep
