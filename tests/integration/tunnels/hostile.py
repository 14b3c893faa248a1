"""An agent made by hand: a certificate of the hub's CA, a WebSocket of another library, and frames as it pleases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from platformctl.access import pki
from platformctl.hub.store import CaMaterial, SatelliteRecord, update_satellite
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.tls import IDENTITY_CA, IDENTITY_CERT, IDENTITY_KEY
from platformctl.wire import frames

SERVICE = {"name": "web", "kind": "http"}


def _no_ca() -> CaMaterial:
    raise AssertionError("the platform has a CA")


def enrol(store_folder: Path, name: str, folder: Path, *, ca: pki.Authority | None = None) -> Path:
    """An identity for satellite `name`, accepted by the hub; signed by another CA than the hub's with `ca`."""
    with SQLiteStore(store_folder / "hub.db") as store:
        material = store.get_or_create_ca(_no_ca)
        own = pki.Authority.load(material.cert_pem, material.key_pem)
        key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
        entropy = secrets.token_bytes(pki.SERIAL_BYTES)
        csr = pki.make_csr(key, name)
        certificate = pki.sign_satellite(ca or own, csr, name, time.time(), entropy=entropy)
        record = SatelliteRecord(name, {}, "active", pki.csr_pin(csr), (pki.serial(certificate),), time.time())

        def put(old: SatelliteRecord | None) -> SatelliteRecord:
            return record if old is None else old.with_serial(pki.serial(certificate))

        update_satellite(store, name, put)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IDENTITY_KEY).write_bytes(pki.key_pem(key))
    (folder / IDENTITY_CERT).write_bytes(certificate)
    (folder / IDENTITY_CA).write_bytes(own.cert_pem)
    return folder


def other_ca(trust_domain: str) -> pki.Authority:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    cert, key_pem = pki.create_ca(time.time(), trust_domain, key, entropy=secrets.token_bytes(pki.SERIAL_BYTES))
    return pki.Authority.load(cert, key_pem)


def tls(identity: Path, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(identity / IDENTITY_CA))
    if certificate:
        context.load_cert_chain(identity / IDENTITY_CERT, identity / IDENTITY_KEY)
    return context


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.payload)
        return found


@dataclass
class Hostile:
    """One tunnel; `inbox` has the frames that came and were not asked for yet."""

    socket: ClientConnection
    name: str
    inbox: list[Frame] = field(default_factory=list)

    async def send(self, *parts: bytes) -> None:
        await self.socket.send(b"".join(parts))

    async def hello(self, **changes: Any) -> None:
        message = {"versions": [1], "satellite": self.name, "instance": uuid.uuid4().hex, "lane": 0, **changes}
        await self.send(frames.control(frames.HELLO, message))

    async def serve(self, *services: dict[str, Any]) -> Hostile:
        """Greet and register as a good agent would."""
        await self.hello()
        await self.expect(frames.WELCOME)
        await self.send(frames.control(frames.REGISTER, {"services": list(services) or [SERVICE]}))
        await self.expect(frames.REGISTERED)
        return self

    async def expect(self, kind: int, seconds: float = 5.0) -> Frame:
        """The next frame of this kind; PINGs on the way are answered, others kept for later."""
        async with asyncio.timeout(seconds):
            while True:
                for number, frame in enumerate(self.inbox):
                    if frame.kind == kind:
                        return self.inbox.pop(number)
                message = await self.socket.recv()
                assert isinstance(message, bytes)
                while message:
                    length, got, flags, stream = frames.HEADER.unpack_from(message)
                    frame = Frame(got, flags, stream, message[10 : 10 + length])
                    message = message[10 + length :]
                    if got == frames.PING:
                        await self.send(frames.frame(frames.PONG, 0, 0, frame.payload))
                    else:
                        self.inbox.append(frame)

    async def goodbye(self, seconds: float = 5.0) -> tuple[int, str]:
        """(code, reason) of the GOAWAY that ends the tunnel. It must be followed by the end of the connection."""
        frame = await self.expect(frames.GOAWAY, seconds)
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(seconds):
                while True:
                    await self.socket.recv()
        return frame.message["code"], frame.message["reason"]


@contextlib.asynccontextmanager
async def tunnel(
    url: str, identity: Path, name: str, *, certificate: bool = True, subprotocol: str = frames.SUBPROTOCOL
) -> AsyncIterator[Hostile]:
    context = tls(identity, certificate=certificate)
    async with connect(
        f"{url}/tunnel",
        ssl=context,
        subprotocols=[Subprotocol(subprotocol)],
        max_size=None,
        ping_interval=None,
        compression=None,
        proxy=None,
        close_timeout=1,
    ) as socket:
        yield Hostile(socket, name)
