/* A library with BridgeStan's interface for one program, x ~ normal(3, 2), as a compiler of Stan programs would make it. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int bs_major_version = 2, bs_minor_version = 9, bs_patch_version = 0;

static int refuse(char **error, const char *text) {
  *error = strdup(text);
  return -1;
}

void *bs_model_construct(const char *data, unsigned seed, char **error) {
  if (strstr(data, "\"scale\"")) return malloc(1);
  refuse(error, "variable does not exist; processing stage=data initialization; variable name=scale; base type=double");
  return NULL;
}
void bs_model_destruct(void *model) { free(model); }
void bs_free_error_msg(char *text) { free(text); }
void bs_set_print_callback(void *callback, char **error) {}
const char *bs_name(void *model) { return "normal"; }
const char *bs_model_info(void *model) { return "by hand"; }
const char *bs_param_names(void *model, bool tp, bool gq) { return tp ? "x,twice" : "x"; }
const char *bs_param_unc_names(void *model) { return "x"; }
int bs_param_num(void *model, bool tp, bool gq) { return tp ? 2 : 1; }
int bs_param_unc_num(void *model) { return 1; }
int bs_param_constrain(void *model, bool tp, bool gq, const double *u, double *z, void *rng, char **error) {
  z[0] = u[0];
  if (tp) z[1] = 2 * u[0];
  return 0;
}
int bs_log_density_gradient(void *model, bool propto, bool jacobian, const double *u, double *value, double *slope,
                            char **error) {
  double standard = (u[0] - 3) / 2;
  if (u[0] < -100) return refuse(error, "x is far below");
  *value = -0.5 * standard * standard - (propto ? 0 : log(2) + 0.5 * log(2 * M_PI));
  *slope = -standard / 2;
  return 0;
}
int bs_log_density(void *model, bool propto, bool jacobian, const double *u, double *value, char **error) {
  double slope;
  return bs_log_density_gradient(model, propto, jacobian, u, value, &slope, error);
}
void bs_param_unconstrain(void) {}
void bs_param_unconstrain_json(void) {}
void bs_param_initialize(void) {}
void bs_log_density_hessian(void) {}
void bs_log_density_hessian_vector_product(void) {}
