"""The cause of a failed connection in few words, without class names and addresses that the reader knows already."""

from __future__ import annotations

import os
import ssl

__all__ = ["reason"]


def reason(error: BaseException) -> str:
    """What the innermost cause says: "Connection refused" rather than "All connection attempts failed"."""
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError):
        # asyncio's own text repeats the address; a failed name look-up has numbers of its own (getaddrinfo(3)).
        known = os.strerror(cause.errno) if isinstance(cause, ConnectionError) and cause.errno else cause.strerror
        return known or str(cause) or type(cause).__name__
    return str(cause) or type(cause).__name__
