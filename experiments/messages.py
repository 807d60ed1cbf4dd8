"""One line for the user out of the exceptions of Hydra and OmegaConf."""

import re
from importlib import resources

from vi_core.errors import did_you_mean


def one_line(error: BaseException) -> str:
    """Return what is wrong, in one line, with a hint where a name is close to one that exists."""
    text = " ".join(str(error).split())
    cause = error.__cause__
    if cause is not None and str(cause) and type(cause).__module__.startswith("omegaconf"):
        text = f"{text} {' '.join(str(cause).split())}"
    text = re.sub(r" full_key: .*", "", text)
    text = re.sub(r" To append to your config use \S+", "", text)
    return text + _hint(text)


def _hint(text: str) -> str:
    group = re.search(r"Could not find '([\w/]+)/([\w.-]+)' Available options in '[^']+': (.*)", text)
    if group:
        return did_you_mean(group[2], group[3].split())
    unknown = re.search(r"Could not override '([\w.@/]+)'.*?Key '(\w+)' is not in struct", text)
    if unknown:
        return did_you_mean(unknown[2], _keys(unknown[1]))
    missing = re.search(r"Key '(\w+)' not in '(\w+)'", text) or re.search(r"Could not override '(\w+)'", text)
    if missing:
        return did_you_mean(missing[1], [*_groups(), *_keys("")])
    return ""


def _groups() -> list[str]:
    package = (__package__ or "experiments").rpartition(".experiments")[0]
    folder = resources.files(f"{package}.conf" if package else "conf")
    return [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("_")]


def _keys(path: str) -> list[str]:
    """Return the keys that the parts of one group know, from their YAML files; for the top level, the schema's."""
    from .schema import Root

    group = path.partition(".")[0]
    if "." not in path:
        return list(Root.__dataclass_fields__)
    package = (__package__ or "experiments").rpartition(".experiments")[0]
    folder = resources.files(f"{package}.conf" if package else "conf") / group
    if not folder.is_dir():
        return []
    texts = [entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return sorted({key for text in texts for key in re.findall(r"^(\w+):", text, re.MULTILINE)})
