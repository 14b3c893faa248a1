from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from platformctl.access.policy_file import METHODS, load_policy, parse_policy
from platformctl.errors import ConfigError

SCHEMA = json.loads(resources.files("platformctl.access").joinpath("policy.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
EXAMPLES = Path(__file__).parents[3] / "policies" / "access"

HEAD = "apiVersion: platformctl.io/v1alpha1\nkind: AccessPolicy\n"
RULE = HEAD + "rules:\n- name: r\n  subjects: ['*']\n  satellites: ['*']\n  services: ['*']\n"


def test_a_rule_is_read_with_its_place() -> None:
    [rule] = parse_policy(RULE + "  methods: [GET]\n  paths: ['/v1/**']\n  sources: [10.0.0.0/8]\n", "a.yaml")
    assert (rule.name, rule.source, rule.line) == ("r", "a.yaml", 4)
    assert rule.methods == {"GET"}
    assert rule.paths is not None
    assert [path.text for path in rule.paths] == ["/v1/**"]
    assert [str(network) for network in rule.sources or ()] == ["10.0.0.0/8"]
    assert not rule.unconditional


def test_names_and_selectors_of_satellites_are_told_apart() -> None:
    [rule] = parse_policy(RULE.replace("satellites: ['*']", "satellites: [edge-1, 'rack-*', 'region=eu,role=gpu']"))
    assert rule.satellites.exact == {"edge-1"}
    assert [glob.text for glob in rule.satellites.wild] == ["rack-*"]
    assert [selector.text for selector in rule.selectors] == ["region=eu,role=gpu"]


def test_an_empty_file_and_an_empty_list_deny_everything() -> None:
    assert parse_policy("") == []
    assert parse_policy("---\n---\n") == []
    assert parse_policy(HEAD + "rules: []\n") == []


def test_several_documents_and_files_are_one_policy() -> None:
    two = RULE + "---\n" + RULE.replace("name: r", "name: s")
    policy = load_policy([("a.yaml", two), ("b.yaml", RULE.replace("name: r", "name: t"))])
    assert [(rule.name, rule.source, rule.line) for rule in policy.rules] == [
        ("r", "a.yaml", 4),
        ("s", "a.yaml", 12),
        ("t", "b.yaml", 4),
    ]


def test_a_rule_name_is_given_once_among_all_files() -> None:
    with pytest.raises(ConfigError, match=r"^b.yaml:4: a rule named 'r' exists already, at a.yaml:4$"):
        load_policy([("a.yaml", RULE), ("b.yaml", RULE)])


BROKEN = [
    ("a: b: c", 1, "not YAML", ""),
    ("a: \x00", 0, "not YAML", ""),
    ("text", 1, "an access policy is not a mapping", "apiVersion, kind, metadata, rules"),
    ("kind: AccessPolicy\nrules: []\n", 1, "lacks apiVersion", "apiVersion, kind, rules"),
    (HEAD, 1, "lacks rules", ""),
    (RULE.replace("v1alpha1", "v9"), 1, "apiVersion is not platformctl.io/v1alpha1", ""),
    (RULE.replace("AccessPolicy", "Policy"), 2, "kind is not AccessPolicy", "write kind: AccessPolicy"),
    (HEAD + "spec: {}\nrules: []\n", 3, "has no key 'spec'", "allowed: apiVersion"),
    (HEAD + "metadata: {}\nrules: []\n", 3, "metadata lacks name", ""),
    (HEAD + "metadata: {name: A}\nrules: []\n", 3, "metadata.name 'A' is not a name", ""),
    (HEAD + "rules: {}\n", 3, "rules is not a list", ""),
    (HEAD + "rules:\n- x\n", 4, "a rule is not a mapping", "its keys are: name, subjects"),
    (RULE.replace("  services: ['*']\n", ""), 4, "a rule lacks services", ""),
    (RULE.replace("name: r", "name: R_1"), 4, "name 'R_1' is not a name", ""),
    (RULE.replace("name: r", "name: 1"), 4, "name is not text", "quotes"),
    (RULE + "  method: [GET]\n", 8, "a rule has no key 'method'", "methods"),
    (RULE + "  rate: 5\n", 8, "a rule has no key 'rate'", ""),
    (RULE.replace("subjects: ['*']", "subjects: '*'"), 5, "subjects is not a list", ""),
    (RULE.replace("subjects: ['*']", "subjects: []"), 5, "subjects is not a list", ""),
    (RULE.replace("subjects: ['*']", "subjects: [alice]"), 5, "'alice' is not a subject", "token:NAME"),
    (RULE.replace("subjects: ['*']", "subjects: ['token:']"), 5, "is not a subject", ""),
    (RULE.replace("subjects: ['*']", "subjects: ['robot:x']"), 5, "is not a subject", ""),
    (RULE.replace("subjects: ['*']", "subjects: ['*:alice']"), 5, "is not a subject", ""),
    (RULE.replace("subjects: ['*']", "subjects: [[token:a]]"), 5, "subjects is not text", ""),
    (RULE.replace("satellites: ['*']", "satellites: [Edge]"), 6, "'Edge' is not a name", "lower-case"),
    (RULE.replace("satellites: ['*']", "satellites: ['a=b,c']"), 6, "is not a selector", "region=eu"),
    (RULE.replace("services: ['*']", "services: [8080]"), 7, "services is not text", ""),
    (RULE.replace("services: ['*']", "services: [a.b]"), 7, "'a.b' is not a name", ""),
    (RULE + "  methods: [get]\n", 8, "'get' is not a method", "GET, HEAD, POST"),
    (RULE + "  methods:\n  - GET\n  - on\n", 10, "methods is not text", ""),
    (RULE + "  paths: [v1]\n", 8, "'v1' is not a path pattern", "/exact"),
    (RULE + "  paths: ['/a/**/b', '/a?b']\n", 8, "'/a?b' is not a path pattern", ""),
    (RULE + "  sources: [10.0.0.1/8]\n", 8, "'10.0.0.1/8' is not an address range", "host bits"),
    (RULE + "  sources: [everywhere]\n", 8, "is not an address range", ""),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), BROKEN)
def test_an_error_has_its_line_and_what_is_allowed(text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_policy(text, "p.yaml")
    assert (caught.value.source, caught.value.line) == ("p.yaml", line)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint


def test_a_key_that_stands_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"p.yaml:8: services stands twice") as caught:
        parse_policy(RULE + "  services: [echo]\n", "p.yaml")
    assert caught.value.line == 8


# What the schema, which has no code, cannot see or leaves to the reader.
_ONLY_THE_READER = ("not YAML", "host bits")


@pytest.mark.parametrize(
    "text", [text for text, _, *said in BROKEN if not any(w in " ".join(said) for w in _ONLY_THE_READER)]
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text)))


_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_GLOBS = st.from_regex(r"[a-z0-9*]([a-z0-9*-]{0,10}[a-z0-9*])?", fullmatch=True)
_SUBJECTS = st.one_of(
    st.sampled_from(["*", "anonymous"]),
    st.builds(
        "{}:{}".format,
        st.sampled_from(["token", "mtls", "oidc", "group", "system"]),
        st.from_regex("[a-z@.*]{1,9}", fullmatch=True),
    ),
)
_SELECTORS = st.builds("{}={},z/y={}".format, _NAMES, _GLOBS, _GLOBS)
_PATHS = st.lists(st.sampled_from(["a", "*", "b-*", "**", "x.y"]), min_size=1, max_size=4).map(
    lambda s: "/" + "/".join(s)
)


def _some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, min_size=1, max_size=3)


_DOCUMENTS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("platformctl.io/v1alpha1"),
        "kind": st.just("AccessPolicy"),
        "rules": st.lists(
            st.fixed_dictionaries(
                {
                    "name": _NAMES,
                    "subjects": _some(_SUBJECTS),
                    "satellites": _some(_GLOBS | _SELECTORS),
                    "services": _some(_GLOBS),
                },
                optional={
                    "methods": _some(st.sampled_from(METHODS)),
                    "paths": _some(_PATHS),
                    "sources": _some(st.ip_addresses().map(str)),
                },
            ),
            max_size=4,
        ),
    },
    optional={"metadata": st.fixed_dictionaries({"name": _NAMES})},
)


@given(_DOCUMENTS)
def test_schema_and_reader_accept_the_same_documents(document: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    rules = parse_policy(yaml.safe_dump(document))
    assert [rule.name for rule in rules] == [rule["name"] for rule in document["rules"]]
    for rule, written in zip(rules, document["rules"], strict=True):
        assert rule.unconditional is not ("methods" in written or "paths" in written)


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda text: RULE + text))
def test_any_text_is_a_policy_or_a_config_error(text: str) -> None:
    try:
        parse_policy(text)
    except ConfigError as e:
        found = e
    else:
        return
    assert found.hint


def test_the_schema_is_a_schema_and_lists_the_readers_methods() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["rule"]["properties"]["methods"]["items"]["enum"] == list(METHODS)


@pytest.mark.parametrize(
    "file", [f for f in sorted(EXAMPLES.glob("*.yaml")) if not f.name.endswith(".samples.yaml")], ids=lambda f: f.name
)
def test_example_policies_pass_the_schema(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        VALIDATOR.validate(document)
