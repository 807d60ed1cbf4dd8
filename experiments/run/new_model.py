"""`task=new_model path=my_model.py`: write a model to begin with, which `model=file model.path=my_model.py` runs."""

import logging
from pathlib import Path

from vi_core.errors import ConfigError

from ..results.files import write_text

log = logging.getLogger(__name__)
SKELETON = Path(__file__).with_name("skeleton.py")


def run(path: Path) -> None:
    """Write the skeleton to `path`; raise `ConfigError` where that is no new Python file."""
    if path.suffix != ".py":
        raise ConfigError(f"path={path} must end in .py; give path=my_model.py.")
    if path.exists():
        raise ConfigError(f"{path} exists already, and is left as it is; choose another path=<name>.py.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder; make it first, or choose another path=<name>.py.")
    write_text(path, SKELETON.read_text(encoding="utf-8").replace("my_model.py", str(path)))
    log.info("model   %s", path)
    log.info(
        "run it  python run.py experiment=own model=file model.path=%s dataset=table dataset.path=<file.csv> "
        "dataset.target=<column of 0 and 1>", path
    )  # fmt: skip
