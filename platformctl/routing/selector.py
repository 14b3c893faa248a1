"""Label selectors as Kubernetes writes them: `region=eu, role!=edge, tier in (a,b), zone notin (z), gpu, !spot`.

Syntax and meaning: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
Requirements are joined by "and". `!=` and `notin` also match where the key is absent. The empty selector matches
everything.
"""

from __future__ import annotations

import re
from typing import Final

from platformctl.errors import excerpt
from platformctl.routing.names import is_label_key, is_label_value

__all__ = [
    "EVERYTHING",
    "MAX_LENGTH",
    "MAX_REQUIREMENTS",
    "MAX_VALUES",
    "Requirement",
    "Selector",
    "SelectorError",
    "parse_selector",
]

MAX_LENGTH: Final = 1024
MAX_REQUIREMENTS: Final = 32
MAX_VALUES: Final = 32

_TOKEN: Final = re.compile(r"\s*(?:(==|!=|=|!|,|\(|\))|([A-Za-z0-9_./-]+))")


class SelectorError(ValueError):
    """A selector that cannot be read; the message says what was expected and where."""


class Requirement:
    """One condition: the label `key` is (or, if `negate`, is not) present and, unless `values` is None, one of
    `values`."""

    __slots__ = ("key", "negate", "values")

    def __init__(self, key: str, values: frozenset[str] | None, negate: bool) -> None:
        self.key = key
        self.values = values
        self.negate = negate

    def matches(self, labels: dict[str, str]) -> bool:
        value = labels.get(self.key)
        found = value is not None and (self.values is None or value in self.values)
        return found is not self.negate


class Selector:
    """A parsed selector; `text` is what it was parsed from."""

    __slots__ = ("requirements", "text")

    def __init__(self, text: str, requirements: tuple[Requirement, ...]) -> None:
        self.text = text
        self.requirements = requirements

    def matches(self, labels: dict[str, str]) -> bool:
        for requirement in self.requirements:  # noqa: SIM110  (a generator would cost more than the loop)
            if not requirement.matches(labels):
                return False
        return True

    def __repr__(self) -> str:
        return f"Selector({self.text!r})"


EVERYTHING: Final = Selector("", ())


def parse_selector(text: str) -> Selector:
    """Parse a selector of at most 1024 characters, 32 requirements and 32 values in each. Raises SelectorError."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"selector is {len(text)} characters long; at most {MAX_LENGTH} are allowed")
    tokens = _tokens(text)
    if not tokens:
        return EVERYTHING
    cursor = _Cursor(tokens)
    requirements = [_requirement(cursor)]
    while not cursor.at_end():
        cursor.expect(",", "',' between two requirements")
        if len(requirements) == MAX_REQUIREMENTS:
            raise SelectorError(f"selector has more than {MAX_REQUIREMENTS} requirements")
        requirements.append(_requirement(cursor))
    return Selector(text, tuple(requirements))


_PUNCTUATION: Final = frozenset(("==", "!=", "=", "!", ",", "(", ")"))


class _Cursor:
    """The tokens, and how far they have been read; reading past the end gives the empty string, which is no token."""

    __slots__ = ("position", "tokens")

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0

    def at_end(self) -> bool:
        return self.position == len(self.tokens)

    def peek(self) -> str:
        return "" if self.at_end() else self.tokens[self.position]

    def take(self) -> str:
        token = self.peek()
        if token:
            self.position += 1
        return token

    def expect(self, token: str, meaning: str) -> None:
        found = self.take()
        if found != token:
            raise SelectorError(f"selector: expected {meaning}, found {_found(found)}")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    end = len(text.rstrip())
    position = 0
    while position < end:
        match = _TOKEN.match(text, position, end)
        if match is None:
            raise SelectorError(f"selector: cannot read {_found(text[position:].lstrip())}")
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


def _requirement(cursor: _Cursor) -> Requirement:
    if cursor.peek() == "!":
        cursor.take()
        return Requirement(_key(cursor), None, True)
    key = _key(cursor)
    following = cursor.peek()
    if following in ("", ","):
        return Requirement(key, None, False)
    cursor.take()
    if following in ("=", "=="):
        return Requirement(key, frozenset((_value(cursor),)), False)
    if following == "!=":
        return Requirement(key, frozenset((_value(cursor),)), True)
    if following in ("in", "notin"):
        return Requirement(key, _values(cursor), following == "notin")
    raise SelectorError(f"selector: expected =, !=, in or notin after {_found(key)}, found {_found(following)}")


def _key(cursor: _Cursor) -> str:
    key = cursor.take()
    if not is_label_key(key):
        raise SelectorError(f"selector: expected a label key, found {_found(key)}")
    return key


def _value(cursor: _Cursor) -> str:
    if cursor.peek() in ("", ",", ")"):  # `region=` asks for the empty value
        return ""
    value = cursor.take()
    if value in _PUNCTUATION or not is_label_value(value):
        raise SelectorError(f"selector: expected a label value, found {_found(value)}")
    return value


def _values(cursor: _Cursor) -> frozenset[str]:
    cursor.expect("(", "'(' after in or notin")
    values = [_value(cursor)]
    while cursor.peek() == ",":
        cursor.take()
        if len(values) == MAX_VALUES:
            raise SelectorError(f"selector has more than {MAX_VALUES} values in one set")
        values.append(_value(cursor))
    cursor.expect(")", "')' after the last value")
    return frozenset(values)


def _found(token: str) -> str:
    return f"'{excerpt(token, 40)}'" if token else "the end"
