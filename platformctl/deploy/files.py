"""Files and folders of a local platform: private, replaced whole, changed by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from platformctl.errors import Conflict, StoreError
from platformctl.net.files import write_private

__all__ = ["exclusive", "private_folder", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Replace a file whole, readable by this user alone (0600). StoreError."""
    write_private(path, text.encode("utf-8"))


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can enter (0700); one that is there already is narrowed. StoreError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as e:
        raise StoreError(f"cannot make the folder {path}: {e.strerror}", hint="Give another one with --state.") from e
    return path


@contextlib.contextmanager
def exclusive(path: Path, busy: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold `path` as a lock between processes; Conflict, saying `busy`, when another has it for `patience` seconds."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="Check that the folder is writable.") from e
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
