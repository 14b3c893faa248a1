from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.errors import HeadError
from platformctl.routing.addressing import Addressing, LocalTarget, SelectorTarget, ServiceTarget

HUB = "hub.example.com"


@pytest.fixture
def addresses() -> Addressing:
    return Addressing("Hub.Example.com.")


def refused(call, *arguments) -> tuple[int, str]:
    with pytest.raises(HeadError) as caught:
        call(*arguments)
    assert str(caught.value)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("domain", ["", ".", "a b", "-x.example", "hub..example", "x" * 64])
def test_a_bad_domain_is_refused(domain):
    with pytest.raises(ValueError, match="is not a domain name"):
        Addressing(domain)


@pytest.mark.parametrize(
    "host",
    [
        "api.sat-1.hub.example.com",
        b"api.sat-1.hub.example.com",
        "API.Sat-1.HUB.example.COM",
        "api.sat-1.hub.example.com:8443",
        "api.sat-1.hub.example.com:",
        "api.sat-1.hub.example.com.",
        "api.sat-1.hub.example.com.:8443",
    ],
)
def test_the_host_names_a_service(addresses, host):
    assert addresses.target(host, "/a/b?c=1") == ServiceTarget("sat-1", "api", "/a/b?c=1", "")


def test_a_service_host_keeps_every_path_and_ignores_routing_headers(addresses):
    for path in ("/s/sat-2/x/", "/api/v1", "/k/", "*", "/%2e%2e/"):
        target = addresses.target("api.sat-1.hub.example.com", path, "other", "region=eu")
        assert target == ServiceTarget("sat-1", "api", path, "")


@pytest.mark.parametrize(
    "host",
    [
        "",
        HUB,
        b"hub.example.com:443",
        "replica-0.hub.example.com",
        "127.0.0.1:8080",
        "[::1]:8080",
        "other.example",
        "xhub.example.com",
    ],
)
def test_other_hosts_are_the_hub_itself(addresses, host):
    assert addresses.target(host, "/api/v1/version") == LocalTarget("/api/v1/version")


@pytest.mark.parametrize(
    ("host", "status", "code"),
    [
        ("a.b.c.hub.example.com", 404, "host-unknown"),
        ("-a.sat-1.hub.example.com", 400, "host-invalid"),
        ("a_b.sat-1.hub.example.com", 400, "host-invalid"),
        (".sat-1.hub.example.com", 400, "host-invalid"),
        ("api..hub.example.com", 400, "host-invalid"),
        ("api.sat-1.hub.example.com..", 400, "host-invalid"),
        ("api%2esat-1.hub.example.com", 400, "host-invalid"),
        ("api.sat-1.hub.example.com:http", 400, "host-invalid"),
        ("api.sat-1.hub.example.com:123456", 400, "host-invalid"),
        ("a b", 400, "host-invalid"),
        (HUB + "\n", 400, "host-invalid"),
        ("a/b", 400, "host-invalid"),
        ("h\xc3\xbcb", 400, "host-invalid"),
        (b"h\xffb", 400, "host-invalid"),
        ("x" * 300, 400, "host-invalid"),
        ("[::1", 400, "host-invalid"),
    ],
)
def test_a_malformed_or_unknown_host_is_refused(addresses, host, status, code):
    assert refused(addresses.target, host, "/") == (status, code)


@pytest.mark.parametrize(
    ("path", "rest", "prefix"),
    [
        ("/s/sat-1/api/", "/", "/s/sat-1/api"),
        ("/s/sat-1/api", "/", "/s/sat-1/api"),
        ("/s/sat-1/api?q=/a/b", "/?q=/a/b", "/s/sat-1/api"),
        ("/s/sat-1/api/?q", "/?q", "/s/sat-1/api"),
        ("/s/sat-1/api/a/b?c=d/e", "/a/b?c=d/e", "/s/sat-1/api"),
        ("/s/sat-1/api/../../x", "/../../x", "/s/sat-1/api"),
        ("/s/sat-1/api/%2e%2e%2fx", "/%2e%2e%2fx", "/s/sat-1/api"),
        ("/s/sat-1/api//x", "//x", "/s/sat-1/api"),
    ],
)
def test_the_path_names_a_service_and_the_rest_is_untouched(addresses, path, rest, prefix):
    for _ in range(2):  # the second time from memory
        assert addresses.target(HUB, path) == ServiceTarget("sat-1", "api", rest, prefix)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/s/", 404, "path-unknown"),
        ("/s/sat-1", 404, "path-unknown"),
        ("/s/sat-1/", 404, "path-unknown"),
        ("/s/sat-1?x=/y/", 404, "path-unknown"),
        ("/s//", 404, "path-unknown"),
        ("/s//api/", 400, "name-invalid"),
        ("/s/../api/", 400, "name-invalid"),
        ("/s/sat-1/../x", 400, "name-invalid"),
        ("/s/sat-1/./x", 400, "name-invalid"),
        ("/s/sat-1/%2e%2e/x", 400, "name-invalid"),
        ("/s/sat%2d1/api/x", 400, "name-invalid"),
        ("/s/sat-1%2fapi/x", 400, "name-invalid"),
        ("/s/sat-1/api%2fx", 400, "name-invalid"),
        ("/s/Sat-1/api/", 400, "name-invalid"),
        ("/s/sat-1/a_b/", 400, "name-invalid"),
        ("/s/sat-1/api;v=1/", 400, "name-invalid"),
        ("/s/sat-1\\api/x", 400, "name-invalid"),
        ("/s/sat.1/api/", 400, "name-invalid"),
    ],
)
def test_names_in_the_path_are_literal_dns_labels(addresses, path, status, code):
    assert refused(addresses.target, HUB, path) == (status, code)


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api?x", "/api/v1/satellites", "/console/", "/mcp", "/mcp/sat-1/kube", "/k/sat-1/api"]
)
def test_paths_of_the_hub_stay_local(addresses, path):
    assert addresses.target(HUB, path) == LocalTarget(path)


@pytest.mark.parametrize("path", ["/", "/s", "/apiary", "/consoles/", "/kube", "/x/../api/", "//api/", "/%61pi/", "*"])
def test_other_paths_are_not_found(addresses, path):
    assert refused(addresses.target, HUB, path) == (404, "path-unknown")


def test_local_paths_can_be_chosen():
    addresses = Addressing("localhost", local=("/.well-known",))
    assert addresses.target("", "/.well-known/x") == LocalTarget("/.well-known/x")
    assert refused(addresses.target, "", "/api/") == (404, "path-unknown")


def test_headers_select_a_service_on_any_satellite(addresses):
    target = addresses.target(HUB, "/api/x", b" infer ", b"region=eu,role=gpu")
    assert (target.service, target.path) == ("infer", "/api/x")
    assert target.selector.matches({"region": "eu", "role": "gpu"})
    assert not target.selector.matches({"region": "us", "role": "gpu"})
    again = addresses.target(HUB, "/", "infer", "region=eu,role=gpu")
    assert again.selector is target.selector


def test_a_service_header_alone_takes_any_satellite(addresses):
    target = addresses.target(HUB, "/x", "infer")
    assert isinstance(target, SelectorTarget)
    assert target.selector.matches({})


@pytest.mark.parametrize(
    ("service", "selector", "code"),
    [
        ("", None, "name-invalid"),
        ("a/b", None, "name-invalid"),
        (b"\xff", None, "name-invalid"),
        ("infer", "region=", None),
        ("infer", "region==(", "selector-invalid"),
        ("infer", b"\xff", "selector-invalid"),
        (None, "region=eu", "selector-without-service"),
    ],
)
def test_wrong_headers_are_refused(addresses, service, selector, code):
    if code is None:
        assert addresses.target(HUB, "/", service, selector).selector.matches({"region": ""})
    else:
        assert refused(addresses.target, HUB, "/", service, selector) == (400, code)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://api.sat-1.hub.example.com/x?y", ServiceTarget("sat-1", "api", "/x?y")),
        ("HTTPS://api.sat-1.hub.example.com:443", ServiceTarget("sat-1", "api", "/")),
        ("http://api.sat-1.hub.example.com?y=/z", ServiceTarget("sat-1", "api", "/?y=/z")),
        ("http://hub.example.com/s/sat-1/api/x", ServiceTarget("sat-1", "api", "/x", "/s/sat-1/api")),
    ],
)
def test_in_absolute_form_the_host_header_is_ignored(addresses, target, expected):
    assert addresses.target("other.sat-9.hub.example.com", target) == expected


@pytest.mark.parametrize("target", ["", "x", "ftp://hub.example.com/", "http:///x", "http://:80/x", "http://"])
def test_other_forms_of_the_request_target_are_refused(addresses, target):
    assert refused(addresses.target, HUB, target) == (400, "target-invalid")


def test_user_names_and_passwords_in_a_target_are_refused_and_not_shown(addresses):
    with pytest.raises(HeadError, match=r"'hub\.example\.com' is not a host name") as caught:
        addresses.target(HUB, "http://user:secret@hub.example.com/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "authority", ["db.sat-1:5432", "DB.sat-1.hub.example.com:5432", "db.sat-1.hub.example.com.:1", "db.sat-1:65535"]
)
def test_connect_names_a_service_with_or_without_the_domain(addresses, authority):
    assert addresses.connect(authority) == ServiceTarget("sat-1", "db", "", "")


@pytest.mark.parametrize(
    ("authority", "status", "code"),
    [
        ("db.sat-1", 400, "authority-invalid"),
        ("db.sat-1:", 400, "authority-invalid"),
        ("db.sat-1:0", 400, "authority-invalid"),
        ("db.sat-1:65536", 400, "authority-invalid"),
        (":80", 400, "authority-invalid"),
        ("", 400, "authority-invalid"),
        ("/x", 400, "host-invalid"),
        ("[::1]:443", 400, "host-invalid"),
        ("a_b.sat-1:1", 400, "host-invalid"),
        ("hub.example.com:443", 404, "host-unknown"),
        ("db:5432", 404, "host-unknown"),
        ("sat-1.hub.example.com:443", 404, "host-unknown"),
        ("example.org.com:443", 404, "host-unknown"),
    ],
)
def test_connect_goes_nowhere_else(addresses, authority, status, code):
    assert refused(addresses.connect, authority) == (status, code)


def test_a_server_name_gives_satellite_and_service(addresses):
    assert addresses.from_sni("db.sat-1.hub.example.com") == ("sat-1", "db")
    assert addresses.from_sni("DB.Sat-1.Hub.Example.com") == ("sat-1", "db")


@pytest.mark.parametrize(
    "name",
    [
        "",
        HUB,
        "sat-1.hub.example.com",
        "a.b.c.hub.example.com",
        "db.sat-1",
        "db.sat-1.hub.example.com:443",
        "a b",
        "\xff",
    ],
)
def test_other_server_names_are_not_ours(addresses, name):
    assert addresses.from_sni(name) is None


def test_a_bare_domain_of_one_label_works_too():
    local = Addressing("localhost")
    assert local.target("api.sat-1.localhost:8080", "/") == ServiceTarget("sat-1", "api", "/")
    assert local.target("localhost:8080", "/s/sat-1/api/") == ServiceTarget("sat-1", "api", "/", "/s/sat-1/api")
    assert refused(local.connect, "api.localhost:80") == (404, "host-unknown")


def test_memory_for_addresses_is_bounded_and_forgetting_does_no_harm():
    addresses = Addressing(HUB, remembered=3)
    for number in range(20):
        name = f"sat-{number}"
        assert addresses.target(f"api.{name}.{HUB}", "/") == ServiceTarget(name, "api", "/")
        assert addresses.target(HUB, f"/s/{name}/api/") == ServiceTarget(name, "api", "/", f"/s/{name}/api")
        assert addresses.target(HUB, "/", "api", f"n={number}").selector.matches({"n": str(number)})
    assert len(addresses._hosts) <= 3
    assert len(addresses._prefixes) <= 3
    assert len(addresses._selectors) <= 3


@given(st.text(max_size=40) | st.text(alphabet="/s.%2e?ab-", max_size=30), st.text(alphabet="/s.%2e?ab-", max_size=30))
def test_any_host_and_path_give_a_target_or_a_head_error(host, path):
    addresses = Addressing(HUB)
    try:
        target = addresses.target(host, "/s/" + path)
    except HeadError:
        return
    if isinstance(target, ServiceTarget) and target.prefix:
        assert target.prefix == f"/s/{target.satellite}/{target.service}"
        assert target.path.startswith("/")
