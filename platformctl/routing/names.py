"""What a satellite, a service and a label may be called.

Satellites and services become parts of host names, so they are DNS labels (RFC 1123 section 2.1) in lower case.
Labels follow the syntax of Kubernetes object labels, so that one selector works in both places.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_domain", "is_label_key", "is_label_value", "is_name"]

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KEY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DOMAIN_BYTES: Final = 253


def is_name(text: str) -> bool:
    """True for a DNS label in lower case: 1 to 63 of `a-z0-9-`, no hyphen at either end."""
    return _NAME.fullmatch(text) is not None


def is_domain(text: str) -> bool:
    """True for one or more DNS labels joined by dots, at most 253 characters, no trailing dot."""
    return len(text) <= _DOMAIN_BYTES and all(is_name(part) for part in text.split("."))


def is_label_key(text: str) -> bool:
    """True for `name` or `dns.prefix/name`, as Kubernetes label keys are written."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_domain(prefix):
        return False
    return _KEY.fullmatch(name) is not None


def is_label_value(text: str) -> bool:
    """True for the empty string, or 1 to 63 of `A-Za-z0-9_.-` with a letter or digit at both ends."""
    return text == "" or _KEY.fullmatch(text) is not None
