"""Files that are written whole or not at all, locks, JSON read with errors a person understands, and digests."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detkit.errors import DataError

# It can be read only by setting it, for the whole process, which threads that write files must not do at once.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    A process killed while it writes leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # mkstemp makes files that only their owner can read; results are for everyone the umask allows.
        partial.chmod(0o666 & ~_UMASK)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: str | os.PathLike, *, wait: bool) -> Iterator[bool]:
    """Hold a lock until the block, or this process, ends; False where another holds it and ``wait`` is not asked for.

    POSIX's lock (lockf): that of flock is inherited, and would outlive a killed process in the workers that load its
    data.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of the two, POSIX leaves open
            yield False
            return
        yield True


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = 2) -> None:
    """Write ``value`` as strict JSON (no NaN, no Infinity), whole or not at all."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: the file cannot be read, or is not JSON (with line and column).
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: {where}: is not JSON: {error.msg}; export the file again") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}; export the file again") from None


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, as hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the file") from None
