"""The hub's own certificates: provided by the user, or signed by the hub's CA, for each replica anew."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from platformctl.access import pki
from platformctl.hub.config import HubConfig, ServerTls
from platformctl.hub.store import CaMaterial, Store
from platformctl.net.files import write_private

log = logging.getLogger("platformctl.hub.serving")

# Loopback addresses and names that a local hub is called by.
_LOCAL_NAMES: Final = ("localhost",)
_LOCAL_IPS: Final = ("127.0.0.1", "::1")
_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
# A wildcard is about 30 bytes in every handshake, and clients stop reading at 100 KB (OpenSSL's max_cert_list).
MAX_WILDCARDS: Final = 1000


def load_ca(store: Store, config: HubConfig) -> pki.Authority:
    """The hub's CA; created once, by whichever replica comes first."""

    def create() -> CaMaterial:
        key = pki.make_key(os.urandom(pki.KEY_ENTROPY_BYTES))
        cert_pem, key_pem = pki.create_ca(time.time(), config.trust_domain, key, entropy=os.urandom(pki.SERIAL_BYTES))
        return CaMaterial(cert_pem, key_pem)

    material = store.get_or_create_ca(create)
    return pki.Authority.load(material.cert_pem, material.key_pem)


class ServingCertificates:
    """Files that the listeners serve with; who reads them watches them.

    Attributes:
        public: for the public listener, with a wildcard for each satellite: `*.<satellite>.<domain>`, since a wildcard
            covers one label (RFC 6125, 6.4.3). The user's own if there is one.
        tunnel: for the tunnel listener, which is never called by a service's name, so that its handshakes stay small.
        client_ca: bundle to verify client certificates with.
    """

    def __init__(self, config: HubConfig, ca: pki.Authority) -> None:
        self._config = config
        self._ca = ca
        folder = config.state / "replicas" / config.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.client_ca = folder / "client-ca.pem"
        self.public = config.tls or ServerTls(folder / "public.crt", folder / "public.key")
        self.tunnel = config.tls or ServerTls(folder / "tunnel.crt", folder / "tunnel.key")
        self._key = pki.make_key(os.urandom(pki.KEY_ENTROPY_BYTES))
        self._satellites: list[str] | None = None
        self._renewal_at = 0.0

    def issue(self, satellites: Iterable[str], now: float) -> bool:
        """Sign what is missing, due, or lacks one of `satellites`; whether anything was. `now`: Unix time.

        The key stays, so certificate and key never differ while one of the files is replaced. Raises StoreError.
        """
        wanted = sorted(satellites)
        names = wanted[:MAX_WILDCARDS]
        due = now >= self._renewal_at
        if self._config.tls is not None:
            if self._satellites is None:
                write_private(self.client_ca, self._ca.cert_pem)
                self._satellites = names
            return False
        if not due and names == self._satellites:
            return False
        hosts, ips = _names(self._config)
        if due:
            write_private(self.client_ca, self._ca.cert_pem)
            for files in (self.public, self.tunnel):
                write_private(files.key, pki.key_pem(self._key))
            certificate = self._sign(self.tunnel.cert, hosts, ips, now)
            self._renewal_at = now + pki.renewal_in(certificate, now)
        domain = self._config.domain
        wildcards = [f"*.{domain}", *(f"*.{name}.{domain}" for name in names)]
        self._sign(self.public.cert, [*hosts, *wildcards], ips, now)
        self._satellites = names
        if len(wanted) > MAX_WILDCARDS:
            log.warning("only the first %d satellites have a name in the public certificate", MAX_WILDCARDS)
        return True

    def _sign(self, path: Path, names: list[str], ips: list[str], now: float) -> bytes:
        serial = os.urandom(pki.SERIAL_BYTES)
        certificate = pki.sign_server(self._ca, names, ips, now, key=self._key.public_key(), entropy=serial)
        write_private(path, certificate + self._ca.cert_pem)
        return certificate


def _names(config: HubConfig) -> tuple[list[str], list[str]]:
    """(names, addresses) that this replica is called by, as far as its configuration says."""
    advertised = config.advertise
    hosts = [urlsplit(url).hostname or "" for url in (advertised.tunnel_url, advertised.public_url) if url]
    hosts += [listener.host for listener in (*config.listeners.public, *config.listeners.tunnel)]
    names: list[str] = [config.domain]
    ips: list[str] = []
    for host in hosts:
        try:
            address = ip_address(host)
        except ValueError:
            names.append(host.lower() or socket.gethostname().lower())
            ips += _LOCAL_IPS if not host else ()
            continue
        if address.is_unspecified:
            names.append(socket.gethostname().lower())
            ips += _LOCAL_IPS
        else:
            ips.append(str(address))
    if any(ip_address(ip).is_loopback for ip in ips):
        names += _LOCAL_NAMES
        ips += _LOCAL_IPS
    return [name for name in dict.fromkeys(names) if _HOST_NAME.fullmatch(name)], list(dict.fromkeys(ips))
