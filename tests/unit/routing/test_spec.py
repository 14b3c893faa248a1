from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.routing.spec import (
    MAX_LABELS,
    MAX_SPECS,
    Limits,
    ServiceSpec,
    SpecError,
    Timeouts,
    labels_from_wire,
    specs_from_wire,
)

FULL = {
    "name": "api",
    "kind": "tcp",
    "timeouts": {"connect": 1, "response": 2.5, "idle": 3, "head": 4},
    "limits": {"concurrency": 10, "queue": 20, "queue_timeout": 0},
    "labels": {"tier": "gold"},
    "lane": "bulk",
}


def test_a_name_is_enough_and_the_rest_has_defaults():
    spec = ServiceSpec.from_wire({"name": "api"})
    assert spec == ServiceSpec("api", "http", Timeouts(5.0, 30.0, 300.0, 10.0), Limits(0, 0, 5.0), {}, "default")


def test_every_field_is_read():
    spec = ServiceSpec.from_wire(FULL)
    assert spec == ServiceSpec("api", "tcp", Timeouts(1, 2.5, 3, 4), Limits(10, 20, 0), {"tier": "gold"}, "bulk")
    assert isinstance(spec.timeouts.connect, float)


def test_the_wire_form_reads_back_to_an_equal_spec():
    spec = ServiceSpec.from_wire(FULL)
    assert ServiceSpec.from_wire(json.loads(json.dumps(spec.to_wire()))) == spec


def test_keys_of_a_newer_version_are_ignored():
    spec = ServiceSpec.from_wire({"name": "api", "colour": "red", "timeouts": {"think": 9}, "limits": {"rate": 1}})
    assert spec == ServiceSpec("api")


def test_a_spec_is_a_dictionary_key():
    assert {ServiceSpec("a"): 1}[ServiceSpec.from_wire({"name": "a"})] == 1


@pytest.mark.parametrize(
    ("change", "where", "problem"),
    [
        ({"name": None}, "name", "null is not a DNS label"),
        ({"name": "A"}, "name", '"A" is not a DNS label'),
        ({"name": "../x"}, "name", '"../x" is not'),
        ({"name": True}, "name", "true is not"),
        ({"name": False}, "name", "false is not"),
        ({"name": ["api"]}, "name", "a list is not"),
        ({"name": {"a": 1}}, "name", "an object is not"),
        ({"name": 1.0}, "name", "1 is not"),
        ({"name": "x" * 1000}, "name", "x" * 40 + "…"),
        ({"kind": "ftp"}, "kind", '"ftp" is not one of http, tcp, mcp, kube'),
        ({"kind": []}, "kind", "a list is not one of"),
        ({"lane": 1}, "lane", "1 is not one of default, bulk"),
        ({"timeouts": []}, "timeouts", "must be an object, not a list"),
        ({"timeouts": {"connect": "5s"}}, "timeouts.connect", 'must be a number of seconds, not "5s"'),
        ({"timeouts": {"connect": True}}, "timeouts.connect", "not true"),
        ({"timeouts": {"response": 0}}, "timeouts.response", "must be between 0.001 and 86400 seconds, not 0"),
        ({"timeouts": {"idle": float("nan")}}, "timeouts.idle", "not nan"),
        ({"timeouts": {"head": float("inf")}}, "timeouts.head", "not inf"),
        ({"timeouts": {"head": 10**5000}}, "timeouts.head", "not a number of more than 18 digits"),
        ({"limits": None}, "limits", "must be an object, not null"),
        ({"limits": {"concurrency": -1}}, "limits.concurrency", "must be between 0 and 1000000, not -1"),
        ({"limits": {"concurrency": 1.0}}, "limits.concurrency", "must be a whole number, not 1"),
        ({"limits": {"queue": False}}, "limits.queue", "must be a whole number, not false"),
        ({"limits": {"queue": 10**6}}, "limits.queue", "must be between 0 and 100000"),
        ({"limits": {"queue_timeout": -0.1}}, "limits.queue_timeout", "between 0 and 86400"),
        ({"labels": "a=b"}, "labels", 'must be an object, not "a=b"'),
        ({"labels": {"a b": "c"}}, "labels", '"a b" is not a label key'),
        ({"labels": {"a": 1}}, "labels.a", "1 is not a label value"),
        ({"labels": {"a": "b c"}}, "labels.a", '"b c" is not a label value'),
        ({"labels": {1: "b"}}, "labels", "has the key 1, which is not a string"),
        ({"labels": {b"k": "b"}}, "labels", "a value of another type"),
        ({"labels": {f"k{n}": "" for n in range(MAX_LABELS + 1)}}, "labels", "has 33 labels; at most 32"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(change, where, problem):
    with pytest.raises(SpecError) as caught:
        ServiceSpec.from_wire({**FULL, **change})
    assert caught.value.where == where
    assert problem in caught.value.problem
    assert str(caught.value) == f"{where}: {caught.value.problem}"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [None, 1, "api", ["api"]])
def test_a_spec_that_is_no_object_is_refused(value):
    with pytest.raises(SpecError, match="service: must be an object"):
        ServiceSpec.from_wire(value)


def test_terminal_escapes_in_a_hostile_value_do_not_reach_the_message():
    with pytest.raises(SpecError) as caught:
        ServiceSpec.from_wire({"name": "\x1b[2J"})
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[2J" in str(caught.value)


def test_the_bounds_themselves_are_allowed():
    edges = {"name": "a", "limits": {"concurrency": 1_000_000, "queue": 100_000, "queue_timeout": 0}}
    edges |= {"timeouts": {"connect": 0.001, "idle": 86_400}, "labels": {f"k{n}": "" for n in range(MAX_LABELS)}}
    assert ServiceSpec.from_wire(edges).limits == Limits(1_000_000, 100_000, 0.0)


def test_one_bad_service_does_not_spoil_the_others():
    specs, refused = specs_from_wire([{"name": "a"}, {"name": "B"}, 7, {"name": "c", "kind": "x"}, {"name": "d"}])
    assert [spec.name for spec in specs] == ["a", "d"]
    assert [name for name, _ in refused] == ["B", "", "c"]
    assert refused[1][1] == "service: must be an object, not 7"


def test_a_service_without_a_usable_name_is_refused_under_no_name():
    assert specs_from_wire([{"name": 5}])[1][0][0] == ""


def test_the_second_of_two_services_with_one_name_is_refused():
    specs, refused = specs_from_wire([{"name": "a", "kind": "tcp"}, {"name": "a"}])
    assert specs == [ServiceSpec("a", "tcp")]
    assert refused == [("a", "name: occurs twice in one REGISTER")]


def test_a_list_that_is_none_or_too_long_is_refused_as_a_whole():
    with pytest.raises(SpecError, match="services: must be a list, not an object"):
        specs_from_wire({})
    with pytest.raises(SpecError, match="services: has 1025 entries; at most 1024"):
        specs_from_wire([{"name": "a"}] * (MAX_SPECS + 1))


def test_labels_of_a_satellite_are_checked_under_their_own_place():
    assert labels_from_wire({"region": "eu"}, "hello.labels") == {"region": "eu"}
    with pytest.raises(SpecError, match=r"hello\.labels\.region: 1 is not a label value"):
        labels_from_wire({"region": 1}, "hello.labels")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["name", "kind", "timeouts", "limits", "labels", "lane"])


@given(st.dictionaries(keys, json_values) | json_values)
def test_any_json_gives_a_spec_or_a_spec_error(value):
    try:
        spec = ServiceSpec.from_wire(value)
    except SpecError:
        return
    assert ServiceSpec.from_wire(spec.to_wire()) == spec
