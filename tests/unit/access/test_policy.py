from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from platformctl.access.identity import ANONYMOUS, Identity
from platformctl.access.patterns import Globs, PathPattern, Selector
from platformctl.access.policy import Policy, Rule
from platformctl.access.policy_file import load_policy

EXAMPLES = Path(__file__).parents[3] / "policies" / "access"
ALICE = Identity("token", "alice", frozenset({"users", "gpu-team"}))


def rule(name: str = "r", **fields: Any) -> Rule:
    given: dict[str, Any] = {"subjects": ["*"], "satellites": ["*"], "services": ["*"], **fields}
    places = given["satellites"]
    return Rule(
        name=name,
        subjects=Globs(given["subjects"]),
        satellites=Globs(place for place in places if "=" not in place),
        selectors=tuple(Selector(place) for place in places if "=" in place),
        services=Globs(given["services"]),
        methods=frozenset(given["methods"]) if "methods" in given else None,
        paths=tuple(map(PathPattern, given["paths"])) if "paths" in given else None,
        sources=tuple(map(ip_network, given["sources"])) if "sources" in given else None,
        source=f"{name}.yaml",
        line=7,
    )


def grant_of(
    policy: Policy, who: Identity = ALICE, satellite: str = "sat-1", service: str = "echo", **rest: Any
) -> Any:
    return policy.grant(who, satellite, rest.get("labels", {}), service, rest.get("ip", ""))


def test_nothing_is_allowed_without_a_rule() -> None:
    grant = grant_of(Policy())
    assert not grant.possible
    assert not grant.unconditional
    assert grant.rules == ()
    decision = grant.check("GET", "/")
    assert (decision.allowed, decision.rule) == (False, "")
    assert decision.reason == "no rule lets token:alice call service echo of satellite sat-1"
    assert grant.check_raw() is grant.decision


def test_a_rule_without_limits_makes_the_grant_unconditional() -> None:
    grant = grant_of(Policy([rule("some", methods=["GET"]), rule("all")]))
    assert grant.possible
    assert grant.unconditional
    assert grant.rule == "all"
    assert grant.rules == ("some", "all")
    # Even a path with no canonical form: no rule asked for one.
    decision = grant.check("BREW", "/a/../b")
    assert (decision.allowed, decision.rule, decision.reason) == (True, "all", "allowed by rule all")
    assert grant.check_raw().allowed


def test_methods_and_paths_are_checked_for_each_request() -> None:
    policy = Policy([rule("read", methods=["GET", "HEAD"]), rule("write", methods=["POST"], paths=["/v1/**"])])
    grant = grant_of(policy)
    assert grant.decision is None
    assert not grant.unconditional
    assert grant.check("GET", "/x").rule == "read"
    assert grant.check("POST", "/v1/x?y=1").rule == "write"
    denied = grant.check("POST", "/v2?token=secret")
    assert not denied.allowed
    assert denied.reason.endswith("(read, write) do not cover POST /v2")
    twisted = grant.check("POST", "/v1/../v2")
    assert not twisted.allowed
    assert "may read in different ways" in twisted.reason


def test_a_reason_cannot_carry_control_characters() -> None:
    denied = grant_of(Policy([rule(methods=["GET"])])).check("X\r\n\x1b[31m", "/\n{}")
    assert denied.reason.isprintable()


def test_a_raw_connection_needs_a_rule_without_limits() -> None:
    decision = grant_of(Policy([rule("web", methods=["GET"])])).check_raw()
    assert not decision.allowed
    assert "allow no raw connection" in decision.reason


@pytest.mark.parametrize(
    ("subjects", "who", "expected"),
    [
        (["token:alice"], ALICE, True),
        (["token:al*"], ALICE, True),
        (["group:users"], ALICE, True),
        (["group:gpu-*"], ALICE, True),
        (["group:admins"], ALICE, False),
        (["token:bob"], ALICE, False),
        (["oidc:alice"], ALICE, False),
        (["*"], ALICE, True),
        (["anonymous"], ALICE, False),
        (["anonymous"], ANONYMOUS, True),
        (["*"], ANONYMOUS, False),
        (["token:*", "anon*"], ANONYMOUS, False),
        (["group:*"], Identity("oidc", "loner"), False),
        (["group:users"], Identity("oidc", "group:users"), False),
    ],
)
def test_subjects(subjects: list[str], who: Identity, expected: bool) -> None:
    assert grant_of(Policy([rule(subjects=subjects)]), who).possible is expected


@pytest.mark.parametrize(
    ("satellites", "satellite", "labels", "expected"),
    [
        (["sat-1"], "sat-1", {}, True),
        (["sat-1"], "sat-2", {}, False),
        (["sat-*"], "sat-2", {}, True),
        (["region=eu,role=gpu"], "x", {"region": "eu", "role": "gpu"}, True),
        (["region=eu,role=gpu"], "x", {"region": "eu"}, False),
        (["other", "region=eu"], "x", {"region": "eu"}, True),
        (["hub"], "hub", {}, True),
        (["*"], "hub", {}, False),
        (["hu*"], "hub", {}, False),
        (["region=*"], "hub", {"region": "eu"}, False),
    ],
)
def test_satellites(satellites: list[str], satellite: str, labels: Mapping[str, str], expected: bool) -> None:
    policy = Policy([rule(satellites=satellites)])
    assert policy.grant(ALICE, satellite, labels, "api").possible is expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1%eth0", True),
        ("11.0.0.1", False),
        ("::1", False),
        ("", False),
        ("10.1.2.3, 11.0.0.1", False),
        ("unknown", False),
    ],
)
def test_sources(ip: str, expected: bool) -> None:
    policy = Policy([rule(sources=["10.0.0.0/8", "fd00::/16"])])
    assert grant_of(policy, ip=ip).possible is expected


def test_a_rule_with_very_many_entries_is_found_by_each_of_them() -> None:
    everybody = [f"token:u{n}" for n in range(100)]
    policy = Policy([rule(subjects=everybody, satellites=[f"s{n}" for n in range(40)], services=["a", "b"])])
    assert len(policy.rules[0].keys()) == 80
    assert grant_of(policy, Identity("token", "u99"), "s39", "b").possible
    assert not grant_of(policy, Identity("token", "u100"), "s39", "b").possible
    assert not grant_of(policy, Identity("token", "u99"), "s40", "b").possible


_RULES = st.builds(
    rule,
    st.from_regex(r"[a-z]{1,3}", fullmatch=True),
    subjects=st.lists(
        st.sampled_from(["token:a", "token:b", "token:*", "group:g", "group:*", "anonymous", "*"]), min_size=1
    ),
    satellites=st.lists(st.sampled_from(["s1", "s2", "s*", "*", "k=v", "k=*", "hub"]), min_size=1),
    services=st.lists(st.sampled_from(["x", "y", "x*", "*"]), min_size=1),
    methods=st.lists(st.sampled_from(["GET", "POST"]), min_size=1),
)


@given(
    st.lists(_RULES, max_size=8),
    st.sampled_from([ANONYMOUS, Identity("token", "a"), Identity("oidc", "a", frozenset("gh")), ALICE]),
    st.sampled_from(["s1", "s2", "hub"]),
    st.sampled_from([{}, {"k": "v"}, {"k": "w"}]),
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from(["GET", "PUT"]),
)
def test_the_index_finds_exactly_what_a_look_at_every_rule_finds(
    rules: list[Rule], who: Identity, satellite: str, labels: dict[str, str], service: str, method: str
) -> None:
    policy = Policy(rules)
    called = (who.subject, *[f"group:{group}" for group in who.groups])
    wanted = tuple(
        r.name
        for r in rules
        if r.services.matches(service) and r.permits_satellite(satellite, labels) and r.permits_subject(called)
    )
    grant = policy.grant(who, satellite, labels, service)
    assert grant.rules == wanted
    explained = policy.explain(who, satellite, labels, service, method, "/")
    assert explained.decision == grant.check(method, "/")
    assert bool(explained.source) is explained.decision.allowed


def test_an_explanation_names_the_rule_and_where_it_stands() -> None:
    policy = Policy([rule("other", services=["x"]), rule("yes")])
    explained = policy.explain(ALICE, "sat-1", {}, "echo")
    assert explained.decision.allowed
    assert (explained.decision.rule, explained.source, explained.line, explained.nearest) == ("yes", "yes.yaml", 7, ())


def test_an_explanation_of_a_denial_names_the_nearest_rules_first() -> None:
    policy = Policy(
        [
            rule("far", subjects=["token:bob"], services=["x"], satellites=["y"]),
            rule("near", methods=["POST"], sources=["10.0.0.0/8"], paths=["/v1/**"]),
            *[rule(f"other-{n}", subjects=["token:bob"], services=["x"], satellites=["y"]) for n in range(9)],
        ]
    )
    explained = policy.explain(ALICE, "sat-1", {}, "echo", "POST", "/v1/x", ip="192.0.2.1")
    assert not explained.decision.allowed
    assert len(explained.nearest) == 5
    nearest = explained.nearest[0]
    assert (nearest.rule, nearest.source, nearest.line, nearest.differs) == ("near", "near.yaml", 7, ("sources",))
    assert explained.nearest[1].differs == ("subjects", "satellites", "services")


def _samples() -> list[Any]:
    cases = []
    for file in sorted(EXAMPLES.glob("*.samples.yaml")):
        samples = yaml.safe_load(file.read_text())
        for expected in ("allowed", "denied"):
            for number, sample in enumerate(samples[expected]):
                cases.append(pytest.param(samples["policy"], expected, sample, id=f"{file.stem}-{expected}-{number}"))
    return cases


@pytest.mark.parametrize(("policy_file", "expected", "sample"), _samples())
def test_example_policies_allow_and_deny_what_their_samples_say(
    policy_file: str, expected: str, sample: dict[str, Any]
) -> None:
    policy = load_policy([(policy_file, (EXAMPLES / policy_file).read_text())])
    kind, _, name = sample["as"].partition(":")
    who = Identity(kind, name, frozenset(sample.get("groups", [])))
    grant = policy.grant(who, sample["satellite"], sample.get("labels", {}), sample["service"], sample.get("ip", ""))
    decision = grant.check(sample["method"], sample["path"])
    assert decision.allowed is (expected == "allowed"), decision.reason
    assert decision.rule == sample.get("rule", "")


def test_every_example_policy_has_samples_of_both_kinds() -> None:
    policies = {file.name for file in EXAMPLES.glob("*.yaml") if not file.name.endswith(".samples.yaml")}
    sampled = {
        yaml.safe_load(f.read_text())["policy"]: yaml.safe_load(f.read_text()) for f in EXAMPLES.glob("*.samples.yaml")
    }
    assert policies == set(sampled)
    assert all(samples["allowed"] and samples["denied"] for samples in sampled.values())


def test_a_decision_looks_only_at_the_rules_of_its_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(
        rule(f"r{n}", subjects=[f"token:u{n % 1000}"], services=[f"svc-{n}", "shared-*"]) for n in range(10_000)
    )
    looked_at = []
    whole = Rule.permits_satellite
    monkeypatch.setattr(Rule, "permits_satellite", lambda r, *place: looked_at.append(r.name) or whole(r, *place))
    grant = policy.grant(Identity("token", "u7", frozenset({"g1", "g2"})), "sat-1", {"region": "eu"}, "shared-x")
    assert len(grant.rules) == 10
    assert len(looked_at) == 10
