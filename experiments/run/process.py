"""The state of the process that a job depends on: threads, dtype, seed, device.

Several jobs of a sweep run in one process, so that it is set anew for each of them.
"""

import ctypes
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import torch

from vi_core.errors import ConfigError
from vi_core.schema import Config, locate
from vi_core.storage.files import is_private

log = logging.getLogger(__name__)
ALL_THREADS = torch.get_num_threads()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEPT = 2**30  # bytes of a block that come from the heap, and bytes that are free at its end


def choose_device(name: str) -> torch.device:
    """Return the device with a name.

    Args:
        name: cpu, cuda, mps, or auto for the first that is there of cuda, mps and cpu.

    Raises:
        ConfigError: In one line, where it is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present[name]:
        raise ConfigError(f"device={name} is not there on this machine; use device=cpu or device=auto.")
    return torch.device(name)


def choose_dtype(name: str, images: bool) -> torch.dtype:
    """Return the floating type of data and parameters.

    Args:
        name: float32, float64 or auto.
        images: Whether the data are images. `auto` is float32 for them, whose steps are arithmetic, and float64
            otherwise, where overhead outweighs arithmetic.
    """
    if name == "auto":
        return torch.float32 if images else torch.float64
    return {"float32": torch.float32, "float64": torch.float64}[name]


def sees_images(config: Config) -> bool:
    """Whether a run trains on images, by its data set."""
    dataset = None if config["benchmark"] is not None else config["dataset"]
    return dataset is not None and locate(dataset["_target_"], "dataset").images


def prepare(config: Config) -> tuple[torch.device, torch.dtype, torch.Generator]:
    """Set threads, default dtype and seeds for a job.

    Args:
        config: Resolved settings, in which `threads` is a number.

    Returns:
        Device, dtype, and the generator that orders minibatches, which is seeded from the default stream.

    Raises:
        ConfigError: For a device that is not there, or that lacks the type or the products that are asked for.
    """
    device = choose_device(config["device"]["name"])
    dtype = choose_dtype(config["dtype"], sees_images(config))
    if device.type == "mps" and dtype == torch.float64:
        raise ConfigError("device=mps has no float64; use dtype=float32.")
    set_products(config["matmul"], device)
    keep_memory()
    torch.set_num_threads(config["threads"])
    torch.set_default_dtype(dtype)
    torch.manual_seed(config["seed"])
    return device, dtype, torch.Generator().manual_seed(int(torch.randint(2**62, ())))


def set_products(matmul: str, device: torch.device) -> None:
    """Set how a CUDA device multiplies float32 matrices, and say where bfloat16 makes steps slower.

    Args:
        matmul: auto, bfloat16 or tf32, which rounds what is multiplied to 10 bits.
        device: Of the run.

    Raises:
        ConfigError: For `tf32` on a device that does not have it.
    """
    if matmul == "tf32" and device.type != "cuda":
        raise ConfigError(f"matmul=tf32 is for a CUDA device, and this one is {device.type}; use matmul=auto.")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if matmul == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = matmul == "tf32"  # convolutions, for which torch's default is tf32
    if matmul == "bfloat16" and device.type == "cpu" and not multiplies_bfloat16(cpu_flags()):
        log.warning(
            "matmul=bfloat16: this processor has no instructions for it, and products take up to ten times as long"
        )


def cpu_flags() -> str:
    """Return the instruction sets of this processor as Linux lists them, or nothing where there is no such list."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def multiplies_bfloat16(flags: str) -> bool:
    """Whether one of the instruction sets multiplies matrices in bfloat16; True where they are not known."""
    return not flags or not {"avx512_bf16", "avx_ne_convert", "amx_bf16", "bf16", "svebf16"}.isdisjoint(flags.split())


@cache
def keep_memory() -> None:
    """Let glibc keep the memory that a step frees for the next one, unless the environment says how it is to allocate.

    It would give back what is free at the end of the heap, and the kernel would clear it again, page after page.
    """
    given = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if given or sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        library.mallopt(parameter, KEPT)


@cache
def faster_threads() -> int:
    """Return 1 or the number of cores, whichever multiplies matrices faster: virtual cores can be shared.

    Measured once in a process, in some milliseconds; leaves torch with the number that it tried last.
    """
    seconds = {threads: time_product(threads) for threads in (1, ALL_THREADS)}
    return min(seconds, key=seconds.__getitem__)


def time_product(threads: int) -> float:
    """Return the median seconds of 15 products of a batch of 100 with a layer of 784 x 400, a size of the reports.

    Args:
        threads: Number of threads that torch is set to.
    """
    torch.set_num_threads(threads)
    batch, layer = torch.ones(100, 784), torch.ones(784, 400)
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        torch.mm(batch, layer)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[7]


def compiled_folder() -> Path:
    """Return the folder of machine code: TORCHINDUCTOR_CACHE_DIR, or the user's cache folder.

    A folder that another user can write could hold machine code of that user; this process then takes an empty one.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(cache) / "vi-lab" / "compiled")))
    if folder.exists() and not is_private(folder):
        log.warning(
            "%s is not used: another user can write it, and it holds machine code (chmod go-w mends it)", folder
        )
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="vi-lab-")
        return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    return folder


def describe_environment(seed: int, device: torch.device) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: versions, machine, threads, type, seed and commit.

    Args:
        seed: Of the run.
        device: Of the run, named by its model where it is a CUDA device.
    """
    commit, dirty = git_state()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hydra": hydra.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "seed": seed,
        "git_commit": commit,
        "git_dirty": dirty,
    }


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the program's own checkout, and whether tracked files differ from it.

    Both are None where the program is installed, and where git is missing or takes longer than five seconds.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", root, *arguments], capture_output=True, text=True, check=True, timeout=5
    ).stdout.strip()
