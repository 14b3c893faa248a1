"""What `deploy.local` needs of hub and satellite (store, join, API), put together at the composition root."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from platformctl import __version__
from platformctl.access import pki, tokens
from platformctl.cli.client import HubClient
from platformctl.hub.store import CaMaterial
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.tls import IDENTITY_CA, IDENTITY_CERT, IDENTITY_KEY
from platformctl.satellite import joiner

__all__ = ["STORE_FILE", "LocalParts"]

STORE_FILE = "hub.db"

Result = TypeVar("Result")


class LocalParts:
    """Implements `platformctl.deploy.local.Parts`. It keeps one API connection to each replica while `up` waits."""

    def __init__(self) -> None:
        self._clients: dict[str, HubClient] = {}

    def authority(self, store: Path, domain: str) -> tuple[str, str]:
        def make() -> CaMaterial:
            key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
            serial = secrets.token_bytes(pki.SERIAL_BYTES)
            return CaMaterial(*pki.create_ca(time.time(), domain, key, entropy=serial))

        ca = _in_store(store, lambda opened: opened.get_or_create_ca(make))
        return ca.cert_pem.decode("ascii"), pki.ca_pin(ca.cert_pem)

    def client_token(self, store: Path, name: str, groups: Sequence[str]) -> str:
        text, record = tokens.mint_client_token(
            secrets.token_bytes(tokens.ENTROPY_BYTES), name, groups, now=time.time()
        )
        _in_store(store, lambda opened: opened.put_client_token(record))
        return text

    def join_token(self, store: Path, satellite: str, labels: Mapping[str, str]) -> str:
        text, record = tokens.mint_join_token(
            secrets.token_bytes(tokens.ENTROPY_BYTES), satellite, labels, now=time.time()
        )
        _in_store(store, lambda opened: opened.put_join_token(record))
        return text

    async def join(
        self, tunnel_url: str, token: str, pin: str, name: str, labels: Mapping[str, str], state: Path
    ) -> None:
        await joiner.join(
            tunnel_url, token, pin, name, labels, state, entropy=secrets.token_bytes, agent_version=__version__
        )

    def joined(self, state: Path, pin: str) -> bool:
        try:
            certificate = (state / IDENTITY_CERT).read_bytes()
            ca = (state / IDENTITY_CA).read_bytes()
            key = (state / IDENTITY_KEY).exists()
            return key and pki.ca_pin(ca) == pin and not pki.renewal_due(certificate, time.time())
        except (OSError, ValueError):
            return False

    def satellites(self, hub_url: str, token_file: Path, ca_file: Path) -> list[Mapping[str, Any]]:
        if hub_url not in self._clients:
            self._clients[hub_url] = HubClient(hub_url, token_file=token_file, ca_file=ca_file)
        return list(self._clients[hub_url].items("satellites"))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def _in_store(folder: Path, use: Callable[[SQLiteStore], Result]) -> Result:
    with SQLiteStore(folder / STORE_FILE) as opened:
        return use(opened)
