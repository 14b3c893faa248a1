"""What a joining satellite and the hub say to each other: one JSON text message from it, one or two answers.

GET /ca.pem                                       -> the hub's CA bundle; public, checked against the CA pin
WebSocket /join, subprotocol platformctl.join.v1
  -> {"token", "name", "labels", "csr", "agent_version"}
  <- {"status": "pending", "fingerprint"}         approval is required; the socket stays open
  <- {"status": "accepted", "name", "labels", "certificate", "ca", "replicas": [{"id", "url"}]}
  <- {"status": "refused", "code", "detail", "hint"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from platformctl.errors import JoinRefused

__all__ = [
    "CA_PATH",
    "JOIN_PATH",
    "JOIN_PROTOCOL",
    "MAX_ANSWER",
    "MAX_CA",
    "MAX_REQUEST",
    "Accepted",
    "JoinRequest",
    "Pending",
    "Refused",
    "parse_answer",
]

JOIN_PATH: Final = "/join"
CA_PATH: Final = "/ca.pem"
JOIN_PROTOCOL: Final = "platformctl.join.v1"

# A P-256 request has 500 bytes, and 64 labels at their longest 24 KiB.
MAX_REQUEST: Final = 32 * 1024
MAX_ANSWER: Final = 256 * 1024
MAX_CA: Final = 64 * 1024

_OTHER_RELEASE: Final = "Use the same release of platformctl as the hub."


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """`csr` is PKCS #10 in PEM."""

    token: str = field(repr=False)
    name: str
    labels: Mapping[str, str]
    csr: str
    agent_version: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: bytes) -> JoinRequest:
        """From a satellite, which is not trusted: JoinRefused unless everything has its type."""
        data = _object(text, MAX_REQUEST, "request")
        labels = data.get("labels", {})
        texts = {key: data.get(key, "") for key in ("token", "name", "csr", "agent_version")}
        ok = all(isinstance(value, str) for value in texts.values()) and isinstance(labels, dict)
        if not ok or not all(isinstance(value, str) for value in labels.values()):
            raise JoinRefused("the join request is malformed", hint=_OTHER_RELEASE)
        return cls(labels=labels, **texts)


@dataclass(frozen=True, slots=True)
class Pending:
    """Somebody has to accept the satellite; `fingerprint` is the pin of its key, shown on both sides."""

    fingerprint: str

    def encode(self) -> str:
        return json.dumps({"status": "pending", **asdict(self)})


@dataclass(frozen=True, slots=True)
class Accepted:
    """`labels` are those that the token grants; `ca` is the bundle to trust; `replicas` are where to dial."""

    name: str
    labels: Mapping[str, str]
    certificate: str
    ca: str
    replicas: Sequence[Mapping[str, str]] = ()

    def encode(self) -> str:
        return json.dumps({"status": "accepted", **asdict(self)})


@dataclass(frozen=True, slots=True)
class Refused:
    """`code` is one of join-refused, bad-request, rate-limited, already-joined, approval-timeout, hub-error."""

    code: str
    detail: str
    hint: str = ""

    def encode(self) -> str:
        return json.dumps({"status": "refused", **asdict(self)})


def parse_answer(text: bytes) -> Pending | Accepted | Refused:
    """From the hub. JoinRefused when it is not an answer of this protocol."""
    data = _object(text, MAX_ANSWER, "answer")
    status = data.pop("status", None)
    try:
        if status == "pending":
            return Pending(str(data["fingerprint"]))
        if status == "refused":
            return Refused(str(data["code"]), str(data["detail"]), str(data.get("hint", "")))
        if status == "accepted":
            return _accepted(data)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise JoinRefused("the hub's answer is malformed", hint=_OTHER_RELEASE) from e
    raise JoinRefused("the hub's answer is of an unknown kind", hint=_OTHER_RELEASE)


def _accepted(data: dict[str, Any]) -> Accepted:
    replicas = [{"id": str(each["id"]), "url": str(each["url"])} for each in data.get("replicas", [])]
    labels = {str(key): str(value) for key, value in data["labels"].items()}
    return Accepted(str(data["name"]), labels, str(data["certificate"]), str(data["ca"]), replicas)


def _object(text: bytes, limit: int, what: str) -> dict[str, Any]:
    if len(text) > limit:
        raise JoinRefused(f"the join {what} is larger than {limit} bytes", hint="Use fewer or shorter labels.")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise JoinRefused(f"the join {what} is not JSON", hint="Is this the hub's tunnel address?") from e
    if not isinstance(data, dict):
        raise JoinRefused(f"the join {what} is not a JSON object", hint="Is this the hub's tunnel address?")
    return data
