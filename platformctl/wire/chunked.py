"""The chunked transfer coding (RFC 9112 7.1), decoded strictly and without looking past the end of the body."""

from __future__ import annotations

import re
from typing import Final

from platformctl.errors import HeadError

MAX_SIZE_LINE: Final = 256
MAX_TRAILERS: Final = 8 * 1024
# Size, then extensions of visible characters; 15 hex digits fit a signed 64-bit number.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e]*)?")

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkedDecoder:
    """Feed it bytes until `done`; then `rest` is what came after the body (the next request of a pipeline).

    Attributes:
        done: the last chunk and the trailers have come.
        trailers: the trailer lines as sent, `Name: value CRLF` each.
        rest: bytes after the body, once done.
    """

    __slots__ = ("_buffer", "_left", "_state", "done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers = b""
        self.rest = b""
        self._state = _SIZE
        self._left = 0
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Decode; returns the pieces of body in `data`.

        Raises:
            HeadError: 400: a bad size line, a missing CRLF, or trailers over MAX_TRAILERS.
        """
        pieces: list[bytes] = []
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        position = 0
        size = len(data)
        while position < size:
            if self._state == _DATA:
                take = min(self._left, size - position)
                pieces.append(data if take == size else data[position : position + take])
                position += take
                self._left -= take
                if self._left == 0:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                if size - position < 2:
                    break
                if data[position : position + 2] != b"\r\n":
                    raise HeadError(400, "bad-chunk", "a chunk is not followed by CRLF")
                position += 2
                self._state = _SIZE
            elif self._state == _SIZE:
                end = data.find(b"\r\n", position, position + MAX_SIZE_LINE)
                if end < 0:
                    if size - position >= MAX_SIZE_LINE or b"\n" in data[position:]:
                        raise HeadError(400, "bad-chunk", "a chunk size line is too long or has a bare LF")
                    break
                self._start_chunk(data[position:end])
                position = end + 2
            else:
                position = self._feed_trailers(data, position)
                break
        if self._state == _DONE:
            self.rest = data[position:]
        else:
            self._buffer = data[position:]
        return pieces

    def _start_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise HeadError(400, "bad-chunk", "a chunk size line is malformed")
        self._left = int(match.group(1), 16)
        self._state = _DATA if self._left else _TRAILERS

    def _feed_trailers(self, data: bytes, position: int) -> int:
        """Look for the empty line; returns the position after it, or `position` when it has not come yet."""
        if data.startswith(b"\r\n", position):
            end = position
        else:
            found = data.find(b"\r\n\r\n", position)
            if found < 0:
                if len(data) - position > MAX_TRAILERS:
                    raise HeadError(431, "head-too-large", f"trailers are over {MAX_TRAILERS} bytes")
                return position
            end = found + 2
        if end - position > MAX_TRAILERS:
            raise HeadError(431, "head-too-large", f"trailers are over {MAX_TRAILERS} bytes")
        self.trailers = data[position:end]
        self._state = _DONE
        self.done = True
        return end + 2
