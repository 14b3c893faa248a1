"""The Date field (RFC 9110 6.6.1) of what the hub answers itself; responses of services bring their own."""

from __future__ import annotations

import time
from email.utils import formatdate

__all__ = ["http_date"]

_second = -1
_text = ""


def http_date() -> str:
    """Now as an IMF-fixdate; made once a second, however many answers need it."""
    global _second, _text
    now = int(time.time())
    if now != _second:
        _second = now
        _text = formatdate(now, usegmt=True)
    return _text
