"""What all client connections of a hub replica share: from a request head to a plan, by identity, policy and
registry.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from platformctl.access.identity import ANONYMOUS, Identity
from platformctl.access.policy import Decision, Grant, Policy
from platformctl.access.tokens import ClientTokens
from platformctl.hub.plan import LocalPlan, Plan, Refusal
from platformctl.hub.responses import ResponseHeads
from platformctl.hub.template import Template
from platformctl.net.asgi import App
from platformctl.net.http1 import HttpConnection, ServerOptions
from platformctl.routing.addressing import Addressing, LocalTarget, SelectorTarget, ServiceTarget
from platformctl.routing.balance import is_idempotent
from platformctl.routing.registry import Registry
from platformctl.routing.route import Denied, route
from platformctl.telemetry import tracing
from platformctl.wire import frames
from platformctl.wire.heads import RequestHead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from platformctl.hub.config import Network
    from platformctl.routing.endpoint import Endpoint
    from platformctl.telemetry.audit import AuditLog

# The control API, as access policies name it.
API_SATELLITE: Final = "hub"
API_SERVICE: Final = "api"
# Pages that carry nothing secret: the console asks for a token itself, and calls the API with it.
OPEN_PATHS: Final = ("/console",)
MAX_REMEMBERED: Final = 4096
# How long an expired token may still be good, in seconds.
TOKEN_CHECK_SECONDS: Final = 1.0
_BEARER: Final = b"bearer "


@dataclass(slots=True)
class Caller:
    """Where a client connection comes from. `trusted`: its forwarded headers are believed."""

    ip: str
    secure: bool
    trusted: bool


class Front:
    """Shared state of the client side. `generation` covers everything that a plan depends on."""

    def __init__(
        self,
        *,
        addressing: Addressing,
        registry: Registry,
        options: ServerOptions,
        clock: Callable[[], float],
        wall: Callable[[], float],
        known: Callable[[str], Mapping[str, str] | None],
        audit: AuditLog | None,
        count_decision: Callable[[bool], None],
        count_local: Callable[[int], None],
        suspicious: Callable[[Endpoint, str], None],
        trusted_proxies: tuple[Network, ...] = (),
        sample_ratio: float = 0.01,
        audit_all: bool = False,
    ) -> None:
        self.addressing = addressing
        self.registry = registry
        self.options = options
        self.clock = clock
        self.wall = wall
        self.known = known
        self.audit = audit
        self.audit_all = audit_all
        self.count_decision = count_decision
        self.count_local = count_local
        self.suspicious = suspicious
        self.trusted_proxies = trusted_proxies
        self.sample_ratio = sample_ratio
        self.policy = Policy()
        self.tokens = ClientTokens()
        self.apps: dict[str, App] = {}
        self.responses = ResponseHeads()
        self.queued: set[Endpoint] = set()
        self._admitted: deque[object] = deque()
        self._admitting = False
        self._access_generation = 0
        # What was worked out since `generation` last changed, for all connections: identities by token, grants by
        # identity, service and address.
        self._remembered_generation = -1
        self._tokens_checked = float("-inf")
        self._identities: dict[bytes, Identity | None] = {}
        self._grants: dict[tuple[Identity, str, str, str], Grant] = {}
        self._random = random.Random()
        self._id_prefix = b"%08x" % self._random.getrandbits(32)
        self._id_next = 0

    # ---- shared state --------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Grows whenever a plan made before may be wrong now."""
        return self.registry.generation + self._access_generation

    def set_access(self, policy: Policy, tokens: ClientTokens) -> None:
        """A new policy or new tokens are in force, for open connections too."""
        self.policy = policy
        self.tokens = tokens
        self._access_generation += 1

    def leave(self, endpoint: Endpoint) -> None:
        """Give a gate slot back; whoever waited longest goes on."""
        waiter = endpoint.gate.leave()
        if waiter is not None:
            self._admit(waiter)

    def _admit(self, waiter: object) -> None:
        """A waiter that fails at once leaves at once, which admits the next one: a loop, not a recursion."""
        self._admitted.append(waiter)
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._admitted:
                self._admitted.popleft().admitted()  # type: ignore[attr-defined]
        finally:
            self._admitting = False

    def expire_queues(self, now: float) -> None:
        """Answer those that waited in a gate for too long, and forget tokens that have expired; called by the hub's
        timer.
        """
        self._expire_tokens(now)
        for endpoint in list(self.queued):
            for waiter in endpoint.gate.expire(now):
                waiter.expired()  # type: ignore[attr-defined]
            if endpoint.gate.waiting == 0:
                self.queued.discard(endpoint)

    def _expire_tokens(self, now: float) -> None:
        """A token is looked up once and remembered, in plans too: its end must be noticed by other means."""
        if now < self._tokens_checked + TOKEN_CHECK_SECONDS:
            return
        self._tokens_checked = now
        wall = self.wall()
        for token, identity in self._identities.items():
            if identity is not None and self.tokens.lookup(token.decode("latin-1"), wall) != identity:
                self._access_generation += 1
                return

    def removed(self, endpoints: list[Endpoint]) -> None:
        """Endpoints left the registry: nobody waits for them any more."""
        for endpoint in endpoints:
            for waiter in endpoint.gate.clear():
                waiter.expired()  # type: ignore[attr-defined]
            self.queued.discard(endpoint)

    # ---- ids -----------------------------------------------------------------------------------------------------

    def new_request_id(self) -> bytes:
        self._id_next += 1
        return b"%b%08x" % (self._id_prefix, self._id_next)

    def request_id(self, request: RequestHead) -> bytes:
        """The client's X-Request-Id when it is a sane one, else a new one."""
        given = request.get(b"x-request-id")
        if given and len(given) <= 64 and given.replace(b"-", b"").replace(b"_", b"").isalnum():
            return given
        return self.new_request_id()

    def traceparent(self, parent: bytes) -> bytes:
        """The traceparent for the backend: a child of the client's, or a new root, sampled by ratio."""
        if parent:
            return tracing.child(parent, self._random.getrandbits)
        return tracing.root(self._random.getrandbits, self.sample_ratio)

    # ---- from a head to a plan -----------------------------------------------------------------------------------

    def caller(self, connection: HttpConnection) -> Caller:
        ip = connection.peer
        trusted = bool(self.trusted_proxies) and _within(ip, self.trusted_proxies)
        return Caller(ip, connection.secure, trusted)

    def resolve(self, caller: Caller, request: RequestHead, request_id: bytes) -> Plan | LocalPlan:
        """What to do with a request.

        Raises:
            Refusal, HeadError: it is answered with a problem.
        """
        generation = self.generation
        if self._remembered_generation != generation:
            self._remembered_generation = generation
            self._identities.clear()
            self._grants.clear()
        identity, credential = self._identity(caller, request)
        target = self._target(request)
        if isinstance(target, LocalTarget):
            return self._local(caller, request, request_id, identity, target.path)
        if identity is None:
            self._deny(caller, request, request_id, ANONYMOUS, target, "the token is unknown or has expired")
            raise Refusal(401, "unauthenticated", "the bearer token is unknown, revoked or expired")
        found = self._route(caller, request, request_id, identity, target)
        plan = Plan(found.endpoint, identity, request.method.decode("latin-1"), found.path)
        plan.generation = generation
        plan.alternates = found.alternates
        if isinstance(target, SelectorTarget):
            plan.target = target
        self._fill(plan, caller, request, identity, credential, found.path, found.prefix)
        return plan

    def _target(self, request: RequestHead) -> ServiceTarget | SelectorTarget | LocalTarget:
        if request.method == b"CONNECT":
            return self.addressing.connect(request.target.decode("ascii"))
        service = request.get(b"platform-service")
        selector = request.get(b"platform-selector")
        return self.addressing.target(request.host, request.target.decode("ascii"), service or None, selector or None)

    def _identity(self, caller: Caller, request: RequestHead) -> tuple[Identity | None, bytes]:
        """(identity, name of the header that proved it); identity None: a credential was sent and is not good."""
        for header in (b"proxy-authorization", b"authorization"):
            value = request.get(header)
            if value[:7].lower() == _BEARER:
                token = value[7:].strip()
                if token not in self._identities:
                    if len(self._identities) >= MAX_REMEMBERED:
                        self._identities.clear()
                    self._identities[token] = self.tokens.lookup(token.decode("latin-1"), self.wall())
                return self._identities[token], header
        return ANONYMOUS, b""

    def _grant(self, caller: Caller, identity: Identity, satellite: str, service: str) -> Grant:
        key = (identity, satellite, service, caller.ip)
        grant = self._grants.get(key)
        if grant is None:
            if len(self._grants) >= MAX_REMEMBERED:
                self._grants.clear()
            labels = self.known(satellite) or {}
            grant = self.policy.grant(identity, satellite, labels, service, caller.ip)
            self._grants[key] = grant
        return grant

    def _local(
        self, caller: Caller, request: RequestHead, request_id: bytes, identity: Identity | None, path: str
    ) -> LocalPlan:
        app = next((app for prefix, app in self.apps.items() if path.startswith(prefix)), None)
        if app is None:
            raise Refusal(404, "path-unknown", "nothing is served here on this hub")
        grant: Grant | None = None
        if not path.startswith(OPEN_PATHS):
            grant = self._grant(caller, identity or ANONYMOUS, API_SATELLITE, API_SERVICE)
            decision = grant.check(request.method.decode("latin-1"), path)
            target = ServiceTarget(API_SATELLITE, API_SERVICE, path)
            self._decide(caller, request, request_id, identity, target, decision)
        state: dict[str, object] = {
            "identity": identity or ANONYMOUS,
            "grant": grant,
            "request_id": request_id.decode("latin-1"),
            "peer": caller.ip,
        }
        return LocalPlan(app, path, state)

    def _route(
        self,
        caller: Caller,
        request: RequestHead,
        request_id: bytes,
        identity: Identity,
        target: ServiceTarget | SelectorTarget,
    ) -> Any:
        method = request.method.decode("latin-1")
        if isinstance(target, ServiceTarget):
            # Decided by name before it is looked up: who may not call it is not told whether it exists.
            grant = self._grant(caller, identity, target.satellite, target.service)
            decision = grant.check_raw() if method == "CONNECT" else grant.check(method, target.path)
            self._decide(caller, request, request_id, identity, target, decision)
            found = route(self.registry, target, self.clock(), self._random.getrandbits, self._is_known)
        else:

            def allowed(endpoint: Endpoint) -> bool:
                grant = self._grant(caller, identity, endpoint.satellite, endpoint.service)
                return grant.check(method, target.path).allowed

            found = route(self.registry, target, self.clock(), self._random.getrandbits, self._is_known, allowed)
            if isinstance(found, Denied) and found.status == 403:
                decision = Decision(False, "", f"no rule lets {identity.subject} call service {target.service} there")
                self._decide(caller, request, request_id, identity, target, decision)
        if isinstance(found, Denied):
            raise Refusal(
                found.status,
                found.code,
                found.message,
                hint=found.hint,
                retry_after=found.retry_after or None,
            )
        kind = found.endpoint.spec.kind
        if method == "CONNECT" and kind != "tcp":
            raise Refusal(405, "method-not-allowed", f"CONNECT is for tcp services; this one is {kind}")
        if method != "CONNECT" and kind == "tcp":
            raise Refusal(
                400,
                "bad-request",
                f"service {found.endpoint.service} is a tcp service",
                hint="Use `platformctl forward`, CONNECT, or the SNI passthrough port.",
            )
        return found

    def _is_known(self, satellite: str) -> bool:
        return self.known(satellite) is not None

    def _decide(
        self,
        caller: Caller,
        request: RequestHead,
        request_id: bytes,
        identity: Identity | None,
        target: ServiceTarget | SelectorTarget,
        decision: Decision,
    ) -> None:
        self.count_decision(decision.allowed)
        if decision.allowed:
            if self.audit is not None and self.audit_all:
                self._record(caller, request, request_id, identity or ANONYMOUS, target, decision, 0)
            return
        if identity is None or identity is ANONYMOUS:
            reason = decision.reason if identity is ANONYMOUS else "the token is unknown or has expired"
            self._deny(caller, request, request_id, ANONYMOUS, target, reason)
            what = "no credential was sent" if identity is ANONYMOUS else "the token is unknown, revoked or expired"
            raise Refusal(401, "unauthenticated", what)
        self._record(caller, request, request_id, identity, target, decision, 403)
        raise Refusal(403, "access-denied", decision.reason)

    def _deny(
        self,
        caller: Caller,
        request: RequestHead,
        request_id: bytes,
        identity: Identity,
        target: ServiceTarget | SelectorTarget,
        reason: str,
    ) -> None:
        self._record(caller, request, request_id, identity, target, Decision(False, "", reason), 401)

    def _record(
        self,
        caller: Caller,
        request: RequestHead,
        request_id: bytes,
        identity: Identity,
        target: ServiceTarget | SelectorTarget,
        decision: Decision,
        status: int,
    ) -> None:
        if self.audit is None:
            return
        self.audit.record(
            {
                "event": "access",
                "decision": "allow" if decision.allowed else "deny",
                "identity": identity.subject,
                "satellite": target.satellite if isinstance(target, ServiceTarget) else "",
                "service": target.service,
                "method": request.method.decode("latin-1"),
                "path": target.path.partition("?")[0],
                "rule": decision.rule,
                "reason": decision.reason,
                "request_id": request_id.decode("latin-1"),
                "client": caller.ip,
                "status": status,
            }
        )

    def record_raw(self, target: ServiceTarget, ip: str, decision: Decision) -> None:
        """Audit the denial of a connection that has no request: a TCP port, or SNI passthrough."""
        if self.audit is not None:
            self.audit.record(
                {
                    "event": "access",
                    "decision": "deny",
                    "identity": ANONYMOUS.subject,
                    "satellite": target.satellite,
                    "service": target.service,
                    "method": "",
                    "path": "",
                    "rule": "",
                    "reason": decision.reason,
                    "request_id": self.new_request_id().decode("ascii"),
                    "client": ip,
                    "status": 0,
                }
            )

    # ---- the head that goes to the satellite ---------------------------------------------------------------------

    def _fill(
        self,
        plan: Plan,
        caller: Caller,
        request: RequestHead,
        identity: Identity,
        credential: bytes,
        path: str,
        prefix: str,
    ) -> None:
        connect = request.method == b"CONNECT"
        # With a body there would be two ends of the request; to ignore the field is allowed (RFC 9110 7.8).
        upgrade = b"" if request.body_length else request.upgrade
        plan.bodyless = request.body_length == 0 and not connect and not upgrade
        plan.raw = connect or bool(upgrade)
        plan.upgrade = upgrade
        plan.idempotent = is_idempotent(plan.method)
        plan.keep_alive = request.keep_alive
        plan.minor = request.minor
        plan.expects_continue = request.expects_continue
        plan.request_id = request.get(b"x-request-id")
        if plan.request_id and self.request_id(request) != plan.request_id:
            plan.request_id = b""
        parent = request.get(b"traceparent")
        plan.traceparent = parent if parent and tracing.parse(parent) is not None else b""
        kind = frames.KIND_TCP if connect else frames.KIND_UPGRADE if upgrade else frames.KIND_HTTP
        service = plan.endpoint.service.encode("ascii")
        start = frames.open_prefix(kind, service, request.body_length)
        if connect:
            plan.head = start
            return
        drop = {credential} if credential else set()
        if not plan.traceparent:
            drop.add(b"tracestate")  # W3C trace context 3.3: meaningless without its traceparent
        before = b"%b%b " % (start, request.method)
        target = path.encode("ascii")
        block = request.block(frozenset(drop))
        after = self._forwarding(caller, request, identity, prefix)
        if upgrade:
            after = b"Upgrade: %b\r\n%b" % (upgrade, after)
        plan.head = b"%b%b\r\n%b%b" % (before, target, block, after)
        if plan.bodyless and not plan.raw and plan.target is None and request.minor:
            grant = self._grant(caller, identity, plan.endpoint.satellite, plan.endpoint.service)
            plan.template = lambda raw: Template(
                raw,
                before,
                target,
                block,
                after,
                prefix=prefix.encode("ascii"),
                grant=grant,
                traceparent=plan.traceparent,
                request_id=plan.request_id,
            )

    def _forwarding(self, caller: Caller, request: RequestHead, identity: Identity, prefix: str) -> bytes:
        proto = b"https" if caller.secure else b"http"
        host = request.host
        chain = caller.ip.encode("ascii")
        forwarded = b'for="[%b]"' % chain if b":" in chain else b"for=%b" % chain
        if caller.trusted:
            proto = request.get(b"x-forwarded-proto") or proto
            host = request.get(b"x-forwarded-host") or host
            # All lines: one that a client smuggled in first must not hide those that proxies added (RFC 9110 5.3).
            before = b", ".join(value for name, _, value in request.fields if name == b"x-forwarded-for" and value)
            chain = before + b", " + chain if before else chain
        lines = [
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (chain, proto, host),
            b'Forwarded: %b;host="%b";proto=%b\r\nVia: 1.%d platformctl\r\n' % (forwarded, host, proto, request.minor),
            b"Platform-Identity: %b\r\n" % identity.header.encode("ascii"),
        ]
        if prefix:
            lines.append(b"X-Forwarded-Prefix: %b\r\n" % prefix.encode("ascii"))
        return b"".join(lines)


def _within(ip: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in networks)
