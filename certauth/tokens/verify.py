"""Verification: from a text to what a trusted issuer stated in it.

    1 size        the text is not longer than a token can be                        token-too-large
    2 form        it is a token in its one canonical spelling                       token-malformed, token-not-canonical, …
    3 structure   it follows profile fac/1 and cannot be expensive                  lint-…
    4 keys        its root key, and any attester's, is one we were told to trust    token-unknown-key, token-unknown-attester
    5 signatures  every link of the chain verifies from that key (by the engine)    token-signature
    6 issuer      the issuer it states is the one that key belongs to               token-issuer
    7 user        the user it states is of that issuer's domain                     token-user
    8 attesters   each vouches for groups that it may vouch for                     token-attestation

Whether the token allows a request (time, audience, certificate, narrowings, rights) is decided by
:func:`certauth.tokens.authorizer.evaluate`, on every request anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple

from biscuit_auth import Biscuit
from biscuit_auth import PublicKey as EngineKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certauth.clock import from_timestamp
from certauth.errors import TokenError
from certauth.names import TrustDomain
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode, from_text
from certauth.tokens.conditions import BodyDigest, Condition, Peer, Uses
from certauth.tokens.datalog import Check, KeyRef
from certauth.tokens.engine import engine_key, verify_signatures
from certauth.tokens.lint import Attestation, HandedOver, lint
from certauth.tokens.signing import link_ids
from certauth.tokens.vocabulary import Right

_FACILITY = "mint a new one; if it stays, tell the facility that issued it"
_STATEFUL = frozenset({Uses, BodyDigest})
_NOBODY: Mapping[KeyRef, TrustedAttester] = {}
_UNLIMITED: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedTokenKey:
    """A token root key, and for whom it may speak: one issuer, of one domain."""

    kid: str
    key: Ed25519PublicKey
    issuer: str
    domain: TrustDomain
    engine_key: EngineKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine_key", engine_key(self.key))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedAttester:
    """A key of another facility, and for which of its groups it may vouch: patterns, of which one has to match the whole name.

    ``*`` is any number of characters, nothing else is special.
    """

    key: KeyRef
    domain: TrustDomain
    groups: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = [".*".join(map(re.escape, pattern.split("*"))) for pattern in self.groups]
        object.__setattr__(self, "_pattern", re.compile("|".join(patterns)))

    def may_vouch_for(self, group: str) -> bool:
        """Whether ``group`` is one of its own."""
        return bool(self.groups) and self._pattern.fullmatch(group) is not None


class Member(NamedTuple):
    """A membership that a trusted attester vouches for. The group is the attester's, not the token's issuer's."""

    domain: TrustDomain
    group: str

    def __str__(self) -> str:
        return f"{self.domain}:{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedToken:
    """What a trusted issuer stated, and how holders narrowed it since. Says nothing yet about any request."""

    biscuit: Biscuit = field(repr=False)
    blocks: tuple[Block, ...] = field(repr=False)
    digest: str
    """SHA-256 of the token's bytes, in hex."""
    kid: str
    issuer: str
    domain: TrustDomain
    user: str
    jti: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    """The end the issuer set; a narrowing may be earlier."""
    audience: tuple[str, ...]
    assurance: int
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    projects: tuple[str, ...]
    rights: tuple[Right, ...]
    peer_fingerprint: str
    """The certificate it was issued to."""
    delegate_key: KeyRef | None
    """The key of that certificate, if it may hand the token over."""
    delegation_depth: int
    """How often it may be handed over in a row, as its issuer decided; 0 if it may not."""
    hand_overs: tuple[HandedOver, ...]
    """How it was handed over, in order."""
    delegated_to: tuple[str, ...]
    """The certificates it was handed over to, in order."""
    chain: tuple[str, ...]
    """Every certificate it was in the hands of, in order: the one it was issued to, then those."""
    peer: Peer
    """In whose hands it works now, and which key could hand it on."""
    holder: str
    """The certificate in whose hands it works."""
    members: tuple[Member, ...]
    """Groups of other facilities that trusted keys of theirs vouch for."""
    attestations: tuple[Attestation, ...] = field(repr=False)
    limits: Mapping[str, int] = field(repr=False)
    """How often it may be used, by the name of each counter."""
    body_sha256: frozenset[str] = field(repr=False)
    """The digests that the body of a request is asked to have; more than one cannot be met."""
    block_ids: tuple[str, ...]
    """The revocation id of every block."""

    @property
    def delegable(self) -> bool:
        """Whether its holder can still hand it over."""
        return self.peer.delegate_key is not None

    @property
    def makers(self) -> tuple[str | None, ...]:
        """For each block, the certificate in whose hands the token was when it was appended.

        ``None`` for the issuer's block and for attesters', which come from elsewhere.
        """
        makers: list[str | None] = [None]
        holder, handed_over = self.peer_fingerprint, {handed.block: handed.to.fingerprint for handed in self.hand_overs}
        elsewhere = {attestation.block for attestation in self.attestations}
        for number in range(1, len(self.block_ids)):
            makers.append(None if number in elsewhere else holder)
            holder = handed_over.get(number, holder)
        return tuple(makers)


def verify(
    unverified_token: str,
    roots: Mapping[str, TrustedTokenKey],
    *,
    attesters: Mapping[KeyRef, TrustedAttester] | None = _NOBODY,
) -> VerifiedToken:
    """Verify a token's text against the trusted root keys, by their ids. Raises ``TokenError`` with the codes above.

    ``attesters=None`` is for who lets nobody in with the token (to withdraw it, say): what others vouch for in it is not
    looked at, and it has no ``members``.
    """
    # 1, 2. Size before base64, form before structure.
    data = from_text(unverified_token)
    token = decode(data)
    # 3. The lint, before anything of the token reaches the engine.
    authority, hand_overs, attestations = linted = lint(token)
    # 4. The key id is an unsigned hint: it chooses among trusted keys, and cannot add one. Nor can a token name its attesters.
    root = roots.get(token.kid or "")
    if root is None:
        raise TokenError(
            "token-unknown-key",
            "the token is signed with a key that is not trusted here",
            hint="use a token of a facility that is trusted here; after a change of keys, mint a new one",
        )
    if attestations and attesters is not None and any(attestation.key not in attesters for attestation in attestations):
        raise TokenError(
            "token-unknown-attester",
            "a group in the token is vouched for by a key that is not trusted here",
            hint="use the token as it was before the other facility's answer was appended",
        )
    # 5. Signatures.
    biscuit = verify_signatures(data, root.engine_key)
    # 6, 7. Any trusted facility could otherwise speak in the name, or for the people, of every other.
    if authority.issuer != root.issuer:
        raise TokenError(
            "token-issuer", f"the key of {root.domain} signed a token in the name of another issuer", hint=_FACILITY
        )
    if authority.user.domain != root.domain:
        raise TokenError("token-user", f"{root.domain} does not speak for {authority.user}", hint=_FACILITY)
    # 8. What an attester may not vouch for, it does not vouch for; and who says such things is not to be believed the rest.
    members = () if attesters is None or not attestations else _members(attestations, attesters)
    stateful = [condition for block in token.contents for condition in block.checks if type(condition) in _STATEFUL]
    first, peer = authority.peer, linted.peer
    delegated_to = tuple([handed.to.fingerprint for handed in hand_overs]) if hand_overs else ()
    return VerifiedToken(
        biscuit=biscuit,
        blocks=token.contents,
        digest=sha256(data).hexdigest(),
        kid=root.kid,
        issuer=authority.issuer,
        domain=root.domain,
        user=str(authority.user),
        jti=authority.jti,
        issued_at=from_timestamp(authority.issued_at),
        not_before=from_timestamp(authority.not_before),
        expires_at=from_timestamp(authority.expires_at),
        audience=authority.audience,
        assurance=authority.assurance,
        groups=authority.groups,
        roles=authority.roles,
        projects=authority.projects,
        rights=authority.rights,
        peer_fingerprint=first.fingerprint,
        delegate_key=first.delegate_key,
        delegation_depth=0 if first.delegate_key is None else first.depth,
        hand_overs=hand_overs,
        delegated_to=delegated_to,
        chain=(first.fingerprint, *delegated_to),
        peer=peer,
        holder=peer.fingerprint,
        members=members,
        attestations=attestations,
        limits=_limits(stateful) if stateful else _UNLIMITED,
        body_sha256=frozenset([condition.sha256 for condition in stateful if isinstance(condition, BodyDigest)]),
        block_ids=link_ids(token),
    )


def _members(attestations: tuple[Attestation, ...], attesters: Mapping[KeyRef, TrustedAttester]) -> tuple[Member, ...]:
    members: dict[Member, None] = {}
    for attestation in attestations:
        attester = attesters[attestation.key]
        for group in attestation.groups:
            if not attester.may_vouch_for(group):
                raise TokenError(
                    "token-attestation",
                    f"a key of {attester.domain} vouches for a group that it may not vouch for",
                    hint="ask that facility which of its keys vouches for the group, and the owner of this service to name it",
                )
            members[Member(attester.domain, group)] = None
    return tuple(members)


def _limits(conditions: list[Condition | Check]) -> Mapping[str, int]:
    """The lowest limit of each counter: nobody can raise one by naming it again."""
    limits: dict[str, int] = {}
    for condition in conditions:
        if isinstance(condition, Uses):
            limits[condition.nonce] = min(condition.limit, limits.get(condition.nonce, condition.limit))
    return limits
