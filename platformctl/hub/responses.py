"""Response heads from satellites: checked once, remembered by their bytes, and written in our own words.

The hub does not trust agents, so every head is validated before a client sees it. Backends repeat themselves, so the
result is kept: a head that was seen lately costs one dictionary access.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from platformctl.errors import FrameError
from platformctl.wire.frames import PROTOCOL, UNKNOWN_LENGTH, parse_head
from platformctl.wire.heads import clean_block, split_block

# Heads that are kept; `Date` makes them change once a second, so more would only hold stale ones.
REMEMBERED: Final = 512
# A longer head is rare and would let one service push out all others.
MAX_REMEMBERED_SIZE: Final = 4096

_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class CheckedHead:
    """A response head as the client gets it.

    Attributes:
        status: 100 to 599.
        length: bytes of body the satellite must send now; UNKNOWN_LENGTH until END. For an answer without a body (HEAD,
            304) the length that the backend declared, or UNKNOWN_LENGTH.
        start: status line and fields, with Content-Length when the length is known; the hub's own fields follow.
        upgrade: the Upgrade value of a 101.
    """

    __slots__ = ("length", "start", "status", "upgrade")

    def __init__(self, status: int, length: int, start: bytes, upgrade: bytes) -> None:
        self.status = status
        self.length = length
        self.start = start
        self.upgrade = upgrade


class ResponseHeads:
    """The memory of checked heads, one for a hub."""

    def __init__(self) -> None:
        self._known: dict[bytes, CheckedHead] = {}

    def get(self, payload: bytes) -> CheckedHead:
        """Check a HEAD payload.

        Raises:
            FrameError: the satellite sent something that is no response head.
        """
        head = self._known.get(payload)
        if head is None:
            head = check_head(payload)
            if len(payload) <= MAX_REMEMBERED_SIZE:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[payload] = head
        return head


def check_head(payload: bytes) -> CheckedHead:
    """Validate and re-serialise a HEAD payload. Raises FrameError."""
    status, length, block = parse_head(payload)
    clean = clean_block(block)
    upgrade = b""
    if status == 101:
        upgrades = [value for name, value in split_block(block) if name.lower() == b"upgrade"]
        if len(upgrades) != 1:
            raise FrameError(PROTOCOL, "a 101 without exactly one Upgrade field")
        upgrade = upgrades[0]
    start = b"HTTP/1.1 %d %b\r\n%b" % (status, _REASONS.get(status, b"Unknown"), clean)
    if length != UNKNOWN_LENGTH and status >= 200 and status != 204:
        start += b"Content-Length: %d\r\n" % length
    return CheckedHead(status, length, start, upgrade)
