"""One line for the user out of the exceptions of Hydra and OmegaConf."""

import errno
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from hydra.errors import OverrideParseException

from vi_core.errors import did_you_mean
from vi_core.storage.files import WAYS_OUT
from vi_core.storage.renamed import SETTINGS

from .places import CONF

Rewrite = Callable[[re.Match[str]], str]


MEMORY = re.compile(
    "not enough memory|out of memory|allocate|calculation overflowed|dimension exceeded|array is too big|"
    "Overflow when unpacking long"  # torch's words for a size beyond 64 bits, with a TypeError
)
LONG_NUMBER = re.compile(r"(\d{12})\d{30,}")


def lacks_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch cannot have as much memory as was asked for."""
    kinds = isinstance(error, (RuntimeError, ValueError, TypeError))
    return isinstance(error, MemoryError) or (kinds and MEMORY.search(str(error)) is not None)


def one_line(error: BaseException) -> str:
    """Return what is wrong, in one line, with a hint where a name is close to one that exists.

    Of a number of more than 40 digits it has the first ones.

    Args:
        error: Of this library, Hydra, OmegaConf, the operating system or torch.
    """
    return LONG_NUMBER.sub(r"\1...", _line(error))


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        elsewhere = "choose another folder or file (a run's is hydra.run.dir)"
        way_out = WAYS_OUT[error.errno] if error.errno in full else elsewhere
        return f"{error.filename}: {error.strerror}; {way_out}."
    if lacks_memory(error):
        reason = (str(error) or type(error).__name__).splitlines()[0]  # Python's own MemoryError says nothing
        return f"there is not enough memory ({reason}); use fewer points, replicates or samples."
    text = " ".join(str(error).split())
    cause = " ".join(str(error.__cause__ or "").split())
    if type(error.__cause__).__module__.startswith("omegaconf") and cause not in text:
        text = f"{text} {cause}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: write key=value, lists as key=[a,b], quotes around texts with blanks."
    for pattern in NOISE:
        text = re.sub(pattern, "", text)
    for pattern, rewrite in REWRITES.items():
        found = re.search(pattern, text)
        if found:
            return rewrite(found)
    text = text.strip()
    return text if text.endswith((".", "?", ")")) else f"{text}."


def _no_option(found: re.Match[str]) -> str:
    group, name, options = found.groups()
    for suffix, choice in FILES.get(group, {}).items():
        if name.endswith(suffix):
            return f"{group}={name} is a file; write {group}={choice} {group}.path={name}."
    return f"{group}={name} does not exist.{did_you_mean(name, options.split())} Known: {', '.join(options.split())}."


def _no_key(found: re.Match[str]) -> str:
    path, key = found.groups()
    group = path.partition(".")[0]
    if "." in path and group not in configuration_groups():
        return f"{path} is not a setting.{did_you_mean(group, configuration_groups())} See --cfg job for all of them."
    known = [*configuration_groups(), *keys_of(path)] if "." not in path else keys_of(path)
    if "." in path and key in known:
        return f"{path} is not a setting of the {group} that is chosen. See --cfg job."
    owners = [group for group in configuration_groups() if "." not in path and key in keys_of(f"{group}.")]
    owners = [group for group in owners if group != "study"] or owners  # of which there are many
    renamed = SETTINGS.get(path) or (f"{owners[0]}.{key}" if len(owners) == 1 else "")
    several = f" It is one of {', '.join(f'{group}.{key}' for group in owners)}." if len(owners) > 1 else ""
    nearest = did_you_mean(key, known, f"{group}." if "." in path else "")
    hint = f" Did you mean '{renamed}'?" if renamed else several or nearest
    return f"{path} is not a setting.{hint} See --cfg job for all of them."


def _no_key_in(found: re.Match[str]) -> str:
    where, key = found.groups()
    place = f"{where}.yaml: " if where and where != "config" else ""
    return f"{place}{key} is not a setting.{did_you_mean(key, [*configuration_groups(), *keys_of('')])}"


def _wrong_type(found: re.Match[str]) -> str:
    override, value, kind = found.groups()
    return f"{override} cannot be used: {value} is not of type {kind.lower()}."


FILES = {
    "model": {".py": "file", ".stan": "stan"},
    "dataset": {".csv": "table", ".csv.gz": "table", ".npz": "npz", ".json": "json"},
}
"""Parts that read a file, by the end of its name, of groups in which a file may be named in place of a part."""
NOISE = (
    r"full_key: .*",
    r"To append to your config use \S+",
    r"Config search path: .*",
    r"See https://hydra\S+ for details",
)
REWRITES: dict[str, Rewrite] = {
    r"integer string conversion: value has (\d+) digits": lambda found: (
        f"a number has {found[1]} digits, which are too many; write it with an exponent, such as 1e30."
    ),
    r"Could not find '([\w/]+)/([\w.-]+)' Available options in '[^']+': (.*)": _no_option,
    r"Could not override '([\w.@/]+)'.*?Key '([\w/]+)' (?:is not in struct|not in '\w+')": _no_key,
    r"(?:In '([^']+)'.*?)?Key '(\w+)' (?:is not in struct|not in '\w+')": _no_key_in,
    r"Error merging override (\S+) Value ('.*?') of type '\w+' could not be converted to (\w+)": _wrong_type,
    r"Missing mandatory value: (\w+)": lambda found: f"{found[1]} is missing; choose one with {found[1]}=<name>.",
}


@cache
def configuration_groups() -> list[str]:
    """Return the names of the folders of the configuration."""
    return [entry.name for entry in _configuration().iterdir() if entry.is_dir() and not entry.name.startswith("_")]


def part_names(group: str) -> list[str]:
    """Return the names of the files in one folder of the configuration, sorted, without `.yaml`.

    The files are the program's own: those of `--config-dir` are not among them.
    """
    entries = (_configuration() / group).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def keys_of(path: str) -> list[str]:
    """Return the keys that the parts of one group know, from their YAML files; for the top level, the schema's."""
    from .schema import Root

    if "." not in path:
        return list(Root.__dataclass_fields__)
    folder = _configuration() / path.partition(".")[0]
    if not folder.is_dir():
        return []
    texts = [entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return sorted({key for text in texts for key in re.findall(r"^(\w+):", text, re.MULTILINE)})


def _configuration() -> Traversable:
    return resources.files(CONF)
