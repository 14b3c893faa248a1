"""Join tokens: create (the secret is shown this once), list, revoke."""

from __future__ import annotations

import secrets
import shlex
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from platformctl.access import tokens
from platformctl.errors import NotFound, excerpt
from platformctl.hub.api.inventory import Continue, Limit, View
from platformctl.hub.api.models import JoinToken, NewJoinToken, Page, TokenRequest
from platformctl.hub.api.paging import cut, listing

__all__ = ["JOIN_TOKEN_VARIABLE", "NoSuchToken", "join_command", "router"]

router = APIRouter(prefix="/tokens", tags=["tokens"])

JOIN_TOKEN_VARIABLE = "PLATFORMCTL_JOIN_TOKEN"


def join_command(satellite: str, token: str, *, hub_url: str, ca_pin: str) -> str:
    """The exact shell line that joins. The token goes by environment, for argv can be read by every user of the
    machine.
    """
    parts = ["platformctl", "join", "satellite", satellite, "--hub", hub_url, "--ca-pin", ca_pin]
    return f"{JOIN_TOKEN_VARIABLE}={shlex.quote(token)} {shlex.join(parts)}"


@router.get("", response_model=Page[JoinToken], responses={304: {"description": "Not modified."}})
async def list_tokens(request: Request, view: View, limit: Limit = 500, after: Continue = None) -> Response:
    """List the join tokens with their use and expiry; never their secrets."""
    now = view.now()
    items = [_shown(record, now) for record in view.store.list_join_tokens()]
    return listing(request, cut(items, lambda each: (each.id,), limit, after))


@router.post("", status_code=201)
async def create_token(view: View, wanted: TokenRequest, response: Response) -> NewJoinToken:
    """Create a join token: it works once, for this satellite's name and labels alone, until it expires."""
    text, record = tokens.mint_join_token(
        secrets.token_bytes(tokens.ENTROPY_BYTES),
        wanted.satellite,
        wanted.labels,
        now=view.now(),
        ttl_seconds=wanted.ttl_seconds,
    )
    view.store.put_join_token(record)
    pin = view.ca_pin()
    response.headers["location"] = f"/api/v1/tokens/{record.id}"
    response.headers["cache-control"] = "no-store"
    return NewJoinToken(
        id=record.id,
        token=text,
        satellite=record.satellite,
        labels=dict(record.labels),
        expires_at=datetime.fromtimestamp(record.expires, UTC),
        ca_pin=pin,
        join_command=join_command(record.satellite, text, hub_url=view.join_url(), ca_pin=pin),
    )


@router.delete("/{id}", status_code=204)
async def revoke_token(view: View, id: Annotated[str, Path(max_length=128)]) -> None:
    """Revoke a join token; a satellite that joined with it already stays joined."""
    if not view.store.delete_join_token(id):
        raise NoSuchToken(f"no join token has the id {excerpt(id)!r}")


def _shown(record: tokens.JoinToken, now: float) -> JoinToken:
    return JoinToken.model_validate(
        {
            "id": record.id,
            "satellite": record.satellite,
            "labels": dict(record.labels),
            "created_at": record.created,
            "expires_at": record.expires,
            "used_at": record.used_at,
            "uses": 0 if record.used_at is None else 1,
            "state": record.state(now),
        }
    )


class NoSuchToken(NotFound):
    """Answered as `token-unknown`."""
