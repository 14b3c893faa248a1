"""The control API as one ASGI application, and the translation of errors into problems.

The caller (the hub's ingress) puts `identity`, `grant` and `request_id` into `scope["state"]`; paths are whole, from
`/api/v1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from platformctl.errors import AccessDenied, Conflict, NotFound, PlatformError, StoreError, UsageError, excerpt
from platformctl.hub.api import inventory, join_tokens
from platformctl.hub.api.gate import Gate
from platformctl.hub.api.models import Problem
from platformctl.hub.api.paging import InvalidContinue
from platformctl.hub.api.view import HubView
from platformctl.net.problem import CONTENT_TYPE, problem

__all__ = ["PREFIX", "create_api"]

PREFIX = "/api/v1"
_PROBLEM: dict[str, object] = {
    "description": "A problem (RFC 9457); docs/reference/errors.md lists every code.",
    "content": {CONTENT_TYPE: {"schema": Problem.model_json_schema()}},
}

# The first class that fits decides, so the narrow ones come first. What is not here is an internal error.
_ERRORS: tuple[tuple[type[PlatformError], int, str], ...] = (
    (inventory.NoSuchSatellite, 404, "satellite-unknown"),
    (join_tokens.NoSuchToken, 404, "token-unknown"),
    (NotFound, 404, "path-unknown"),
    (UsageError, 422, "parameter-invalid"),
    (AccessDenied, 403, "access-denied"),
    (Conflict, 409, "conflict"),
    (StoreError, 503, "store-unavailable"),
)
_HTTP_CODES = {404: "path-unknown", 405: "method-not-allowed", 415: "unsupported-media-type"}


def create_api(view: HubView) -> ASGIApp:
    """The application for `view`. Everything under `/api/v1`; other paths are 404 problems."""
    app = FastAPI(
        title="platformctl hub",
        summary="Control API of the hub.",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        responses={"4XX": _PROBLEM, "5XX": _PROBLEM},
    )
    app.state.view = view
    app.include_router(inventory.router, prefix=PREFIX)
    app.include_router(join_tokens.router, prefix=PREFIX)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(InvalidContinue, _invalid_continue)
    app.add_exception_handler(PlatformError, _platform_error)
    app.add_exception_handler(Exception, _internal_error)
    return Gate(app)


def _operation_id(route: APIRoute) -> str:
    return route.name


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return _answer(request, 422, "parameter-invalid", "the body is not valid JSON")
    code = _HTTP_CODES.get(error.status_code, "internal")
    what = f"{excerpt(request.method)} {excerpt(request.scope['path'])}"
    headers = {"allow": ", ".join(_methods(request.scope["path"]))} if error.status_code == 405 else {}
    return _answer(request, error.status_code, code, f"{what}: {error.detail}", headers=headers)


def _methods(path: str) -> list[str]:
    """Every method of the path; the framework's own answer names those of one route alone."""
    rest = path.removeprefix(PREFIX)
    found = {
        method
        for route in (*inventory.router.routes, *join_tokens.router.routes)
        if isinstance(route, APIRoute) and route.path_regex.match(rest)
        for method in route.methods or ()
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Neither the value nor pydantic's context goes back: both may quote a secret that was put into the wrong member.
    errors = [
        {"where": ".".join(excerpt(str(part)) for part in each["loc"]), "what": excerpt(str(each["msg"]), 200)}
        for each in error.errors()[:20]
    ]
    detail = "; ".join(f"{each['where']}: {each['what']}" for each in errors)
    return _answer(request, 422, "parameter-invalid", detail, errors=errors)


async def _invalid_continue(request: Request, error: Exception) -> Response:
    return _answer(request, 400, "continue-invalid", "the continue parameter is not one that this API gave")


async def _platform_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)
    for kind, status, code in _ERRORS:
        if isinstance(error, kind):
            return _answer(request, status, code, error.message, hint=error.hint)
    raise error


async def _internal_error(request: Request, error: Exception) -> Response:
    return _answer(request, 500, "internal", "the hub could not answer this request")


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    errors: Sequence[object] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    request_id = str(getattr(request.state, "request_id", ""))
    extra = {"errors": list(errors)} if errors else None
    status, fields, body = problem(status, code, detail, hint=hint, request_id=request_id, extra=extra)
    return Response(body, status, headers={**(headers or {}), **dict(fields)})
