from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.routing.selector import EVERYTHING, Selector, SelectorError, parse_selector

EU_GPU = {"region": "eu", "role": "gpu", "tier": "a", "note": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "region=eu",
        "region==eu",
        " region = eu , role = gpu ",
        "region!=us",
        "zone!=a",
        "tier in (a, b)",
        "tier in (b,a)",
        "tier notin (c)",
        "zone notin (a)",
        "role",
        "!zone",
        "! zone",
        "note=",
        "note=,role=gpu",
        "note in (,x)",
        "region=eu,role!=edge,tier in (a,b),!edge",
    ],
)
def test_a_selector_matches(text):
    assert parse_selector(text).matches(EU_GPU)


@pytest.mark.parametrize(
    "text",
    [
        "region=us",
        "region!=eu",
        "tier in (c,d)",
        "tier notin (a)",
        "zone",
        "!role",
        "zone=",
        "zone in (a)",
        "region=eu,role=cpu",
    ],
)
def test_a_selector_does_not_match(text):
    assert not parse_selector(text).matches(EU_GPU)


def test_in_and_notin_may_be_keys_and_values_too():
    assert parse_selector("in=notin,notin in (in)").matches({"in": "notin", "notin": "in"})


def test_keys_may_have_a_prefix():
    assert parse_selector("platformctl.io/zone=a").matches({"platformctl.io/zone": "a"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=eu", "expected a label key, found '='"),
        (",", "expected a label key, found ','"),
        ("a,", "expected a label key, found the end"),
        ("!", "expected a label key, found the end"),
        ("a/b/c", "expected a label key, found 'a/b/c'"),
        ("a b", "expected =, !=, in or notin after 'a', found 'b'"),
        ("a (b)", "expected =, !=, in or notin after 'a', found '('"),
        ("a=b c", "expected ',' between two requirements, found 'c'"),
        ("a=-b", "expected a label value, found '-b'"),
        ("a==!b", "expected a label value, found '!'"),
        ("a in b", "expected '(' after in or notin, found 'b'"),
        ("a in (b", "expected ')' after the last value, found the end"),
        ("a in (b c)", "expected ')' after the last value, found 'c'"),
        ("a > 3", "cannot read '> 3'"),
        ("a=\x1b[2J", "cannot read '\\x1b[2J'"),
        ("é", "cannot read 'é'"),
        ("a=" + "b" * 1023, "selector is 1025 characters long; at most 1024"),
        (",".join(["a"] * 33), "more than 32 requirements"),
        ("a in (" + ",".join("b" * 33) + ")", "more than 32 values"),
    ],
)
def test_a_malformed_selector_says_what_was_expected(text, message):
    with pytest.raises(SelectorError) as caught:
        parse_selector(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("selector")


def test_the_bounds_themselves_are_allowed():
    assert len(parse_selector(",".join(["a"] * 32)).requirements) == 32
    assert parse_selector("a in (" + ",".join("b" * 32) + ")").matches({"a": "b"})


def test_everything_matches_even_nothing():
    assert parse_selector("") is EVERYTHING
    assert EVERYTHING.matches({})


def test_the_text_is_kept_for_messages():
    assert repr(parse_selector("a=b")) == "Selector('a=b')"


@given(st.text(max_size=60) | st.text(alphabet="ab=!,() in", max_size=40))
def test_any_text_gives_a_selector_or_a_selector_error(text):
    try:
        selector = parse_selector(text)
    except SelectorError:
        return
    assert isinstance(selector, Selector)
    assert selector.matches({"a": "b"}) in (True, False)


names = st.from_regex(r"[a-z]{1,4}", fullmatch=True)


@given(names, names, st.dictionaries(names, names, max_size=4))
def test_equality_and_inequality_are_each_others_opposite(key, value, labels):
    equal = parse_selector(f"{key}={value}").matches(labels)
    assert equal is (labels.get(key) == value)
    assert parse_selector(f"{key}!={value}").matches(labels) is not equal
    assert parse_selector(f"{key} in ({value})").matches(labels) is equal
    assert parse_selector(f"{key} notin ({value})").matches(labels) is not equal
