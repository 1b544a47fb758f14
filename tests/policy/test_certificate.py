from __future__ import annotations

import os
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certauth.bundles import TrustEntry, VerifiedPeer
from certauth.certificates import make_intermediate, make_leaf, random_serial
from certauth.errors import CertauthError, ChainError, RevokedError
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm, generate, spki
from certauth.names import Kind, Principal
from certauth.profiles import USER
from certauth.revocation import RevocationKind
from policy import certificate
from policy.certificate import PeerVerifier
from policy.testing import Facility
from policy.trust import Trust
from tests.policy.door import START, HandClock


def verify(verifier: PeerVerifier, chain: tuple[bytes, ...], clock: HandClock) -> VerifiedPeer:
    """The peer of a chain, now."""
    return verifier.verify(chain, now=clock())


def refused(verifier: PeerVerifier, chain: tuple[bytes, ...], clock: HandClock) -> CertauthError:
    """The error with which a chain is refused now."""
    with pytest.raises((ChainError, RevokedError)) as caught:
        verify(verifier, chain, clock)
    return caught.value


def test_a_peer_is_who_its_certificate_says_and_the_work_is_done_once() -> None:
    """A chain that leads to the bundle is verified once and remembered for its exact bytes."""
    clock = HandClock()
    facility = Facility("als.example", clock=clock)
    alice = facility.peer("alice")
    verifier = PeerVerifier(facility.trust())
    peer = verify(verifier, alice.chain_der, clock)
    assert peer.principal == alice.principal
    assert peer.fingerprint == alice.fingerprint
    assert verify(verifier, alice.chain_der, clock) is peer
    assert verify(verifier, alice.chain_der[:1], clock) is not peer


def test_a_long_chain_is_remembered_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers choose what they present: of more than a few certificates, only the digest is kept, of exactly these bytes."""
    monkeypatch.setattr(certificate, "MAX_KEPT", 0)
    clock = HandClock()
    facility = Facility(clock=clock)
    alice, bob = facility.peer("alice"), facility.peer("bob")
    trust = facility.trust()
    verifier = PeerVerifier(trust)
    peer = verify(verifier, alice.chain_der, clock)
    assert verify(verifier, alice.chain_der, clock) is peer
    assert verify(verifier, bob.chain_der, clock).principal == bob.principal
    assert verify(verifier, alice.chain_der[:1], clock) is not peer
    assert verifier.path_ends(alice.chain_der, state=trust.state) == peer.not_after
    assert verifier.path_ends(facility.peer("carol").chain_der, state=trust.state) is None


def test_a_remembered_peer_ends_with_its_certificate() -> None:
    """A connection that outlives the certificate is refused from that second on, cached or not."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice = facility.peer("alice", lifetime=timedelta(hours=1))
    verifier = PeerVerifier(facility.trust())
    verify(verifier, alice.chain_der, clock)
    clock.forward(seconds=3599)
    verify(verifier, alice.chain_der, clock)
    clock.forward(seconds=1)
    assert refused(verifier, alice.chain_der, clock).code == "certificate-expired"


def test_a_remembered_peer_is_not_taken_before_its_time() -> None:
    """A clock that is set back does not make a certificate valid before it begins."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice = facility.peer("alice")
    verifier = PeerVerifier(facility.trust())
    verify(verifier, alice.chain_der, clock)
    clock.forward(hours=-1)
    assert refused(verifier, alice.chain_der, clock).code == "certificate-not-yet-valid"


def test_a_remembered_peer_ends_with_the_authority_that_vouched_for_it() -> None:
    """A leaf that outlives its issuing authority, as a careless facility may make it, is refused when the authority ends."""
    clock = HandClock()
    facility = Facility("als.example", clock=clock)
    authority_key, key = generate(Algorithm.P256), generate(Algorithm.P256)
    authority = make_intermediate(
        domain=facility.domain,
        public_key=authority_key.public_key,
        issuer=facility.root,
        issuer_key=facility.root_key,
        serial=random_serial(os.urandom(20)),
        now=clock(),
        lifetime=timedelta(hours=1),
    )
    grant = CertificateGrant(
        principal=Principal.make(facility.domain, Kind.USER, "alice"),
        profile=USER,
        public_key=key.public_key,
        spki=spki(key.public_key),
        not_before=START,
        not_after=START + timedelta(hours=8),
        assurance=2,
        issuer_id="test",
        ignored=(),
        clamped=None,
        rule="test",
    )
    leaf = make_leaf(grant=grant, issuer=authority, issuer_key=authority_key, serial=random_serial(os.urandom(20)))
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in (leaf, authority))
    verifier = PeerVerifier(facility.trust())
    verify(verifier, chain, clock)
    clock.forward(minutes=59)
    verify(verifier, chain, clock)
    clock.forward(minutes=2)
    assert refused(verifier, chain, clock).code == "chain-invalid"


@pytest.mark.parametrize("kind", [RevocationKind.CERTIFICATE, RevocationKind.PRINCIPAL])
def test_a_revocation_counts_on_the_next_request_of_a_remembered_peer(kind: RevocationKind) -> None:
    """Withdrawing a certificate, or all of its holder's, ends it although it was verified a moment ago."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice, bob = facility.peer("alice"), facility.peer("bob")
    verifier = PeerVerifier(facility.trust())
    verify(verifier, alice.chain_der, clock)
    facility.revoke(kind, alice.fingerprint if kind is RevocationKind.CERTIFICATE else str(alice.principal), reason="stolen")
    error = refused(verifier, alice.chain_der, clock)
    assert isinstance(error, RevokedError)
    assert error.code == "certificate-revoked"
    assert "stolen" in error.message
    verify(verifier, bob.chain_der, clock)


def test_another_facility_is_unknown_until_it_is_trusted() -> None:
    """A certificate of a domain without an entry is refused by name."""
    clock = HandClock()
    ours, theirs = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    visitor = theirs.peer("alice")
    assert refused(PeerVerifier(ours.trust()), visitor.chain_der, clock).code == "domain-unknown"
    assert verify(PeerVerifier(ours.trust(theirs)), visitor.chain_der, clock).principal == visitor.principal


def test_a_trusted_facility_cannot_name_the_people_of_another() -> None:
    """A partner that certifies one of our names is measured by our bundle, which does not vouch for it."""
    clock = HandClock()
    ours, theirs = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    forger = Facility("als.example", clock=clock)
    # The partner's own authority, as in its bundle, signs for a name of our domain.
    forger.issuing, forger.issuing_key = theirs.issuing, theirs.issuing_key
    alice = forger.peer("alice")
    assert str(alice.principal) == "spiffe://als.example/user/alice"
    assert refused(PeerVerifier(ours.trust(theirs)), alice.chain_der, clock).code == "chain-invalid"


def test_one_facility_cannot_withdraw_the_certificates_of_another() -> None:
    """A revocation counts for the domain that says it and for no other."""
    clock = HandClock()
    ours, theirs = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    alice = ours.peer("alice")
    verifier = PeerVerifier(ours.trust(theirs))
    theirs.revoke(RevocationKind.CERTIFICATE, alice.fingerprint)
    theirs.revoke(RevocationKind.PRINCIPAL, str(alice.principal))
    assert verify(verifier, alice.chain_der, clock).principal == alice.principal


def test_trust_without_revocations_verifies_without_them() -> None:
    """Where the owner said that nothing is ever withdrawn, only the path and the dates are looked at."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice = facility.peer("alice")
    trust = Trust.of([TrustEntry(bundle=facility.bundle())], revocations=None)
    assert verify(PeerVerifier(trust), alice.chain_der, clock).principal == alice.principal


def test_what_is_remembered_is_bounded() -> None:
    """Strangers who present chain after chain do not fill the memory; the least recently used goes first."""
    clock = HandClock()
    facility = Facility(clock=clock)
    verifier = PeerVerifier(facility.trust(), remembered=2)
    alice, bob, carol = (facility.peer(name) for name in ("alice", "bob", "carol"))
    first = verify(verifier, alice.chain_der, clock)
    second = verify(verifier, bob.chain_der, clock)
    assert verify(verifier, alice.chain_der, clock) is first
    verify(verifier, carol.chain_der, clock)
    assert verify(verifier, alice.chain_der, clock) is first
    assert verify(verifier, bob.chain_der, clock) is not second
