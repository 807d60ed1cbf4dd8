"""Faults that were found, each with the right value, and whatever else its kind could break."""
