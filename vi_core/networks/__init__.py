"""Neural networks that models and families share."""
