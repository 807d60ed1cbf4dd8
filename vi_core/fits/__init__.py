"""Fits from Python: the call, the fitted model, its tables and files, and whether to believe it."""
