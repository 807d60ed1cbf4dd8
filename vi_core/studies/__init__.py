"""Studies: what is computed, and not trained."""
