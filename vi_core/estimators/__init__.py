"""Gradient estimators: where the gradient flows."""
