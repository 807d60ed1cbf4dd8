"""Bounds: pure functions of log-weights."""
