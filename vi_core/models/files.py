"""Files that a model is read from, such as a Python module or a Stan program, and the checksums that identify them.

A run keeps a copy of such a file, and its checksum says whether a file is still the one that a run was made with.
"""

import hashlib
from pathlib import Path

from vi_core.errors import DataError
from vi_core.storage.files import file_and_name

SHIPPED = Path(__file__).parent / "stan"  # programs of this library, which are named without a suffix


def located(path: str) -> tuple[Path, str]:
    """Return the file of a model, and the name after a colon or an empty one: my_model.py:Logistic, lotka_volterra."""
    shipped = SHIPPED / f"{path}.stan"
    return (shipped, "") if path.isidentifier() and shipped.is_file() else file_and_name(path)


def checksum_of(path: str) -> str:
    """Return the checksum of the file in a path such as my_model.py:Logistic; `DataError` where it cannot be read."""
    return digest(read(located(path)[0]))


def digest(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def read(file: Path, checksum: str | None = None) -> bytes:
    """Return the bytes of a model's file.

    Args:
        file: The file.
        checksum: Of the content that is wanted, or None to accept any.

    Raises:
        DataError: In one line, where it cannot be read or has another content.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        begun = ", or begin one with task=new_model path=<my_model.py>" if file.suffix == ".py" else ""
        raise DataError(f"{file} {reason}; name another file with model.path={begun}.") from error
    found = digest(content)
    if checksum not in (None, found):
        raise DataError(f"{file} has changed: its checksum is {found}, and model.checksum={checksum}.")
    return content
