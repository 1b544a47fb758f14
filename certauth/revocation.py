"""Withdrawing credentials: a signed feed that a signer publishes, and the set a door looks things up in.

A feed is complete, not incremental: whoever has the newest one knows everything that is revoked and not yet expired. Its
sequence never goes back, so an attacker on the wire cannot replay yesterday's; its ``next_update`` tells a door when to
distrust silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certauth.bundles import VerifiedPeer
from certauth.clock import from_timestamp, rfc3339
from certauth.encoding import b64url, canonical_json, from_b64url, strict_json
from certauth.errors import CertauthError, LogError
from certauth.keys import Algorithm, SigningKey, key_id
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import BACKDATE

MAX_FEED = 32 * 1024 * 1024
"""Bytes of a signed feed."""
MAX_ENTRIES = 50_000
MAX_REASON = 200
"""Characters of a reason."""
CLOCK_SKEW = timedelta(seconds=60)
"""How far in the future a feed may say it was issued."""

_CONTEXT = b"certauth/v1 feed\x00"
_PAYLOAD_MEMBERS = {"v", "domain", "sequence", "issued_at", "next_update", "entries"}
_ENTRY_MEMBERS = {"kind", "value", "before", "expires_at", "reason", "at"}
_HEX = {
    "certificate": re.compile(r"[0-9a-f]{64}"),
    "jti": re.compile(r"[0-9a-f]{16,64}"),
    "block": re.compile(r"[0-9a-f]{32}"),
    "kid": re.compile(r"[0-9a-f]{8}"),
}


class RevocationKind(StrEnum):
    """What an entry names."""

    CERTIFICATE = "certificate"
    """One certificate: hex SHA-256 of its DER."""
    JTI = "jti"
    """One token and everything derived from it."""
    BLOCK = "block"
    """One block of a token, and everything derived from it: the id that ``certauth.tokens`` gives it."""
    PRINCIPAL = "principal"
    """Every credential of a principal issued at or before ``before``."""
    KID = "kid"
    """Every token under one root key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """One withdrawal. Times are POSIX seconds."""

    kind: RevocationKind
    value: str
    before: int | None = None
    """For a principal: everything issued at or before this moment is dead."""
    expires_at: int | None = None
    """When the credential would have ended by itself and this entry can be forgotten; ``None`` for never."""
    reason: str
    at: int

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the entry can match something: any other would revoke nothing, silently."""
        kind = RevocationKind(self.kind)
        if kind == RevocationKind.PRINCIPAL:
            try:
                Principal.parse(self.value)
            except CertauthError as error:
                raise ValueError(error.message) from error
        elif not _HEX[kind].fullmatch(self.value):
            raise ValueError(f"not the name of a {kind}")
        if (self.before is None) is (kind is RevocationKind.PRINCIPAL):
            raise ValueError("'before' belongs to a principal, and a principal needs it")
        if len(self.reason) > MAX_REASON:
            raise ValueError("the reason is too long")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Everything a trust domain has withdrawn, as of ``issued_at``."""

    domain: TrustDomain
    sequence: int
    issued_at: datetime
    next_update: datetime
    """By then a newer feed exists; after it, silence may be an attack."""
    entries: tuple[Revoked, ...]


def sign_feed(feed: Feed, key: SigningKey) -> bytes:
    """The feed as published: canonical JSON in base64url, the id of the key, and its Ed25519 signature.

    Raises ``LogError`` (``feed-key``, ``feed-too-large``) instead of publishing what no door would open.
    """
    if key.algorithm is not Algorithm.ED25519:
        raise LogError(
            "feed-key",
            "feeds are signed by an Ed25519 key",
            hint="the facility has to name an Ed25519 key for its feed in its bundle",
        )
    payload = canonical_json(
        {
            "v": 1,
            "domain": str(feed.domain),
            "sequence": feed.sequence,
            "issued_at": int(feed.issued_at.timestamp()),
            "next_update": int(feed.next_update.timestamp()),
            "entries": [
                {
                    "kind": str(entry.kind),
                    "value": entry.value,
                    "before": entry.before,
                    "expires_at": entry.expires_at,
                    "reason": entry.reason,
                    "at": entry.at,
                }
                for entry in feed.entries
            ],
        }
    )
    signature = key.sign(_CONTEXT + payload)
    data = canonical_json({"payload": b64url(payload), "kid": key_id(key.public_key), "signature": b64url(signature)})
    if len(feed.entries) > MAX_ENTRIES or len(data) > MAX_FEED:
        raise LogError(
            "feed-too-large",
            f"a feed has at most {MAX_ENTRIES} entries and {MAX_FEED} bytes",
            hint="ask the facility why its feed is so long",
        )
    return data


def open_feed(data: bytes, *, key: Ed25519PublicKey, domain: TrustDomain, newest_sequence: int, now: datetime) -> Feed:
    """Verify and read a feed.

    A feed past its ``next_update`` still opens: knowing old revocations is better than knowing none, and
    :meth:`RevocationSet.stale_since` says that it is old. Raises ``LogError``: ``feed-too-large``, ``feed-malformed``,
    ``feed-signature``, ``feed-domain``, ``feed-rollback``, ``feed-not-yet-valid``.
    """
    # 1. Size, then the envelope.
    if len(data) > MAX_FEED:
        raise LogError(
            "feed-too-large", f"a revocation feed has at most {MAX_FEED} bytes", hint="ask the facility why its feed is so long"
        )
    try:
        payload, kid, signature = _envelope(data)
    except ValueError as error:
        raise _malformed() from error
    # 2. The signature, before anything inside is believed. The context keeps other things this key signs from being feeds.
    if kid != key_id(key):
        raise LogError(
            "feed-signature",
            f"the feed is signed by key {kid}, not by {key_id(key)} of the trust bundle",
            hint="get the facility's current bundle, and compare the address of the feed",
        )
    try:
        key.verify(signature, _CONTEXT + payload)
    except InvalidSignature as error:
        raise LogError(
            "feed-signature",
            "the feed is not signed by the key of the trust bundle",
            hint="get the facility's current bundle, and compare the address of the feed",
        ) from error
    try:
        feed = _payload(payload)
    except (ValueError, CertauthError) as error:
        raise _malformed() from error
    # 3. Whose it is. Each domain withdraws its own credentials and nobody else's.
    if feed.domain != domain:
        raise LogError(
            "feed-domain",
            f"this is the feed of {feed.domain}, not of {domain}",
            hint="compare the address of the feed with the facility it is configured for",
        )
    # 4. Never back: a replayed old feed would resurrect what was revoked since.
    if feed.sequence < newest_sequence:
        raise LogError(
            "feed-rollback",
            f"feed {feed.sequence} is older than {newest_sequence}, already seen",
            hint="an older feed brings withdrawn credentials back to life: find out who serves it",
        )
    # 5. A feed from the future would stay "fresh" for as long as its author likes.
    if feed.issued_at > now + CLOCK_SKEW:
        raise LogError(
            "feed-not-yet-valid",
            f"the feed says it was issued {rfc3339(feed.issued_at)}: compare the clocks",
            hint="set both clocks by the same time servers",
        )
    return feed


def _malformed() -> LogError:
    return LogError(
        "feed-malformed",
        "this is not a revocation feed",
        hint="compare the address of the feed; if it is right, tell the facility",
    )


def _envelope(data: bytes) -> tuple[bytes, str, bytes]:
    match strict_json(data):
        case {"payload": str(payload), "kid": str(kid), "signature": str(signature), **rest} if not rest:
            if not _HEX["kid"].fullmatch(kid):
                raise ValueError("not a key id")
            return from_b64url(payload), kid, from_b64url(signature)
    raise ValueError("not an envelope")


def _payload(payload: bytes) -> Feed:
    document = strict_json(payload)
    if not isinstance(document, dict) or set(document) != _PAYLOAD_MEMBERS or _integer(document["v"]) != 1:
        raise ValueError("not a feed")
    entries = document["entries"]
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise ValueError("not a list of entries, or too many")
    feed = Feed(
        domain=TrustDomain.parse(_text(document["domain"])),
        sequence=_integer(document["sequence"]),
        issued_at=_moment(document["issued_at"]),
        next_update=_moment(document["next_update"]),
        entries=tuple(_entry(entry) for entry in entries),
    )
    if feed.next_update <= feed.issued_at:
        raise ValueError("the next update lies before the feed")
    return feed


def _entry(entry: object) -> Revoked:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_MEMBERS:
        raise ValueError("not an entry")
    return Revoked(
        kind=RevocationKind(_text(entry["kind"])),
        value=_text(entry["value"]),
        before=None if entry["before"] is None else _integer(entry["before"]),
        expires_at=None if entry["expires_at"] is None else _integer(entry["expires_at"]),
        reason=_text(entry["reason"]),
        at=_integer(entry["at"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")  # noqa: TRY004 - one error type for every malformed document
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError("not a count or a time")
    return value


def _moment(value: object) -> datetime:
    return from_timestamp(_integer(value))  # ValueError from the year 10000


class RevocationSet:
    """What is revoked, ready for look-ups in constant time. Immutable: a newer feed makes a newer set."""

    __slots__ = ("_entries", "_principals", "generation", "next_update")

    def __init__(self, feed: Feed) -> None:
        self.generation = feed.sequence
        """Changes whenever the content may have changed; caches of decisions carry it in their key."""
        self.next_update = feed.next_update
        self._entries: Mapping[tuple[RevocationKind, str], Revoked] = {
            (entry.kind, entry.value): entry for entry in feed.entries if entry.kind != RevocationKind.PRINCIPAL
        }
        self._principals = _latest(entry for entry in feed.entries if entry.kind == RevocationKind.PRINCIPAL)

    @classmethod
    def of(cls, entries: Iterable[Revoked]) -> RevocationSet:
        """A set of entries that are not a feed: never stale, generation 0."""
        forever = from_timestamp(253_402_300_799)
        nobody = TrustDomain("none")
        return cls(Feed(domain=nobody, sequence=0, issued_at=from_timestamp(0), next_update=forever, entries=tuple(entries)))

    def __len__(self) -> int:
        return len(self._entries) + len(self._principals)

    def stale_since(self, now: datetime) -> datetime | None:
        """Since when a newer feed should have been here; ``None`` while this one is current."""
        return self.next_update if now >= self.next_update else None

    def certificate(self, peer: VerifiedPeer) -> Revoked | None:
        """The entry that withdraws this certificate, if any."""
        found = self.named(RevocationKind.CERTIFICATE, peer.fingerprint)
        return found or self._principal(str(peer.principal), _issued_at(peer))

    def token(
        self,
        *,
        kid: str,
        jti: str,
        user: str,
        issued_at: datetime,
        block_ids: Iterable[str],
        certificates: Iterable[str],
    ) -> Revoked | None:
        """The entry that withdraws this token, if any, widest first; ``user`` is the principal's URI.

        ``certificates`` are the fingerprints it was issued and handed over to. One of them withdrawn ends the token, because
        whoever stole that certificate's key may have signed the handing over.
        """
        if found := self.named(RevocationKind.KID, kid) or self._principal(user, issued_at):
            return found
        for certificate in certificates:
            if found := self.named(RevocationKind.CERTIFICATE, certificate):
                return found
        if found := self.named(RevocationKind.JTI, jti):
            return found
        for block in block_ids:
            if found := self.named(RevocationKind.BLOCK, block):
                return found
        return None

    def named(self, kind: RevocationKind, value: str) -> Revoked | None:
        """The entry for exactly this name, if any; not for principals, which are withdrawn as of a moment."""
        return self._entries.get((kind, value))

    def _principal(self, uri: str, issued_at: datetime) -> Revoked | None:
        entry = self._principals.get(uri)
        if entry is None or entry.before is None or int(issued_at.timestamp()) > entry.before:
            return None
        return entry


def _latest(entries: Iterable[Revoked]) -> dict[str, Revoked]:
    """Of several entries for one principal, the one that reaches furthest."""
    latest: dict[str, Revoked] = {}
    for entry in sorted(entries, key=lambda entry: entry.before or 0):
        latest[entry.value] = entry
    return latest


def _issued_at(peer: VerifiedPeer) -> datetime:
    """When a certificate was issued, at the latest that its dates allow to believe.

    People's and agents' certificates are back-dated by exactly ``BACKDATE``; without adding it, whoever logs in again right
    after a revocation would be refused for a minute. Others have dates of the facility's choosing and get no such credit.
    """
    return peer.not_before + BACKDATE if peer.principal.kind in {Kind.USER, Kind.AGENT} else peer.not_before
