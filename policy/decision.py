"""Step 5, decision: request x certificate x token x rules -> ``Permit`` or ``Deny``, and nothing else.

``decide`` is pure: time, trust and the outcomes of the two verifications are arguments. It goes through these checks in this
order and stops at the first that fails, so what a denial says is what has to be mended first:

    1 route         a route of ``policy.toml`` takes the request
    2 certificate   the client presented one; it leads to the bundle of its trust domain, is in its time and not withdrawn
    3 freshness     what we know of that domain's withdrawals is fresh enough for this operation
    4 token         the request carries one, signed by a trusted key, in its time and not withdrawn
    5 freshness     as 3, for the domain that minted the token
    6 binding       the token works for this certificate: minted for it, or delegated to it with the holder's key
    7 rights        the token's rights, and every narrowing in it, allow this operation on this resource, here and now
    8 requirements  what the route demands of principal, assurance, groups, roles, projects and members; and at last, that
                    the credentials last as long as the route takes

A public route ends after 1. A certificate route leaves out 4 to 7: it admits by who asks. A denial is an answer, not an error,
and nobody can mistake one for a permit: neither has a truth value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, NoReturn, assert_never

from certauth.bundles import VerifiedPeer
from certauth.errors import ChainError, RevokedError, TokenError
from certauth.names import TrustDomain
from certauth.tokens.authorizer import Allowed, NotAllowed, evaluate
from certauth.tokens.verify import VerifiedToken
from policy.feeds import Standing
from policy.request import AccessRequest, RequestKind
from policy.rules import Access, Policy, Requirement, Route
from policy.shortage import HINT, TOO_SHORT, UNPROCESSABLE, shortage
from policy.trust import TrustState

UNAUTHENTICATED, FORBIDDEN, UNAVAILABLE = 401, 403, 503
_OTHER_TOKEN = frozenset({"token-expired", "token-not-yet-valid", "token-audience", "token-binding"})
"""What is wrong with the token itself rather than with what it is used for (RFC 6750 §3.1 ``invalid_token``)."""
MAX_SHOWN = 256
"""Characters of a path that a denial repeats."""
READ = "read"
"""The one operation that goes on for some time while revocations are stale."""


class Check(StrEnum):
    """The checks, in the order in which they are made."""

    ROUTE = "route"
    CERTIFICATE = "certificate"
    FRESHNESS = "freshness"
    TOKEN = "token"  # noqa: S105 - the name of a check, not a credential
    BINDING = "binding"
    RIGHTS = "rights"
    REQUIREMENTS = "requirements"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The request may go on. ``held`` are the checks that were made, in order."""

    held: tuple[Check, ...]
    route: Route
    peer: VerifiedPeer | None
    token: VerifiedToken | None

    def __bool__(self) -> NoReturn:
        raise TypeError("a decision has no truth value: match on Permit and Deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The request must not go on. ``held`` are the checks before the failed one, ``reasons`` what was wrong with that."""

    code: str
    reasons: tuple[str, ...]
    status: int
    """The HTTP status to answer with: 401 present (another) credential, 403 not with this one, 422 not with one that ends so
    soon, 503 cannot tell now."""
    hint: str | None = None
    held: tuple[Check, ...] = ()
    route: Route | None = None
    peer: VerifiedPeer | None = None
    token: VerifiedToken | None = None
    members: tuple[tuple[str, int], ...] = ()
    """Further members of the answer, for programs."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a decision has no truth value: match on Permit and Deny")


Decision = Permit | Deny

PeerOutcome = VerifiedPeer | ChainError | RevokedError | None
"""What ``PeerVerifier`` returned or raised; ``None`` if no certificate was presented."""
TokenOutcome = VerifiedToken | TokenError | RevokedError | None
"""What ``TokenVerifier`` returned or raised; ``None`` if no token was found."""


class _Here(NamedTuple):
    """What is known of this request besides what it says."""

    now: datetime
    counts: bool
    body_sha256: str | None
    begun: bool


@dataclass(slots=True)
class _Seen:
    """How far a request has come, so that a denial can say it."""

    held: list[Check] = field(default_factory=list)
    route: Route | None = None
    peer: VerifiedPeer | None = None
    token: VerifiedToken | None = None


class _Denied(Exception):
    """A check failed. Leaves this module as a ``Deny`` only."""

    def __init__(
        self, code: str, *reasons: str, status: int, hint: str | None = None, members: tuple[tuple[str, int], ...] = ()
    ) -> None:
        super().__init__(code)
        self.code, self.reasons, self.status, self.hint, self.members = code, reasons, status, hint, members


def decide(
    *,
    request: AccessRequest,
    policy: Policy,
    state: TrustState,
    peer: PeerOutcome,
    token: TokenOutcome,
    now: datetime,
    counts: bool = False,
    body_sha256: str | None = None,
    begun: bool = False,
) -> Decision:
    """Decide a request. ``peer`` and ``token`` are what their verification under ``state`` at ``now`` came to.

    ``counts`` says that a use of the token will be counted after this decision, which is one about an unused token then; else a
    token with limited uses is denied. ``body_sha256`` is the digest of the request's body, if it is known. ``begun`` is for a
    request that was permitted before and is still open: how long it may take was asked then, for the whole of it.

    Raises ``UnavailableError`` (``decision-limit``) if the token could not be evaluated within the engine's limits: that says
    something about this machine, or about an abuse of it, and nothing about the right asked for. Raises ``TokenError``
    (``token-unusable``) if the engine broke on it. Neither is a permit.
    """
    seen = _Seen()
    try:
        return _permit(seen, request, policy, state, peer, token, _Here(now, counts, body_sha256, begun))
    except _Denied as denied:
        return Deny(
            code=denied.code,
            reasons=denied.reasons,
            status=denied.status,
            hint=denied.hint,
            held=tuple(seen.held),
            route=seen.route,
            peer=seen.peer,
            token=seen.token,
            members=denied.members,
        )


def _permit(
    seen: _Seen,
    request: AccessRequest,
    policy: Policy,
    state: TrustState,
    peer: PeerOutcome,
    token: TokenOutcome,
    here: _Here,
) -> Permit:
    """All checks in order; returns only if every one of them holds."""
    # 1. Route: what nobody has written a rule for is nobody's business.
    route = policy.match(request)
    if route is None:
        raise _Denied("no-route", f"no route of this service takes {_asked(request)}", status=FORBIDDEN)
    seen.route = route
    seen.held.append(Check.ROUTE)
    if route.access is Access.PUBLIC:
        return Permit(held=tuple(seen.held), route=route, peer=None, token=None)
    operation = route.operation_of(request)
    # 2. Certificate, 3. freshness of what its domain has withdrawn.
    holder = seen.peer = _verified_peer(peer)
    seen.held.append(Check.CERTIFICATE)
    _check_freshness(holder.principal.domain, operation, state, here.now)
    seen.held.append(Check.FRESHNESS)
    if route.access is Access.TOKEN:
        # 4. Token, 5. freshness for the domain that minted it.
        grant = seen.token = _verified_token(token)
        seen.held.append(Check.TOKEN)
        _check_freshness(grant.domain, operation, state, here.now)
        # 6. Binding, 7. rights.
        _check_binding(grant, holder)
        seen.held.append(Check.BINDING)
        _check_rights(grant, holder, policy.service, operation, route.resource(request.path), request.client_address, here)
        seen.held.append(Check.RIGHTS)
    # 8. Requirements.
    _check_requirements(route.require, holder, seen.token, state)
    if not here.begun:
        _check_remaining(route, holder, seen.token, here.now)
    seen.held.append(Check.REQUIREMENTS)
    return Permit(held=tuple(seen.held), route=route, peer=holder, token=seen.token)


def _verified_peer(peer: PeerOutcome) -> VerifiedPeer:
    match peer:
        case VerifiedPeer():
            return peer
        case None:
            raise _Denied(
                "certificate-required", "the client presented no certificate", status=UNAUTHENTICATED, hint="certauth login"
            )
        case ChainError() | RevokedError():
            raise _Denied(peer.code, peer.message, status=UNAUTHENTICATED, hint=peer.hint)
        case _:
            assert_never(peer)


def _verified_token(token: TokenOutcome) -> VerifiedToken:
    match token:
        case VerifiedToken():
            return token
        case None:
            raise _Denied("token-required", "the request carries no token", status=UNAUTHENTICATED, hint="certauth token mint")
        case TokenError() | RevokedError():
            raise _Denied(token.code, token.message, status=UNAUTHENTICATED, hint=token.hint)
        case _:
            assert_never(token)


def _check_freshness(domain: TrustDomain, operation: str, state: TrustState, now: datetime) -> None:
    """A door that cannot know of revocations must not act as if there were none; reading may bridge a short outage."""
    match state.standing(domain, now):
        case Standing.FRESH:
            return
        case Standing.UNKNOWN:
            raise _Denied(
                "revocations-unknown",
                f"nothing recent enough is known of what {domain} has withdrawn",
                status=UNAVAILABLE,
                hint="try again soon",
            )
        case Standing.STALE:
            if operation != READ:
                raise _Denied(
                    "revocations-stale",
                    f"the revocation feed of {domain} is too old for {operation}; only {READ} goes on",
                    status=UNAVAILABLE,
                    hint="try again soon",
                )
        case other:
            assert_never(other)


def _check_binding(token: VerifiedToken, peer: VerifiedPeer) -> None:
    """The token must name this certificate itself.

    Every token of ours holds a check that says so, and the engine evaluates it. This looks at the same from outside, so that a
    token minted without the check does not become a bearer token.
    """
    if peer.fingerprint != token.holder:
        raise _Denied(
            "token-binding",
            f"the token works for certificate {token.holder[:16]}, the client has {peer.fingerprint[:16]}",
            status=UNAUTHENTICATED,
            hint="a token works only for the certificate it was minted for or delegated to",
        )


def _check_rights(
    token: VerifiedToken,
    peer: VerifiedPeer,
    service: str,
    operation: str,
    resource: str,
    client_address: str | None,
    here: _Here,
) -> None:
    """The engine's word on the token's rights and on every check in every block."""
    outcome = evaluate(
        token,
        now=here.now,
        service=service,
        operation=operation,
        path=resource,
        peer_fingerprint=peer.fingerprint,
        client_address=client_address,
        uses=dict.fromkeys(token.limits, 0) if here.counts else None,
        body_sha256=here.body_sha256,
    )
    match outcome:
        case Allowed():
            return
        case NotAllowed(failed):
            # What another token would mend is told before what no token of this holder would.
            first = next((check for check in failed if check.code in _OTHER_TOKEN), failed[0])
            status = UNAUTHENTICATED if first.code in _OTHER_TOKEN else FORBIDDEN
            raise _Denied(first.code, *(check.words for check in failed), status=status)
        case _:
            assert_never(outcome)


def _check_requirements(require: Requirement, peer: VerifiedPeer, token: VerifiedToken | None, state: TrustState) -> None:
    """Who is asked about: with a token, the user whose rights it carries; without, the holder of the certificate.

    A token in delegated hands is worth no more than the weaker of the two: its assurance is the lower one.
    """
    if token is None:
        principal, assurance = str(peer.principal), peer.assurance
    else:
        ceiling = state.entries[token.domain].assurance_ceiling
        principal, assurance = token.user, min(peer.assurance, token.assurance, ceiling)
    if not require.admits(principal):
        raise _Denied("principal-not-allowed", f"the route does not admit {principal}", status=FORBIDDEN)
    if assurance < require.assurance:
        raise _Denied(
            "assurance-too-low",
            f"the route asks for assurance {require.assurance}, the request has {assurance}",
            status=FORBIDDEN,
            hint="log in with a stronger proof of identity",
        )
    if token is None:
        return
    held = (token.groups, token.roles, token.projects, map(str, token.members))
    wanted = (require.groups_any, require.roles_any, require.projects_any, require.members_any)
    for what, wants, has in zip(("group", "role", "project", "member"), wanted, held, strict=True):
        if wants and wants.isdisjoint(has):
            raise _Denied(
                f"{what}-required", f"the route asks for one of the {what}s {', '.join(sorted(wants))}", status=FORBIDDEN
            )


def _check_remaining(route: Route, peer: VerifiedPeer, token: VerifiedToken | None, now: datetime) -> None:
    """Rather refused now than cut off after hours of work."""
    if route.min_remaining is None:
        return
    short = shortage(route.min_remaining, peer=peer, token=token, now=now)
    if short is not None:
        raise _Denied(TOO_SHORT, str(short), status=UNPROCESSABLE, hint=HINT, members=short.members)


def _asked(request: AccessRequest) -> str:
    return f"{'WEBSOCKET' if request.kind is RequestKind.WEBSOCKET else request.method} {request.path[:MAX_SHOWN]}"
