"""Diagnostics of a fit: how good q is as a proposal, how noisy its gradients are, what the data's likelihood is."""
