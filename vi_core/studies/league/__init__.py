"""Fits of many posteriors by many methods, each beside reference draws: how often a method is right, and its verdict."""
