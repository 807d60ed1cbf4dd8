"""Target densities p(x, z)."""
