"""What a facility knows of somebody: their names elsewhere, what they are enrolled for, and the rights that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

from certauth.names import Principal
from certauth.requests import Right, path_covers

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class EnrolledRight:
    """A right at one service."""

    service: str
    operation: str
    path: str


class Login(NamedTuple):
    """Who somebody is elsewhere: an identity provider's URL (its ``iss``) and their ``sub`` there, never reassigned."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an administrator decided about one principal, and the logins that lead to it."""

    principal: Principal
    logins: tuple[Login, ...] = ()
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    rights: tuple[EnrolledRight, ...] = ()
    assurance: int = 3
    """Ceiling: no login, however strong, makes this person more certain than their enrolment did."""
    max_lifetime: timedelta | None = None
    disabled: bool = False
    owner: Principal | None = None
    """Whose work this does: an agent has no right that its owner lacks, and ends with them."""
    expires_at: datetime | None = None
    """When the enrolment itself ends; nothing granted under it lasts longer."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where requests may come from; empty: anywhere."""
    hosts: tuple[str, ...] = ()
    """DNS names and IP addresses under which a service or host is reached, the only ones its certificate may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the facility's admission rules make of one login; kept with the certificate, so that tokens know of it."""

    rule: str = "enrolled"
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    rights: tuple[EnrolledRight, ...] = ()
    assurance: int | None = None
    max_lifetime: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What the facility gives to everybody in a group, with a role, or working for a project."""

    holder: Literal["group", "role", "project"]
    name: str
    right: EnrolledRight


def held_rights(enrolment: Enrolment, terms: Terms, entitlements: Iterable[Entitlement]) -> tuple[EnrolledRight, ...]:
    """Everything somebody may do: their own rights, those of their login, and those of their groups, roles and projects."""
    memberships = {
        "group": {*enrolment.groups, *terms.groups},
        "role": {*enrolment.roles, *terms.roles},
        "project": {*enrolment.projects, *terms.projects},
    }
    shared = [one.right for one in entitlements if one.name in memberships[one.holder]]
    return minimal([*enrolment.rights, *terms.rights, *shared])


def common_rights(rights: Iterable[EnrolledRight], others: Iterable[EnrolledRight]) -> tuple[EnrolledRight, ...]:
    """What both sides hold: an agent's rights, cut to what its owner still has."""
    every = tuple(others)
    met = [
        common
        for right in rights
        for other in every
        if other.service == right.service and (common := intersection(other, Right(right.operation, right.path)))
    ]
    return minimal(met)


def intersection(held: EnrolledRight, wish: Right) -> EnrolledRight | None:
    """The part of ``held`` that lies within ``wish``: one of the two, or nothing, because paths are a tree."""
    if held.operation != wish.operation:
        return None
    if path_covers(held.path, wish.path):
        return EnrolledRight(held.service, held.operation, wish.path)
    return held if path_covers(wish.path, held.path) else None


def minimal(rights: list[EnrolledRight]) -> tuple[EnrolledRight, ...]:
    """``rights`` without those that another one includes, in a stable order."""
    return tuple(
        sorted(
            right
            for right in set(rights)
            if not any(
                other != right
                and (other.service, other.operation) == (right.service, right.operation)
                and path_covers(other.path, right.path)
                for other in rights
            )
        )
    )
