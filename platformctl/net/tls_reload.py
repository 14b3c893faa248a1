"""A server's TLS context that follows its files.

The context object that a listener holds stays the same: certificate and key are loaded into it in place, and added CAs
too, so new handshakes use them and nothing is re-bound. Only a CA that is to be trusted *no longer* cannot be taken out
of a context: then `context` is a new object and `on_replaced` is called, so that the listener re-opens with it.

The `sni_callback` of `ssl` would do without that, but it needs an `ssl.SSLObject`, which faster TLS engines don't have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from platformctl.errors import ConfigError
from platformctl.net.filewatch import FileWatch
from platformctl.net.tls import load_certificate

__all__ = ["ReloadingContext"]

log = logging.getLogger(__name__)

Make = Callable[[Path, Path, Path | None], ssl.SSLContext]


class ReloadingContext:
    """`make(cert, key, ca)` builds a context or raises ConfigError; the first build must work.

    `error` is the reason why the files on disk are not the ones in use; None when they are.
    """

    def __init__(
        self,
        make: Make,
        cert: Path,
        key: Path,
        ca: Path | None = None,
        on_replaced: Callable[[ssl.SSLContext], None] | None = None,
    ) -> None:
        self._make = make
        self._cert, self._key, self._ca = cert, key, ca
        self._on_replaced = on_replaced
        self.context = make(cert, key, ca)
        self.error: ConfigError | None = None

    def watch(self, interval: float = 0.5) -> FileWatch:
        """A watch over the files that refreshes this context; the owner runs it."""

        async def changed() -> None:
            self.refresh()

        return FileWatch([p for p in (self._cert, self._key, self._ca) if p], changed, interval=interval)

    def refresh(self) -> bool:
        """Take over what the files say now. False, with `error` set and the old context kept, if they are broken."""
        try:
            # From the real paths first, for an error that names the file; then from copies, so that what is loaded
            # into the live context is exactly what was found to be good, even while the files are being replaced.
            self._make(self._cert, self._key, self._ca)
            with _copies(self._cert, self._key) as (cert, key):
                fresh = self._make(cert, key, self._ca)
                gone = _authorities(self.context) - _authorities(fresh)
                if not gone:
                    load_certificate(self.context, cert, key)
        except (ConfigError, OSError) as e:
            wrong = e if isinstance(e, ConfigError) else ConfigError(f"cannot be read: {e}", source=str(self._cert))
            self.error = wrong
            log.error("the new certificate is not used, the old one stays", extra={"reason": str(wrong)})
            return False
        self.error = None
        if gone:
            self.context = fresh
            if self._on_replaced is not None:
                self._on_replaced(fresh)
        else:
            for der in _authorities(fresh) - _authorities(self.context):
                self.context.load_verify_locations(cadata=der)
        log.info("certificate reloaded", extra={"file": str(self._cert), "trust_replaced": bool(gone)})
        return True


def _authorities(context: ssl.SSLContext) -> set[bytes]:
    return set(context.get_ca_certs(binary_form=True))


@contextlib.contextmanager
def _copies(*paths: Path) -> Iterator[list[Path]]:
    """The files' content as it is now, under paths that nothing changes: in memory, no key is copied to a disk."""
    if not hasattr(os, "memfd_create"):
        yield list(paths)
        return
    with contextlib.ExitStack() as stack:
        copies = []
        for path in paths:
            fd = os.memfd_create(path.name, os.MFD_CLOEXEC)
            stack.callback(os.close, fd)
            os.write(fd, path.read_bytes())
            copies.append(Path(f"/proc/self/fd/{fd}"))
        yield copies
