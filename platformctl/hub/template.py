"""A request head as a template: the next head of the same client mostly differs in a line or two.

A client on a kept connection repeats itself: same method, host, credentials and framing, another path, cookie or trace
id. So a head is compared line by line with the one that was parsed in full, and only lines that differ are looked at.
A difference that could matter for anything but the text that is passed on makes the template refuse, and the head is
parsed in full like any other: this is a shorter way to the same result, never another one.
"""

from __future__ import annotations

import re
from typing import Final

from platformctl.access.policy import Grant
from platformctl.telemetry import tracing
from platformctl.wire.heads import MAX_REQUEST_HEAD, MAX_TARGET

__all__ = ["Template"]

# As wire/heads reads a field and a target in origin form.
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+:)[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_PATH: Final = re.compile(rb"/[!\"$-~]*")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")

_FIXED: Final = -1  # a line that decides something: when it differs, the head is parsed in full
_TRACEPARENT: Final = -2
_REQUEST_ID_LINE: Final = -3
# Passed on, yet not only text.
_SIGNIFICANT: Final = frozenset({b"expect:", b"tracestate:", b"te:"})


class Template:
    """Made from a head that was parsed, resolved and found to have no body.

    Args:
        raw: the head's bytes.
        before, after: what stands before the path and after the client's own fields in the OPEN payload.
        path: the path as it is passed on.
        block: the client's fields as they are passed on.
        prefix: of the path, when the service is addressed by it: it stays, and is not passed on.
        grant: what the caller may do there; it decides about another path.
        traceparent, request_id: as the full way found them; a new head's are set by `adapt`.
    """

    __slots__ = ("_grant", "_lines", "_method", "_parts", "_prefix", "_slots", "path", "request_id", "traceparent")

    def __init__(
        self,
        raw: bytes,
        before: bytes,
        path: bytes,
        block: bytes,
        after: bytes,
        *,
        prefix: bytes,
        grant: Grant,
        traceparent: bytes,
        request_id: bytes,
    ) -> None:
        self._lines = raw.split(b"\r\n")
        self._method = self._lines[0].partition(b" ")[0]
        self._prefix = prefix
        self._grant = grant
        self.path = path
        self.traceparent = traceparent
        self.request_id = request_id
        fields = block.split(b"\r\n")[:-1]
        self._parts = [before, path, b"\r\n", *(field + b"\r\n" for field in fields), after]
        self._slots = self._find(fields)

    def _find(self, fields: list[bytes]) -> list[int]:
        """For each line of the head where it stands in the parts, or what it is."""
        slots = [_FIXED]
        at = 0
        for line in self._lines[1:]:
            match = _FIELD.fullmatch(line)
            if match is None:
                slots.append(_FIXED)  # the empty lines at the end
                continue
            name = match.group(1).lower()
            passed = b"%b %b" % (match.group(1), match.group(2).rstrip(b" \t"))
            if at < len(fields) and fields[at] == passed:
                slots.append(_FIXED if name in _SIGNIFICANT else 3 + at)
                at += 1
            elif name == b"traceparent:":
                slots.append(_TRACEPARENT)
            else:
                slots.append(_REQUEST_ID_LINE if name == b"x-request-id:" else _FIXED)
        return slots

    def adapt(self, raw: bytes) -> bytes | None:
        """The OPEN payload for another head of the same shape; None: parse it in full.

        Sets `path`, `traceparent` and `request_id` (empty: make a new one).
        """
        lines = raw.split(b"\r\n")
        old = self._lines
        if len(lines) != len(old) or len(raw) > MAX_REQUEST_HEAD:
            return None
        changed = [index for index, line in enumerate(lines) if line != old[index]]
        parts = self._parts.copy()
        path = self.path
        traceparent = self.traceparent
        request_id = self.request_id
        for index in changed:
            line = lines[index]
            if index == 0:
                found = self._new_path(line)
                if found is None:
                    return None
                parts[1] = path = found
                continue
            slot = self._slots[index]
            if slot == _FIXED:
                return None
            match = _FIELD.fullmatch(line)
            if match is None or not old[index].startswith(match.group(1)):
                return None
            value = match.group(2).rstrip(b" \t")
            if slot > 0:
                parts[slot] = b"%b %b\r\n" % (match.group(1), value)
            elif slot == _TRACEPARENT:
                if tracing.parse(value) is None or not traceparent:
                    return None
                traceparent = value
            else:
                request_id = value if _REQUEST_ID.fullmatch(value) else b""
        self._parts = parts
        self._lines = lines
        self.path = path
        self.traceparent = traceparent
        self.request_id = request_id
        return b"".join(parts)

    def _new_path(self, line: bytes) -> bytes | None:
        words = line.split(b" ")
        if len(words) != 3 or words[0] != self._method or words[2] != b"HTTP/1.1":
            return None
        target = words[1]
        if len(target) > MAX_TARGET or not _PATH.fullmatch(target):
            return None
        prefix = self._prefix
        if prefix:
            if not target.startswith(prefix + b"/"):
                return None
            target = target[len(prefix) :]
        if not self._grant.unconditional:
            decision = self._grant.check(self._method.decode("ascii"), target.decode("ascii"))
            if not decision.allowed:
                return None
        return target
