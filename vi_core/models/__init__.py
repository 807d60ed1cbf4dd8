"""Target densities p(x, z), one per file."""
