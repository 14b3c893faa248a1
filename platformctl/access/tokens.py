"""Join tokens and static client tokens: `<id>.<secret>`, of which only a hash is kept.

The secret has 256 random bits, so one SHA-256 of it can't be reversed by guessing and needs no salt or slow hash.
The id is not secret: it is what lists, audit lines and `token revoke` show.
Secrets are compared in constant time, and a wrong secret is answered as an unknown id is: nothing can be learned
about a token without its secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from platformctl.access.identity import Identity, check_labels, check_satellite_name
from platformctl.errors import JoinRefused, LocalMisuse, UsageError, excerpt

__all__ = [
    "ENTROPY_BYTES",
    "JOIN_TTL_SECONDS",
    "ClientToken",
    "ClientTokens",
    "JoinToken",
    "check_join_token",
    "mint_client_token",
    "mint_join_token",
    "token_id",
]

ENTROPY_BYTES = 38
"""What minting takes: 6 bytes become the id, 32 the secret."""

JOIN_TTL_SECONDS = 900.0
MAX_JOIN_TTL_SECONDS = 7 * 86400.0
_MAX_TEXT = 128
_ID_BYTES = 6
_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token as it is kept. Times are Unix seconds on the hub's clock; `used_at` is None until it is used."""

    id: str
    digest: str = field(repr=False)
    satellite: str
    labels: Mapping[str, str]
    created: float
    expires: float
    used_at: float | None = None

    def state(self, now: float) -> str:
        """`used`, `expired` or `unused`."""
        if self.used_at is not None:
            return "used"
        return "expired" if now >= self.expires else "unused"


@dataclass(frozen=True, slots=True)
class ClientToken:
    """A static client token as it is kept; it proves the identity `token:<name>`. `expires` None: until revoked."""

    id: str
    digest: str = field(repr=False)
    name: str
    groups: tuple[str, ...]
    created: float
    expires: float | None = None

    @property
    def identity(self) -> Identity:
        return Identity("token", self.name, frozenset(self.groups))


def token_id(text: str) -> str:
    """The id in a token's text, or "" when the text is not a token; the secret is not looked at."""
    name, dot, secret = text.partition(".")
    return name if dot and secret and len(text) <= _MAX_TEXT else ""


def mint_join_token(
    entropy: bytes,
    satellite: str,
    labels: Mapping[str, str],
    *,
    now: float,
    ttl_seconds: float = JOIN_TTL_SECONDS,
) -> tuple[str, JoinToken]:
    """A new join token: (its text, to be shown once; the record to keep).

    `entropy` is ENTROPY_BYTES of a cryptographic source. UsageError for a name, label or lifetime that is not allowed.
    """
    check_satellite_name(satellite)
    check_labels(labels)
    if not 0 < ttl_seconds <= MAX_JOIN_TTL_SECONDS:
        raise UsageError(
            f"a join token cannot live for {ttl_seconds:g} seconds",
            hint=f"choose a lifetime between 1 second and {MAX_JOIN_TTL_SECONDS / 86400:g} days; 15m is usual",
        )
    name, secret = _split(entropy, "jt-")
    frozen = MappingProxyType(dict(labels))
    return f"{name}.{secret}", JoinToken(name, _digest(secret), satellite, frozen, now, now + ttl_seconds)


def check_join_token(
    record: JoinToken | None,
    text: str,
    satellite: str,
    labels: Mapping[str, str],
    now: float,
) -> None:
    """Returns when `text` may join `satellite`, else raises JoinRefused with the reason.

    `record` is what the store has under `token_id(text)`, or None. The satellite gets exactly the token's labels:
    those that it asks for must be among them. The caller still has to consume the token (`Store.consume_join_token`),
    and only the one caller for whom that succeeds may go on.
    """
    secret = text.partition(".")[2]
    matches = hmac.compare_digest(_digest(secret), record.digest if record else _NO_DIGEST)
    if record is None or not matches or token_id(text) != record.id:
        raise JoinRefused("the join token is not valid", hint=_NEW_TOKEN.format(satellite=excerpt(satellite)))
    hint = _NEW_TOKEN.format(satellite=record.satellite)
    if record.used_at is not None:
        raise JoinRefused(f"join token {record.id} was used already; it works once", hint=hint)
    if now >= record.expires:
        raise JoinRefused(f"join token {record.id} expired {now - record.expires:.0f} seconds ago", hint=hint)
    if satellite != record.satellite:
        raise JoinRefused(
            f"join token {record.id} is for satellite {record.satellite!r}, not for {excerpt(satellite)!r}",
            hint=_NEW_TOKEN.format(satellite=excerpt(satellite)),
        )
    for key, value in labels.items():
        if record.labels.get(key) != value:
            raise JoinRefused(
                f"join token {record.id} does not grant the label {excerpt(f'{key}={value}')!r}",
                hint=f"{hint} --label {excerpt(f'{key}={value}')}",
            )


def mint_client_token(
    entropy: bytes,
    identity: str,
    groups: Iterable[str] = (),
    *,
    now: float,
    ttl_seconds: float | None = None,
) -> tuple[str, ClientToken]:
    """A new static token for `token:<identity>`: (its text, to be shown once; the record to keep)."""
    names = tuple(sorted(set(groups)))
    for name in (identity, *names):
        if not _TOKEN_NAME.fullmatch(name):
            raise UsageError(
                f"{excerpt(name)!r} is not a name for a token or a group",
                hint="use letters, digits and . _ @ - , at most 128, as in alice or ci@example.com",
            )
    if ttl_seconds is not None and ttl_seconds <= 0:
        raise UsageError(f"a client token cannot live for {ttl_seconds:g} seconds", hint="choose a lifetime above 0")
    token, secret = _split(entropy, "ct-")
    expires = None if ttl_seconds is None else now + ttl_seconds
    return f"{token}.{secret}", ClientToken(token, _digest(secret), identity, names, now, expires)


class ClientTokens:
    """All static client tokens, for lookup by text: one hash and one dictionary access, independent of their number.

    It is built once from the records and not changed: make a new one when the store's version changes.
    """

    def __init__(self, records: Iterable[ClientToken] = ()) -> None:
        self._by_id = {r.id: (r.digest, r.identity, r.expires) for r in records}

    def __len__(self) -> int:
        return len(self._by_id)

    def lookup(self, text: str, now: float) -> Identity | None:
        """The identity that the token proves now, or None: unknown, wrong, expired, or not a token at all."""
        if len(text) > _MAX_TEXT:
            return None
        name, _, secret = text.partition(".")
        entry = self._by_id.get(name)
        matches = hmac.compare_digest(_digest(secret), entry[0] if entry else _NO_DIGEST)
        if entry is None or not matches or (entry[2] is not None and now >= entry[2]):
            return None
        return entry[1]


_NEW_TOKEN = "create a new one at the hub: platformctl token create --satellite {satellite}"


def _split(entropy: bytes, prefix: str) -> tuple[str, str]:
    if len(entropy) != ENTROPY_BYTES:
        raise LocalMisuse(f"minting a token takes {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    secret = urlsafe_b64encode(entropy[_ID_BYTES:]).rstrip(b"=").decode("ascii")
    return prefix + entropy[:_ID_BYTES].hex(), secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
