"""The score-function estimator, its control-variate coefficients and its scopes."""
