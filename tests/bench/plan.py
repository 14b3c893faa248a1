"""How long and how often a scenario measures, and whom: one plan for real runs, one for a quick look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Plan:
    """`seconds` is the length of one measurement, `rounds` how often each is taken, all contenders in turn.

    `connections` are those of a closed loop, `rates` the requests a second of an open one, `ramp` the seconds at its
    start that are not counted; `satellites` are those of a fleet, on a hub of so many `replicas`, one after
    the other; `cuts` are the ways in which a network is cut.
    """

    contenders: tuple[str, ...] = ("platformctl",)
    seconds: int = 10
    rounds: int = 1
    connections: tuple[int, ...] = ()
    rates: tuple[int, ...] = ()
    ramp: int = 0
    satellites: int = 0
    replicas: tuple[int, ...] = ()
    cuts: int = 0

    def changed(self, wishes: Mapping[str, Any]) -> Plan:
        """With what somebody asked for; None is no wish."""
        return replace(self, **{name: value for name, value in wishes.items() if value is not None})

    def without(self, missing: frozenset[str]) -> Plan:
        return replace(self, contenders=tuple(name for name in self.contenders if name not in missing))
