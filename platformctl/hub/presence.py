"""What replicas tell each other through the store: that they run, where, and which satellites they hold.

`exchange` waits for disks, so it belongs in another thread; it keeps what it needs to itself and returns what it saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from platformctl.hub.store import Replica, Store

HEARTBEAT_SECONDS: Final = 1.0
# A replica that said nothing for this long is gone, whatever became of it.
STALE_SECONDS: Final = 8.0
# After this long nobody asks any more what became of it.
FORGET_SECONDS: Final = 3600.0
_PREFIX: Final = "presence/"

# Held satellites by name, each with its instances that were superseded.
Holds = Mapping[str, list[str]]


@dataclass(frozen=True)
class Seen:
    """The running replicas, in the order of their ids, and what each of them holds."""

    replicas: list[Replica] = field(default_factory=list)
    holds: dict[str, Holds] = field(default_factory=dict)

    def urls(self) -> list[dict[str, str]]:
        """As WELCOME and REPLICAS carry them; without those that do not know how they are reached."""
        return [{"id": one.id, "url": one.tunnel_url} for one in self.replicas if one.tunnel_url]

    def connected(self, satellite: str) -> int:
        """How many running replicas hold a tunnel of `satellite`."""
        return sum(1 for held in self.holds.values() if satellite in held)

    def others(self, replica: str) -> Seen:
        """The same without `replica`, which knows better about itself."""
        rest = {id: held for id, held in self.holds.items() if id != replica}
        return Seen([one for one in self.replicas if one.id != replica], rest)

    def held(self) -> set[str]:
        """All satellites that some replica holds."""
        return {name for held in self.holds.values() for name in held}

    def retired(self, satellite: str, instance: str) -> bool:
        """Whether some replica holds `satellite` by a newer agent than `instance`."""
        return any(instance in held.get(satellite, ()) for held in self.holds.values())


class Presence:
    """This replica's voice, and its ear. Unix seconds are for the others to read, monotonic ones for judging them."""

    def __init__(self, store: Store, me: Replica) -> None:
        self._store = store
        self._me = me
        self._told: Holds | None = None
        self._heard: dict[str, tuple[float, float]] = {}  # id -> (what its heartbeat said, when that was new)

    def exchange(self, holds: Holds, wall: float, now: float) -> Seen:
        """Say that this replica runs and holds `holds`; learn of the others. Raises StoreError."""
        me = self._me
        self._store.heartbeat(Replica(me.id, me.tunnel_url, me.public_url, me.metrics_url, wall))
        if holds != self._told:
            self._store.put_setting(_PREFIX + me.id, json.dumps(holds))
            self._told = dict(holds)
        replicas = sorted(self._running(wall, now), key=lambda one: one.id)
        return Seen(replicas, {one.id: self._held(one.id) for one in replicas})

    def leave(self) -> None:
        """This replica is going: nobody should expect tunnels to it. Raises StoreError."""
        self._store.remove_replica(self._me.id)
        self._store.put_setting(_PREFIX + self._me.id, "{}")

    def _running(self, wall: float, now: float) -> list[Replica]:
        """Judged by whether a heartbeat moves, not by the time in it: clocks differ."""
        running = []
        for one in self._store.list_replicas(seen_since=0.0):
            said, since = self._heard.get(one.id, (None, now - max(0.0, wall - one.seen_at)))
            if said != one.seen_at:
                since = now if said is not None else since
                self._heard[one.id] = (one.seen_at, since)
            if now - since < STALE_SECONDS or one.id == self._me.id:
                running.append(one)
            elif now - since > FORGET_SECONDS:
                self._heard.pop(one.id, None)
                self._store.remove_replica(one.id)
        return running

    def _held(self, replica: str) -> Holds:
        try:
            held = json.loads(self._store.get_setting(_PREFIX + replica) or "{}")
        except ValueError:
            return {}
        return held if isinstance(held, dict) else {}
