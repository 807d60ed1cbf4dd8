"""Algorithms: what one iteration of a fit does."""
