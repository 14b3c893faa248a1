"""`ServiceSpec`: what an agent exports and the hub registers, and its JSON form in REGISTER.

The JSON comes from a satellite, which the hub does not trust: every type, number and count is checked here. Keys that
we do not know are ignored, so that a newer agent can talk to an older hub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from platformctl.errors import excerpt
from platformctl.routing.names import is_label_key, is_label_value, is_name

__all__ = [
    "KINDS",
    "LANES",
    "MAX_LABELS",
    "MAX_SPECS",
    "Limits",
    "ServiceSpec",
    "SpecError",
    "Timeouts",
    "labels_from_wire",
    "specs_from_wire",
]

KINDS: Final = ("http", "tcp", "mcp", "kube")
LANES: Final = ("default", "bulk")
MAX_LABELS: Final = 32
MAX_SPECS: Final = 1024  # in one REGISTER; its JSON is at most 64 KiB anyway
_MIN_SECONDS: Final = 0.001
_MAX_SECONDS: Final = 86_400.0
_MAX_CONCURRENCY: Final = 1_000_000
_MAX_QUEUE: Final = 100_000


class SpecError(ValueError):
    """A spec that is refused. `where` is the key (`timeouts.connect`), `problem` says what is wrong with its value."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect`: backend dial; `response`: request sent until response head; `idle`: no byte in either
    direction; `head`: the client's request head."""

    connect: float = 5.0
    response: float = 30.0
    idle: float = 300.0
    head: float = 10.0

    def to_wire(self) -> dict[str, object]:
        return {"connect": self.connect, "response": self.response, "idle": self.idle, "head": self.head}


@dataclass(frozen=True, slots=True)
class Limits:
    """`concurrency`: exchanges at a time, 0 is unlimited; `queue`: how many may wait, 0 refuses at once;
    `queue_timeout`: seconds."""

    concurrency: int = 0
    queue: int = 0
    queue_timeout: float = 5.0

    def to_wire(self) -> dict[str, object]:
        return {"concurrency": self.concurrency, "queue": self.queue, "queue_timeout": self.queue_timeout}


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One exported service. `lane` "bulk" asks for a tunnel of its own, away from small requests."""

    name: str
    kind: str = "http"
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    lane: str = "default"

    @classmethod
    def from_wire(cls, value: object) -> ServiceSpec:
        """Check one element of REGISTER's `services`. Raises SpecError."""
        data = _mapping(value, "service")
        name = data.get("name")
        if not isinstance(name, str) or not is_name(name):
            raise SpecError("name", f"{_shown(name)} is not a DNS label (1 to 63 of a-z, 0-9 and '-')")
        return cls(
            name=name,
            kind=_choice(data.get("kind", "http"), "kind", KINDS),
            timeouts=_timeouts(data.get("timeouts", {})),
            limits=_limits(data.get("limits", {})),
            labels=labels_from_wire(data.get("labels", {})),
            lane=_choice(data.get("lane", "default"), "lane", LANES),
        )

    def to_wire(self) -> dict[str, object]:
        """The JSON object that `from_wire` reads back to an equal spec."""
        return {
            "name": self.name,
            "kind": self.kind,
            "timeouts": self.timeouts.to_wire(),
            "limits": self.limits.to_wire(),
            "labels": dict(self.labels),
            "lane": self.lane,
        }


def specs_from_wire(value: object) -> tuple[list[ServiceSpec], list[tuple[str, str]]]:
    """Read REGISTER's `services`: the good specs, and (name, reason) of the refused ones.

    Raises SpecError when the list as a whole cannot be used. A name that occurs twice is refused the second time.
    """
    if not isinstance(value, list):
        raise SpecError("services", f"must be a list, not {_shown(value)}")
    if len(value) > MAX_SPECS:
        raise SpecError("services", f"has {len(value)} entries; at most {MAX_SPECS} are allowed")
    accepted: dict[str, ServiceSpec] = {}
    refused: list[tuple[str, str]] = []
    for item in value:
        try:
            spec = ServiceSpec.from_wire(item)
        except SpecError as e:
            name = item.get("name") if isinstance(item, dict) else None
            refused.append((excerpt(name, 63) if isinstance(name, str) else "", str(e)))
            continue
        if spec.name in accepted:
            refused.append((spec.name, "name: occurs twice in one REGISTER"))
            continue
        accepted[spec.name] = spec
    return list(accepted.values()), refused


def labels_from_wire(value: object, where: str = "labels") -> dict[str, str]:
    """Check a label map (a service's, or a satellite's in HELLO). Raises SpecError."""
    data = _mapping(value, where)
    if len(data) > MAX_LABELS:
        raise SpecError(where, f"has {len(data)} labels; at most {MAX_LABELS} are allowed")
    labels: dict[str, str] = {}
    for key, label in data.items():
        if not is_label_key(key):
            raise SpecError(where, f"{_shown(key)} is not a label key")
        if not isinstance(label, str) or not is_label_value(label):
            raise SpecError(f"{where}.{key}", f"{_shown(label)} is not a label value")
        labels[key] = label
    return labels


def _timeouts(value: object) -> Timeouts:
    data = _mapping(value, "timeouts")
    default = Timeouts()
    return Timeouts(
        connect=_seconds(data.get("connect", default.connect), "timeouts.connect", _MIN_SECONDS),
        response=_seconds(data.get("response", default.response), "timeouts.response", _MIN_SECONDS),
        idle=_seconds(data.get("idle", default.idle), "timeouts.idle", _MIN_SECONDS),
        head=_seconds(data.get("head", default.head), "timeouts.head", _MIN_SECONDS),
    )


def _limits(value: object) -> Limits:
    data = _mapping(value, "limits")
    default = Limits()
    return Limits(
        concurrency=_count(data.get("concurrency", default.concurrency), "limits.concurrency", _MAX_CONCURRENCY),
        queue=_count(data.get("queue", default.queue), "limits.queue", _MAX_QUEUE),
        queue_timeout=_seconds(data.get("queue_timeout", default.queue_timeout), "limits.queue_timeout", 0.0),
    )


def _mapping(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise SpecError(where, f"must be an object, not {_shown(value)}")
    for key in value:
        if not isinstance(key, str):  # cannot come from JSON, but can from YAML, which uses the same reader
            raise SpecError(where, f"has the key {_shown(key)}, which is not a string")
    return value


def _choice(value: object, where: str, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise SpecError(where, f"{_shown(value)} is not one of {', '.join(allowed)}")
    return value


def _seconds(value: object, where: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(where, f"must be a number of seconds, not {_shown(value)}")
    # NaN compares false with everything, so this refuses it too; an integer too large for a float compares exactly.
    if not least <= value <= _MAX_SECONDS:
        raise SpecError(where, f"must be between {least:g} and {_MAX_SECONDS:g} seconds, not {_shown(value)}")
    return float(value)


def _count(value: object, where: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(where, f"must be a whole number, not {_shown(value)}")
    if not 0 <= value <= most:
        raise SpecError(where, f"must be between 0 and {most}, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A hostile value, cut before it reaches a message; never its whole repr, which may be large or refuse to print."""
    if isinstance(value, str):
        return f'"{excerpt(value, 40)}"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return str(value) if -(10**18) < value < 10**18 else "a number of more than 18 digits"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else "a value of another type"
