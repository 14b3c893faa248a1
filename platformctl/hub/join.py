"""The hub's side of joining, on the tunnel listener: serves the CA, checks one request, answers, hangs up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener

from platformctl.errors import Conflict, JoinRefused, PlatformError
from platformctl.hub.guessing import GuessBrake
from platformctl.hub.join_decision import Candidate, JoinRules
from platformctl.net.joining import JOIN_PROTOCOL, MAX_REQUEST, Accepted, JoinRequest, Pending, Refused
from platformctl.net.tasks import spawn

__all__ = ["JoinConfig", "JoinDesk", "JoinListener", "ca_response"]

log = logging.getLogger(__name__)

_HUB_ERROR = Refused("hub-error", "the hub could not finish the join", "Look at the hub's log; then try again.")


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """`replicas()` gives `[{"id", "url"}]` for the answer. Durations are seconds."""

    approval: bool = False
    replicas: Callable[[], Sequence[Mapping[str, str]]] = tuple
    request_timeout: float = 10.0
    approval_timeout: float = 900.0
    poll_interval: float = 0.5


@dataclass(slots=True)
class JoinDesk:
    """What all joins on a replica share. `now` is Unix time, `audit` gets one mapping for each outcome, and none of
    them has a secret in it. `ca_bundle` (PEM) is what satellites are to trust: the CA, during a rotation both.
    """

    rules: JoinRules
    ca_bundle: bytes
    now: Callable[[], float]
    audit: Callable[[Mapping[str, object]], None]
    config: JoinConfig = JoinConfig()
    brake: GuessBrake = field(default_factory=GuessBrake)

    def listener(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """For the path `/join`: what picows wants from its listener factory."""
        offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if JOIN_PROTOCOL not in offered:
            text = f"this is where satellites join; the subprotocol is {JOIN_PROTOCOL}\n"
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(400, text.encode()), None)
        agreed = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": JOIN_PROTOCOL})
        return WSUpgradeResponseWithListener(agreed, JoinListener(self))


def ca_response(ca_bundle: bytes, now: Callable[[], float] = time.time) -> WSUpgradeResponseWithListener:
    """For the path `/ca.pem`: the CA, which is public; whoever fetches it checks the pin. `now` gives Unix time: by the
    Date a satellite whose clock is wrong can be told so.
    """
    headers = {
        "Content-Type": "application/x-pem-file",
        "Cache-Control": "no-store",
        "Date": formatdate(now(), usegmt=True),
    }
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(ca_bundle, headers), None)


class JoinListener(WSListener):
    """One joining satellite: one message, within the request timeout, and nothing after it."""

    def __init__(self, desk: JoinDesk) -> None:
        super().__init__()
        self._desk = desk
        self._transport: WSTransport | None = None
        self._peer = ""
        self._asked = False
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        peer = transport.underlying_transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        loop = asyncio.get_running_loop()
        late = Refused("bad-request", "no join request came in time", "Join again.")
        self._deadline = loop.call_later(self._desk.config.request_timeout, self._refuse, late)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
            return
        if frame.msg_type in (WSMsgType.PING, WSMsgType.PONG):
            return
        if self._asked or frame.msg_type is not WSMsgType.TEXT or not frame.fin or frame.payload_size > MAX_REQUEST:
            transport.send_close(WSCloseCode.POLICY_VIOLATION, b"one text message is what a join takes")
            transport.disconnect()
            return
        self._asked = True
        self._cancel_deadline()
        try:
            self._decide(frame.get_payload_as_bytes())
        except Exception:
            log.exception("a join failed", extra={"peer": self._peer})
            self._refuse(_HUB_ERROR)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._cancel_deadline()
        if self._waiting is not None:
            self._waiting.cancel()
        self._transport = None

    def _decide(self, payload: bytes) -> None:
        desk, now = self._desk, self._desk.now()
        request: JoinRequest | None = None
        try:
            request = JoinRequest.parse(payload)
            wait = desk.brake.wait(self._peer, now)
            if wait > 0:
                hint = f"Try again in {wait:.0f} seconds."
                self._refuse(Refused("rate-limited", "too many wrong join tokens from this address", hint), request)
                return
            try:
                token = desk.rules.check_token(request, now)
            except JoinRefused:
                desk.brake.failed(self._peer, now)
                raise
            candidate, certificate = desk.rules.admit(request, token, now, approval=desk.config.approval)
        except PlatformError as e:
            self._refuse(_refusal(e), request)
            return
        if certificate:
            self._accept(candidate, certificate)
            return
        self._send(Pending(candidate.fingerprint).encode())
        self._record("pending", candidate.name, token_id=token.id, fingerprint=candidate.fingerprint)
        self._waiting = spawn(self._wait(candidate), f"join:{candidate.name}")

    async def _wait(self, candidate: Candidate) -> None:
        """Poll the store: whoever accepts may do so at another replica."""
        desk = self._desk
        try:
            async with asyncio.timeout(desk.config.approval_timeout):
                while not desk.rules.decided(candidate):  # noqa: ASYNC110  # decided in the store, maybe elsewhere
                    await asyncio.sleep(desk.config.poll_interval)
            self._accept(candidate, desk.rules.certify(candidate, desk.now()))
        except TimeoutError:
            desk.rules.withdraw(candidate)
            hint = f"Join again with a new token; then: platformctl accept satellite {candidate.name}"
            detail = f"nobody accepted the satellite within {desk.config.approval_timeout:g} seconds"
            self._refuse(Refused("approval-timeout", detail, hint), candidate=candidate)
        except asyncio.CancelledError:
            desk.rules.withdraw(candidate)
            raise
        except PlatformError as e:
            self._refuse(_refusal(e), candidate=candidate)
        except Exception:
            log.exception("a join failed", extra={"peer": self._peer})
            self._refuse(_HUB_ERROR, candidate=candidate)

    def _accept(self, candidate: Candidate, certificate: bytes) -> None:
        desk = self._desk
        answer = Accepted(
            name=candidate.name,
            labels=dict(candidate.token.labels),
            certificate=certificate.decode(),
            ca=desk.ca_bundle.decode(),
            replicas=list(desk.config.replicas()),
        )
        self._record("accepted", candidate.name, token_id=candidate.token.id, fingerprint=candidate.fingerprint)
        self._finish(answer.encode())

    def _refuse(
        self, refused: Refused, request: JoinRequest | None = None, *, candidate: Candidate | None = None
    ) -> None:
        name = candidate.name if candidate else request.name if request else ""
        self._record("refused", name, code=refused.code, detail=refused.detail)
        self._finish(refused.encode())

    def _record(self, outcome: str, name: str, **more: object) -> None:
        # A foreign name goes to the log cut, for it may be anything.
        event = {"event": "join", "outcome": outcome, "satellite": name[:63], "peer": self._peer, **more}
        self._desk.audit(event)

    def _finish(self, text: str) -> None:
        self._send(text)
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def _send(self, text: str) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, text.encode())

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _refusal(error: PlatformError) -> Refused:
    if isinstance(error, Conflict):
        return Refused("already-joined", error.message, error.hint)
    if isinstance(error, JoinRefused):
        return Refused("join-refused", error.message, error.hint)
    # A store's or CA's trouble is the hub's own; its text stays in the hub's log.
    log.error("a join could not be finished", extra={"reason": error.message})
    return _HUB_ERROR
