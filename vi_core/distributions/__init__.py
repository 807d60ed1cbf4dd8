"""Distributions, transforms and supports that models and families share.

The distributions follow `torch.distributions` in names and parameters. They leave out its argument checks and shape
bookkeeping, which cost several times the arithmetic for the small tensors of black-box VI. Parameters have shape
`(*batch, *event)`; a draw of K samples has shape `(K, *batch, *event)`, and `log_prob` is elementwise.
"""
