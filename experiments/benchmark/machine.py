"""What the numbers were measured on: processor, cores, and the versions that matter."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "numpy", "pyro-ppl", "numpyro", "jax", "jaxlib")


def describe_machine(images: str) -> dict[str, str]:
    """Return words by name, without names of machines or folders."""
    found = {
        "processor": processor(),
        "cores": str(cores()),
        "bfloat16": "with instructions for products" if has_bfloat16() else "without instructions for products",
        "system": platform.system(),
        "python": platform.python_version(),
    }
    if hasattr(os, "getloadavg"):
        found["load average"] = f"{os.getloadavg()[0]:.1f}"
    return found | {name: installed(name) for name in PACKAGES} | {"images": images}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the model of the processor."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo(), flags=re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers."""
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo()))


def cpuinfo() -> str:
    """Return what Linux says of its processors."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def installed(name: str) -> str:
    """Return the version of a package, or that it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
