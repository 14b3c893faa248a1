"""What a local platform consists of: replicas, satellites, declared TCP ports. Text in, data out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from platformctl.document import parse

__all__ = ["DEFAULT", "SatellitePlan", "TcpPlan", "Topology", "parse_topology"]


@dataclass(frozen=True)
class SatellitePlan:
    """`exports`: entries of an exports file, written at the satellite's first start and the user's own afterwards."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    lanes: int = 1
    exports: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class TcpPlan:
    """A port of the hub that is one TCP service; port 0: a free one."""

    satellite: str
    service: str
    port: int = 0


@dataclass(frozen=True)
class Topology:
    """`hub` holds more keys of the hub's configuration."""

    replicas: int
    satellites: tuple[SatellitePlan, ...]
    tcp: tuple[TcpPlan, ...] = ()
    hub: Mapping[str, Any] = field(default_factory=dict)

    def sized(self, replicas: int | None, satellites: int | None) -> Topology:
        """With other counts: satellites are cut from the end, and added as sat-N."""
        plans = self.satellites
        if satellites is not None:
            plans = plans[:satellites]
            names = {plan.name for plan in plans}
            fresh = (f"sat-{n}" for n in range(1, satellites + len(names) + 1) if f"sat-{n}" not in names)
            plans += tuple(SatellitePlan(next(fresh)) for _ in range(satellites - len(plans)))
        return replace(self, replicas=replicas or self.replicas, satellites=plans)

    def to_document(self) -> dict[str, Any]:
        """What `from_document` reads; JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Topology:
        """Raises KeyError or TypeError for what `to_document` did not write."""
        plans = tuple(SatellitePlan(**{**row, "exports": tuple(row["exports"])}) for row in document["satellites"])
        return cls(document["replicas"], plans, tuple(TcpPlan(**row) for row in document["tcp"]), document["hub"])

    @property
    def hubs(self) -> list[str]:
        return [f"hub-{n}" for n in range(1, self.replicas + 1)]


DEFAULT = Topology(2, (SatellitePlan("sat-1"), SatellitePlan("sat-2")))


def parse_topology(text: str, source: str, *, replicas: int = DEFAULT.replicas) -> Topology:
    """A topology file. ConfigError with file, line and key; `replicas` counts when the file gives no number."""
    document = parse(text, source, _schema())
    data: Mapping[str, Any] = document.data or {}
    plans: list[SatellitePlan] = []
    for index, row in enumerate(data.get("satellites", [])):
        plan = SatellitePlan(
            row.get("name", f"sat-{index + 1}"), row.get("labels", {}), row.get("lanes", 1), row.get("exports", ())
        )
        if any(other.name == plan.name for other in plans):
            raise document.error(("satellites", index), f"the satellite {plan.name!r} is listed twice")
        plans.append(plan)
    hub = dict(data.get("hub", {}))
    if "sample" in data.get("tracing", {}):
        hub["tracing"] = {"sample_ratio": data["tracing"]["sample"]}
    tcp = tuple(TcpPlan(row["satellite"], row["service"], row.get("port", 0)) for row in data.get("tcp", []))
    satellites = tuple(plans) if "satellites" in data else DEFAULT.satellites
    return Topology(data.get("replicas", replicas), satellites, tcp, hub)


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((files(__package__) / "topology.schema.json").read_text("utf-8"))
    return schema
