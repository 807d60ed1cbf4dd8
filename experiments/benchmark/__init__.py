"""`experiment=benchmark`: this program against the reports' loops, Pyro and NumPyro, and against itself."""
