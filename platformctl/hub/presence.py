"""What replicas tell each other through the store: that they run, where, and which satellites they hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from platformctl.errors import StoreError
from platformctl.hub.config import HubConfig
from platformctl.hub.store import Replica, Store

HEARTBEAT_SECONDS: Final = 1.0
# A replica that said nothing for this long is gone, whatever became of it.
STALE_SECONDS: Final = 8.0
_PREFIX: Final = "presence/"


class Presence:
    """This replica's heartbeat, and the others as last seen. Times are Unix seconds."""

    def __init__(self, store: Store, config: HubConfig, tunnel_url: str, public_url: str, metrics_url: str) -> None:
        self.replicas: list[Replica] = []
        self.holds: dict[str, list[str]] = {}
        self.problem = ""
        self._store = store
        self._id = config.id
        self._urls = (tunnel_url, public_url, metrics_url)
        self._told: list[str] | None = None

    def beat(self, satellites: list[str], on_replicas: Callable[[list[dict[str, str]]], None]) -> None:
        """Say that this replica runs and holds `satellites`; learn the others. A store in trouble is not fatal."""
        now = time.time()
        try:
            self._store.heartbeat(Replica(self._id, *self._urls, now))
            if satellites != self._told:
                self._store.put_setting(_PREFIX + self._id, json.dumps(satellites))
                self._told = satellites
            self.replicas = self._store.list_replicas(seen_since=now - STALE_SECONDS)
            self.holds = {
                replica.id: json.loads(self._store.get_setting(_PREFIX + replica.id) or "[]")
                for replica in self.replicas
            }
            self.problem = ""
        except StoreError as e:
            self.problem = e.message
            return
        on_replicas(
            [{"id": one.id, "url": one.tunnel_url} for one in sorted(self.replicas, key=lambda r: r.id)]
        )

    def leave(self) -> None:
        """This replica is going: nobody should expect tunnels to it."""
        self._store.remove_replica(self._id)
        self._store.put_setting(_PREFIX + self._id, "[]")

    def connected(self, satellite: str) -> int:
        """How many running replicas hold a tunnel of `satellite`."""
        return sum(1 for held in self.holds.values() if satellite in held)
