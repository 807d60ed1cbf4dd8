"""A model in a Python file of one's own, chosen on the command line: model=file model.path=my_model.py:Logistic.

The file is run as a module that lies in no package, so that it can import installed packages and nothing beside itself.
A run keeps a copy of it, and its checksum says whether a file is still the one that a run was made with.
"""

import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from vi_core.errors import ConfigError, LabError, did_you_mean, require
from vi_core.models.base import Factors, Model
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.files import digest, read
from vi_core.storage.files import file_and_name
from vi_core.types import Latents


class FileModel(Model):
    """The settings of a model in a file; the problem is made of `own`, the model itself.

    Args:
        path: The file, with a colon and the name of a class where it defines several models.
        settings: Arguments of the model's constructor, by name.
        checksum: Of the file, as `checksum_of` has it; None to accept any. A run fills it in when it starts.
    """

    def __init__(self, *, path: str | None = None, settings: dict[str, Any] | None = None, checksum: str | None = None):
        super().__init__()
        require(bool(path), "model=file needs a file: model.path=<my_model.py>, or model.path=<my_model.py>:<Class>.")
        file, name = file_and_name(str(path))
        require(file.suffix == ".py", f"model.path={path} must end in .py; a program in Stan is for model=stan.")
        content = read(file, checksum)
        self.own = build(chosen_class(run_module(file, content), file, name), settings or {})
        self.latents = {}

    def factors(self, z: Latents, x: Any) -> Factors:
        return self.own.factors(z, x)


def run_module(file: Path, content: bytes) -> ModuleType:
    """Run a file as a module, once for each content.

    Raises:
        ConfigError: In one line with the place in the file, for whatever it raises.
    """
    name = f"model_{digest(content)}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        reason = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        where = f"{file}, line {line}" if line else str(file)
        raise ConfigError(f"{where}: {type(error).__name__}: {reason.rstrip('.')}.") from error
    return module


def chosen_class(module: ModuleType, file: Path, name: str) -> type[BayesianModel]:
    """Return the model with a name, or the only one that a file defines.

    Raises:
        ConfigError: Where there is none, or several to choose from.
    """
    models = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, BayesianModel) and value.__module__ == module.__name__
    }
    if not models:
        raise ConfigError(f"{file} defines no model; it needs a class that derives from vi_core.BayesianModel.")
    if name and name not in models:
        raise ConfigError(f"{file} has no model '{name}'.{did_you_mean(name, models)} Known: {', '.join(models)}.")
    if not name and len(models) > 1:
        raise ConfigError(
            f"{file} defines several models; choose one with model.path={file}:<name>: {', '.join(models)}."
        )
    return models[name or next(iter(models))]


def build(cls: type[BayesianModel], settings: dict[str, Any]) -> BayesianModel:
    """Construct a model with settings, by the names of its constructor's arguments.

    Raises:
        ConfigError: For a name that it does not have, one that is missing, or whatever the constructor refuses.
    """
    accepted = {p.name: p for p in list(inspect.signature(cls.__init__).parameters.values())[1:]}
    if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        for key in settings:
            known = ", ".join(accepted) or "none"
            hint = did_you_mean(key, accepted)
            require(key in accepted, f"model.settings.{key} is not a setting of {cls.__name__}.{hint} Known: {known}.")
    for key, p in accepted.items():
        needed = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        require(not needed or key in settings, f"{cls.__name__} needs model.settings.{key}=<value>.")
    try:
        return cls(**settings)
    except LabError:
        raise
    except Exception as error:
        raise ConfigError(f"{cls.__name__} cannot be made: {' '.join(str(error).split())}.") from error
