"""Who is calling: identities, and the names and labels that satellites go by.

An identity is what some credential proved; it is written `<kind>:<name>` in policies, audit lines and the
`Platform-Identity` header. Satellites carry theirs in the certificate as `spiffe://<trust-domain>/satellite/<name>`
(SPIFFE-ID, sections 2.1 and 2.2: scheme and trust domain in lower case, no port, no query, no empty segment).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from platformctl.errors import AccessDenied, LocalMisuse, UsageError, excerpt

__all__ = [
    "ANONYMOUS",
    "HUB",
    "KINDS",
    "Identity",
    "check_labels",
    "check_satellite_name",
    "parse_spiffe_uri",
    "spiffe_uri",
    "trust_domain_uri",
    "valid_name",
    "valid_satellite_name",
    "valid_trust_domain",
]

KINDS = ("anonymous", "token", "mtls", "oidc", "serviceaccount", "system")

HUB = "hub"
"""The name under which policies know the hub itself (service `api`: the control API). No satellite may take it."""

MAX_IDENTITY_NAME = 256
MAX_LABELS = 64

# RFC 1123 label, lower case: what Kubernetes takes as a name and DNS as a part of a host name.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
# The syntax of Kubernetes labels: [prefix/]name, and a value that may be empty.
_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
# `:` and `@` stay readable in the header; everything else that is not unreserved (RFC 3986) is percent-encoded.
_HEADER_SAFE = ":@/"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as its credential proved it. `groups` are bare names, without `group:`."""

    kind: str
    name: str = ""
    groups: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LocalMisuse(f"unknown kind of identity: {self.kind!r}")
        if (self.name == "") != (self.kind == "anonymous"):
            raise LocalMisuse(f"an identity of kind {self.kind} {'has no' if self.name else 'needs a'} name")
        if len(self.name) > MAX_IDENTITY_NAME or not self.name.isprintable():
            raise AccessDenied(
                f"the identity's name is too long or not printable: {excerpt(self.name)}",
                hint=f"names have at most {MAX_IDENTITY_NAME} printable characters; rename it at its issuer",
            )

    @property
    def subject(self) -> str:
        """`<kind>:<name>` as policies write it; `anonymous` alone for a caller without a credential."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def header(self) -> str:
        """The value of `Platform-Identity`: the subject, in visible ASCII, so that it can't break a head."""
        return quote(self.subject, safe=_HEADER_SAFE)

    def __str__(self) -> str:
        return self.subject


ANONYMOUS = Identity("anonymous")


def valid_name(name: str) -> bool:
    """A DNS label (RFC 1123) in lower case, at most 63 characters: names of satellites and services."""
    return _NAME.fullmatch(name) is not None


def valid_satellite_name(name: str) -> bool:
    return name != HUB and valid_name(name)


def valid_trust_domain(trust_domain: str) -> bool:
    return _TRUST_DOMAIN.fullmatch(trust_domain) is not None


def check_satellite_name(name: str) -> None:
    """Raises UsageError, saying which rule the name breaks."""
    if name == HUB:
        raise UsageError(
            f"a satellite cannot be named {HUB!r}",
            hint=f"policies know the hub itself by the name {HUB!r}; choose another one",
        )
    if not valid_name(name):
        raise UsageError(
            f"{excerpt(name)!r} is not a satellite name",
            hint="use 1 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends, as in edge-1",
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises UsageError unless all labels have the syntax of Kubernetes labels."""
    if len(labels) > MAX_LABELS:
        raise UsageError(f"{len(labels)} labels are too many", hint=f"a satellite has at most {MAX_LABELS} labels")
    for key, value in labels.items():
        prefix, slash, part = key.rpartition("/")
        key_ok = _LABEL_PART.fullmatch(part) and (_LABEL_PREFIX.fullmatch(prefix) if slash else True)
        if not key_ok or (value and not _LABEL_PART.fullmatch(value)):
            raise UsageError(
                f"{excerpt(f'{key}={value}')!r} is not a label",
                hint="labels are key=value with the syntax of Kubernetes labels, as in region=eu",
            )


def trust_domain_uri(trust_domain: str) -> str:
    """The SPIFFE ID of the trust domain itself; it is in the CA's own certificate."""
    if not valid_trust_domain(trust_domain):
        raise UsageError(
            f"{excerpt(trust_domain)!r} is not a trust domain",
            hint="use lower-case letters, digits, dots, dashes and underscores, as in hub.example.com",
        )
    return f"spiffe://{trust_domain}"


def spiffe_uri(trust_domain: str, name: str) -> str:
    """`spiffe://<trust-domain>/satellite/<name>`; UsageError when either part is not allowed."""
    check_satellite_name(name)
    return f"{trust_domain_uri(trust_domain)}/satellite/{name}"


def parse_spiffe_uri(uri: str) -> tuple[str, str]:
    """The (trust domain, satellite name) of a satellite's URI; AccessDenied for anything else, never a best guess."""
    parts = uri.split("/")
    if (
        len(parts) == 5
        and parts[:2] == ["spiffe:", ""]
        and valid_trust_domain(parts[2])
        and parts[3] == "satellite"
        and valid_satellite_name(parts[4])
    ):
        return parts[2], parts[4]
    raise AccessDenied(
        f"{excerpt(uri)!r} does not name a satellite",
        hint="a satellite's certificate carries spiffe://<trust-domain>/satellite/<name>; join it again",
    )
