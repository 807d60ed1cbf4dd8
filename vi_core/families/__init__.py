"""Variational families q(z) and q(z | x)."""
