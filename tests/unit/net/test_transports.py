from __future__ import annotations

import asyncio
import ssl

import aiofastnet
import pytest
import trustme

from platformctl.net.transports import cut, needs_care, read_on


class Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.got = 0
        self.ready = asyncio.Event()
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.ready.set()

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        self.changed.set()


async def test_a_cut_is_a_reset_to_the_peer() -> None:
    collector = Collector()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: collector, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await collector.ready.wait()
        assert collector.transport is not None
        cut(collector.transport)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await reader.read()
        writer.close()
        cut(collector.transport)  # once more does no harm


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return serving, trusting


async def test_reading_goes_on_with_what_tls_had_taken_in_before_the_pause() -> None:
    """The peer has sent everything before reading is resumed: nothing more will wake the transport."""
    size = 1024 * 1024
    serving, trusting = contexts()
    collector = Collector()

    class Pausing(Collector):
        def data_received(self, data: bytes) -> None:
            assert collector.transport is not None
            Collector.data_received(collector, data)
            collector.transport.pause_reading()

    loop = asyncio.get_running_loop()

    def factory() -> Pausing:
        pausing = Pausing()
        pausing.connection_made = collector.connection_made  # type: ignore[method-assign]
        return pausing

    server = await aiofastnet.create_server(loop, factory, "127.0.0.1", 0, ssl=serving)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=trusting)
    await collector.ready.wait()
    transport = collector.transport
    assert transport is not None
    assert needs_care(transport)
    writer.write(b"x" * size)
    await writer.drain()
    async with asyncio.timeout(10):
        while collector.got < size:
            await collector.changed.wait()
            collector.changed.clear()
            read_on(transport)
    assert collector.got == size
    transport.abort()
    writer.close()
    server.close()
    await asyncio.sleep(0)
