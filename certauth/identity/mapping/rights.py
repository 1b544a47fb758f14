"""Rights of an admission: written by the administrator with a claim as one segment, or granted by capabilities and scopes.

Service and operations are always the administrator's words. A claim chooses among them (an action, a scope) or names one
segment of a path; a scope's path lies below the base that the rule gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from certauth.errors import ConfigError, RequestError
from certauth.identity.mapping.claims import Claims, Pointer, Unmappable
from certauth.identity.mapping.entitlements import parse_capability
from certauth.identity.mapping.memberships import check_origin, is_from, texts_of
from certauth.identity.mapping.scopes import MAX_PATH, is_canonical_path, is_scope_name, paths_below, read_scopes
from certauth.identity.mapping.templates import Template
from certauth.names import label

MAX_RIGHTS: Final = 128
"""Rights one admission may give."""
MAX_OPERATIONS: Final = 16


@dataclass(frozen=True, slots=True, order=True)
class MappedRight:
    """May do ``operation`` at ``service`` on ``path``, a subtree if it ends in a slash."""

    service: str
    operation: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RightTemplate:
    """The same right for everybody whom the rule takes, on a path that may name them: ``/home/{claim:/uid}/``."""

    service: str
    operations: tuple[str, ...]
    path: Template

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for what could be no right."""
        _check(self.service, self.operations)
        if not is_canonical_path(self.path.example):
            raise _bad_path(self.path.text)

    def rights(self, claims: Claims) -> Iterator[MappedRight]:
        """The rights; raises ``Unmappable``."""
        path = self.path.fill(claims)
        if len(path) > MAX_PATH:
            raise Unmappable("a path of more than 512 characters", "use a shorter claim")
        for operation in self.operations:
            yield MappedRight(self.service, operation, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitySource:
    """Capabilities (AARC-G027) for exactly ``resource``: each of its ``actions`` is the operations it stands for here.

    A capability without actions is for all of ``actions``; one for a parent or a child of the resource is for something else.
    """

    claim: Pointer
    resource: str
    actions: Mapping[str, tuple[str, ...]]
    service: str
    path: str
    namespace: str | None = None
    authority: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) if it would believe everybody, or could give no right."""
        object.__setattr__(self, "namespace", check_origin(self.namespace, self.authority))
        object.__setattr__(self, "actions", _table(self.service, self.actions, "actions"))
        if not self.resource:
            raise ConfigError("rule-invalid", "it names no resource", hint="what stands behind :res:, e.g. cluster-a")
        if not is_canonical_path(self.path):
            raise _bad_path(self.path)

    def rights(self, claims: Claims) -> Iterator[MappedRight]:
        """The rights; raises ``Unmappable``."""
        for text in texts_of(claims, self.claim, optional=self.optional):
            found = parse_capability(text)
            if found is None or found.resource != self.resource:
                continue
            if is_from(self.namespace, self.authority, found.namespace, found.authority):
                for action in found.actions or self.actions:
                    for operation in self.actions.get(action, ()):
                        yield MappedRight(self.service, operation, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSource:
    """Scopes with paths (WLCG, SciTokens): each of ``operations`` is a scope and what it stands for, below ``base``."""

    claim: Pointer
    operations: Mapping[str, tuple[str, ...]]
    service: str
    base: str
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) if it could give no right."""
        object.__setattr__(self, "operations", _table(self.service, self.operations, "operations"))
        if not all(is_scope_name(name) for name in self.operations):
            raise ConfigError("rule-invalid", "one of its scopes is none", hint="a scope without its path: storage.read")
        if not is_canonical_path(self.base) or not self.base.endswith("/"):
            raise _bad_path(self.base)

    def rights(self, claims: Claims) -> Iterator[MappedRight]:
        """The rights; raises ``Unmappable``."""
        texts = texts_of(claims, self.claim, optional=self.optional)
        for scope in read_scopes(texts, frozenset(self.operations), self.claim):
            for path in paths_below(self.base, scope.path):
                if len(path) > MAX_PATH:
                    raise Unmappable(f"{self.claim} holds a path of more than {MAX_PATH} characters", "ask for a shorter one")
                for operation in self.operations[scope.name]:
                    yield MappedRight(self.service, operation, path)


RightSource = RightTemplate | CapabilitySource | ScopeSource


def _check(service: str, operations: tuple[str, ...]) -> None:
    try:
        label(service, "a service")
        for operation in operations:
            label(operation, "an operation")
    except RequestError as error:
        raise ConfigError("rule-invalid", error.message, hint=error.hint) from error
    if not 0 < len(set(operations)) == len(operations) <= MAX_OPERATIONS:
        raise ConfigError("rule-invalid", "a right has no operation, or one twice", hint="operations = ['read', 'write']")


def _table(service: str, table: Mapping[str, tuple[str, ...]], what: str) -> Mapping[str, tuple[str, ...]]:
    if not 0 < len(table) <= MAX_OPERATIONS:
        raise ConfigError(
            "rule-invalid",
            f"it has {len(table)} {what}",
            hint=f"1 to {MAX_OPERATIONS}, each with the operations that it stands for: read = ['read']",
        )
    for operations in table.values():
        _check(service, operations)
    return MappingProxyType({name: tuple(operations) for name, operations in table.items()})


def _bad_path(path: str) -> ConfigError:
    return ConfigError(
        "rule-invalid",
        f"{path[:80]!r} is not a path for a right",
        hint="absolute, no empty or dot segments, no globs; a slash at the end means everything below, as a base must",
    )
