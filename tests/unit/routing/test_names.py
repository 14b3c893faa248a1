from __future__ import annotations

import pytest

from platformctl.routing.names import is_domain, is_label_key, is_label_value, is_name


@pytest.mark.parametrize("text", ["a", "0", "sat-1", "a--b", "x" * 63])
def test_a_dns_label_is_a_name(text):
    assert is_name(text)


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "a%2e", "..", "x" * 64, "a\n", "é", "١"])
def test_anything_else_is_no_name(text):
    assert not is_name(text)


def test_a_domain_is_labels_joined_by_dots():
    assert is_domain("localhost")
    assert is_domain("hub.example.com")
    for bad in ("", ".", "hub.", ".hub", "a..b", "Hub.example", ".".join(["x" * 62] * 5)):
        assert not is_domain(bad), bad


@pytest.mark.parametrize("text", ["region", "app.kubernetes.io/name", "a_b.C-9"])
def test_label_keys_may_have_a_dns_prefix(text):
    assert is_label_key(text)


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "A.b/c", "a/b/c", "-a", "a b", "x" * 64, "ä"])
def test_malformed_label_keys_are_refused(text):
    assert not is_label_key(text)


def test_label_values_may_be_empty_but_not_strange():
    assert is_label_value("")
    assert is_label_value("v1.2_B-c")
    for bad in ("-x", "x-", "a b", "a/b", "x" * 64, "a\n"):
        assert not is_label_value(bad), bad
