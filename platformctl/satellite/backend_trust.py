"""The TLS context for a backend, built once and again when its CA file changed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from platformctl.net.filewatch import Stamp, fingerprint
from platformctl.net.tls import BackendTls, backend_context
from platformctl.satellite.exports import BackendTrust

__all__ = ["backend_tls"]


def backend_tls(trust: BackendTrust) -> BackendTls:
    """Raises ConfigError when the CA file cannot be used. Costs one `stat`, unless there is something new to load."""
    return _built(trust, fingerprint(Path(trust.ca_file)) if trust.ca_file else None)


# Reading the system's CAs takes some 10 ms, too long to do for every check and dial.
@lru_cache(maxsize=1024)
def _built(trust: BackendTrust, _stamp: Stamp) -> BackendTls:
    return backend_context(Path(trust.ca_file) if trust.ca_file else None, trust.pin, trust.server_name)
