"""Executors: the ways to make the steps of a run, and the only code that touches private interfaces of torch.

`choice` picks an executor; eager steps are in `base`, the others in `replay`, `cuda_graph` and `compiled`, which
rest on `functional`, which turns a step into a function of flat tensors, and are imported when a run first uses them.
`recording` tells the parts of a step whether their operations are traced.
"""
