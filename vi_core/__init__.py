"""A laboratory for variational inference: models, families, bounds, estimators and optimizers that multiply.

The library seeds nothing, prints nothing and changes no global setting of torch. `vi_core.load(run)` reopens a run.
"""

__version__ = "0.2.0"


def __getattr__(name: str):  # PEP 562: `import vi_core` stays free of torch until a run is loaded
    if name == "load":
        from vi_core.archive import load

        return load
    raise AttributeError(f"module 'vi_core' has no attribute '{name}'")
