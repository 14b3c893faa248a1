"""How long and how often a scenario measures, and whom: one plan for real runs, one for a quick look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Plan:
    """`seconds` is the length of one measurement, `rounds` how often each is taken, all contenders in turn.

    `connections` are those of a closed loop, `rates` the requests a second of an open one, `megabytes` (2^20) of a
    bulk transfer, `satellites` and `replicas` of a platform of its own.
    """

    contenders: tuple[str, ...] = ("platformctl",)
    seconds: int = 10
    rounds: int = 1
    connections: tuple[int, ...] = ()
    rates: tuple[int, ...] = ()
    megabytes: int = 1024
    satellites: int = 1
    replicas: int = 1

    def changed(self, wishes: Mapping[str, Any]) -> Plan:
        """With what somebody asked for; None is no wish. A scenario takes only contenders that it knows how to judge."""
        given = {name: value for name, value in wishes.items() if value is not None}
        return replace(self, **given)

    def without(self, missing: frozenset[str]) -> Plan:
        return replace(self, contenders=tuple(name for name in self.contenders if name not in missing))
