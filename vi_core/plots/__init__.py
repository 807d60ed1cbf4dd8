"""Figures: functions from arrays to a matplotlib Figure, one kind per file; `drawing` holds what they share."""
