"""The control API, as commands use it: JSON in and out, every failure a PlatformError that says what to do."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from platformctl import __version__
from platformctl.errors import (
    AccessDenied,
    ConfigError,
    Conflict,
    HubUnreachable,
    NotFound,
    PlatformError,
    UsageError,
    excerpt,
)

__all__ = ["HubClient", "read_token", "tls_context"]

_BY_STATUS: dict[int, type[PlatformError]] = {
    400: UsageError,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    422: UsageError,
}
# An answer of the control API is a page of a list; what is longer did not come from a hub.
_MAX_BODY = 64 * 1024 * 1024


def read_token(path: Path) -> str:
    """The token in a file, without the line end. ConfigError when it cannot be a token; its text is never shown."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as e:
        raise ConfigError(f"the token cannot be read: {e.strerror}", source=str(path)) from e
    except UnicodeDecodeError:
        raise ConfigError("is not a token file", source=str(path)) from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigError("is not a token file", source=str(path), hint="It must hold one token, and nothing else.")
    return token


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies the hub by `ca_file`, or by the system's CAs; there is no way to switch it off."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except FileNotFoundError as e:
        raise ConfigError("there is no such CA file", source=str(ca_file)) from e
    except OSError as e:  # ssl.SSLError is one
        raise ConfigError("is not a readable CA certificate", source=str(ca_file)) from e
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class HubClient:
    """One keep-alive connection to a hub's public listener. Not for use by several threads."""

    def __init__(
        self, url: str, *, token_file: Path | None = None, ca_file: Path | None = None, timeout: float = 10.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise UsageError(
                f"{excerpt(url)!r} is not the address of a hub", hint="It looks like https://hub.example.com."
            )
        if parts.scheme == "http" and token_file and not _is_loopback(parts.hostname):
            raise UsageError(
                f"a token is not sent over plain HTTP to {parts.hostname}", hint="Use the https:// address."
            )
        self.url = url
        self._headers = {"Accept": "application/json", "User-Agent": f"platformctl/{__version__}"}
        if token_file:
            self._headers["Authorization"] = f"Bearer {read_token(token_file)}"
        self._prefix = parts.path.rstrip("/")
        self._http: http.client.HTTPConnection
        if parts.scheme == "https":
            self._http = http.client.HTTPSConnection(
                parts.hostname, parts.port or 443, timeout=timeout, context=tls_context(ca_file)
            )
        else:
            self._http = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)

    def __enter__(self) -> HubClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self._call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, body)

    def delete(self, path: str, name: str) -> None:
        self._call("DELETE", f"{path}/{quote(name, safe='')}")

    def items(self, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        page = self.get(path)
        while True:
            found += page.get("items", [])
            if not page.get("next"):
                return found
            page = self.get(path, **{"continue": str(page["next"])})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body)
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        try:
            self._http.request(method, f"{self._prefix}/api/v1/{path}", content, headers)
            response = self._http.getresponse()
            data = response.read(_MAX_BODY)
        except (OSError, http.client.HTTPException) as e:
            self._http.close()
            raise self._unreachable(e) from e
        if response.status >= 400:
            raise self._refused(response.status, data)
        try:
            document = json.loads(data) if data else {}
        except ValueError as e:
            raise HubUnreachable(f"what answers at {self.url} is not a hub: {excerpt(data)}") from e
        return document if isinstance(document, dict) else {"items": document}

    def _unreachable(self, error: OSError | http.client.HTTPException) -> HubUnreachable:
        if isinstance(error, ssl.SSLCertVerificationError):
            return HubUnreachable(
                f"the certificate of {self.url} was refused: {error.verify_message}",
                hint="Give the hub's CA with --ca-file, or use the name that the certificate was made for.",
            )
        if isinstance(error, ConnectionRefusedError):
            what, hint = "nothing listens there", "Is it running? A local hub is started by `platformctl up`."
        elif isinstance(error, TimeoutError):
            what, hint = "no answer in time", "Look for a firewall between here and the hub."
        elif isinstance(error, socket.gaierror):
            what, hint = "the name does not resolve", "Check the address, and DNS."
        else:
            what, hint = getattr(error, "strerror", None) or str(error) or type(error).__name__, "See the hub's log."
        return HubUnreachable(f"cannot reach the hub at {self.url}: {what}", hint=hint)

    def _refused(self, status: int, data: bytes) -> PlatformError:
        try:
            problem = json.loads(data)
            detail, hint = str(problem.get("detail") or ""), str(problem.get("hint") or "")
            code, request_id = str(problem.get("code") or ""), str(problem.get("request_id") or "")
        except (ValueError, AttributeError):
            detail, hint, code, request_id = excerpt(data), "", "", ""
        kind = _BY_STATUS.get(status, HubUnreachable if status in (502, 503, 504) else PlatformError)
        message = f"the hub at {self.url} answered {status}: {excerpt(detail, 300) or 'no detail'}"
        error = kind(message + (f" (request {excerpt(request_id)})" if request_id else ""), hint=excerpt(hint, 300))
        error.code = excerpt(code) or kind.code
        if status == 401:  # the hub's own hint speaks of request headers
            error.hint = "Give a token with --token-file, or a context that has one."
        return error


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
