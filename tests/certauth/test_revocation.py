"""The revocation feed on the wire, and the set a door looks things up in."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth import revocation
from certauth.bundles import VerifiedPeer, verify_peer
from certauth.encoding import b64url, canonical_json, from_b64url, strict_json
from certauth.errors import LogError
from certauth.keys import Algorithm, SoftwareKey, generate, key_id
from certauth.names import Kind, TrustDomain
from certauth.profiles import BACKDATE
from certauth.revocation import Feed, RevocationKind, RevocationSet, Revoked, open_feed, sign_feed
from tests.certauth.facility import NOW, Facility, der

ALS = TrustDomain.parse("als.example")
KEY = generate(Algorithm.ED25519)
AT = int(NOW.timestamp())
SECOND = timedelta(seconds=1)
ALICE = "spiffe://als.example/user/alice"


def revoked(kind: RevocationKind, value: str, **members: object) -> Revoked:
    """An entry with an ordinary reason."""
    return Revoked(kind=kind, value=value, reason="key lost", at=AT, **members)  # type: ignore[arg-type]  # by name


ENTRIES = (
    revoked(RevocationKind.CERTIFICATE, "a" * 64, expires_at=AT + 60),
    revoked(RevocationKind.JTI, "b" * 32),
    revoked(RevocationKind.BLOCK, "c" * 32),
    revoked(RevocationKind.PRINCIPAL, ALICE, before=AT),
    revoked(RevocationKind.KID, "d" * 8),
)
FEED = Feed(domain=ALS, sequence=7, issued_at=NOW, next_update=NOW + timedelta(minutes=10), entries=ENTRIES)


def opened(data: bytes, *, key: SoftwareKey = KEY, domain: TrustDomain = ALS, newest: int = 0, now=NOW) -> Feed:
    """Open as a door does."""
    return open_feed(data, key=key.public_key, domain=domain, newest_sequence=newest, now=now)  # type: ignore[arg-type]


def refused(data: bytes, **arguments: object) -> str:
    """The code with which a feed is refused."""
    with pytest.raises(LogError) as caught:
        opened(data, **arguments)  # type: ignore[arg-type]  # by name
    return caught.value.code


def forged(payload: object, *, key: SoftwareKey = KEY, context: bytes = b"certauth/v1 feed\x00") -> bytes:
    """A feed with a valid signature over any payload."""
    data = payload if isinstance(payload, bytes) else canonical_json(payload)  # type: ignore[arg-type]  # a mapping
    signature = key.sign(context + data)
    return canonical_json({"payload": b64url(data), "kid": key_id(key.public_key), "signature": b64url(signature)})


def payload(**members: object) -> dict[str, object]:
    """The payload of the ordinary feed with members replaced."""
    document = strict_json(from_b64url(strict_json(sign_feed(FEED, KEY))["payload"]))  # type: ignore[index, call-overload]
    return document | members  # type: ignore[operator, no-any-return]  # a mapping


def test_a_feed_survives_its_document() -> None:
    """Every kind of entry comes back as it was."""
    assert opened(sign_feed(FEED, KEY)) == FEED


def test_a_feed_is_signed_by_the_key_of_the_bundle() -> None:
    """A foreign key is refused, under its own id and under the id of ours."""
    other = generate(Algorithm.ED25519)
    assert refused(sign_feed(FEED, other)) == "feed-signature"
    envelope = strict_json(sign_feed(FEED, other))
    assert refused(canonical_json(envelope | {"kid": key_id(KEY.public_key)})) == "feed-signature"  # type: ignore[operator]


def test_what_the_key_signs_elsewhere_is_no_feed() -> None:
    """The signature covers a context, so another signed document of the same key cannot pose as a feed."""
    assert opened(forged(payload())) == FEED
    assert refused(forged(payload(), context=b"")) == "feed-signature"


def test_a_changed_byte_anywhere_is_refused() -> None:
    """No change of a published feed opens."""
    data = sign_feed(FEED, KEY)
    for position in range(len(data)):
        mutated = bytearray(data)
        mutated[position] ^= 1
        assert refused(bytes(mutated)) in {"feed-malformed", "feed-signature"}


def test_only_ed25519_signs_feeds() -> None:
    """A key of the wrong kind is noticed when signing, not by every door."""
    with pytest.raises(LogError, match="feed-key"):
        sign_feed(FEED, generate(Algorithm.P256))


def test_a_domain_withdraws_its_own_credentials_only() -> None:
    """A genuine feed of another domain, even under the same key, is refused."""
    assert refused(sign_feed(FEED, KEY), domain=TrustDomain.parse("ornl.example")) == "feed-domain"


def test_a_feed_never_goes_back() -> None:
    """An older sequence is refused, the same one and a newer one open."""
    data = sign_feed(FEED, KEY)
    assert refused(data, newest=8) == "feed-rollback"
    assert opened(data, newest=7) == opened(data, newest=6)


def test_a_feed_from_the_future_is_refused() -> None:
    """Within the tolerance for clocks it opens; beyond, it would stay fresh for as long as its author likes."""
    data = sign_feed(FEED, KEY)
    assert opened(data, now=NOW - revocation.CLOCK_SKEW) == FEED
    assert refused(data, now=NOW - revocation.CLOCK_SKEW - SECOND) == "feed-not-yet-valid"


def test_an_old_feed_opens_and_says_that_it_is_stale() -> None:
    """Old revocations are better than none; a door learns since when it is blind."""
    late = FEED.next_update
    known = RevocationSet(opened(sign_feed(FEED, KEY), now=late + timedelta(days=9)))
    assert known.stale_since(late - SECOND) is None
    assert known.stale_since(late) == late
    assert known.stale_since(late + timedelta(days=9)) == late


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"payload":"","kid":"00000000"}',
        b'{"payload":"","kid":"00000000","signature":"","more":1}',
        b'{"payload":"","kid":"not hex!","signature":""}',
        b'{"payload":1,"kid":"00000000","signature":""}',
        b'{"payload":"=","kid":"00000000","signature":""}',
        b'{"payload":"","payload":"","kid":"00000000","signature":""}',
        b"[" * 100_000,
    ],
)
def test_an_envelope_that_is_none_is_refused(data: bytes) -> None:
    """Whatever the bytes, the answer is one code."""
    assert refused(data) == "feed-malformed"


@pytest.mark.parametrize(
    "members",
    [
        {"v": 2},
        {"v": True},
        {"domain": "Not a domain"},
        {"domain": 1},
        {"sequence": -1},
        {"sequence": True},
        {"sequence": "7"},
        {"issued_at": "now"},
        {"issued_at": 253402300800},
        {"next_update": AT},
        {"next_update": 253402300800},
        {"next_update": 2**53 - 1},
        {"entries": {}},
        {"entries": ["x"]},
        {"entries": [5]},
        {"entries": [{"kind": "jti"}]},
        {"more": 1},
    ],
)
def test_a_signed_payload_is_still_checked(members: dict[str, object]) -> None:
    """A signature does not make sense of nonsense."""
    assert refused(forged(payload(**members))) == "feed-malformed"
    assert refused(forged(b"[]")) == "feed-malformed"


ENTRY = {"kind": "jti", "value": "b" * 32, "before": None, "expires_at": None, "reason": "", "at": AT}


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "everything"},
        {"kind": 1},
        {"value": "B" * 32},
        {"value": "b" * 15},
        {"value": "b" * 65},
        {"value": 1},
        {"value": "b" * 32 + "\n"},
        {"before": AT},
        {"kind": "principal", "value": ALICE},
        {"kind": "principal", "value": "alice", "before": AT},
        {"kind": "certificate"},
        {"kind": "kid"},
        {"before": "x"},
        {"expires_at": "x"},
        {"expires_at": -1},
        {"reason": "x" * 201},
        {"reason": None},
        {"at": None},
        {"more": 1},
    ],
)
def test_an_entry_that_could_match_nothing_is_refused(members: dict[str, object]) -> None:
    """A mistyped entry revokes nothing, so it must not pass silently."""
    assert opened(forged(payload(entries=[ENTRY]))).entries[0].value == "b" * 32
    assert refused(forged(payload(entries=[ENTRY | members]))) == "feed-malformed"


def test_entries_are_checked_where_they_are_made() -> None:
    """The signer's own code cannot publish what no door would open."""
    with pytest.raises(ValueError, match="certificate"):
        revoked(RevocationKind.CERTIFICATE, "A" * 64)
    with pytest.raises(ValueError, match="principal needs it"):
        revoked(RevocationKind.PRINCIPAL, ALICE)
    with pytest.raises(ValueError, match="principal"):
        revoked(RevocationKind.PRINCIPAL, "alice", before=1)


def test_a_feed_is_bounded() -> None:
    """Too large a document, and too many entries, are refused on both sides."""
    assert refused(b" " * (revocation.MAX_FEED + 1)) == "feed-too-large"
    many = [ENTRY | {"value": f"{i:032x}"} for i in range(revocation.MAX_ENTRIES + 1)]
    assert refused(forged(payload(entries=many))) == "feed-malformed"
    with pytest.raises(LogError, match="feed-too-large"):
        sign_feed(dataclasses.replace(FEED, entries=ENTRIES[1:2] * (revocation.MAX_ENTRIES + 1)), KEY)
    wordy = dataclasses.replace(ENTRIES[1], reason="\U0001f600" * revocation.MAX_REASON)
    with pytest.raises(LogError, match="feed-too-large"):
        sign_feed(dataclasses.replace(FEED, entries=(wordy,) * revocation.MAX_ENTRIES), KEY)


@given(st.binary(max_size=200))
def test_no_payload_raises_anything_else(data: bytes) -> None:
    """Signed garbage is refused with the same code."""
    assert refused(forged(data)) == "feed-malformed"


# --- look-ups -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer() -> VerifiedPeer:
    """Alice, verified a moment ago."""
    als = Facility()
    return verify_peer(der(als.leaf()), als.entries, now=NOW)


def known(*entries: Revoked) -> RevocationSet:
    """The set of these entries."""
    return RevocationSet(dataclasses.replace(FEED, entries=entries))


def test_a_certificate_is_found_by_its_fingerprint(peer: VerifiedPeer) -> None:
    """Exactly that certificate, and nothing else of the same holder."""
    entry = revoked(RevocationKind.CERTIFICATE, peer.fingerprint)
    assert known(entry).certificate(peer) == entry
    assert known(entry).certificate(dataclasses.replace(peer, fingerprint="0" * 64)) is None
    assert known(revoked(RevocationKind.CERTIFICATE, "a" * 64)).certificate(peer) is None
    assert known().certificate(peer) is None


@pytest.mark.parametrize(("kind", "backdate"), [(Kind.USER, BACKDATE), (Kind.AGENT, BACKDATE), (Kind.SERVICE, timedelta(0))])
def test_a_principals_certificates_die_up_to_the_moment(peer: VerifiedPeer, kind: Kind, backdate: timedelta) -> None:
    """Issued at or before the moment is dead; logging in again afterwards works at once."""
    principal = dataclasses.replace(peer.principal, kind=kind)
    entry = revoked(RevocationKind.PRINCIPAL, str(principal), before=AT)
    for offset, dead in ((-SECOND, True), (timedelta(0), True), (SECOND, False)):
        changed = dataclasses.replace(peer, principal=principal, not_before=NOW + offset - backdate)
        assert (known(entry).certificate(changed) == entry) is dead
    other = dataclasses.replace(peer, principal=dataclasses.replace(principal, id="bob"))
    assert known(entry).certificate(other) is None


def test_the_furthest_reaching_entry_of_a_principal_counts(peer: VerifiedPeer) -> None:
    """An older entry after a newer one does not shorten it."""
    newer, older = (revoked(RevocationKind.PRINCIPAL, ALICE, before=AT + shift) for shift in (10, -1000))
    for entries in ((newer, older), (older, newer)):
        assert known(*entries).certificate(peer) == newer


def test_a_token_is_found_by_each_of_its_names() -> None:
    """Key, id, any block, and holder."""

    def look(*entries: Revoked, issued=NOW) -> Revoked | None:
        blocks = ("1" * 32, "c" * 32, "2" * 32)
        names = {"kid": "d" * 8, "jti": "b" * 32, "user": ALICE, "block_ids": blocks, "certificates": ("a" * 64, "f" * 64)}
        return known(*entries).token(issued_at=issued, **names)

    for entry in ENTRIES:
        assert look(entry) == entry
    assert look(revoked(RevocationKind.CERTIFICATE, "f" * 64)) is not None
    assert look(revoked(RevocationKind.CERTIFICATE, "e" * 64)) is None
    assert look(ENTRIES[3], issued=NOW + SECOND) is None
    for kind, value in ((RevocationKind.JTI, "e" * 32), (RevocationKind.BLOCK, "b" * 32), (RevocationKind.KID, "e" * 8)):
        assert look(revoked(kind, value)) is None
    assert look(revoked(RevocationKind.PRINCIPAL, ALICE + "2", before=AT)) is None


def test_the_widest_withdrawal_is_told() -> None:
    """Of several that cover a token, the root key's comes first, then its user's, a certificate's, the token's, a block's."""
    names = {"kid": "0" * 8, "jti": "b" * 16, "user": ALICE, "block_ids": ("c" * 32,), "certificates": ("d" * 64, "e" * 64)}
    entries = [
        Revoked(kind=RevocationKind.KID, value="0" * 8, reason="x", at=1),
        Revoked(kind=RevocationKind.PRINCIPAL, value=ALICE, before=int(NOW.timestamp()), reason="x", at=1),
        Revoked(kind=RevocationKind.CERTIFICATE, value="e" * 64, reason="x", at=1),
        Revoked(kind=RevocationKind.JTI, value="b" * 16, reason="x", at=1),
        Revoked(kind=RevocationKind.BLOCK, value="c" * 32, reason="x", at=1),
    ]
    while entries:
        found = RevocationSet.of(reversed(entries)).token(issued_at=NOW, **names)  # type: ignore[arg-type]  # a shorthand
        assert found == entries.pop(0)


def test_a_short_token_id_can_be_revoked() -> None:
    """Ids of eight random bytes are names too."""
    entry = revoked(RevocationKind.JTI, "b" * 16)
    assert known(entry).token(kid="0" * 8, jti="b" * 16, user=ALICE, issued_at=NOW, block_ids=(), certificates=()) == entry


def test_a_set_has_a_size_and_a_generation() -> None:
    """Caches key on the generation, which is the feed's sequence."""
    assert (len(RevocationSet(FEED)), RevocationSet(FEED).generation) == (5, 7)
    assert len(known()) == 0
