"""Files that are replaced whole: a reader never sees half of one, and a crash never leaves half of one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from platformctl.errors import Conflict

__all__ = ["exclusive", "private_folder", "write_private"]


def write_private(path: Path, text: str) -> None:
    """Write `text` with mode 0600, by a temporary file beside it and a rename. OSError as the system gives it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can enter (0700); one that is there already is narrowed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


@contextlib.contextmanager
def exclusive(path: Path, busy: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold `path` as a lock between processes; Conflict, saying `busy`, when another has it for `patience` seconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    try:
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise Conflict(busy, hint="Wait until it is done, and try again.")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
