"""Distributions, transforms and supports that models and families share."""
