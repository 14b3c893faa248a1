"""The store's records as JSON text and back. Both stores keep the same text, so state can be moved between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from platformctl.hub.store import CaMaterial, ClientToken, JoinToken, Replica, SatelliteRecord

__all__ = ["Record", "decode", "encode"]

Record = CaMaterial | ClientToken | JoinToken | Replica | SatelliteRecord

R = TypeVar("R", bound=Record)


def encode(record: Record) -> str:
    fields: dict[str, Any] = {name: getattr(record, name) for name in record.__slots__}
    return json.dumps(fields, default=_plain, sort_keys=True, separators=(",", ":"))


def decode(cls: type[R], text: str) -> R:
    """ValueError, TypeError or KeyError when the text is not that of such a record."""
    fields = json.loads(text)
    for name, restore in _RESTORE.get(cls, {}).items():
        fields[name] = restore(fields[name])
    return cls(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise TypeError(f"a record cannot have a {type(value).__name__} in it")


_RESTORE: dict[type, dict[str, Callable[[Any], Any]]] = {
    CaMaterial: {"cert_pem": str.encode, "key_pem": str.encode},
    ClientToken: {"groups": tuple},
    SatelliteRecord: {"serials": tuple},
}
