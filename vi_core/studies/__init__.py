"""Studies: computations without training, each number beside its exact answer where one exists."""
