"""Optimizers on tensors, per replicate."""
