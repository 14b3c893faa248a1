"""What a request head resolves to: worked out once, then repeated for as long as nothing changed."""

from __future__ import annotations

from collections.abc import Callable

from platformctl.access.identity import Identity
from platformctl.hub.template import Template
from platformctl.net.asgi import App
from platformctl.routing.addressing import SelectorTarget
from platformctl.routing.endpoint import Endpoint

__all__ = ["LocalPlan", "Plan", "Refusal"]


class Refusal(Exception):
    """The request is answered by the hub with a problem (RFC 9457)."""

    def __init__(
        self, status: int, code: str, detail: str, *, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after


class Plan:
    """A request for a satellite's service, ready to be opened any number of times.

    Attributes:
        generation: of the Front when this was worked out; a plan of another generation is not repeated.
        head: OPEN payload up to the fields that differ in each request (request id, traceparent).
        target: set when a selector chose the endpoint: each request then chooses anew.
        alternates: endpoints for a second and third try.
        traceparent: the client's, when it sent a valid one.
        template: makes the template for heads of the same shape from this head's bytes; None where there can be none.
        raw: after a successful answer the connection carries bytes (CONNECT, Upgrade).
    """

    __slots__ = (
        "alternates",
        "bodyless",
        "endpoint",
        "expects_continue",
        "generation",
        "head",
        "head_request",
        "idempotent",
        "identity",
        "keep_alive",
        "method",
        "minor",
        "path",
        "raw",
        "request_id",
        "target",
        "template",
        "traceparent",
        "upgrade",
    )

    def __init__(self, endpoint: Endpoint, identity: Identity, method: str, path: str) -> None:
        self.endpoint = endpoint
        self.identity = identity
        self.method = method
        self.path = path
        self.generation = -1
        self.alternates: list[Endpoint] = []
        self.target: SelectorTarget | None = None
        self.head = b""
        self.bodyless = True
        self.head_request = method == "HEAD"
        self.idempotent = False
        self.keep_alive = True
        self.minor = 1
        self.request_id = b""
        self.traceparent = b""
        self.expects_continue = False
        self.raw = False
        self.upgrade = b""
        self.template: Callable[[bytes], Template] | None = None


class LocalPlan:
    """A request for the hub itself. `state` goes to the application as ASGI state."""

    __slots__ = ("app", "path", "state")

    def __init__(self, app: App, path: str, state: dict[str, object]) -> None:
        self.app = app
        self.path = path
        self.state = state
