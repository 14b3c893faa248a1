"""What must not reach a log: secrets, terminal escapes, and text without end.

Two nets, for each has holes: values whose *key* names a secret are replaced whole, and in all other text what *looks*
like a secret is. Neither excuses logging one on purpose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

__all__ = ["MAX_TEXT", "REDACTED", "clean", "clean_text", "is_secret_key"]

REDACTED: Final = "[redacted]"
MAX_TEXT: Final = 2048
_MAX_ITEMS: Final = 50
_MAX_DEPTH: Final = 4

# The last words of a key: `admin_token` and `X-Api-Key` name secrets; `token_id`, `token_file` and `key` do not.
_SECRET_KEY: Final = re.compile(
    r"(?:^|[^a-z0-9])(?:authorization|cookies?|tokens?|secrets?|passwords?|passwd|passphrase|credentials?"
    r"|(?:api|private|secret|access|signing|encryption)[-_. ]?keys?|bearer|jwt)$"
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Every repetition is bounded or possessive, for the text is foreign and may be made to take long.
_SECRET_TEXT: Final = re.compile(
    r"(?P<pem>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z))"
    # An Authorization or Cookie field as it stands in a request, or in a printed dict: to the end of the value.
    r"|(?P<field>\b(?:proxy-)?authorization\b|\b(?:set-)?cookie\b)(?P<colon>[\"']?\s*[:=,]\s*b?[\"']?)[^\"'\r\n]+"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<user>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@?#]++@"
    r"|(?P<assign>(?:token|secret|password|passwd|passphrase|api[-_]?key|private[-_]?key|access[-_]?key)"
    r"[\"']?\s*[=:]\s*b?[\"']?)[^\s\"'&,;})\]]+"
    r"|(?P<jwt>(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*)"
    # Our own join and client tokens, see access/tokens.py: an id, a dot and 32 bytes in base64.
    r"|(?P<ours>(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{8,40}+\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-]))",
    re.IGNORECASE | re.DOTALL,
)


def is_secret_key(key: str) -> bool:
    """Whether what this key holds must not be shown."""
    return _SECRET_KEY.search(_CAMEL.sub("_", key).lower()) is not None


def clean_text(text: str, limit: int = MAX_TEXT, multiline: bool = False) -> str:
    """Redact, escape everything that is not printable (line ends too, unless `multiline`), and cut at `limit`."""
    # The first cut bounds the work; a secret that it splits is still recognised by its beginning.
    shown = _SECRET_TEXT.sub(_redact, text[: 2 * limit])
    if not shown.isprintable():
        kept = "\n\t" if multiline else ""
        shown = "".join(c if c.isprintable() or c in kept else f"\\x{ord(c):02x}" for c in shown)
    return shown if len(shown) <= limit else shown[:limit] + "…"


def clean(value: object, depth: int = 0) -> object:
    """A value as it may be logged: JSON types only, cleaned text, bounded in depth, length and number of items."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 64 else f"<a number of {value.bit_length()} bits>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no word for these
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return clean_text(bytes(value[:MAX_TEXT]).decode("latin-1"))
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return _clean_mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            items = [clean(item, depth + 1) for _, item in zip(range(_MAX_ITEMS), value, strict=False)]
            return items if len(value) <= _MAX_ITEMS else [*items, f"… {len(value) - _MAX_ITEMS} more"]
    try:
        return clean_text(str(value))
    except Exception as e:  # a log line about trouble must not become trouble
        return f"<{type(value).__name__}: {type(e).__name__}>"


def _clean_mapping(value: Mapping[object, object], depth: int) -> dict[str, object]:
    shown: dict[str, object] = {}
    for _, (key, item) in zip(range(_MAX_ITEMS), value.items(), strict=False):
        name = clean_text(str(key), 128)
        shown[name] = REDACTED if is_secret_key(name) and item else clean(item, depth + 1)
    if len(value) > _MAX_ITEMS:
        shown["…"] = f"{len(value) - _MAX_ITEMS} more"
    return shown


def _redact(match: re.Match[str]) -> str:
    found = match.groupdict()
    if found["field"]:
        return f"{found['field']}{found['colon']}{REDACTED}"
    if found["user"]:
        return f"{found['user']}{REDACTED}@"
    return (found["scheme"] or found["assign"] or "") + REDACTED
