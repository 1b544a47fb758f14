"""What a proof must hold whatever its kind, in this order, and what comes out of it.

    3  the kind is one that the issuer may sign; algorithm on the issuer's list; the type is that of the kind; the issuer is the
       configured one, to the letter
    4  the issuer's own key of that id, fit for the algorithm
    5  signature
    6  exp, iat, nbf, auth_time: numbers in a sane range, lifetime and age within limits, skew on both sides
    7  audience is us; who asked for it is us, or listed
    8  subject: 1 to 255 printable characters
    9  bound to the key, compared in constant time
   10  one-time use is the caller's: ``proof_digest`` until ``replay_until``
   11  e-mail only when the same document says it is verified

Checks 1 and 2 are those of ``read``; ``id_token``, ``access_token``, ``workload`` and ``introspected`` put the steps together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from certauth.clock import from_timestamp
from certauth.errors import ProofError
from certauth.identity.binding import not_bound
from certauth.identity.claims import LONGEST_SUBJECT, display, missing, printable, seconds, texts
from certauth.identity.issuers import Issuer
from certauth.identity.keyset import KeySet
from certauth.identity.kinds import Binding, ProofKind
from certauth.identity.read import UnverifiedProof

UNBOUND_ASSURANCE: Final = 1
MEDIATED_ASSURANCE: Final = 2

_EMAIL: Final = 254  # RFC 5321 §4.5.3.1.3, without the angle brackets
_NAME: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdentity:
    """Who proved who they are, to whom, how, and for which key: ``issuer`` and ``subject`` together are the person.

    ``email`` and ``name`` are for display and mapping, never keys; ``claims`` is everything the issuer said, for mapping.
    ``proof_digest`` must be accepted once, and remembered until ``replay_until``: it is SHA-256 of a token's signing input,
    or of all of an opaque token. ``mediated``: the person was led to the provider by us, from a machine without a browser.
    """

    issuer_id: str
    issuer: str
    subject: str
    kind: ProofKind
    binding: Binding
    assurance: int
    auth_time: datetime | None
    acr: str | None
    amr: tuple[str, ...]
    email: str | None
    name: str | None
    issued_at: datetime
    expires_at: datetime
    proof_digest: bytes
    replay_until: datetime
    claims: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)
    mediated: bool = False

    def as_mediated(self) -> Self:
        """The same, from a login led by the signer: an assurance of 2 at most, as people can be led astray (RFC 8628 §5.4)."""
        return replace(self, mediated=True, assurance=min(self.assurance, MEDIATED_ASSURANCE))


class Window(NamedTuple):
    """From when to when a proof claims to be valid, in POSIX seconds."""

    issued_at: float
    expires_at: float


def check_kind(kind: ProofKind, issuer: Issuer) -> None:
    """Check 3: ``ProofError`` (``kind-not-allowed``) unless the issuer may sign proofs of this kind."""
    if kind not in issuer.kinds:
        raise ProofError(
            "kind-not-allowed",
            f"this facility accepts no {kind.replace('_', ' ')} of this issuer",
            hint="use a kind of proof that the facility lists for it; an admin allows them with kinds in signer.toml",
        )


def check_algorithm(alg: str, allowed: Iterable[str]) -> None:
    """Check 3: ``ProofError`` (``alg-not-allowed``) unless the algorithm is on the list."""
    if alg not in allowed:
        raise ProofError(
            "alg-not-allowed",
            "the proof is signed with an algorithm that is not allowed for its issuer",
            hint="set an allowed algorithm for this client at the provider, or allow this one in signer.toml",
        )


def check_issuer(claimed: str, issuer: str) -> None:
    """Check 3: ``ProofError`` (``unknown-issuer``) unless both are the same text."""
    if claimed != issuer:
        raise ProofError(
            "unknown-issuer",
            "the proof names another issuer than the one it is checked against",
            hint="get the proof from the provider that the facility names",
        )


def check_signature(proof: UnverifiedProof, issuer: Issuer, keys: KeySet) -> None:
    """Checks 4 and 5: ``ProofError`` (``unknown-key``, ``alg-not-allowed``, ``bad-signature``)."""
    if proof.kid is None and not issuer.single_key:
        raise ProofError(
            "unknown-key",
            "the proof does not say which of the issuer's keys signed it",
            hint="a provider with one key for ever and no key ids is configured with single_key = true",
        )
    keys.find(proof.kid).verify(proof.signing_input, proof.signature, alg=proof.alg)


def check_times(
    claims: Mapping[str, object], *, now: datetime, skew: timedelta, max_age: timedelta, max_lifetime: timedelta
) -> Window:
    """Check 6. At ``exp`` plus skew a token is no longer valid (RFC 7519 §4.1.4).

    ``ProofError``: ``missing-claim``, ``bad-claim``, ``proof-expired``, ``proof-not-yet-valid``, ``proof-too-old``.
    """
    moment, tolerance = now.timestamp(), skew.total_seconds()
    issued_at, expires_at = seconds(claims, "iat"), seconds(claims, "exp")
    not_before = seconds(claims, "nbf") if "nbf" in claims else issued_at
    if not 0 < expires_at - issued_at <= max_lifetime.total_seconds():
        raise ProofError(
            "bad-claim",
            f"the proof is valid for no time at all, or for longer than {max_lifetime}",
            hint="ask those who run the provider for tokens with a shorter life",
        )
    if moment >= expires_at + tolerance:
        raise ProofError("proof-expired", "the proof has expired", hint="get a new one: log in again")
    if max(issued_at, not_before) > moment + tolerance:
        raise ProofError("proof-not-yet-valid", "the proof is from the future", hint="check the clocks of both machines")
    if moment >= issued_at + max_age.total_seconds() + tolerance:
        raise ProofError(
            "proof-too-old",
            f"the proof was issued more than {max_age} ago",
            hint="get a new one; where tokens are handed out hours before they are used, an admin sets max_age in signer.toml",
        )
    return Window(issued_at, expires_at)


def check_provider_times(claims: Mapping[str, object], issuer: Issuer, now: datetime) -> Window:
    """Check 6 with the issuer's limits."""
    return check_times(claims, now=now, skew=issuer.skew, max_age=issuer.max_age, max_lifetime=issuer.max_lifetime)


def check_authentication(claims: Mapping[str, object], issuer: Issuer, now: datetime) -> datetime | None:
    """Check 6, for when the person was there: ``auth_time`` 0 means that the provider does not know.

    ``ProofError``: ``missing-claim``, ``bad-claim``, ``proof-too-old``.
    """
    moment, tolerance = now.timestamp(), issuer.skew.total_seconds()
    claimed = claims.get("auth_time")
    auth_time = None if claimed in (None, 0) and claimed is not False else seconds(claims, "auth_time")
    if auth_time is not None and auth_time > moment + tolerance:
        raise ProofError(
            "bad-claim", "the proof says that the login is still to come", hint="check the clocks of both machines"
        )
    if issuer.max_authentication_age is not None:
        if auth_time is None:
            raise missing("auth_time")
        if moment >= auth_time + issuer.max_authentication_age.total_seconds() + tolerance:
            raise ProofError("proof-too-old", "the person logged in too long ago", hint="log in again at the provider")
    return None if auth_time is None else from_timestamp(auth_time)


def check_party(claims: Mapping[str, object], name: str, issuer: Issuer) -> str:
    """Check 7: the client that asked for the token, which is us or listed; else ``ProofError`` (``wrong-audience``)."""
    party = printable(claims, name, longest=2048)
    if party != issuer.audience and party not in issuer.authorized_parties:
        raise ProofError(
            "wrong-audience",
            f"another client asked for the proof ({name})",
            hint="log in with the client id of the facility; an admin lists other clients in authorized_parties",
        )
    return party


def foreign() -> ProofError:
    """The refusal (check 7) of a proof for somebody else."""
    return ProofError(
        "wrong-audience",
        "the proof was made for somebody else",
        hint="ask for one with the client id or audience that the facility names",
    )


def check_subject(claims: Mapping[str, object]) -> str:
    """Check 8; ``ProofError`` (``missing-claim``, ``bad-claim``)."""
    return printable(claims, "sub", longest=LONGEST_SUBJECT)


def settle(found: Iterable[Binding], issuer: Issuer) -> Binding:
    """Check 9: the first binding found that the issuer allows, ``NONE`` if it allows that, else ``key-not-bound``."""
    for binding in (*found, Binding.NONE):
        if binding in issuer.bindings:
            return binding
    raise not_bound()


def email_of(claims: Mapping[str, object], issuer: Issuer) -> str | None:
    """Check 11: the address, if these very claims say it is verified, or say nothing and the issuer is trusted with it."""
    unsaid = issuer.email_verified == "trusted" and "email_verified" not in claims
    return display(claims, "email", longest=_EMAIL) if unsaid or claims.get("email_verified") is True else None


def name_of(claims: Mapping[str, object]) -> str | None:
    """A name for people to read."""
    return display(claims, "name", longest=_NAME)


def identity(
    claims: Mapping[str, object],
    *,
    issuer: Issuer,
    kind: ProofKind,
    subject: str,
    binding: Binding,
    window: Window,
    auth_time: datetime | None,
    digest: bytes,
) -> VerifiedIdentity:
    """The outcome, once everything was checked; ``ProofError`` (``bad-claim``) for an ``acr`` or ``amr`` that is none."""
    expires_at = from_timestamp(window.expires_at)
    return VerifiedIdentity(
        issuer_id=issuer.id,
        issuer=issuer.url,
        subject=subject,
        kind=kind,
        binding=binding,
        assurance=min(issuer.assurance, UNBOUND_ASSURANCE) if binding is Binding.NONE else issuer.assurance,
        auth_time=auth_time,
        acr=printable(claims, "acr", longest=255) if claims.get("acr") is not None else None,
        amr=texts(claims, "amr") if claims.get("amr") is not None else (),
        email=email_of(claims, issuer),
        name=name_of(claims),
        issued_at=from_timestamp(window.issued_at),
        expires_at=expires_at,
        proof_digest=digest,
        replay_until=expires_at + issuer.skew,
        claims=MappingProxyType(dict(claims)),
    )
