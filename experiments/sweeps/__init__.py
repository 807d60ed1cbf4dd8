"""Sweeps: composing jobs, training them together, collecting their results."""
