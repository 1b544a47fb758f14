from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from certauth.bundles import KeyState, TrustEntry
from certauth.errors import CertauthError, RequestError, RevokedError, TokenError
from certauth.names import Kind
from certauth.revocation import RevocationKind
from certauth.tokens import Narrowing, attenuate, delegate, from_text, to_text
from policy.testing import Facility
from policy.token import SUBPROTOCOL, TokenVerifier, find_token, is_bearer
from policy.trust import Trust
from tests.policy.door import HandClock, request


def found(authorization: Sequence[bytes] = (), biscuit: Sequence[bytes] = (), subprotocols: Sequence[str] = ()) -> str | None:
    """The token found in a request with these fields."""
    return find_token(request("GET /x", authorization=authorization, biscuit=biscuit, subprotocols=subprotocols))


def refused(verifier: TokenVerifier, token: str, clock: HandClock) -> CertauthError:
    """The error with which a token is refused now."""
    with pytest.raises((TokenError, RevokedError)) as caught:
        verifier.verify(token, now=clock())
    return caught.value


def test_a_token_is_found_in_each_of_its_places() -> None:
    """Bearer in any case, the Biscuit header, or the WebSocket subprotocol; white space around it does not matter."""
    assert found([b"Bearer abc"]) == "abc"
    assert found([b"  bEaReR   abc "]) == "abc"
    assert found(biscuit=[b" abc "]) == "abc"
    assert found(subprotocols=["chat", SUBPROTOCOL + "abc"]) == "abc"


def test_no_token_is_no_error() -> None:
    """Other schemes and subprotocols are the app's own business."""
    assert found() is None
    assert found([b"Basic YTpi"], subprotocols=["chat"]) is None
    assert found([b"Bearerabc"]) is None


def test_an_empty_bearer_is_a_token_that_will_be_refused() -> None:
    """Something that announces a token and holds none does not pass for a request without one."""
    assert found([b"Bearer"]) == ""
    assert is_bearer(b"bearer")


@pytest.mark.parametrize(
    "places",
    [
        {"authorization": [b"Bearer a", b"Bearer a"]},
        {"authorization": [b"Bearer a"], "biscuit": [b"a"]},
        {"biscuit": [b"a", b"b"]},
        {"authorization": [b"Bearer a"], "subprotocols": [SUBPROTOCOL + "b"]},
        {"subprotocols": [SUBPROTOCOL + "a", SUBPROTOCOL + "b"]},
    ],
)
def test_two_tokens_are_refused_even_if_they_are_equal(places: dict[str, Sequence[bytes]]) -> None:
    """A request that lets two readers pick two tokens is refused unread."""
    with pytest.raises(RequestError) as caught:
        found(**places)  # type: ignore[arg-type]  # the table mixes the types of the three places
    assert caught.value.code == "token-ambiguous"


@pytest.mark.parametrize("text", ["", "!", "abc", "a" * 100_000, "\xff\xfe", "\ud800", "=" * 16])
def test_what_is_no_token_is_refused(text: str) -> None:
    """Whatever a client writes there, the answer is a refusal, never another error."""
    clock = HandClock()
    assert isinstance(refused(TokenVerifier(Facility(clock=clock).trust()), text, clock), TokenError)


def test_a_token_says_what_its_facility_signed_and_is_verified_once() -> None:
    """The result is remembered for exactly this text."""
    clock = HandClock()
    facility = Facility("als.example", clock=clock)
    text = facility.token(facility.peer("alice"), "data", rights=["read /files/"], groups=["staff"])
    verifier = TokenVerifier(facility.trust())
    token = verifier.verify(text, now=clock())
    assert token.user == "spiffe://als.example/user/alice"
    assert token.groups == ("staff",)
    assert verifier.verify(text, now=clock()) is token


def test_a_remembered_token_ends_when_it_said() -> None:
    """An expired token is refused from that second on, and one is refused before its beginning, cached or not."""
    clock = HandClock()
    facility = Facility(clock=clock)
    text = facility.token(facility.peer("alice"), "data", rights=["read /"], lifetime=timedelta(minutes=10))
    verifier = TokenVerifier(facility.trust())
    verifier.verify(text, now=clock())
    clock.forward(seconds=599)
    verifier.verify(text, now=clock())
    clock.forward(seconds=1)
    assert refused(verifier, text, clock).code == "token-expired"
    clock.forward(hours=-1)
    assert refused(verifier, text, clock).code == "token-not-yet-valid"


@pytest.mark.parametrize("what", ["jti", "block", "appended block", "user", "kid"])
def test_each_way_of_withdrawing_a_token_counts_on_its_next_use(what: str) -> None:
    """The token, any of its blocks, its user and its root key can be withdrawn; a remembered token is no exception."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice, bob = facility.peer("alice"), facility.peer("bob")
    parent = facility.token(alice, "data", rights=["read /"])
    text = to_text(attenuate(from_text(parent), Narrowing(operations=("read",))))
    other = facility.token(bob, "data", rights=["read /"])
    verifier = TokenVerifier(facility.trust())
    token = verifier.verify(text, now=clock())
    for each in (parent, other):
        verifier.verify(each, now=clock())
    name = {
        "jti": (RevocationKind.JTI, token.jti),
        "block": (RevocationKind.BLOCK, token.block_ids[0]),
        "appended block": (RevocationKind.BLOCK, token.block_ids[1]),
        "user": (RevocationKind.PRINCIPAL, str(alice.principal)),
        "kid": (RevocationKind.KID, token.kid),
    }[what]
    facility.revoke(*name, reason="lost")
    error = refused(verifier, text, clock)
    assert isinstance(error, RevokedError)
    assert error.code == "token-revoked"
    assert "lost" in error.message
    if what == "appended block":
        verifier.verify(parent, now=clock())
    else:
        assert refused(verifier, parent, clock).code == "token-revoked"
    if what != "kid":
        verifier.verify(other, now=clock())


def test_a_key_that_its_bundle_calls_tainted_is_told_from_a_strangers() -> None:
    """Its tokens were withdrawn, and a new one helps; a key that nobody here ever knew is something else."""
    clock = HandClock()
    facility, stranger = Facility(clock=clock), Facility(clock=clock)
    alice = facility.peer("alice")
    text, foreign = (place.token(alice, "data", rights=["read /"]) for place in (facility, stranger))
    bundle = facility.bundle()
    for state, code in ((KeyState.RETIRED, None), (KeyState.TAINTED, "token-revoked")):
        roots = tuple(replace(root, state=state) for root in bundle.token_roots)
        trust = Trust.of([TrustEntry(bundle=replace(bundle, token_roots=roots))], revocations=None)
        verifier = TokenVerifier(trust)
        if code is None:
            verifier.verify(text, now=clock())
        else:
            error = refused(verifier, text, clock)
            assert (error.code, isinstance(error, RevokedError), bool(error.hint)) == (code, True, True)
        assert refused(verifier, foreign, clock).code == "token-unknown-key"


def test_a_token_ends_with_the_certificate_that_handed_it_on() -> None:
    """Whoever stole a key may have signed the handing over: with the certificate revoked, what it handed on is dead too."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice, job = facility.peer("alice"), facility.peer("job")
    parent = facility.token(alice, "data", rights=["read /"])
    share = delegate(
        from_text(parent), holder_key=alice.key, to_certificate=job.fingerprint, narrowing=Narrowing(operations=("read",))
    )
    verifier = TokenVerifier(facility.trust())
    verifier.verify(to_text(share), now=clock())
    facility.revoke(RevocationKind.CERTIFICATE, alice.fingerprint, reason="laptop lost")
    assert refused(verifier, to_text(share), clock).code == "token-revoked"
    assert refused(verifier, parent, clock).code == "token-revoked"


@pytest.mark.parametrize("withdrawn", ["alice", "bob", "job"])
@pytest.mark.parametrize("by", ["als.example", "nsls.example"])
def test_a_chain_ends_with_any_certificate_in_it(withdrawn: str, by: str) -> None:
    """Whichever link was stolen, and whoever issued that certificate: the rest of the chain is worth nothing from then on.

    Only the certificate the token was minted for is a matter of its own facility alone.
    """
    clock = HandClock()
    als, nsls = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    people = {"alice": als.peer("alice"), "bob": nsls.peer("bob"), "job": nsls.peer("job")}
    token = from_text(als.token(people["alice"], "data", rights=["read /"], delegations=2))
    to_bob = delegate(token, holder_key=people["alice"].key, to_certificate=people["bob"].certificate, depth=1)
    text = to_text(delegate(to_bob, holder_key=people["bob"].key, to_certificate=people["job"].certificate))
    verifier = TokenVerifier(als.trust(nsls))
    assert verifier.verify(text, now=clock()).chain == tuple(peer.fingerprint for peer in people.values())
    {"als.example": als, "nsls.example": nsls}[by].revoke(RevocationKind.CERTIFICATE, people[withdrawn].fingerprint)
    if (withdrawn, by) == ("alice", "nsls.example"):
        verifier.verify(text, now=clock())
    else:
        assert refused(verifier, text, clock).code == "token-revoked"


def test_who_vouched_can_take_it_back() -> None:
    """An attesting facility withdraws its own block; it has no say in the blocks of others."""
    clock = HandClock()
    als, nsls = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    parent = als.token(als.peer("alice"), "data", rights=["read /"])
    text = nsls.vouch(parent, "run7")
    for trust in (als.trust(nsls, attesters=[nsls.attester("run*")]), als.trust(attesters=[nsls.attester("run*")])):
        assert [str(each) for each in TokenVerifier(trust).verify(text, now=clock()).members] == ["nsls.example:run7"]
    verifier = TokenVerifier(als.trust(nsls, attesters=[nsls.attester("run*")]))
    first, second = verifier.verify(text, now=clock()).block_ids
    nsls.revoke(RevocationKind.BLOCK, first)
    verifier.verify(text, now=clock())
    nsls.revoke(RevocationKind.BLOCK, second)
    assert refused(verifier, text, clock).code == "token-revoked"
    verifier.verify(parent, now=clock())


def test_attesters_are_those_of_the_door() -> None:
    """A facility that is trusted for its people vouches for nobody's groups unless its key is named for that."""
    clock = HandClock()
    als, nsls = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    text = nsls.vouch(als.token(als.peer("alice"), "data", rights=["read /"]), "run7")
    assert refused(TokenVerifier(als.trust(nsls)), text, clock).code == "token-unknown-attester"
    theirs = TokenVerifier(als.trust(nsls, attesters=[nsls.attester("staff")]))
    assert refused(theirs, text, clock).code == "token-attestation"


def test_a_token_of_an_untrusted_facility_is_refused() -> None:
    """Whoever makes a root key of their own mints for themselves only."""
    clock = HandClock()
    ours, theirs = Facility("als.example", clock=clock), Facility("als.example", clock=clock)
    text = theirs.token(theirs.peer("alice"), "data", rights=["read /"])
    assert refused(TokenVerifier(ours.trust()), text, clock).code == "token-unknown-key"


def test_a_trusted_facility_mints_for_its_own_people_only() -> None:
    """A partner's key that signs a token for one of our users, in its name or in ours, is refused."""
    clock = HandClock()
    ours, theirs = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    alice = ours.peer("alice")
    verifier = TokenVerifier(ours.trust(theirs))
    assert refused(verifier, theirs.token(alice, "data", rights=["read /"]), clock).code == "token-user"
    forger = Facility("als.example", clock=clock)
    forger.token_key = theirs.token_key
    assert refused(verifier, forger.token(alice, "data", rights=["read /"]), clock).code == "token-issuer"


def test_an_entry_bounds_the_users_of_tokens_as_it_bounds_certificates() -> None:
    """A facility that is trusted for its services only cannot send its people with tokens."""
    clock = HandClock()
    facility = Facility(clock=clock)
    entry = TrustEntry(bundle=facility.bundle(), kinds=frozenset({Kind.SERVICE}), ids=("data-*",))
    verifier = TokenVerifier(Trust.of([entry], revocations=None))
    person, other = facility.peer("alice"), facility.peer("x", kind=Kind.SERVICE)
    accepted = facility.peer("data-1", kind=Kind.SERVICE)
    assert refused(verifier, facility.token(person, "data", rights=["read /"]), clock).code == "token-user"
    assert refused(verifier, facility.token(other, "data", rights=["read /"]), clock).code == "token-user"
    assert verifier.verify(facility.token(accepted, "data", rights=["read /"]), now=clock()).user == str(accepted.principal)


def test_a_changed_byte_is_another_token() -> None:
    """Every byte of a token is covered by a signature: no changed one is taken for the one that was remembered."""
    clock = HandClock()
    facility = Facility(clock=clock)
    text = facility.token(facility.peer("alice"), "data", rights=["read /"])
    verifier = TokenVerifier(facility.trust())
    verifier.verify(text, now=clock())
    data = from_text(text)
    for position in range(0, len(data), 7):
        changed = to_text(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        refused(verifier, changed, clock)


def test_what_was_found_under_one_trust_is_not_believed_under_another() -> None:
    """A root key that was taken back: its tokens are verified anew, however often they were found good before."""
    facility, other = Facility("als.example"), Facility("nsls.example")
    text = facility.token(facility.peer("alice"), "data", rights=("read /x/",))
    verifier, now = TokenVerifier(facility.trust()), facility.clock()
    state = facility.trust().state
    assert verifier.verify(text, now=now, state=state) is verifier.verify(text, now=now, state=state)
    later = replace(state, generation=state.generation + 1, token_keys=other.trust().state.token_keys)
    with pytest.raises(TokenError) as caught:
        verifier.verify(text, now=now, state=later)
    assert caught.value.code == "token-unknown-key"
