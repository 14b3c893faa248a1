"""The store of local mode: one SQLite file, shared by all hub processes on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from platformctl.errors import Conflict, StoreError
from platformctl.hub.records import Record, decode, encode
from platformctl.hub.sqlite_file import BUSY_SECONDS, SQLiteFile
from platformctl.hub.store import CaMaterial, ClientToken, JoinToken, Replica, SatelliteRecord

__all__ = ["SQLiteStore"]

_SETTING = "setting"
# Fixed here, so that renaming a class does not lose what older versions stored.
_KINDS: dict[type[Record], str] = {
    CaMaterial: "ca",
    ClientToken: "client-token",
    JoinToken: "join-token",
    Replica: "replica",
    SatelliteRecord: "satellite",
}
_CA = "own"

R = TypeVar("R", CaMaterial, ClientToken, JoinToken, Replica, SatelliteRecord)


class SQLiteStore:
    """`Store` on the file at `path`. For all threads of a process; each process opens its own."""

    def __init__(self, path: Path | str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._file = SQLiteFile(Path(path), busy_seconds)

    def __enter__(self) -> SQLiteStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._file.path

    def close(self) -> None:
        self._file.close()

    def version(self) -> int:
        return self._file.version()

    def get_or_create_ca(self, factory: Callable[[], CaMaterial]) -> CaMaterial:
        found = self._get(CaMaterial, _CA)
        if found is not None:
            return found
        with self._file.change():
            found = self._get(CaMaterial, _CA)
            if found is None:
                found = factory()
                self._put(_CA, found)
            return found

    def put_join_token(self, token: JoinToken) -> None:
        self._insert(token.id, token)

    def get_join_token(self, id: str) -> JoinToken | None:
        return self._get(JoinToken, id)

    def list_join_tokens(self) -> list[JoinToken]:
        return sorted(self._list(JoinToken), key=lambda token: token.created)

    def delete_join_token(self, id: str) -> bool:
        return self._delete(JoinToken, id)

    def consume_join_token(self, id: str, now: float) -> bool:
        with self._file.change():
            token = self._get(JoinToken, id)
            if token is None or token.state(now) != "unused":
                return False
            self._put(id, replace(token, used_at=now))
            return True

    def put_client_token(self, token: ClientToken) -> None:
        self._insert(token.id, token)

    def list_client_tokens(self) -> list[ClientToken]:
        return sorted(self._list(ClientToken), key=lambda token: token.created)

    def delete_client_token(self, id: str) -> bool:
        return self._delete(ClientToken, id)

    def put_satellite(self, record: SatelliteRecord) -> SatelliteRecord:
        with self._file.change():
            current = self._get(SatelliteRecord, record.name)
            found = current.generation if current else 0
            if found != record.generation:
                raise Conflict(
                    f"satellite {record.name} was changed meanwhile (generation {found}, not {record.generation})",
                    hint="read it again and repeat the change",
                )
            return self._put_satellite(record)

    def get_satellite(self, name: str) -> SatelliteRecord | None:
        return self._get(SatelliteRecord, name)

    def list_satellites(self) -> list[SatelliteRecord]:
        return self._list(SatelliteRecord)

    def revoke_satellite(self, name: str) -> bool:
        with self._file.change():
            current = self._get(SatelliteRecord, name)
            if current is None:
                return False
            self._put_satellite(current.revoked())
            return True

    def delete_satellite(self, name: str) -> bool:
        return self._delete(SatelliteRecord, name)

    def heartbeat(self, replica: Replica) -> None:
        known = self._get(Replica, replica.id)
        news = known is None or replace(known, seen_at=replica.seen_at) != replica
        with self._file.change(counted=news):
            self._put(replica.id, replica)

    def list_replicas(self, *, seen_since: float) -> list[Replica]:
        return [replica for replica in self._list(Replica) if replica.seen_at >= seen_since]

    def remove_replica(self, id: str) -> bool:
        return self._delete(Replica, id)

    def get_setting(self, key: str) -> str | None:
        return self._file.get(_SETTING, key)

    def put_setting(self, key: str, value: str) -> None:
        with self._file.change():
            self._file.put(_SETTING, key, value)

    def _put_satellite(self, record: SatelliteRecord) -> SatelliteRecord:
        # The file's own counter as generation: it never comes again, also not for a name that was deleted meanwhile.
        stored = replace(record, generation=self._file.version() + 1)
        self._put(record.name, stored)
        return stored

    def _insert(self, id: str, record: Record) -> None:
        with self._file.change():
            if self._file.get(_KINDS[type(record)], id) is not None:
                raise Conflict(f"{_KINDS[type(record)]} {id} exists already", hint="make another one")
            self._put(id, record)

    def _put(self, id: str, record: Record) -> None:
        self._file.put(_KINDS[type(record)], id, encode(record))

    def _get(self, cls: type[R], id: str) -> R | None:
        body = self._file.get(_KINDS[cls], id)
        return None if body is None else self._decode(cls, body)

    def _list(self, cls: type[R]) -> list[R]:
        return [self._decode(cls, body) for body in self._file.list(_KINDS[cls])]

    def _delete(self, cls: type[Record], id: str) -> bool:
        with self._file.change():
            return self._file.delete(_KINDS[cls], id)

    def _decode(self, cls: type[R], body: str) -> R:
        try:
            return decode(cls, body)
        except (ValueError, TypeError, KeyError, AttributeError):
            # Without the cause: the text in it may be a key.
            raise StoreError(
                f"a {_KINDS[cls]} in the state file {self.path} cannot be read",
                hint="another version of platformctl wrote it, or it is damaged: restore it from a backup",
            ) from None
