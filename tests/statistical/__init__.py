"""Estimators and random numbers against exact values, with stated error rates."""
