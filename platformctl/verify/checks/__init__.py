"""The table of checks, in the order of the report."""

from __future__ import annotations

from platformctl.verify.checks import certificates, hubs, identity, paths, satellites, streams
from platformctl.verify.model import Check

__all__ = ["CHECKS"]

_PATHS = {check.name: check for check in paths.CHECKS}

CHECKS: tuple[Check, ...] = (
    *hubs.CHECKS,
    *certificates.CHECKS,
    *satellites.CHECKS,
    *(_PATHS[name] for name in ("unary", "upload", "download")),
    *streams.CHECKS,
    *(_PATHS[name] for name in ("concurrent", "latency", "unknown-service")),
    *identity.CHECKS,
)
