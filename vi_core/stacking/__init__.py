"""Many runs trained as one: stacked networks, and the share of each run."""
