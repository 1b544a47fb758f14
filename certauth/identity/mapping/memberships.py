"""Groups, roles and projects of an admission: an administrator's own words, or a provider's behind a prefix.

What a claim says becomes a name only behind the prefix of its rule, by default the issuer's id and a colon. So no provider can
put anybody into a group of the facility, nor of another provider, whatever its tokens hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from certauth.errors import ConfigError
from certauth.identity.mapping.claims import ClaimMissing, Claims, Pointer, Unmappable
from certauth.identity.mapping.conditions import MAX_PATTERNS
from certauth.identity.mapping.entitlements import Membership, is_authority, normal_namespace, parse_membership
from certauth.identity.mapping.globs import Glob
from certauth.names import MAX_NAME, is_name

_PREFIX = re.compile(r"(?:[a-z0-9][a-z0-9._-]{0,63}:){1,4}")


@dataclass(frozen=True, slots=True)
class FixedName:
    """A name that everybody gets whom the rule takes."""

    name: str

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for what no token can hold."""
        if not is_name(self.name):
            raise ConfigError("rule-invalid", f"{self.name[:80]!r} is not a name", hint=f"1 to {MAX_NAME} printable characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesFromClaim:
    """The values of ``claim`` that match one of ``match`` (all, if there is none), each behind ``prefix``.

    ``optional``: a provider that leaves the claim out says that there are none.
    """

    claim: Pointer
    match: tuple[Glob, ...] = ()
    prefix: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for a prefix that ends in no colon, or too many patterns."""
        check_prefix(self.prefix)
        if len(self.match) > MAX_PATTERNS:
            raise ConfigError("rule-invalid", f"{len(self.match)} patterns are too many", hint=f"at most {MAX_PATTERNS}")

    def names(self, claims: Claims) -> Iterator[str]:
        """The names; raises ``Unmappable``."""
        for text in texts_of(claims, self.claim, optional=self.optional):
            if not self.match or any(glob.matches(text) for glob in self.match):
                yield _named(claims, self.prefix, text, self.claim)


NameSource = FixedName | NamesFromClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitlementSource:
    """Group memberships (AARC-G069) of one ``namespace``, of one ``authority``, or of one as stated by the other.

    With a namespace a group is called ``<prefix><group>[:<subgroup>]``, without one ``<prefix><namespace>:group:<group>…``, so
    that groups of two namespaces never become one. A role is called as its group, with ``:role=<role>``. Entitlements of other
    kinds, namespaces and authorities are left alone.
    """

    claim: Pointer
    namespace: str | None = None
    authority: str | None = None
    prefix: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) if it would believe everybody, or cannot be compared."""
        check_prefix(self.prefix)
        object.__setattr__(self, "namespace", check_origin(self.namespace, self.authority))

    def groups_and_roles(self, claims: Claims) -> tuple[list[str], list[str]]:
        """The names of groups, and of roles; raises ``Unmappable``."""
        groups, roles = [], []
        for text in texts_of(claims, self.claim, optional=self.optional):
            membership = parse_membership(text)
            if membership is None or not is_from(self.namespace, self.authority, membership.namespace, membership.authority):
                continue
            name = self._name(membership)
            if membership.is_member:
                groups.append(_named(claims, self.prefix, name, self.claim))
            if membership.role is not None:
                roles.append(_named(claims, self.prefix, f"{name}:role={membership.role}", self.claim))
        return groups, roles

    def _name(self, membership: Membership) -> str:
        return membership.group if self.namespace else f"{membership.namespace}:group:{membership.group}"


def check_prefix(prefix: str | None) -> None:
    """Raise ``ConfigError`` (``rule-invalid``) unless ``prefix`` makes a namespace: labels, each followed by a colon."""
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            "rule-invalid",
            f"{prefix[:80]!r} is not a prefix",
            hint="a-z, 0-9 and . _ -, and a colon at the end: campus: (the default is the id of the issuer and a colon)",
        )


def check_origin(namespace: str | None, authority: str | None) -> str | None:
    """The namespace as it is compared; ``ConfigError`` (``rule-invalid``) if one of the two is wrong, or neither is given."""
    normal = None if namespace is None else normal_namespace(namespace)
    if (namespace is None and authority is None) or (namespace is not None and normal is None):
        raise ConfigError(
            "rule-invalid",
            "it does not say whose entitlements count",
            hint="name their namespace, urn:geant:lab.example, or their authority, aai.lab.example, or both",
        )
    if authority is not None and not is_authority(authority):
        raise ConfigError(
            "rule-invalid", f"{authority[:80]!r} is not an authority", hint="what stands behind the #: aai.lab.example"
        )
    return normal


def is_from(namespace: str | None, authority: str | None, stated_namespace: str, stated_authority: str | None) -> bool:
    """Whether what an entitlement states is what the rule asks for, to the letter."""
    return namespace in (None, stated_namespace) and authority in (None, stated_authority)


def distinct(names: Iterable[str], most: int, what: str) -> tuple[str, ...]:
    """``names`` without repetitions; ``Unmappable`` if there are more than ``most``: a list is never cut."""
    once = tuple(dict.fromkeys(names))
    if len(once) > most:
        raise Unmappable(f"{len(once)} {what} are more than {most}", "match fewer of them, or raise max_values of the rule")
    return once


def prefix_of(issuer_id: str, prefix: str | None) -> str:
    """The namespace of what an issuer's claims name."""
    return f"{issuer_id}:" if prefix is None else prefix


def texts_of(claims: Claims, claim: Pointer, *, optional: bool) -> tuple[str, ...]:
    """The texts in a claim; none, if it is missing and may be. Raises ``Unmappable``."""
    try:
        return claims.texts(claim)
    except ClaimMissing:
        if optional:
            return ()
        raise


def _named(claims: Claims, prefix: str | None, text: str, claim: Pointer) -> str:
    name = prefix_of(claims.identity.issuer_id, prefix) + text
    if not text or not is_name(name):
        raise Unmappable(
            f"{claim} holds what cannot be a name: empty, not printable, or over {MAX_NAME} characters with its prefix",
            "leave such values out with match",
        )
    return name
