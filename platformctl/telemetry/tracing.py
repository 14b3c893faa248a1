"""W3C trace context (https://www.w3.org/TR/trace-context/): read, continue and begin traces.

Pure: random bits come from the caller (`bits(k)`, as `random.getrandbits`). Sampling is parent-based: whoever began the
trace has decided; a trace that begins here is sampled by its id, so that every process decides alike about one trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_RATIO", "TraceParent", "child", "parse", "root", "sampled", "trace_id"]

DEFAULT_RATIO: Final = 0.01
_SAMPLED: Final = 0x01
_RANDOM: Final = 0x02  # level 2 of the recommendation: the id's last 56 bits are random
# Section 3.2: lower case only. A later version may append fields, and is read as far as version 00 goes.
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
# Section 3.2.2.4: flags that we do not know are passed on as zero.
_FLAGS: Final = {b"%02x" % n: b"%02x" % (n & (_SAMPLED | _RANDOM)) for n in range(256)}
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_64_BITS: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A valid `traceparent`: ids in lower-case hex (32 and 16 digits), `flags` 0 to 255."""

    trace_id: bytes
    span_id: bytes
    flags: int

    @property
    def sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)


def parse(value: bytes) -> TraceParent | None:
    """A `traceparent` header's value; None if it is invalid, and then a new trace begins (section 4.3)."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return TraceParent(trace, span, int(flags, 16))


def child(parent: bytes, bits: Callable[[int], int]) -> bytes:
    """The `traceparent` to send on: the same trace and decision, a span id of our own.

    `parent` is a value that `parse` has accepted; it is not checked again. The result is always version 00.
    """
    return b"00-%b-%016x-%b" % (parent[3:35], bits(64) or 1, _FLAGS[parent[53:55]])


def root(bits: Callable[[int], int], ratio: float = DEFAULT_RATIO) -> bytes:
    """The `traceparent` of a new trace, sampled with probability `ratio`."""
    trace = bits(128) or 1  # all zeros is the one id that is not allowed
    return b"00-%032x-%016x-%02x" % (trace, bits(64) or 1, _RANDOM | sampled(trace, ratio))


def sampled(trace: int, ratio: float) -> bool:
    """Whether a new trace with this id is sampled; the rule of OpenTelemetry's TraceIdRatioBased (the last 64 bits)."""
    return (trace & _64_BITS) < ratio * (1 << 64)


def trace_id(value: bytes) -> str:
    """The trace id in a `traceparent` that is known to be valid, for logs and audit."""
    return value[3:35].decode("ascii")
