"""The decision: may this person have this certificate, or this token? Pure functions of their arguments.

Everything in a grant comes from the enrolment, the verified identity, the profile and the clock. From the request come the
key, a shorter lifetime and fewer rights; nothing in it can add a name, a usage, a right or a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec

from certauth.clock import in_words, whole_seconds
from certauth.enrolment import Address, EnrolledRight, Enrolment, Login, Terms, intersection, minimal
from certauth.keys import PublicKey
from certauth.names import Kind, Principal
from certauth.profiles import BACKDATE, MIN_LIFETIME, TOKEN_DEFAULT, TOKEN_MAX, Profile, leaf_profile
from certauth.requests import CertificationRequest, Right, TokenRequest

if TYPE_CHECKING:  # the decision needs their values, not the machinery that verified them
    from certauth.bundles import VerifiedPeer
    from certauth.identity import VerifiedIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """A lifetime that was asked for and shortened; said in the response and in the record."""

    what: str
    requested: timedelta
    granted: timedelta
    by: str

    def __str__(self) -> str:
        return f"{self.what} of {in_words(self.requested)} shortened to {in_words(self.granted)} by {self.by}"


class _Decision:
    """A decision is matched on its type: a refusal tested for truth would be a grant."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("match on the type of a decision; its truth means nothing")


@dataclass(frozen=True, slots=True)
class Refusal(_Decision):
    """No, with a stable code, a sentence, and perhaps what to do about it."""

    code: str
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateGrant(_Decision):
    """Everything a leaf certificate will say."""

    principal: Principal
    profile: Profile
    public_key: PublicKey
    spki: bytes
    not_before: datetime
    not_after: datetime
    assurance: int
    issuer_id: str
    ignored: tuple[str, ...]
    """What the request asked for and did not get."""
    clamped: Clamp | None
    rule: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant(_Decision):
    """Everything a token will say."""

    principal: Principal
    audience: str
    rights: tuple[EnrolledRight, ...]
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    projects: tuple[str, ...]
    assurance: int
    not_before: datetime
    expires_at: datetime
    peer_fingerprint: str
    delegate_key: ec.EllipticCurvePublicKey | None
    delegations: int
    clamped: Clamp | None
    rule: str


_PROOFS: Mapping[Kind, frozenset[str]] = {
    Kind.USER: frozenset({"id_token", "access_token"}),
    Kind.AGENT: frozenset({"id_token", "access_token", "workload", "client_assertion", "code"}),
    Kind.SERVICE: frozenset({"workload", "client_assertion", "code"}),
    Kind.HOST: frozenset({"workload", "client_assertion", "code"}),
}
"""Which kinds of proof lead to a certificate for whom: a machine's token never makes a person of it, nor a login a machine."""


def decide_certificate(
    *,
    identity: VerifiedIdentity,
    enrolment: Enrolment | None,
    terms: Terms,
    request: CertificationRequest,
    lifetime: timedelta | None,
    issuer_not_after: datetime,
    max_lifetime: timedelta,
    address: Address | None,
    now: datetime,
) -> CertificateGrant | Refusal:
    """Decide on a certificate for ``request``'s key.

    ``terms`` are what the admission rules make of the login, ``lifetime`` is the wish (``None``: the profile's default),
    ``max_lifetime`` the signer's cap, ``issuer_not_after`` the end of the authority that will sign, ``address`` the client's.
    Refusals: ``not-enrolled``, ``principal-disabled``, ``enrolment-ended``, ``address-not-allowed``,
    ``profile-not-available``, ``assurance-too-low``, ``lifetime-invalid``, ``lifetime-exhausted``.
    """
    # 1. The enrolment belongs to exactly this login: the same name at another identity provider is somebody else.
    if enrolment is None or Login(identity.issuer, identity.subject) not in enrolment.logins:
        return Refusal("not-enrolled", "nobody is enrolled under this login", "ask the facility's administrator to enrol you")
    if (refusal := suspended(enrolment, address, now)) is not None:
        return refusal
    # 2. Each kind of principal has its kinds of proof.
    kind = enrolment.principal.kind
    if identity.kind not in _PROOFS[kind]:
        return Refusal(
            "profile-not-available",
            f"this kind of proof leads to no certificate for a {kind}",
            "an administrator makes a service's: certauth signer service certificate",
        )
    return _certificate(
        enrolment,
        leaf_profile(kind),
        request=request,
        lifetime=lifetime,
        # 3. The proof is good enough for the profile. 4. Time: the shortest of every cap.
        assurance=min(identity.assurance, enrolment.assurance, 3 if terms.assurance is None else terms.assurance),
        issuer_id=identity.issuer_id,
        caps=(
            (max_lifetime, "the signer's settings"),
            (terms.max_lifetime, f"the rule {terms.rule!r}"),
            (issuer_not_after - whole_seconds(now), "the end of the issuing authority"),
        ),
        rule=terms.rule,
        now=now,
    )


def decide_renewal(
    *,
    peer: VerifiedPeer,
    enrolment: Enrolment | None,
    terms: Terms,
    issuer_id: str,
    session_ends: datetime | None,
    request: CertificationRequest,
    lifetime: timedelta | None,
    issuer_not_after: datetime,
    max_lifetime: timedelta,
    address: Address | None,
    now: datetime,
) -> CertificateGrant | Refusal:
    """Decide on a new certificate for the holder of a valid one, ``peer``: same name, same assurance, perhaps another key.

    ``terms`` and ``issuer_id`` are those of the login that began the session, ``session_ends`` is when a person must log in
    again (``None``: the enrolment alone limits it). Refusals: those of ``decide_certificate``, and ``session-ended``.
    """
    if enrolment is None or enrolment.principal != peer.principal:
        return _not_enrolled(peer.principal)
    if (refusal := suspended(enrolment, address, now)) is not None:
        return refusal
    start = whole_seconds(now)
    if session_ends is not None and session_ends - start < MIN_LIFETIME:
        return Refusal("session-ended", "the login from which this certificate comes is too long ago", "log in again")
    return _certificate(
        enrolment,
        leaf_profile(peer.principal.kind),
        request=request,
        lifetime=lifetime,
        assurance=min(peer.assurance, enrolment.assurance),
        issuer_id=issuer_id,
        caps=(
            (max_lifetime, "the signer's settings"),
            (terms.max_lifetime, f"the rule {terms.rule!r}"),
            (issuer_not_after - start, "the end of the issuing authority"),
            (None if session_ends is None else session_ends - start, "the end of the session"),
        ),
        rule=terms.rule,
        now=now,
    )


def _certificate(
    enrolment: Enrolment,
    profile: Profile,
    *,
    request: CertificationRequest,
    lifetime: timedelta | None,
    assurance: int,
    issuer_id: str,
    caps: Iterable[tuple[timedelta | None, str]],
    rule: str,
    now: datetime,
) -> CertificateGrant | Refusal:
    if assurance < profile.min_assurance:
        return _assurance_too_low(assurance, profile.min_assurance)
    start = whole_seconds(now)
    granted = _lifetime(
        "certificate lifetime",
        requested=lifetime,
        default=profile.default_lifetime,
        caps=(
            (profile.max_lifetime, f"the {profile.name} profile"),
            (enrolment.max_lifetime, "the enrolment"),
            (None if enrolment.expires_at is None else enrolment.expires_at - start, "the end of the enrolment"),
            *caps,
        ),
    )
    if isinstance(granted, Refusal):
        return granted
    span, clamped = granted
    return CertificateGrant(
        principal=enrolment.principal,
        profile=profile,
        public_key=request.public_key,
        spki=request.spki,
        not_before=start - BACKDATE,
        not_after=start + span,
        assurance=assurance,
        issuer_id=issuer_id,
        ignored=request.asked,
        clamped=clamped,
        rule=rule,
        hosts=enrolment.hosts,
    )


def decide_token(
    *,
    peer: VerifiedPeer,
    enrolment: Enrolment | None,
    terms: Terms,
    rights: Iterable[EnrolledRight],
    request: TokenRequest,
    max_lifetime: timedelta,
    address: Address | None,
    now: datetime,
    user: Principal | None = None,
) -> TokenGrant | Refusal:
    """Decide on a token bound to the certificate of ``peer``; ``rights`` is everything its user may do (``held_rights``).

    ``user`` is on whose behalf ``peer`` asks, as a token shows that was handed over to it; ``None``: on its own.

    Refusals: ``not-enrolled``, ``principal-disabled``, ``enrolment-ended``, ``address-not-allowed``, ``assurance-too-low``,
    ``audience-unknown``, ``right-not-held``, ``key-cannot-delegate``, ``lifetime-invalid``, ``lifetime-exhausted``.
    """
    # 1. The enrolment is the user's, as it is now: what changed since the certificate was issued counts.
    user = user or peer.principal
    if enrolment is None or enrolment.principal != user:
        return _not_enrolled(user)
    if (refusal := suspended(enrolment, address, now)) is not None:
        return refusal
    assurance = min(peer.assurance, enrolment.assurance)
    least = leaf_profile(user.kind).min_assurance
    if assurance < least:
        return _assurance_too_low(assurance, least)
    # 2. Rights: those enrolled for the one service, narrowed by the wish.
    held = [right for right in rights if right.service == request.audience]
    if not held:
        return Refusal("audience-unknown", f"you hold no right at {request.audience!r}", "compare the name of the service")
    granted_rights = _narrow(held, request.rights)
    if isinstance(granted_rights, Refusal):
        return granted_rights
    # 3. Only an elliptic-curve key can sign the block that hands a token on.
    delegate_key = _delegate_key(peer.public_key) if request.delegations else None
    if request.delegations and delegate_key is None:
        return Refusal(
            "key-cannot-delegate",
            "only the holder of a P-256 key can delegate a token",
            "ask for a token that is not delegable, or log in with a P-256 key",
        )
    # 4. Time: never past the certificate it is bound to.
    start = whole_seconds(now)
    granted = _lifetime(
        "token lifetime",
        requested=request.lifetime,
        default=TOKEN_DEFAULT,
        caps=(
            (TOKEN_MAX, "the token profile"),
            (max_lifetime, "the signer's settings"),
            (enrolment.max_lifetime, "the enrolment"),
            (None if enrolment.expires_at is None else enrolment.expires_at - start, "the end of the enrolment"),
            (terms.max_lifetime, f"the rule {terms.rule!r}"),
            (peer.not_after - start, "the end of your certificate"),
        ),
    )
    if isinstance(granted, Refusal):
        return granted
    span, clamped = granted
    return TokenGrant(
        principal=user,
        audience=request.audience,
        rights=granted_rights,
        groups=_union(enrolment.groups, terms.groups),
        roles=_union(enrolment.roles, terms.roles),
        projects=_union(enrolment.projects, terms.projects),
        assurance=assurance,
        not_before=start - BACKDATE,
        expires_at=start + span,
        peer_fingerprint=peer.fingerprint,
        delegate_key=delegate_key,
        delegations=request.delegations,
        clamped=clamped,
        rule=terms.rule,
    )


def suspended(enrolment: Enrolment, address: Address | None, now: datetime) -> Refusal | None:
    """Why this principal gets nothing at all just now, if so."""
    if enrolment.disabled:
        return Refusal("principal-disabled", f"{enrolment.principal} is disabled", "ask the facility's administrator why")
    if enrolment.expires_at is not None and now >= enrolment.expires_at:
        return Refusal("enrolment-ended", f"the enrolment of {enrolment.principal} has ended", "have it enrolled again")
    if enrolment.networks and not any(address in network for network in enrolment.networks if address is not None):
        return Refusal(
            "address-not-allowed",
            f"{enrolment.principal} may not ask from this address",
            "ask from a network that its enrolment lists, or have the list changed",
        )
    return None


def _not_enrolled(principal: Principal) -> Refusal:
    return Refusal("not-enrolled", f"{principal} is not enrolled here", "ask the facility's administrator to enrol you")


def _union(own: tuple[str, ...], mapped: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*own, *mapped)))


def _assurance_too_low(assurance: int, least: int) -> Refusal:
    return Refusal(
        "assurance-too-low",
        f"your login has assurance {assurance}, at least {least} is needed",
        "log in with a stronger method, or at another identity provider",
    )


def _lifetime(
    what: str, *, requested: timedelta | None, default: timedelta, caps: Iterable[tuple[timedelta | None, str]]
) -> tuple[timedelta, Clamp | None] | Refusal:
    """The granted lifetime: the wish or the default, in whole seconds, cut to the smallest cap."""
    if requested is not None and requested < MIN_LIFETIME:
        return Refusal(
            "lifetime-invalid", f"a {what} is at least {in_words(MIN_LIFETIME)}", "ask for more, or leave the lifetime out"
        )
    cap, by = min(((cap, by) for cap, by in caps if cap is not None), key=lambda pair: pair[0])
    granted = timedelta(seconds=min(requested or default, cap) // timedelta(seconds=1))
    if granted < MIN_LIFETIME:
        return Refusal(
            "lifetime-exhausted",
            f"no {what} of {in_words(MIN_LIFETIME)} is left within {by}",
            "log in again; if it stays, tell the facility's administrator",
        )
    clamped = (
        Clamp(what=what, requested=requested, granted=granted, by=by) if requested is not None and requested > cap else None
    )
    return granted, clamped


def _narrow(held: list[EnrolledRight], wishes: tuple[Right, ...] | None) -> tuple[EnrolledRight, ...] | Refusal:
    """The intersection of what is held with what is wished, without repetitions.

    Every wish must meet something held: a token that silently lacks one of them would fail later, far from the cause.
    """
    if wishes is None:
        return minimal(held)
    met: list[EnrolledRight] = []
    for wish in wishes:
        found = [common for right in held if (common := intersection(right, wish))]
        if not found:
            return Refusal(
                "right-not-held",
                f"you may not {wish.operation} {wish.path} at {held[0].service}",
                "ask without rights to see what you hold",
            )
        met += found
    return minimal(met)


def _delegate_key(public_key: PublicKey) -> ec.EllipticCurvePublicKey | None:
    match public_key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return public_key
        case _:
            return None
