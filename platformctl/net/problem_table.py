"""Every stable problem code: its status, what it means, and what to do. Docs and answers are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PROBLEMS", "ProblemKind"]


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One code. `code` is also the anchor in docs/reference/errors.md; `action` is the hint when a caller has none."""

    code: str
    status: int
    title: str
    meaning: str
    action: str


def _kind(code: str, status: int, title: str, meaning: str, action: str) -> tuple[str, ProblemKind]:
    return code, ProblemKind(code, status, title, meaning, action)


# A row a code, as a table is read; the formatter would give each word a line.
# fmt: off
PROBLEMS: Final[dict[str, ProblemKind]] = dict(
    (
        # The request itself.
        _kind(
            "bad-request", 400, "Malformed request",
            "The request head or body is not valid HTTP/1.1, or its end can be read in two ways (which is how "
            "requests are smuggled); the connection is closed.",
            "Send the request with a client that follows RFC 9112; the detail names what was wrong.",
        ),
        _kind(
            "bad-chunk", 400, "Malformed chunk",
            "The chunked coding of the body is broken: a size line that is malformed or too long, or a chunk "
            "without its CRLF; the connection is closed.",
            "Send the body with a client that follows RFC 9112 section 7.1.",
        ),
        _kind(
            "host-invalid", 400, "Invalid host name",
            "The Host field is not a host name, with a port or without.",
            "Send the name that the hub is reached by.",
        ),
        _kind(
            "authority-invalid", 400, "Invalid CONNECT target",
            "The target of CONNECT is not a name and a port.",
            "Write it as service.satellite.hub-domain:port.",
        ),
        _kind(
            "target-invalid", 400, "Invalid request target",
            "The request target is neither a path nor a URL with http or https and a host.",
            "Send the path alone, as clients do by default.",
        ),
        _kind(
            "name-invalid", 400, "Invalid name",
            "A satellite or service name in the path or in Platform-Service is not a DNS label in lower case.",
            "Write the names as `platformctl services` lists them.",
        ),
        _kind(
            "selector-without-service", 400, "Selector without service",
            "Platform-Selector came without Platform-Service, so nothing says what to call.",
            "Send Platform-Service with the name of the service.",
        ),
        _kind(
            "selector-invalid", 400, "Invalid selector",
            "The Platform-Selector field is not a list of label=value pairs.",
            "Write it as region=eu,role=gpu and send Platform-Service with it.",
        ),
        _kind(
            "continue-invalid", 400, "Invalid continue token",
            "The continue parameter was not made by this API.",
            "Start again without it, and pass on the `next` of each page unchanged.",
        ),
        _kind(
            "parameter-invalid", 422, "Invalid parameter or body",
            "A query parameter or a member of the JSON body is missing, unknown or out of range; "
            "`errors` lists each one.",
            "Correct the members that `errors` names.",
        ),
        _kind(
            "unauthenticated", 401, "Not authenticated",
            "No credential came with the request, or the one that came is unknown, expired or revoked.",
            "Send Authorization: Bearer with a valid token, or a client certificate of this hub.",
        ),
        _kind(
            "access-denied", 403, "Access denied",
            "The access policy does not let this identity make this call. Policies deny by default.",
            "Ask for a policy rule that allows this identity, satellite, service, method and path.",
        ),
        _kind(
            "cross-site", 403, "Cross-site request refused",
            "A browser sent a changing request on behalf of another site.",
            "Call the API from the console or from a program, not from another site's page.",
        ),
        _kind(
            "path-unknown", 404, "Nothing here",
            "Nothing is served at this path.",
            "Services are below /s/<satellite>/<service>/, the API below /api/v1/, the console at /console/.",
        ),
        _kind(
            "host-unknown", 404, "Unknown host",
            "The host is below the hub's domain, and is not a service and a satellite.",
            "Write it as service.satellite.hub-domain.",
        ),
        _kind(
            "satellite-unknown", 404, "Unknown satellite",
            "No satellite of this name has joined.",
            "List the satellites with `platformctl satellites`.",
        ),
        _kind(
            "service-unknown", 404, "Unknown service",
            "The satellite is known, and exports no service of this name.",
            "List what is exported with `platformctl services`; export it with `platformctl export add`.",
        ),
        _kind(
            "token-unknown", 404, "Unknown join token",
            "No join token has this id: it never existed, or was revoked.",
            "List the tokens with `platformctl token list`.",
        ),
        _kind(
            "method-not-allowed", 405, "Method not allowed",
            "The path exists and does not take this method; Allow lists those that it takes.",
            "Use one of the methods in Allow.",
        ),
        _kind(
            "head-timeout", 408, "Request head came too slowly",
            "The head of the request did not arrive within its timeout; the connection is closed.",
            "Send the request again.",
        ),
        _kind(
            "conflict", 409, "Conflict",
            "The object exists already, or changed meanwhile.",
            "Read it again, and repeat the change on what is there now.",
        ),
        _kind(
            "body-too-large", 413, "Body too large",
            "The body is longer than this endpoint or service accepts.",
            "Send a smaller body, or raise the limit of the service.",
        ),
        _kind(
            "uri-too-long", 414, "Request target too long",
            "The request target is longer than the hub accepts.",
            "Shorten the path or move the query into a body.",
        ),
        _kind(
            "unsupported-media-type", 415, "Unsupported media type",
            "The API takes JSON bodies alone.",
            "Send Content-Type: application/json.",
        ),
        _kind(
            "expectation-failed", 417, "Expectation not supported",
            "The Expect field asks for something other than 100-continue.",
            "Leave the Expect field out.",
        ),
        _kind(
            "misdirected", 421, "Misdirected request",
            "The Host of the request does not belong to the name that the connection was opened for.",
            "Open a new connection for this host.",
        ),
        _kind(
            "upgrade-required", 426, "Upgrade required",
            "This endpoint speaks the tunnel protocol over WebSocket alone.",
            "Connect with an agent: `platformctl join satellite`.",
        ),
        _kind(
            "rate-limited", 429, "Rate limited",
            "This identity made more requests than its policy allows.",
            "Wait as long as Retry-After says.",
        ),
        _kind(
            "head-too-large", 431, "Request head too large",
            "The fields of the request are together larger, or more, than the hub accepts.",
            "Send fewer or smaller fields; often a cookie has grown.",
        ),
        # The hub.
        _kind(
            "internal", 500, "Internal error",
            "The hub failed in a way that it should not have; the log has the cause under the request id.",
            "Try again; if it stays, report it with the request id.",
        ),
        _kind(
            "transfer-coding", 501, "Transfer coding not implemented",
            "The body uses a transfer coding other than chunked.",
            "Send the body chunked, or with Content-Length.",
        ),
        _kind(
            "http-version", 505, "HTTP version not supported",
            "The hub speaks HTTP/1.1 and HTTP/1.0 here.",
            "Use HTTP/1.1, or the TCP and passthrough forms for HTTP/2.",
        ),
        _kind(
            "store-unavailable", 503, "State unavailable",
            "The hub's state could not be read or written; services are still served.",
            "Try again; `platformctl status` and /readyz say what is wrong with the store.",
        ),
        _kind(
            "draining", 503, "Hub replica is draining",
            "This replica is shutting down and takes no new requests.",
            "Try again: another replica answers.",
        ),
        _kind(
            "overloaded", 503, "Service at its limit",
            "The service has as many requests in flight and waiting as its limits allow.",
            "Wait as long as Retry-After says, or raise the concurrency and queue limits of the service.",
        ),
        # Satellites and backends.
        _kind(
            "satellite-disconnected", 503, "Satellite not connected",
            "The satellite is known, and no tunnel of it is open at this replica.",
            "See `platformctl status`; the agent reconnects on its own when it runs and reaches the hub.",
        ),
        _kind(
            "satellite-starting", 503, "Satellite is starting",
            "The satellite has connected, and has not registered its services yet.",
            "Try again in a moment.",
        ),
        _kind(
            "satellite-draining", 503, "Satellite is draining",
            "Every tunnel to the service is about to close; its successor is being opened.",
            "Try again in a moment.",
        ),
        _kind(
            "selector-no-match", 503, "No satellite matches",
            "No connected satellite that exports the service matches the selector.",
            "Check the selector against the labels in `platformctl satellites -o wide`.",
        ),
        _kind(
            "service-unhealthy", 503, "Backend unhealthy",
            "The service is exported, and its health check fails.",
            "Check the backend; it returns on its own when its health check passes.",
        ),
        _kind(
            "backend-unreachable", 502, "Backend unreachable",
            "The agent could not connect to the backend: refused, no route, no such name, or TLS failed.",
            "Check the address in the export, and that the backend listens there.",
        ),
        _kind(
            "backend-failed", 502, "Backend broke off",
            "The backend closed the connection before its response was complete.",
            "Look at the backend's log; repeat the request only when it is safe to.",
        ),
        _kind(
            "bad-backend-response", 502, "Bad response from backend",
            "The backend, or its satellite, sent a response that is not valid HTTP.",
            "Check that the service is of the right kind (http or tcp) and that the backend speaks HTTP/1.1.",
        ),
        _kind(
            "tunnel-lost", 502, "Tunnel lost",
            "The tunnel closed while the request was in flight; the outcome at the backend is unknown.",
            "Repeat the request when it is safe to; otherwise check its effect first.",
        ),
        _kind(
            "backend-connect-timeout", 504, "Backend connect timeout",
            "The agent waited for a connection to the backend longer than the service's connect timeout.",
            "Check the address and the network of the satellite, or raise the connect timeout of the service.",
        ),
        _kind(
            "backend-timeout", 504, "Backend timeout",
            "The backend did not begin its response, or stopped sending, for longer than the service's timeout.",
            "Look at the backend, or raise the response timeout of the service.",
        ),
    )
)
# fmt: on
