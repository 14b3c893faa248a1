"""Files that only their owner may read, and that are never half-written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from platformctl.errors import StoreError

__all__ = ["write_private"]


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` by a file of mode 0600 with `content`, at once or not at all. StoreError when that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        # O_EXCL: never through a link that somebody laid there.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {e.strerror or e}", hint="Check that the folder is writable and the disk not full."
        ) from e
