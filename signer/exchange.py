"""What a token that is shown for another one is worth (RFC 8693): never more than it is itself.

A narrowing that the new token could not repeat is a reason to refuse, not to forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from certauth.bundles import VerifiedPeer
from certauth.clock import from_timestamp
from certauth.enrolment import EnrolledRight, intersection, minimal
from certauth.errors import RequestError
from certauth.issuance import Refusal
from certauth.names import Principal
from certauth.requests import Right, canonical_path
from certauth.revocation import RevocationSet
from certauth.tokens import VerifiedToken
from certauth.tokens.conditions import Operations, Paths, Peer, Services, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """On whose behalf somebody asks, and the most that the new token may say."""

    user: Principal
    rights: tuple[EnrolledRight, ...]
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    projects: tuple[str, ...]
    assurance: int
    ends_with: tuple[tuple[str, str], ...]
    """What ends the new token as well when it is withdrawn: kind and value."""
    expires_at: datetime
    handed_over: bool


def subject_of(
    token: VerifiedToken, *, peer: VerifiedPeer, revocations: RevocationSet | None, now: datetime
) -> Subject | Refusal:
    """The worth of ``token`` in the hands of ``peer``; a refusal (``not-exchangeable``) if it has none there.

    ``revocations`` are those of the token's facility; without them nothing is exchanged.
    """
    if token.holder != peer.fingerprint:
        return not_exchangeable(
            "it is not in the hands of your certificate", "exchange a token that was issued or handed over to it"
        )
    if revocations is None or revocations.token(
        kid=token.kid,
        jti=token.jti,
        user=token.user,
        issued_at=token.issued_at,
        block_ids=token.block_ids,
        certificates=(token.peer_fingerprint, *(handed.to.fingerprint for handed in token.hand_overs)),
    ):
        return not_exchangeable("it was withdrawn", "ask for a new one")
    ends = usable_until(token)
    if not usable_from(token) <= now < ends:
        return not_exchangeable("it is not valid now", "ask for a new one")
    rights = narrowed_rights(token)
    if rights is None:
        return not_exchangeable("it was narrowed in a way that the new token could not repeat", "exchange a simpler token")
    certificates = (token.peer_fingerprint, *token.delegated_to)
    ends_with = [("kid", token.kid), ("jti", token.jti), *(("block", block) for block in token.block_ids)]
    return Subject(
        user=Principal.parse(token.user),
        rights=rights,
        groups=token.groups,
        roles=token.roles,
        projects=token.projects,
        assurance=token.assurance,
        ends_with=(*ends_with, *(("certificate", fingerprint) for fingerprint in certificates)),
        expires_at=ends,
        handed_over=bool(token.hand_overs),
    )


def usable_from(token: VerifiedToken) -> datetime:
    """When the last of the token's windows begins."""
    windows = [check for block in token.blocks for check in block.checks if isinstance(check, Window)]
    return from_timestamp(max(window.not_before or 0 for window in windows))


def usable_until(token: VerifiedToken) -> datetime:
    """When the first of the token's windows ends, the issuer's or a narrowing's."""
    return from_timestamp(min(check.before for block in token.blocks for check in block.checks if isinstance(check, Window)))


def narrowed_rights(token: VerifiedToken) -> tuple[EnrolledRight, ...] | None:
    """What is left of the token's rights after all its narrowings; ``None`` if some of them are not about rights and time."""
    rights = tuple(EnrolledRight(*right) for right in token.rights)
    handed_over = {handed.block for handed in token.hand_overs}
    for number, block in enumerate(token.blocks[1:], start=1):
        for check in block.checks:
            match check:
                case Paths(names) if not all(map(_is_canonical, names)):
                    return None  # a holder wrote it; whoever resolves dots or escapes would find another path
                case Operations(names):
                    rights = tuple(right for right in rights if right.operation in names)
                case Services(names):
                    rights = tuple(right for right in rights if right.service in names)
                case Paths(names):
                    rights = _below(rights, names)
                case Window():
                    pass  # from when to when was looked at already
                case Peer(fingerprint) if number in handed_over or fingerprint == token.holder:
                    pass  # in whose hands it is, too
                case _:
                    return None
    return minimal(list(rights))


def _is_canonical(path: str) -> bool:
    try:
        return canonical_path(path) == path
    except RequestError:
        return False


def _below(rights: tuple[EnrolledRight, ...], paths: tuple[str, ...]) -> tuple[EnrolledRight, ...]:
    """What of each right lies below one of ``paths``: as many steps as there are pairs, because holders append many checks."""
    met = (intersection(right, Right(right.operation, path)) for right in rights for path in paths)
    return tuple(dict.fromkeys(right for right in met if right is not None))


def not_exchangeable(why: str, hint: str | None) -> Refusal:
    """The refusal of a token that is worth nothing here."""
    return Refusal("not-exchangeable", f"the token cannot be exchanged: {why}", hint)
