"""The hub's own certificate: provided by the user, or signed by the hub's CA, one for each replica."""

from __future__ import annotations

import os
import socket
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from platformctl.access import pki
from platformctl.net.files import write_private
from platformctl.hub.config import HubConfig, ServerTls
from platformctl.hub.store import CaMaterial, Store

# Loopback addresses and names that a local hub is called by.
_LOCAL_NAMES: Final = ("localhost",)
_LOCAL_IPS: Final = ("127.0.0.1", "::1")


def load_ca(store: Store, config: HubConfig) -> pki.Authority:
    """The hub's CA; created once, by whichever replica comes first."""

    def create() -> CaMaterial:
        key = pki.make_key(os.urandom(pki.KEY_ENTROPY_BYTES))
        cert_pem, key_pem = pki.create_ca(
            time.time(), config.trust_domain, key, entropy=os.urandom(pki.SERIAL_BYTES)
        )
        return CaMaterial(cert_pem, key_pem)

    material = store.get_or_create_ca(create)
    return pki.Authority.load(material.cert_pem, material.key_pem)


def serving_files(config: HubConfig, ca: pki.Authority, satellites: list[str]) -> tuple[ServerTls, Path]:
    """(certificate and key to serve with, CA bundle for client certificates), as files in the replica's folder.

    `satellites` get a wildcard each, for `<service>.<satellite>.<domain>`: a wildcard covers one label (RFC 6125 6.4.3).
    """
    folder = config.state / "replicas" / config.id
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    bundle = folder / "client-ca.pem"
    write_private(bundle, ca.cert_pem)
    if config.tls is not None:
        return config.tls, bundle
    files = ServerTls(folder / "server.crt", folder / "server.key")
    key = pki.make_key(os.urandom(pki.KEY_ENTROPY_BYTES))
    names, ips = _names(config, satellites)
    cert = pki.sign_server(
        ca, names, ips, time.time(), key=key.public_key(), entropy=os.urandom(pki.SERIAL_BYTES)
    )
    write_private(files.key, pki.key_pem(key))
    write_private(files.cert, cert + ca.cert_pem)
    return files, bundle


def _names(config: HubConfig, satellites: list[str]) -> tuple[list[str], list[str]]:
    names = [config.domain, f"*.{config.domain}", *(f"*.{name}.{config.domain}" for name in satellites)]
    ips: list[str] = []
    advertised = config.advertise
    hosts = [urlsplit(url).hostname for url in (advertised.tunnel_url, advertised.public_url) if url]
    for listener in (*config.listeners.public, *config.listeners.tunnel):
        hosts.append(listener.host)
    for host in hosts:
        if not host:
            hosts.append(socket.gethostname().lower())
            continue
        try:
            ips.append(str(ip_address(host)))
        except ValueError:
            names.append(host.lower())
    if any(ip_address(ip).is_loopback for ip in ips):
        names.extend(_LOCAL_NAMES)
        ips.extend(_LOCAL_IPS)
    return list(dict.fromkeys(names)), list(dict.fromkeys(ips))
