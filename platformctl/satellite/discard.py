"""The sink of a stream whose backend has given its answer and takes no more of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from platformctl.wire.stream import Stream

__all__ = ["DISCARD"]


class _Discard:
    """Gives the credit of what it discards back at once, so that the sender is not held up."""

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        """Trailers of a body that is not read."""

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        if data:
            stream.consumed(len(data))

    def on_reset(self, stream: Stream, code: int) -> None:
        """The end of it."""

    def on_writable(self, stream: Stream) -> None:
        """Nothing more is sent."""


DISCARD: Final = _Discard()
