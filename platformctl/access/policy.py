"""Who may call what. Default deny; rules only ever allow, so their order and their files don't matter.

1. A call is allowed when one rule matches its identity, satellite, service, source address, method and path.
2. Identity, satellite, service and address are fixed for a connection: `Policy.grant` decides on them once.
   Method and path are checked for each request by `Grant.check`, or never when a matching rule has no such limits.
3. Globs in `subjects` never match a caller without a credential; a rule says `anonymous` to let one in.
4. Globs and selectors in `satellites` never match the hub itself; a rule says `hub` (service `api`) to allow its
   control API. So "every service of every satellite" is not "administrator".
5. A raw connection (TCP, SNI) has no method or path: only a rule without such limits allows it.

Rules are found through an index on (subject, satellite, service), where None stands for "has a wildcard here", and
then checked in full; the index only saves work, it decides nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from platformctl.access.identity import ANONYMOUS, HUB, Identity
from platformctl.access.patterns import Globs, PathPattern, Selector, canonical_path
from platformctl.errors import excerpt

__all__ = ["API", "Decision", "Explanation", "Grant", "NearMiss", "Policy", "Rule"]

API = "api"
"""The service of satellite `hub` under which policies know the control API; its methods and paths are the API's own."""

# A rule with more combinations than this gives up the index on its longest list, so that memory stays in proportion.
_MAX_KEYS = 256

Key = str | None
_ANONYMOUS = (ANONYMOUS.subject,)


def _names(identity: Identity) -> tuple[str, ...]:
    """What subjects may call this caller: `<kind>:<name>`, and `group:<name>` for each of its groups."""
    return (identity.subject, *[f"group:{group}" for group in identity.groups])


@dataclass(frozen=True, slots=True)
class Decision:
    """`rule` is the rule that allows, or "" in a denial; `reason` is a sentence for audit lines and people."""

    allowed: bool
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled. None for methods, paths or sources: no such limit. `source` and `line`: where it stands."""

    name: str
    subjects: Globs
    satellites: Globs
    selectors: tuple[Selector, ...]
    services: Globs
    methods: frozenset[str] | None = None
    paths: tuple[PathPattern, ...] | None = None
    sources: tuple[IPv4Network | IPv6Network, ...] | None = None
    source: str = ""
    line: int = 0

    @property
    def unconditional(self) -> bool:
        return self.methods is None and self.paths is None

    def permits_subject(self, names: tuple[str, ...]) -> bool:
        """`names` are what subjects may call the caller: see `_names`."""
        if names == _ANONYMOUS:
            return ANONYMOUS.subject in self.subjects.exact
        for name in names:  # noqa: SIM110 (a generator costs more than the matching)
            if self.subjects.matches(name):
                return True
        return False

    def permits_satellite(self, satellite: str, labels: Mapping[str, str]) -> bool:
        if satellite == HUB:
            return HUB in self.satellites.exact
        if self.satellites.matches(satellite):
            return True
        for selector in self.selectors:  # noqa: SIM110 (a generator costs more than the matching)
            if selector.matches(labels):
                return True
        return False

    def permits_source(self, ip: str) -> bool:
        if self.sources is None:
            return True
        address = _address(ip)
        return address is not None and any(address in network for network in self.sources)

    def permits_method(self, method: str) -> bool:
        return self.methods is None or method in self.methods

    def permits_path(self, canonical: str | None) -> bool:
        return self.paths is None or (canonical is not None and any(p.matches(canonical) for p in self.paths))

    def keys(self) -> list[tuple[Key, Key, Key]]:
        """Where the index must hold this rule so that a look-up for any call that it permits finds it."""
        axes: list[set[Key]] = [
            {*self.subjects.exact, *((None,) if self.subjects.wild else ())},
            {*self.satellites.exact, *((None,) if self.satellites.wild or self.selectors else ())},
            {*self.services.exact, *((None,) if self.services.wild else ())},
        ]
        while len(axes[0]) * len(axes[1]) * len(axes[2]) > _MAX_KEYS:
            longest = max(range(3), key=lambda axis: len(axes[axis]))
            axes[longest] = {None}
        return list(itertools.product(axes[0], axes[1], axes[2]))


class Grant:
    """What one identity may do at one service, on one connection. Made by `Policy.grant`.

    `rules` are the names of the matching rules; `possible` is False when there is none and every request is denied.
    `unconditional` is True when `check` would allow everything: `rule` then names the rule that does, else it is "".
    """

    __slots__ = ("_rules", "decision", "identity", "possible", "rule", "satellite", "service")

    def __init__(self, identity: Identity, satellite: str, service: str, rules: tuple[Rule, ...]) -> None:
        self.identity = identity
        self.satellite = satellite
        self.service = service
        self._rules = rules
        self.possible = bool(rules)
        free = next((rule.name for rule in rules if rule.unconditional), None)
        self.rule = free or ""
        self.decision: Decision | None = None
        """The decision for every request on this connection, when it does not depend on the request; else None."""
        if free is not None:
            self.decision = _allow(free)
        elif not rules:
            self.decision = Decision(False, "", f"no rule lets {self._who}")

    @property
    def unconditional(self) -> bool:
        return self.rule != ""

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(rule.name for rule in self._rules)

    @property
    def _who(self) -> str:
        return f"{self.identity.subject} call service {self.service} of satellite {self.satellite}"

    def check(self, method: str, path: str) -> Decision:
        """The decision for one request; `path` as it came, after the route's prefix was removed."""
        if self.decision is not None:
            return self.decision
        canonical = canonical_path(path)
        for rule in self._rules:
            if rule.permits_method(method) and rule.permits_path(canonical):
                return _allow(rule.name)
        what = f"{excerpt(method, 20)} {excerpt(path.partition('?')[0])}"
        why = "" if canonical is not None else " (a path that servers may read in different ways)"
        names = ", ".join(self.rules[:5])
        return Decision(False, "", f"rules that let {self._who} ({names}) do not cover {what}{why}")

    def check_raw(self) -> Decision:
        """The decision for a connection without requests (TCP, SNI): only an unconditional grant allows it."""
        if self.decision is not None:
            return self.decision
        names = ", ".join(self.rules[:5])
        return Decision(
            False, "", f"rules that let {self._who} ({names}) limit methods or paths, so they allow no raw connection"
        )


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that did not match, and the fields in which it did not."""

    rule: str
    source: str
    line: int
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, where its rule stands, and for a denial the rules that came closest."""

    decision: Decision
    source: str
    line: int
    nearest: tuple[NearMiss, ...]


class Policy:
    """All rules in force. Immutable: reload by making a new one; a grant is stale when its policy isn't current."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._index: dict[Key, dict[tuple[Key, Key], list[int]]] = {}
        for number, rule in enumerate(self.rules):
            for subject, satellite, service in rule.keys():  # noqa: SIM118 (not a dictionary)
                self._index.setdefault(subject, {}).setdefault((satellite, service), []).append(number)

    def grant(self, identity: Identity, satellite: str, labels: Mapping[str, str], service: str, ip: str = "") -> Grant:
        """What `identity`, calling from address `ip`, may do at `service` of `satellite`, which carries `labels`.

        Without an `ip` no rule with `sources` matches. Forwarded headers must not be its origin unless their sender
        is trusted.
        """
        found: set[int] = set()
        places = ((satellite, service), (satellite, None), (None, service), (None, None))
        names = _names(identity)
        for subject in (*names, None):
            by_place = self._index.get(subject)
            if by_place is not None:
                for place in places:
                    found.update(by_place.get(place, ()))
        rules = [self.rules[number] for number in sorted(found)]
        return Grant(
            identity,
            satellite,
            service,
            tuple(
                rule
                for rule in rules
                if rule.services.matches(service)
                and rule.permits_satellite(satellite, labels)
                and rule.permits_subject(names)
                and rule.permits_source(ip)
            ),
        )

    def explain(
        self,
        identity: Identity,
        satellite: str,
        labels: Mapping[str, str],
        service: str,
        method: str = "GET",
        path: str = "/",
        ip: str = "",
    ) -> Explanation:
        """The decision on one call as `grant` and `check` make it, and why. Looks at every rule: not for traffic."""
        decision = self.grant(identity, satellite, labels, service, ip).check(method, path)
        canonical, names = canonical_path(path), _names(identity)
        misses = []
        for rule in self.rules:
            if rule.name == decision.rule:
                return Explanation(decision, rule.source, rule.line, ())
            matched = {
                "subjects": rule.permits_subject(names),
                "satellites": rule.permits_satellite(satellite, labels),
                "services": rule.services.matches(service),
                "sources": rule.permits_source(ip),
                "methods": rule.permits_method(method),
                "paths": rule.permits_path(canonical),
            }
            differs = tuple(name for name, holds in matched.items() if not holds)
            misses.append(NearMiss(rule.name, rule.source, rule.line, differs))
        misses.sort(key=lambda miss: len(miss.differs))
        return Explanation(decision, "", 0, tuple(misses[:5]))


@lru_cache(maxsize=4096)
def _allow(rule: str) -> Decision:
    return Decision(True, rule, f"allowed by rule {rule}")


@lru_cache(maxsize=1024)
def _address(ip: str) -> IPv4Address | IPv6Address | None:
    """None for what is not an address. Zones are dropped; IPv4 addresses that came in over IPv6 are themselves."""
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
