"""Models written as a prior and a likelihood, in `torch.distributions`, for one draw."""
