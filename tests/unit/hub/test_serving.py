"""The certificates that a replica serves with: whose names are in them, and when they are signed anew."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
from cryptography import x509

from platformctl.access import pki
from platformctl.hub.config import HubConfig
from platformctl.hub.serving import ServingCertificates, load_ca
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.tls import public_server_context, tunnel_server_context

NOW = time.time()


def config(folder: Path, address: str = "127.0.0.1:8443", extra: str = "") -> HubConfig:
    text = (
        f"id: hub-1\nstate: state\ndomain: hub.example\n"
        f"listeners: {{public: [{{address: '{address}'}}], tunnel: [{{address: '10.0.0.5:7443'}}]}}\n{extra}"
    )
    return HubConfig.from_text(text, "hub.yaml", folder)


def certificates(folder: Path, **more: str) -> ServingCertificates:
    settings = config(folder, **more)
    with SQLiteStore(folder / "hub.db") as store:
        return ServingCertificates(settings, load_ca(store, settings))


def names(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ips = alternatives.get_values_for_type(x509.IPAddress)
    return {*alternatives.get_values_for_type(x509.DNSName), *map(str, ips)}


def test_the_public_certificate_has_a_wildcard_for_each_satellite_and_the_tunnels_has_none(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    assert made.issue(["edge-1", "edge-2"], NOW)
    assert names(made.public.cert) == names(made.tunnel.cert) | {
        "*.hub.example",
        "*.edge-1.hub.example",
        "*.edge-2.hub.example",
    }
    assert names(made.tunnel.cert) == {"hub.example", "localhost", "127.0.0.1", "::1", "10.0.0.5"}
    public_server_context(made.public.cert, made.public.key)
    tunnel_server_context(made.tunnel.cert, made.tunnel.key, made.client_ca)


def test_it_is_signed_anew_when_a_satellite_joins_or_goes_and_not_otherwise(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    made.issue(["edge-1"], NOW)
    key = made.public.key.read_bytes()
    assert not made.issue(["edge-1"], NOW + 60)
    assert made.issue(["edge-2", "edge-1"], NOW + 60)
    assert not made.issue(["edge-1", "edge-2"], NOW + 60)
    assert "*.edge-2.hub.example" in names(made.public.cert)
    assert made.issue(["edge-2"], NOW + 60)
    assert "*.edge-1.hub.example" not in names(made.public.cert)
    assert made.public.key.read_bytes() == key


def test_both_are_renewed_when_two_thirds_of_their_life_are_over(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    made.issue([], NOW)
    before = [path.read_bytes() for path in (made.public.cert, made.tunnel.cert)]
    life = pki.SERVER_DAYS * 86400
    assert not made.issue([], NOW + life * 0.6)
    assert made.issue([], NOW + life * 0.7)
    after = [path.read_bytes() for path in (made.public.cert, made.tunnel.cert)]
    assert not set(before) & set(after)
    assert not made.issue([], NOW + life * 0.7)


@pytest.mark.parametrize("address", [":8443", "0.0.0.0:8443", "[::]:8443"])
def test_a_listener_on_every_address_is_called_by_the_machines_name_and_locally(tmp_path: Path, address: str) -> None:
    made = certificates(tmp_path, address=address)
    made.issue([], NOW)
    found = names(made.public.cert)
    assert {"hub.example", "localhost", "127.0.0.1", "::1"} <= found
    assert not {"0.0.0.0", "::"} & found


def test_advertised_names_are_in_both(tmp_path: Path) -> None:
    extra = "advertise: {tunnel_url: 'wss://tunnels.example:7443', public_url: 'https://front.example'}\n"
    made = certificates(tmp_path, extra=extra)
    made.issue([], NOW)
    assert {"tunnels.example", "front.example"} <= names(made.public.cert) & names(made.tunnel.cert)


def test_certificates_of_the_user_are_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "own.crt"
    own.write_text("the user's")
    made = certificates(tmp_path, extra="tls: {cert: own.crt, key: own.key}\n")
    assert not made.issue(["edge-1"], NOW)
    assert made.public.cert == made.tunnel.cert == own
    assert own.read_text() == "the user's"
    assert b"BEGIN CERTIFICATE" in made.client_ca.read_bytes()


def test_two_replicas_have_one_ca(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with SQLiteStore(tmp_path / "hub.db") as one, SQLiteStore(tmp_path / "hub.db") as two:
        first, second = load_ca(one, settings), load_ca(two, settings)
    assert first.cert_pem == second.cert_pem
    assert secrets.compare_digest(pki.key_pem(first.key), pki.key_pem(second.key))
