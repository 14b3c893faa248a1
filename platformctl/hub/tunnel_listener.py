"""The tunnel listener: one TLS port for tunnels, joins, and the CA's certificate."""

from __future__ import annotations

import asyncio
import ssl

from picows import WSUpgradeRequest, ws_create_server
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener

from platformctl.hub.join import JoinDesk, ca_response
from platformctl.hub.tunnels import HubTunnel, HubTunnels
from platformctl.net.address import Address
from platformctl.wire import frames


class TunnelListener:
    """Dispatches by path: `/tunnel` (client certificate), `/join`, `/ca.pem`."""

    def __init__(self, tunnels: HubTunnels, desk: JoinDesk) -> None:
        self._tunnels = tunnels
        self._desk = desk
        self.draining = False

    async def listen(self, address: Address, context: ssl.SSLContext, *, reuse_port: bool) -> asyncio.Server:
        return await ws_create_server(
            self._dispatch,
            address.host or None,
            address.port,
            ssl=context,
            reuse_port=reuse_port,
            backlog=1024,
            max_frame_size=2 * frames.MAX_MESSAGE,
            websocket_handshake_timeout=10,
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
        if self.draining:
            return _refuse(503, "this hub replica is shutting down")
        tunnel = HubTunnel(self._tunnels)
        agreed = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": frames.SUBPROTOCOL})
        return WSUpgradeResponseWithListener(agreed, tunnel.link)


def _refuse(status: int, text: str) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, f"{text}\n".encode()), None)
