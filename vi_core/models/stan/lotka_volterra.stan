// Prey u and predators v, in thousands, observed with multiplicative noise:
//   du/dt = (theta[1] - theta[2] v) u,   dv/dt = (theta[4] u - theta[3]) v.
functions {
  vector growth(real t, vector z, vector theta) {
    real prey = (theta[1] - theta[2] * z[2]) * z[1];
    real predators = (theta[4] * z[1] - theta[3]) * z[2];
    return [prey, predators]';
  }
}
data {
  int<lower=2> N;               // observations, the first one at the initial state
  array[N] real year;           // increasing
  vector<lower=0>[N] hare;
  vector<lower=0>[N] lynx;
}
parameters {
  vector<lower=0>[4] theta;     // rates per year
  vector<lower=0>[2] z_init;    // state in the first year
  vector<lower=0>[2] sigma;     // deviation of the logarithm of an observation
}
transformed parameters {
  matrix[N, 2] z;               // state in each year
  z[1] = z_init';
  {
    array[N - 1] vector[2] later = ode_rk45(growth, z_init, year[1], year[2:N], theta);
    for (n in 2 : N) {
      z[n] = later[n - 1]';
    }
  }
}
model {
  theta[{1, 3}] ~ normal(1, 0.5);
  theta[{2, 4}] ~ normal(0.05, 0.05);
  z_init ~ lognormal(log(10), 1);
  sigma ~ lognormal(-1, 1);
  hare ~ lognormal(log(z[ : , 1]), sigma[1]);
  lynx ~ lognormal(log(z[ : , 2]), sigma[2]);
}
generated quantities {
  vector[N] hare_replicated;
  vector[N] lynx_replicated;
  for (n in 1 : N) {
    hare_replicated[n] = lognormal_rng(log(z[n, 1]), sigma[1]);
    lynx_replicated[n] = lognormal_rng(log(z[n, 2]), sigma[2]);
  }
}
