"""The command line: the only code that knows both Hydra and vi_core."""
