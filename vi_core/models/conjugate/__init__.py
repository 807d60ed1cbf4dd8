"""Small models with conjugate priors or sufficient statistics, whose answers are known in closed form."""
