"""The satellite's identity on disk: `identity.key`, `identity.crt` and `ca.pem` in its state folder, all 0600.

The key is written before anything is asked of the hub, under another name: a folder that cannot be written, or a full
disk, is found out while the join token is still good. Only `commit` makes the three files the identity.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from platformctl.errors import StoreError
from platformctl.net.tls import IDENTITY_CA, IDENTITY_CERT, IDENTITY_KEY

__all__ = ["NewIdentity"]


class NewIdentity:
    """Context manager around a join: `with NewIdentity(folder, key) as new: …; new.commit(cert, ca)`.

    Leaving without `commit` leaves the folder as it was. StoreError when something cannot be written.
    """

    def __init__(self, folder: Path, key_pem: bytes) -> None:
        self._folder = folder
        self._key = key_pem
        self._written: list[tuple[Path, Path]] = []

    def __enter__(self) -> NewIdentity:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise _cannot_write(self._folder, e) from e
        self._write(IDENTITY_KEY, self._key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        for temporary, _ in self._written:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def commit(self, certificate: bytes, ca: bytes) -> None:
        """Make key, certificate and CA the identity. The key goes last: until then the old pair still is one."""
        self._write(IDENTITY_CA, ca)
        self._write(IDENTITY_CERT, certificate)
        try:
            for temporary, final in reversed(self._written):
                temporary.replace(final)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            raise _cannot_write(self._folder, e) from e

    def _write(self, name: str, content: bytes) -> None:
        temporary = self._folder / f".{name}.{os.getpid()}"
        try:
            # O_EXCL: never through a link that somebody laid there.
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._written.append((temporary, self._folder / name))
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
        except OSError as e:
            self._discard()
            raise _cannot_write(temporary, e) from e


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {path}: {error.strerror}",
        hint="Choose a state folder that this user can write, with space left: --state DIR.",
    )
