"""Families whose parameters a network computes from each data point."""
