"""The tunnel listener: one TLS port for tunnels, joins, and the CA's certificate."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from picows import WSUpgradeRequest, ws_create_server
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener

from platformctl.hub.join import JoinDesk, ca_response
from platformctl.hub.tunnels import HubTunnel, HubTunnels
from platformctl.net.address import Address
from platformctl.net.link import CLOSE_SECONDS
from platformctl.wire import frames

# All satellites of a hub may dial at the same time; the kernel holds them until their turn comes.
BACKLOG: Final = 4096
HANDSHAKE_SECONDS: Final = 10.0


class TunnelListener:
    """Dispatches by path: `/tunnel` (client certificate), `/join`, `/ca.pem`."""

    def __init__(self, tunnels: HubTunnels, desk: JoinDesk) -> None:
        self._tunnels = tunnels
        self._desk = desk

    async def listen(self, address: Address, context: ssl.SSLContext, *, reuse_port: bool) -> asyncio.Server:
        return await ws_create_server(
            self._dispatch,
            address.host or None,
            address.port,
            ssl=context,
            reuse_port=reuse_port,
            backlog=BACKLOG,
            max_frame_size=2 * frames.MAX_MESSAGE,
            # The link answers: what a peer that reads nothing asks for must not pile up.
            enable_auto_pong=False,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=CLOSE_SECONDS,
            websocket_handshake_timeout=HANDSHAKE_SECONDS,
            logger_name="tunnel",
        )

    def _dispatch(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener | None:
        path = request.path.partition(b"?")[0]
        if path == b"/tunnel":
            return self._tunnel(request)
        if path == b"/join":
            return self._desk.listener(request)
        if path == b"/ca.pem":
            return ca_response(self._desk.ca_bundle)
        return _refuse(404, "this port is for tunnels and joins")

    def _tunnel(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if frames.SUBPROTOCOL not in offered:
            return _refuse(400, f"the subprotocol is {frames.SUBPROTOCOL}")
        tunnel = HubTunnel(self._tunnels)
        agreed = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": frames.SUBPROTOCOL})
        return WSUpgradeResponseWithListener(agreed, tunnel.link)


def _refuse(status: int, text: str) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, f"{text}\n".encode()), None)
