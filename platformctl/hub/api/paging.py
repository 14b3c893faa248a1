"""Lists: sorted, cut into pages, and answered with an ETag.

1. A page begins after a key, not at an offset, so that objects which come and go between two pages shift nothing.
2. `continue` is opaque: base64url of the JSON of the last key.
3. The ETag is a hash of the body, so equal lists have equal tags on every replica (RFC 9110 section 8.8.3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from platformctl.hub.api.models import Page

__all__ = ["InvalidContinue", "cut", "listing"]

Item = TypeVar("Item", bound=BaseModel)
Key = tuple[str, ...]


class InvalidContinue(Exception):
    """The `continue` parameter was not made by `cut`."""


def cut(items: Iterable[Item], key: Callable[[Item], Key], limit: int, after: str | None) -> Page[Item]:
    """The page of at most `limit` items whose keys come after the token `after`."""
    start = _decode(after) if after else None
    ordered = sorted((item for item in items if start is None or key(item) > start), key=key)
    page = ordered[:limit]
    return Page[Item](items=page, next=_encode(key(page[-1])) if len(ordered) > limit else None)


def listing(request: Request, page: Page[Item]) -> Response:
    """The page as a response: 304 when the caller has it already."""
    body = page.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization"}
    if _matches(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _matches(field: str, tag: str) -> bool:
    # Weak comparison, as RFC 9110 section 13.1.2 asks for If-None-Match; our tags hold no comma.
    known = {part.strip().removeprefix("W/") for part in field.split(",")}
    return "*" in known or tag in known


def _encode(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def _decode(token: str) -> Key:
    try:
        key = json.loads(base64.urlsafe_b64decode((token + "=" * (-len(token) % 4)).encode()))
    except (ValueError, binascii.Error, RecursionError) as e:
        raise InvalidContinue from e
    if not isinstance(key, list) or not all(isinstance(part, str) for part in key):
        raise InvalidContinue
    return tuple(key)
