"""Diagnostics: pure functions of log-weights, gradients or traces."""
