"""The chunked transfer coding (RFC 9112 7.1), decoded strictly and without looking past the end of the body."""

from __future__ import annotations

import re
from typing import Final

from platformctl.errors import HeadError, LocalMisuse
from platformctl.wire.fields import BLOCK

MAX_SIZE_LINE: Final = 256
MAX_TRAILERS: Final = 8 * 1024
# Size, then extensions of visible characters; 15 hex digits fit a signed 64-bit number.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e]*)?")

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3


class ChunkedDecoder:
    """Feed it bytes until `done`; then `rest` is what came after the body (the next request of a pipeline).

    Attributes:
        done: the last chunk and the trailers have come.
        trailers: the trailer lines as sent, well-formed `Name: value CRLF` each.
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
        """Decode; returns the pieces of body in `data`. How the input is cut into pieces changes nothing else.

        Raises:
            HeadError: 400: a bad size line or trailer line, a missing CRLF; 431: trailers over MAX_TRAILERS.
            LocalMisuse: the body has ended already.
        """
        if self.done:
            raise LocalMisuse("a chunked body was fed after its end")
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
                if not b"\r\n".startswith(data[position : position + 2]):
                    raise HeadError(400, "bad-chunk", "a chunk is not followed by CRLF")
                if size - position < 2:
                    break
                position += 2
                self._state = _SIZE
            else:
                end = self._line_end(data, position)
                if end < 0:
                    break
                last = self._on_line(data[position:end])
                position = end + 2
                if last:
                    self.done = True
                    self.rest = data[position:]
                    return pieces
        self._buffer = data[position:]
        return pieces

    def _line_end(self, data: bytes, position: int) -> int:
        """Where the line at `position` ends, -1 when the CRLF has not come yet."""
        sizes = self._state == _SIZE
        longest = MAX_SIZE_LINE if sizes else MAX_TRAILERS - len(self.trailers)
        feed = data.find(b"\n", position, position + longest + 2)
        if feed > position and data[feed - 1] == 0x0D:
            return feed - 1
        if feed >= 0:
            raise HeadError(400, "bad-chunk", "a line of the chunked coding ends in a bare LF")
        if len(data) - position >= longest + 2:
            if sizes:
                raise HeadError(400, "bad-chunk", f"a chunk size line is over {MAX_SIZE_LINE} bytes")
            raise HeadError(431, "head-too-large", f"trailers are over {MAX_TRAILERS} bytes")
        return -1

    def _on_line(self, line: bytes) -> bool:
        """Take a line without its CRLF; True when it was the last one of the body."""
        if self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise HeadError(400, "bad-chunk", "a chunk size line is malformed")
            self._left = int(match.group(1), 16)
            self._state = _DATA if self._left else _TRAILERS
        elif not line:
            return True
        else:
            line += b"\r\n"
            if not BLOCK.fullmatch(line):
                raise HeadError(400, "bad-chunk", "a trailer line is malformed")
            if len(self.trailers) + len(line) > MAX_TRAILERS:
                raise HeadError(431, "head-too-large", f"trailers are over {MAX_TRAILERS} bytes")
            self.trailers += line
        return False
