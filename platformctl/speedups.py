"""The hot path compiled: the same modules, built by mypyc, used instead of the Python ones when they are there.

`tools/compile_speedups.py` builds them from the sources in this tree into `platformctl/_compiled/<ABI>/`, with a
digest of those sources. A build of other sources, or for another Python, is not used; nor is any with
`PLATFORMCTL_PURE=1`. All of them are used or none, for compiled modules know each other's layout. What runs is in
`state()`, and `platformctl version` says it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "MODULES", "digest", "overlay", "state"]

# Measured: what a request passes through in hub and agent. Everything else is as fast as it needs to be.
MODULES: Final = (
    "wire/chunked.py",
    "wire/frames.py",
    "wire/ledger.py",
    "wire/receiver.py",
    "wire/sender.py",
    "wire/session.py",
    "wire/states.py",
    "wire/stream.py",
    "wire/windows.py",
    "net/http1.py",
    "hub/exchange.py",
    "hub/inbound.py",
    "hub/ingress.py",
    "hub/outbound.py",
    "hub/plan.py",
    "hub/responses.py",
    "hub/template.py",
    "satellite/backend_http.py",
)
_ROOT: Final = Path(__file__).parent
FOLDER: Final = _ROOT / "_compiled" / str(sysconfig.get_config_var("SOABI"))


def digest() -> str:
    """SHA-256 over the sources that are compiled, in hex."""
    total = hashlib.sha256()
    for name in MODULES:
        total.update(name.encode() + b"\0" + (_ROOT / name).read_bytes() + b"\0")
    return total.hexdigest()


@cache
def state() -> str:
    """`compiled`, or `pure` with the reason."""
    if os.environ.get("PLATFORMCTL_PURE"):
        return "pure (PLATFORMCTL_PURE is set)"
    try:
        built = (FOLDER / "digest").read_text("ascii").strip()
        current = digest()
    except OSError:
        return "pure (not compiled)"
    return "compiled" if built == current else "pure (the compiled modules are of other sources)"


def overlay(package: str, path: list[str]) -> list[str]:
    """The search path of a package of ours: its compiled modules first, when they are in use."""
    if state() != "compiled":
        return path
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # mypyc's shared library is a top-level module
    return [str(FOLDER / package), *path]
