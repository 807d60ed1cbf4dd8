"""Coordinate ascent: set one block of q to its optimum given the others, block after block.

For conjugate models log q*(z_i) = E_{q(z_−i)}[log p(x, z)] + const is in the family (Bishop 2006, equation 10.9), and
the ELBO never falls. It asks for no gradient and has no step size; `vi_core.training.steps` sweeps the blocks.
"""


class CoordinateAscent:
    """One sweep over the model's blocks per step, in the order of its latents."""
