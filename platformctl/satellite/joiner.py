"""Join a hub: make a key that never leaves this machine, and swap a one-use token for a certificate.

Order matters: the CA pin is checked before the token is sent, over a connection that was verified against that CA.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from picows import WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect
from picows.common import WSUpgradeResponse

from platformctl.access import pki
from platformctl.access.pins import spki_pin
from platformctl.errors import HubUnreachable, JoinRefused, TimedOut
from platformctl.net.address import dial_error
from platformctl.net.joining import (
    JOIN_PATH,
    JOIN_PROTOCOL,
    MAX_ANSWER,
    Accepted,
    JoinRequest,
    Pending,
    Refused,
    parse_answer,
)
from platformctl.net.tls import trust
from platformctl.satellite.ca_fetch import NOT_A_HUB, FetchedCa, HubAddress, fetch_ca
from platformctl.satellite.identity_files import NewIdentity

__all__ = ["JoinedIdentity", "join"]

# Within this much, hub and satellite agree on certificates' times (they start five minutes early).
SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class JoinedIdentity:
    """What the join brought. `labels` are those that the token grants, `fingerprint` is the pin of the satellite's key,
    `not_after` Unix seconds, `tunnel_urls` one for each hub replica (the one that was joined through, if it told none).
    """

    name: str
    labels: Mapping[str, str]
    state_dir: Path
    fingerprint: str
    not_after: float
    tunnel_urls: tuple[str, ...]


async def join(
    tunnel_url: str,
    token: str,
    ca_pin: str,
    name: str,
    labels: Mapping[str, str],
    state_dir: Path,
    *,
    entropy: Callable[[int], bytes],
    now: Callable[[], float] = time.time,
    agent_version: str = "",
    on_pending: Callable[[str], None] | None = None,
    timeout: float = 15.0,  # noqa: ASYNC109  # not of the whole: a person may have to accept in between
    approval_timeout: float = 960.0,
) -> JoinedIdentity:
    """Join, and write the identity into `state_dir`; a join that fails leaves the folder as it was.

    `entropy(n)` gives n random bytes (`secrets.token_bytes`). `on_pending(fingerprint)` is called when somebody has to
    accept the satellite first; `timeout` is for every other step, in seconds. Raises JoinRefused, HubUnreachable,
    TimedOut, UsageError, StoreError.
    """
    hub = HubAddress.parse(tunnel_url)
    key = pki.make_key(entropy(pki.KEY_ENTROPY_BYTES))
    csr = pki.make_csr(key, name)
    request = JoinRequest(token, name, labels, csr.decode(), agent_version)
    with NewIdentity(state_dir, pki.key_pem(key)) as new:
        try:
            async with asyncio.timeout(timeout):
                ca = await fetch_ca(hub, ca_pin)
                conversation = await _connect(hub, ca, now())
        except TimeoutError as e:
            raise HubUnreachable(f"{hub.authority} did not answer in {timeout:g} s", hint="Check the address.") from e
        try:
            accepted = await conversation.run(request, on_pending, timeout, approval_timeout)
        finally:
            conversation.close()
        certificate = _checked(accepted, name, pki.csr_pin(csr))
        new.commit(certificate, accepted.ca.encode())
    urls = tuple(each["url"] for each in accepted.replicas) or (f"wss://{hub.authority}",)
    return JoinedIdentity(name, accepted.labels, state_dir, pki.csr_pin(csr), pki.not_after(certificate), urls)


class _Conversation(WSListener):
    """The WebSocket's client side: what comes in goes to a queue; None is the end."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: WSTransport | None = None
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT and frame.fin:
            self._inbox.put_nowait(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._inbox.put_nowait(None)

    async def run(
        self, request: JoinRequest, on_pending: Callable[[str], None] | None, patience: float, approval_timeout: float
    ) -> Accepted:
        assert self._transport is not None  # picows calls on_ws_connected before it returns the listener
        self._transport.send(WSMsgType.TEXT, request.encode().encode())
        answer = await self._answer(patience)
        if isinstance(answer, Pending):
            if on_pending is not None:
                on_pending(answer.fingerprint)
            answer = await self._answer(approval_timeout)
        if isinstance(answer, Refused):
            raise JoinRefused(answer.detail, hint=answer.hint)
        if isinstance(answer, Pending):
            raise JoinRefused("the hub said twice that the join is pending", hint="This is a fault of the hub.")
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()

    async def _answer(self, patience: float) -> Pending | Accepted | Refused:
        try:
            async with asyncio.timeout(patience):
                text = await self._inbox.get()
        except TimeoutError as e:
            raise TimedOut(f"the hub did not decide on the join in {patience:g} s", hint="Use a new token.") from e
        if text is None:
            raise HubUnreachable(
                "the hub closed the connection before it answered the join",
                hint="The token may be used up: create a new one, and look at the hub's log.",
            )
        return parse_answer(text)


async def _connect(hub: HubAddress, ca: FetchedCa, now: float) -> _Conversation:
    """A WebSocket to a hub that proved to be the pinned CA's. Nothing of the request is sent here."""

    def agreed(_: WSUpgradeRequest, response: WSUpgradeResponse) -> _Conversation:
        if response.headers.get("Sec-WebSocket-Protocol") != JOIN_PROTOCOL:
            raise JoinRefused(f"{hub.authority} does not speak {JOIN_PROTOCOL}", hint=NOT_A_HUB)
        return _Conversation()

    try:
        _, listener = await ws_connect(
            agreed,
            f"wss://{hub.authority}{JOIN_PATH}",
            ssl_context=trust(ca.pem),
            extra_headers={"Sec-WebSocket-Protocol": JOIN_PROTOCOL},
            max_frame_size=MAX_ANSWER,
            max_redirects=0,
            # While somebody decides, nothing is said: the pings find out that the hub is gone.
            enable_auto_ping=True,
            use_aiofastnet=False,
        )
    except ssl.SSLCertVerificationError as e:
        raise _not_trusted(hub, e, ca.date, now) from e
    except WSHandshakeError as e:
        raise JoinRefused(f"{hub.authority} does not take joins", hint=NOT_A_HUB) from e
    except OSError as e:
        raise HubUnreachable(f"{hub.authority} hung up: {dial_error(e)}", hint="Look at the hub's log.") from e
    if not isinstance(listener, _Conversation):
        # picows takes the end of the connection for the end of the handshake.
        raise HubUnreachable(f"{hub.authority} hung up on the join", hint="Look at the hub's log.")
    return listener


def _not_trusted(hub: HubAddress, error: ssl.SSLCertVerificationError, date: float | None, now: float) -> JoinRefused:
    skew = 0.0 if date is None else now - date
    if error.verify_code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
        about = f"; it is {_span(skew)} the hub's" if abs(skew) > SKEW_SECONDS else ""
        return JoinRefused(
            f"the certificate of {hub.authority} is not valid now, by this machine's clock{about}",
            hint="Set the clock of this machine (NTP), and look at the hub's: platformctl verify --test certificates.",
        )
    return JoinRefused(
        f"{hub.authority} could not prove that it is this hub: {error.verify_message}",
        hint="The token was not sent. Use the host name that the hub's certificate is made for.",
    )


def _span(skew: float) -> str:
    size, unit = next((s, u) for s, u in ((86400, "days"), (3600, "hours"), (60, "minutes")) if abs(skew) >= s)
    return f"{abs(skew) / size:.0f} {unit} {'ahead of' if skew > 0 else 'behind'}"


def _checked(accepted: Accepted, name: str, fingerprint: str) -> bytes:
    """The certificate, if it is for this satellite and key: another one would only fail later, and less clearly."""
    certificate = accepted.certificate.encode()
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        uris = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
        trust(accepted.ca)
    except (ValueError, x509.ExtensionNotFound) as e:
        raise JoinRefused("the hub sent a certificate that cannot be read", hint="This is a fault of the hub.") from e
    named = any(uri.endswith(f"/satellite/{name}") for uri in uris)
    if not named or accepted.name != name or spki_pin(parsed.public_key()) != fingerprint:
        raise JoinRefused(f"the hub's certificate is not for satellite {name!r}", hint="This is a fault of the hub.")
    return certificate
