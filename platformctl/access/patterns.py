"""What access rules match with: globs on names, label selectors, patterns on paths.

1. A glob knows one sign, `*`: any run of characters, also none. Matching is linear in the value's length.
2. A selector is `key=value[,key=value]`, as in the `Platform-Selector` header; all must hold, values may be globs.
3. A path pattern is absolute. Without a wildcard it means that one path. `*` stays inside a segment, and a segment
   `*` is never empty. A segment `**` is any number of segments, also none: `/v1/**` means `/v1` and all below it.
4. A path is matched in its canonical form, or not at all: where servers are known to disagree about what a path
   means, no pattern may say yes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_to_bytes

from platformctl.errors import excerpt

__all__ = ["Glob", "Globs", "PathPattern", "Selector", "canonical_path"]

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_REQUIREMENT = re.compile(r"([A-Za-z0-9./_-]+)=([A-Za-z0-9._*-]*)")
# Controls, and the backslash, which some servers take for a slash (WHATWG URL does, RFC 3986 does not).
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")


class Glob:
    """One glob; `literal` when it has no `*`."""

    __slots__ = ("_head", "_middle", "_only_head", "_tail", "literal", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.literal = "*" not in text
        first, *rest = text.split("*")
        self._head = first
        self._tail = rest.pop() if rest else ""
        self._middle = tuple(part for part in rest if part)
        self._only_head = not self.literal and not self._middle and not self._tail

    def matches(self, value: str) -> bool:
        if self.literal:
            return value == self.text
        if not value.startswith(self._head):
            return False
        if self._only_head:
            return True
        at, end = len(self._head), len(value) - len(self._tail)
        # Taking the leftmost place of each part leaves most for the next ones, so no other choice can do better.
        for part in self._middle:
            found = value.find(part, at, max(at, end))
            if found < 0:
                return False
            at = found + len(part)
        return at <= end and value.endswith(self._tail)


class Globs:
    """Several globs, any of which may match; the literal ones are one set."""

    __slots__ = ("exact", "wild")

    def __init__(self, texts: Iterable[str]) -> None:
        globs = [Glob(text) for text in texts]
        self.exact = frozenset(glob.text for glob in globs if glob.literal)
        self.wild = tuple(glob for glob in globs if not glob.literal)

    def matches(self, value: str) -> bool:
        if value in self.exact:
            return True
        for glob in self.wild:  # noqa: SIM110 (a generator costs more than the matching)
            if glob.matches(value):
                return True
        return False


class Selector:
    """Label requirements that must all hold. ValueError for text that is not a selector."""

    __slots__ = ("_wanted", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        wanted: dict[str, Glob] = {}
        for part in text.split(","):
            requirement = _REQUIREMENT.fullmatch(part.strip(" "))
            if requirement is None or requirement[1] in wanted:
                raise ValueError(f"{excerpt(part.strip())!r} is not key=value, or its key comes twice")
            wanted[requirement[1]] = Glob(requirement[2])
        self._wanted = tuple(wanted.items())

    def matches(self, labels: Mapping[str, str]) -> bool:
        for key, glob in self._wanted:  # noqa: SIM110 (a generator costs more than the matching)
            if key not in labels or not glob.matches(labels[key]):
                return False
        return True


class PathPattern:
    """One pattern for canonical paths. ValueError for text that is not one."""

    __slots__ = ("_below", "_exact", "_segments", "text")

    def __init__(self, text: str) -> None:
        segments = text.split("/")[1:]
        if not text.startswith("/"):
            raise ValueError("a path pattern starts with /")
        sample = text.replace("*", "x")
        if "?" in text or "#" in text or canonical_path(quote(sample)) != sample:
            raise ValueError("a path pattern has no escapes, query, empty segment, '.', '..' or backslash")
        if any("**" in segment and segment != "**" for segment in segments):
            raise ValueError("** stands for whole segments, as in /v1/**")
        self.text = text
        self._exact = text if "*" not in text else None
        prefix = text.removesuffix("/**")
        # `/v1/**` is by far the commonest pattern, and a string comparison.
        self._below = prefix if prefix != text and "*" not in prefix else None
        self._segments = tuple(None if segment == "**" else Glob(segment) for segment in segments)

    def matches(self, path: str) -> bool:
        if self._exact is not None:
            return path == self._exact
        if self._below is not None:
            return path == self._below or path.startswith(self._below + "/")
        return self._walk(path.split("/")[1:])

    def _walk(self, path: list[str]) -> bool:
        """Wildcard matching with one point to return to: the latest `**`. At most segments x patterns steps."""
        at = i = 0
        resume: tuple[int, int] | None = None
        while at < len(path):
            glob = self._segments[i] if i < len(self._segments) else _END
            if glob is None:
                resume = (i, at)
                i += 1
            elif glob is not _END and glob.matches(path[at]) and (path[at] or glob.literal):
                at += 1
                i += 1
            elif resume is not None:
                resume = (resume[0], resume[1] + 1)
                i, at = resume[0] + 1, resume[1]
            else:
                return False
        return all(glob is None for glob in self._segments[i:])


_END = Glob("")


def canonical_path(raw: str) -> str | None:
    """A request's path, percent-decoded once and without its query; None when its meaning depends on who reads it.

    None for: relative paths, malformed or doubled escapes, bytes that are not UTF-8, encoded slashes, backslashes,
    control characters, empty segments, and `.` or `..` segments (also as `..;x`, which servlet containers resolve).
    A slash at the end is kept: it is a path of its own.
    """
    path = raw.partition("?")[0]
    if not path.startswith("/") or "#" in path or not path.isascii():
        return None
    if "%" in path:
        if path.count("%") != len(_ESCAPE.findall(path)) or "%2f" in path.lower():
            return None
        try:
            path = unquote_to_bytes(path).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if _ESCAPE.search(path):
            return None
    if "//" in path or _UNSAFE.search(path):
        return None
    if "/." in path and any(part.partition(";")[0] in (".", "..") for part in path.split("/")):
        return None
    return path
