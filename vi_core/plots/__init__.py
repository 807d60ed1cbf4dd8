"""Figures: functions from arrays to a matplotlib Figure, one subject per file; `drawing` holds what they share."""
