"""Finite mixtures, whose assignments are summed out or completed by coordinate ascent."""
