"""Figures: arrays in, a matplotlib Figure out, one kind per file."""
