from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.access.patterns import Glob, Globs, PathPattern, Selector, canonical_path


@given(st.text("ab*", max_size=8), st.text("ab*", max_size=10))
def test_a_glob_matches_what_the_same_regular_expression_does(pattern: str, value: str) -> None:
    expected = re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), value) is not None
    assert Glob(pattern).matches(value) is expected


def test_a_hostile_value_costs_a_glob_no_more_than_its_length() -> None:
    # A backtracking matcher would need more than the age of the universe for this one.
    assert not Glob("*a" * 30 + "*b").matches("a" * 10_000)


def test_globs_keep_the_literal_ones_apart() -> None:
    globs = Globs(["edge-1", "rack-*"])
    assert globs.exact == {"edge-1"}
    assert [glob.text for glob in globs.wild] == ["rack-*"]
    assert globs.matches("edge-1")
    assert globs.matches("rack-7")
    assert not globs.matches("edge-2")


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("region=eu", {"region": "eu"}, True),
        ("region=eu", {"region": "eu", "role": "gpu"}, True),
        ("region=eu,role=gpu", {"region": "eu"}, False),
        ("region=eu, role=gpu", {"region": "eu", "role": "gpu"}, True),
        ("region=eu-*", {"region": "eu-south"}, True),
        ("region=eu-*", {"region": "us-east"}, False),
        ("region=*", {}, False),
        ("region=", {"region": ""}, True),
        ("region=", {"region": "eu"}, False),
    ],
)
def test_all_requirements_of_a_selector_must_hold(text: str, labels: dict[str, str], expected: bool) -> None:
    assert Selector(text).matches(labels) is expected


@pytest.mark.parametrize("text", ["", "region", "=eu", "a=b,", "a=b=c", "a=b,a=c", "a!=b", "a in (b)"])
def test_text_that_is_not_a_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not key=value"):
        Selector(text)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/", ["/"], ["/x", ""]),
        ("/v1/items", ["/v1/items"], ["/v1/items/", "/v1/items/2", "/V1/items", "/v1"]),
        ("/v1/**", ["/v1", "/v1/", "/v1/a", "/v1/a/b/c"], ["/v10", "/v", "/", "/v2/v1/a"]),
        ("/**", ["/", "/a", "/a/b/"], []),
        ("/v1/*/logs", ["/v1/a/logs"], ["/v1//logs", "/v1/a/b/logs", "/v1/logs", "/v1/a/logs/x"]),
        ("/v1/*", ["/v1/a"], ["/v1/", "/v1", "/v1/a/"]),
        ("/v1/item-*.json", ["/v1/item-.json", "/v1/item-7.json"], ["/v1/item-7/x.json", "/v1/item-7.jsonx"]),
        ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/z/z", "/a/z/b/z"], ["/a/b", "/z", "/a/z/b"]),
        ("/a/**/m/**/z", ["/a/m/z", "/a/b/m/c/z", "/a/m/m/z/z"], ["/a/z", "/a/z/m"]),
        ("/*/**", ["/a", "/a/b"], ["/"]),
        ("/café/*", ["/café/x"], ["/cafe/x"]),
    ],
)
def test_path_patterns_match_whole_segments(pattern: str, yes: list[str], no: list[str]) -> None:
    compiled = PathPattern(pattern)
    assert [path for path in yes if not compiled.matches(path)] == []
    assert [path for path in no if compiled.matches(path)] == []


def _to_regex(pattern: str) -> str:
    """The same meaning by other means, and slow: segments joined, `**` as any number of them."""
    out = ""
    for segment in pattern.split("/")[1:]:
        if segment == "**":
            out += "(?:/[^/]*)*"
        elif segment == "*":
            out += "/[^/]+"
        else:
            out += "/" + "[^/]*".join(re.escape(part) for part in segment.split("*"))
    return out


_SEGMENTS = st.lists(st.sampled_from(["a", "b", "*", "**", "a*", "*b"]), min_size=1, max_size=5)
_PATHS = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=7)


@given(_SEGMENTS, _PATHS, st.booleans())
def test_a_path_pattern_agrees_with_a_regular_expression(pattern: list[str], path: list[str], slash: bool) -> None:
    text, value = "/" + "/".join(pattern), "/" + "/".join(path) + "/" * slash
    assert PathPattern(text).matches(value) is (re.fullmatch(_to_regex(text), value) is not None)


@pytest.mark.parametrize(
    "text",
    ["", "v1", "/v1?x", "/v1#x", "//", "/a//b", "/a/../b", "/a/.", "/a/..;x", "/a%2fb", "/a%41", "/a\\b", "/a\nb"],
)
def test_a_path_pattern_that_could_never_match_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a path pattern"):
        PathPattern(text)


@pytest.mark.parametrize("text", ["/a**", "/**a/b", "/***"])
def test_double_stars_stand_for_whole_segments(text: str) -> None:
    with pytest.raises(ValueError, match="whole segments"):
        PathPattern(text)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/a?x=/../b", "/a"),
        ("/%61%62", "/ab"),
        ("/caf%C3%A9", "/café"),
        ("/100%25", "/100%"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/...", "/a/..."),
        ("/a%20b", "/a b"),
        ("/a*b", "/a*b"),
    ],
)
def test_a_path_has_one_canonical_form(raw: str, canonical: str) -> None:
    assert canonical_path(raw) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "*",
        "a",
        "http://host/a",
        "?/a",
        "//a",
        "/a//b",
        "/a/..",
        "/a/../b",
        "/./a",
        "/a/%2e%2E/b",
        "/a/.%2e/b",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/.;",
        "/a%2fb",
        "/a%2Fb",
        "/a\\b",
        "/a%5cb",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a\x01",
        "/a#b",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%252e%252e/b",
        "/a%25%32%65",
        "/%c0%ae%c0%ae/b",
        "/%ff",
        "/é",
        "/\ud800",
    ],
)
def test_a_path_that_servers_may_read_in_two_ways_has_none(raw: str) -> None:
    assert canonical_path(raw) is None


@given(st.text("/.%2eEfF5cC;ab?", max_size=20).map(lambda text: "/" + text))
def test_a_canonical_path_never_climbs_and_says_what_it_means(raw: str) -> None:
    path = canonical_path(raw)
    if path is not None:
        segments = [segment.partition(";")[0] for segment in path.split("/")]
        assert ".." not in segments
        assert "." not in segments
        assert "//" not in path
        assert canonical_path(path.replace("%", "%25").replace("?", "%3f")) == path
