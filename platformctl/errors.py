"""Every error this project raises, as one tree.

    PlatformError                 something a person must be told; has code, hint and exit_code
     +-- UsageError               (exit 2) a wrong flag, argument or combination of them
     +-- ConfigError              (exit 2) a file we were given is wrong: says file, line and key
     +-- HubUnreachable           (exit 3) nothing answered at the hub's address
     +-- AccessDenied             (exit 4) the hub answered, and refused this identity
     +-- NotFound                 (exit 5) the named object does not exist
     +-- Conflict                 (exit 6) the object exists already, or changed meanwhile
     +-- TimedOut                 (exit 7) a wait ended before its condition was met
     +-- JoinRefused              (exit 4) a join was refused: wrong pin, used token, wrong name
     +-- StoreError               (exit 1) the state could not be read or written
    WireError                     a peer broke the tunnel protocol; carries the wire error code
     +-- FrameError               a frame could not be decoded
     +-- SessionError             a frame was not allowed in this state, or exceeded its credit
    HeadError                     a request or response head that we refuse; carries the HTTP status
    LocalMisuse                   our own code broke a contract: always a bug

`PlatformError` is for people: its message says what happened and to what, its hint what to do next.
`WireError` and `HeadError` are for the peer: they turn into a GOAWAY, RESET or a problem response.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "ConfigError",
    "Conflict",
    "FrameError",
    "HeadError",
    "HubUnreachable",
    "JoinRefused",
    "LocalMisuse",
    "NotFound",
    "PlatformError",
    "SessionError",
    "StoreError",
    "TimedOut",
    "UsageError",
    "WireError",
    "excerpt",
]


def excerpt(foreign: bytes | str, limit: int = 80) -> str:
    """Cut a foreign value down to `limit` printable characters before it is shown or logged."""
    text = foreign.decode("latin-1") if isinstance(foreign, bytes) else foreign
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"


class PlatformError(Exception):
    """Base of the errors that a person sees."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PlatformError):
    code = "usage"
    exit_code = 2


class ConfigError(PlatformError):
    """A wrong file; `source` names it, `line` is 1-based and 0 when unknown."""

    code = "config"
    exit_code = 2

    def __init__(self, message: str, *, source: str = "", line: int = 0, hint: str = "") -> None:
        where = f"{source}:{line}: " if source and line else f"{source}: " if source else ""
        super().__init__(where + message, hint=hint)
        self.source = source
        self.line = line


class HubUnreachable(PlatformError):
    code = "hub-unreachable"
    exit_code = 3


class AccessDenied(PlatformError):
    code = "access-denied"
    exit_code = 4


class JoinRefused(AccessDenied):
    code = "join-refused"


class NotFound(PlatformError):
    code = "not-found"
    exit_code = 5


class Conflict(PlatformError):
    code = "conflict"
    exit_code = 6


class TimedOut(PlatformError):
    code = "timed-out"
    exit_code = 7


class StoreError(PlatformError):
    code = "store"


class WireError(Exception):
    """A peer's fault on the tunnel. `error` is a code of wire/SPEC.md, section "Error codes"."""

    def __init__(self, error: int, message: str) -> None:
        super().__init__(message)
        self.error = error


class FrameError(WireError):
    pass


class SessionError(WireError):
    pass


class HeadError(Exception):
    """A head that is refused. `status` is what the client gets (RFC 9110), `code` the problem's stable code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class LocalMisuse(RuntimeError):
    """Our own code broke a contract of one of our own classes."""
