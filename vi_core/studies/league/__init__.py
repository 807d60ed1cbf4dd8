"""Fits of many posteriors by many methods, each beside reference draws: how often q is right, and the verdict too."""
