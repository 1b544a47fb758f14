"""Verified logins for the tests of admission: what ``VerifiedIdentity`` says, without a provider to say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from certauth.identity.mapping import AssuranceTable, Condition, Operator, Outputs, Pointer, Rule, When
from certauth.identity.mapping.claims import Claims, Scalar

EVERYONE = When(everyone=True)


@dataclass(frozen=True, kw_only=True)
class Login:
    """One login at the provider ``campus``."""

    issuer_id: str = "campus"
    issuer: str = "https://idp.campus.example"
    subject: str = "248289761001"
    assurance: int = 3
    email: str | None = None
    kind: str = "id_token"
    binding: str = "nonce"
    claims: Mapping[str, object] = field(default_factory=dict)


def login(**claims: object) -> Login:
    """A login with these claims."""
    return Login(claims=claims)


def claims(max_values: int = 200, /, **members: object) -> Claims:
    """These claims, as a rule that reads so many values sees them."""
    return Claims(login(**members), max_values=max_values)


def condition(claim: str, operator: str, *operands: Scalar) -> Condition:
    """A condition, in one line."""
    return Condition(Pointer.parse(claim), Operator(operator), operands)


def rule(name: str = "one", when: When = EVERYONE, **outputs: object) -> Rule:
    """A rule for everybody, unless ``when`` says otherwise."""
    return Rule(name=name, when=when, outputs=Outputs(**outputs))  # type: ignore[arg-type]


def levels(claim: str, otherwise: int | None = None, **table: int) -> AssuranceTable:
    """An assurance table."""
    return AssuranceTable(claim=Pointer.parse(claim), levels=table, otherwise=otherwise)
