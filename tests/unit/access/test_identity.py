from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.access import identity as names
from platformctl.access.identity import ANONYMOUS, Identity
from platformctl.errors import AccessDenied, LocalMisuse, UsageError


def test_subject_is_kind_and_name_and_anonymous_stands_alone() -> None:
    assert Identity("token", "alice").subject == "token:alice"
    assert str(Identity("mtls", "bob")) == "mtls:bob"
    assert ANONYMOUS.subject == "anonymous"
    assert ANONYMOUS.header == "anonymous"


@given(st.text(min_size=1, max_size=60).filter(str.isprintable))
def test_header_value_is_visible_ascii_whatever_the_name(name: str) -> None:
    header = Identity("oidc", name).header
    assert header.startswith("oidc:")
    assert all(0x21 <= ord(c) <= 0x7E for c in header)
    assert "," not in header


@pytest.mark.parametrize(("kind", "name"), [("robot", "x"), ("token", ""), ("anonymous", "x")])
def test_an_identity_that_makes_no_sense_is_our_own_bug(kind: str, name: str) -> None:
    with pytest.raises(LocalMisuse):
        Identity(kind, name)


@pytest.mark.parametrize("name", ["a\r\nX-Admin: 1", "a\x00", "x" * 257])
def test_a_name_that_could_break_a_line_is_refused(name: str) -> None:
    with pytest.raises(AccessDenied, match="too long or not printable"):
        Identity("oidc", name)


@pytest.mark.parametrize("name", ["a", "edge-1", "0", "a" * 63, "hub"])
def test_dns_labels_are_names(name: str) -> None:
    assert names.valid_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "a\n", "é", "a/b"])
def test_everything_else_is_not_a_name(name: str) -> None:
    assert not names.valid_name(name)
    with pytest.raises(UsageError, match="not a satellite name"):
        names.check_satellite_name(name)


def test_no_satellite_is_named_as_the_hub() -> None:
    assert not names.valid_satellite_name("hub")
    with pytest.raises(UsageError, match="cannot be named 'hub'"):
        names.check_satellite_name("hub")


@given(
    st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda n: n != "hub"),
)
def test_spiffe_uri_reads_back_what_was_built(trust_domain: str, name: str) -> None:
    assert names.parse_spiffe_uri(names.spiffe_uri(trust_domain, name)) == (trust_domain, name)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://td/satellite",
        "spiffe://td/satellite/",
        "spiffe://td/satellite/a/",
        "spiffe://td/satellite/a/b",
        "spiffe://td//satellite/a",
        "spiffe:/td/satellite/a",
        "SPIFFE://td/satellite/a",
        "spiffe://TD/satellite/a",
        "spiffe://td:443/satellite/a",
        "spiffe://u@td/satellite/a",
        "spiffe:///satellite/a",
        "spiffe://td/satellite/a?x",
        "spiffe://td/satellite/a#x",
        "spiffe://td/satellite/a%62",
        "spiffe://td/satellite/..",
        "spiffe://td/satellite/hub",
        "spiffe://td/agent/a",
        "https://td/satellite/a",
        " spiffe://td/satellite/a",
        "spiffe://td/satellite/a\n",
    ],
)
def test_a_uri_that_is_not_exactly_a_satellites_is_refused(uri: str) -> None:
    with pytest.raises(AccessDenied, match="does not name a satellite"):
        names.parse_spiffe_uri(uri)


@pytest.mark.parametrize("trust_domain", ["", "a/b", "A", "a:1", "x" * 256])
def test_a_uri_is_not_built_for_a_wrong_trust_domain(trust_domain: str) -> None:
    with pytest.raises(UsageError, match="trust domain"):
        names.spiffe_uri(trust_domain, "edge-1")


@pytest.mark.parametrize("labels", [{}, {"region": "eu"}, {"example.com/tier": ""}, {"A_b.c": "X.y-1"}])
def test_labels_have_the_syntax_of_kubernetes(labels: dict[str, str]) -> None:
    names.check_labels(labels)


@pytest.mark.parametrize(
    "labels",
    [{"": "x"}, {"a b": "x"}, {"a": "x y"}, {"a": "-x"}, {"/a": "x"}, {"A/a": "x"}, {"a/": "x"}, {"a": "x" * 64}],
)
def test_other_labels_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="is not a label"):
        names.check_labels(labels)


def test_the_number_of_labels_is_bounded() -> None:
    with pytest.raises(UsageError, match="too many"):
        names.check_labels({f"k{n}": "v" for n in range(65)})
