"""What every contender relays to: nginx for requests and downloads, a sink for uploads."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Processes, free_port, require

SMALL_BODY = "x" * 200
BLOB_BYTES = 1 << 30

_NGINX = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 16384; multi_accept on; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  default_type application/octet-stream;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ^~ /small {{ default_type text/plain; return 200 "{small}"; }}
    location = /blob {{ alias {folder}/blob; }}
  }}
}}
"""


@dataclass(frozen=True)
class Backend:
    """Ports on loopback. `web`: GET /small and below (200 B), GET /blob (the file `blob`, 1 GiB, less in a quick run).
    `sink`: PUT anything.
    """

    web: int
    sink: int
    blob: Path


async def start_backend(
    processes: Processes, folder: Path, *, inside: Sequence[str] = (), blob_bytes: int = BLOB_BYTES
) -> Backend:
    """Start nginx with one worker and the sink; the large file is sparse, so it costs no disk.

    `inside` is put before both commands, such as one that enters a network namespace; nobody waits for them then.
    """
    nginx = require("nginx", hint="apt-get install nginx-light")
    web, sink = free_port(), free_port()
    blob = folder / "blob"
    with blob.open("wb") as file:
        file.truncate(blob_bytes)
    _read_through(blob)
    # A root nginx gives its workers to an account that cannot read a private folder.
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(user=user, folder=folder, port=web, small=SMALL_BODY))
    here = not inside
    name = "nginx" if here else "nginx-inside"
    await processes.start(name, [*inside, nginx, "-p", str(folder), "-c", str(config)], port=web if here else 0)
    name, command = name.replace("nginx", "sink"), [sys.executable, "-m", "tests.bench.sink", str(sink)]
    await processes.start(name, [*inside, *command], port=sink if here else 0)
    return Backend(web=web, sink=sink, blob=blob)


def _read_through(file: Path) -> None:
    """Bring the file into the page cache, or the first contender pays for it."""
    with file.open("rb", buffering=0) as reader:
        room = bytearray(1 << 20)
        while reader.readinto(room):
            pass
