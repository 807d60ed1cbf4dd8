"""Import of torchvision, with a workaround for a CPU build of torch beside a CUDA build of torchvision.

The package index holds a CUDA build of torchvision. Beside a CPU torch its compiled operators cannot be loaded, and
`import torchvision` 0.28 stops with `operator torchvision::nms does not exist`, then `qnms`: it registers shape rules
for operators that nobody has declared. The data sets need none of these operators, so a missing one is declared,
without an implementation, and the import is tried again. A call of it still fails, as it should.
"""

import importlib
import re
from types import ModuleType

import torch

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """Import the module `name` of torchvision, declaring the compiled operators that its import misses."""
    while True:  # ends: an operator cannot be declared twice
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(missing[1], SIGNATURE)
