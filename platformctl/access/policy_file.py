"""Access policies as YAML text -> rules. The shape is that of policy.schema.json, which editors can use.

The nodes of the document are read, not the plain data made from them, so that every error has its line, and so that
a key that stands twice is an error and not a silent replacement of what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

import yaml

from platformctl.access.identity import KINDS, valid_name
from platformctl.access.patterns import Globs, PathPattern, Selector
from platformctl.access.policy import Policy, Rule
from platformctl.errors import ConfigError, excerpt

__all__ = ["API_VERSION", "KIND", "METHODS", "load_policy", "parse_policy"]

API_VERSION = "platformctl.io/v1alpha1"
KIND = "AccessPolicy"
METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"),  # RFC 9110, 5789, QUERY
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT"),  # RFC 4918, 3253
)
_NULL = "tag:yaml.org,2002:null"
_STR = "tag:yaml.org,2002:str"
_SUBJECT_KINDS = (*(kind for kind in KINDS if kind != "anonymous"), "group")
_DOCUMENT_KEYS = ("apiVersion", "kind", "metadata", "rules")
_RULE_KEYS = ("name", "subjects", "satellites", "services", "methods", "paths", "sources")
_REQUIRED = _RULE_KEYS[:4]

# The parser in C is many times faster and keeps line numbers too; PyYAML's wheels have it, some builds don't.
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

T = TypeVar("T")


def load_policy(documents: Iterable[tuple[str, str]]) -> Policy:
    """One policy from several (source, text) pairs; a source is a file's name. Rule names are unique among all."""
    rules: dict[str, Rule] = {}
    for source, text in documents:
        for rule in parse_policy(text, source):
            first = rules.setdefault(rule.name, rule)
            if first is not rule:
                raise ConfigError(
                    f"a rule named {rule.name!r} exists already, at {first.source}:{first.line}",
                    source=source,
                    line=rule.line,
                    hint="audit lines name rules, so each needs a name of its own; rename one of them",
                )
    return Policy(rules.values())


def parse_policy(text: str, source: str = "policy") -> list[Rule]:
    """The rules of all documents in one text. ConfigError with the line of what is wrong."""
    try:
        documents = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        problem = getattr(e, "problem", None) or getattr(e, "reason", "it has characters that YAML does not allow")
        raise ConfigError(
            f"this is not YAML: {problem}",
            source=source,
            line=mark.line + 1 if mark else 0,
            hint="look at the indentation and quotes on and above that line",
        ) from e
    return [rule for node in documents if not _empty(node) for rule in _Reader(source).document(node)]


def _empty(node: yaml.Node | None) -> bool:
    return node is None or node.tag == _NULL


class _Reader:
    """Reads the nodes of one file; the methods' names are those of the things in it."""

    def __init__(self, source: str) -> None:
        self._source = source

    def document(self, node: yaml.Node) -> list[Rule]:
        keys = self._mapping(node, "an access policy", _DOCUMENT_KEYS, ("apiVersion", "kind", "rules"))
        for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
            if self._text(keys[key], key) != wanted:
                raise self._error(keys[key], f"{key} is not {wanted}", f"write {key}: {wanted}")
        if "metadata" in keys:
            metadata = self._mapping(keys["metadata"], "metadata", ("name",), ("name",))
            self._name(metadata["name"], "metadata.name")
        rules = keys["rules"]
        if not isinstance(rules, yaml.SequenceNode):
            raise self._error(rules, "rules is not a list", "write rules: [] to deny everything, or a list of rules")
        return [self._rule(item) for item in rules.value]

    def _rule(self, node: yaml.Node) -> Rule:
        keys = self._mapping(node, "a rule", _RULE_KEYS, _REQUIRED)
        places = self._list(keys["satellites"], "satellites", self._place)
        methods = self._list(keys["methods"], "methods", self._method) if "methods" in keys else None
        return Rule(
            name=self._name(keys["name"], "name"),
            subjects=Globs(self._list(keys["subjects"], "subjects", self._subject)),
            satellites=Globs(place for place in places if isinstance(place, str)),
            selectors=tuple(place for place in places if isinstance(place, Selector)),
            services=Globs(self._list(keys["services"], "services", self._name_glob)),
            methods=None if methods is None else frozenset(methods),
            paths=tuple(self._list(keys["paths"], "paths", self._path)) if "paths" in keys else None,
            sources=tuple(self._list(keys["sources"], "sources", self._network)) if "sources" in keys else None,
            source=self._source,
            line=node.start_mark.line + 1,
        )

    def _subject(self, node: yaml.Node, where: str) -> str:
        text = self._text(node, where)
        kind, colon, name = text.partition(":")
        if text not in ("*", "anonymous") and not (kind in _SUBJECT_KINDS and colon and name):
            kinds = ", ".join(f"{kind}:NAME" for kind in _SUBJECT_KINDS)
            raise self._error(
                node, f"{excerpt(text)!r} is not a subject", f"allowed: {kinds} (NAME may have *), anonymous, *"
            )
        return text

    def _place(self, node: yaml.Node, where: str) -> str | Selector:
        text = self._text(node, where)
        if "=" not in text:
            return self._name_glob(node, where)
        try:
            return Selector(text)
        except ValueError as e:
            raise self._error(node, f"{excerpt(text)!r} is not a selector: {e}", "write region=eu,role=gpu") from None

    def _name_glob(self, node: yaml.Node, where: str) -> str:
        text = self._text(node, where)
        if not valid_name(text.replace("*", "x")):
            raise self._error(
                node,
                f"{excerpt(text)!r} is not a name",
                "allowed: lower-case letters, digits, dashes, and * as wildcard",
            )
        return text

    def _method(self, node: yaml.Node, where: str) -> str:
        text = self._text(node, where)
        if text not in METHODS:
            raise self._error(node, f"{excerpt(text)!r} is not a method", f"allowed: {', '.join(METHODS)}")
        return text

    def _path(self, node: yaml.Node, where: str) -> PathPattern:
        text = self._text(node, where)
        try:
            return PathPattern(text)
        except ValueError as e:
            raise self._error(
                node, f"{excerpt(text)!r} is not a path pattern: {e}", "allowed: /exact, /one/*/segment, /all/below/**"
            ) from None

    def _network(self, node: yaml.Node, where: str) -> IPv4Network | IPv6Network:
        text = self._text(node, where)
        try:
            return ip_network(text)
        except ValueError:
            raise self._error(
                node, f"{excerpt(text)!r} is not an address range", "write CIDR without host bits, as in 10.0.0.0/8"
            ) from None

    def _name(self, node: yaml.Node, where: str) -> str:
        text = self._text(node, where)
        if not valid_name(text):
            raise self._error(
                node,
                f"{where} {excerpt(text)!r} is not a name",
                "allowed: 1 to 63 lower-case letters, digits and dashes, as in readers-of-dashboards",
            )
        return text

    def _list(self, node: yaml.Node, where: str, item: Callable[[yaml.Node, str], T]) -> list[T]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self._error(node, f"{where} is not a list with entries", f"write {where}: [...], also for one entry")
        return [item(child, where) for child in node.value]

    def _text(self, node: yaml.Node, where: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != _STR or not node.value:
            raise self._error(node, f"{where} is not text", "put quotes around it if it looks like a number or yes/no")
        return str(node.value)

    def _mapping(
        self, node: yaml.Node, what: str, allowed: tuple[str, ...], required: tuple[str, ...]
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{what} is not a mapping", f"its keys are: {', '.join(allowed)}")
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = self._text(key_node, f"a key of {what}")
            if key not in allowed:
                raise self._error(key_node, f"{what} has no key {excerpt(key)!r}", f"allowed: {', '.join(allowed)}")
            if key in found:
                raise self._error(key_node, f"{key} stands twice in {what}", "put all entries into one list")
            found[key] = value
        for key in required:
            if key not in found:
                raise self._error(node, f"{what} lacks {key}", f"needed: {', '.join(required)}")
        return found

    def _error(self, node: yaml.Node, message: str, hint: str) -> ConfigError:
        return ConfigError(message, source=self._source, line=node.start_mark.line + 1, hint=hint)
