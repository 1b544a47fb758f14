"""Delegation needs the holder's key, hands the token over, and goes as far as the issuer and each giver allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise

import pytest
from biscuit_auth import AuthorizationError, Biscuit, BiscuitValidationError, Fact
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certauth.certificates import fingerprint
from certauth.errors import KeyMaterialError, TokenError, UsageError
from certauth.keys import Algorithm, SoftwareKey, generate
from certauth.tokens import signing
from certauth.tokens.attenuate import attenuate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import SignedBlock, Token, decode, encode
from certauth.tokens.conditions import Peer, delegation
from certauth.tokens.delegate import delegate
from certauth.tokens.engine import Builder
from certauth.tokens.lint import lint
from certauth.tokens.signing import append_answer, key_ref, third_party_answer, third_party_request
from certauth.tokens.vocabulary import Narrowing
from tests.certauth.tokens.kit import ALICE, BOB, EVE, NOW, Facility, codes, entropy, fact, with_block

NOTHING = Narrowing()


def engine_allows(als: Facility, token: bytes, peer: str, *, holder: str | None = None) -> bool:
    """What the engine alone says about Alice's usual request, with no lint before it and no door around it.

    ``holder`` is where somebody who follows no chain believes that it ends.
    """
    builder = Builder(
        "allow if service($s), operation($o), path($p), right($s, $o, $b), tree($b), $p.starts_with($b); deny if true;"
    )
    for name, value in (
        ("service", "files"),
        ("operation", "read"),
        ("path", "/data/run7/a"),
        ("tree", "/data/"),
        ("peer_cert", peer),
    ):
        builder.add_fact(Fact(f"{name}({{v}})", {"v": value}))
    builder.add_fact(Fact("time({v})", {"v": NOW}))
    if holder is not None:
        builder.add_fact(Fact("holder({v})", {"v": holder}))
    limits = builder.limits()
    limits.max_time = timedelta(seconds=5)
    builder.set_limits(limits)
    try:
        builder.build(Biscuit.from_bytes(token, als.roots[als.kid].engine_key)).authorize()
    except (AuthorizationError, BiscuitValidationError):
        return False
    return True


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.ED25519])
def test_the_delegate_and_nobody_else_can_use_it(als: Facility, algorithm: Algorithm) -> None:
    """With a holder's key of either kind: Bob may, within the narrowing; Alice and Eve may not; the chain is visible."""
    holder = generate(algorithm)
    token = als.mint(delegate_key=holder.public_key)
    handed = delegate(token, holder_key=holder, to_certificate=BOB, narrowing=Narrowing(paths=("/data/run7/",)))
    assert codes(als.ask(handed, peer_fingerprint=BOB)) == []
    assert codes(als.ask(handed, peer_fingerprint=BOB, path="/data/run8/a")) == ["token-path"]
    assert codes(als.ask(handed)) == ["token-binding"]
    assert codes(als.ask(handed, peer_fingerprint=EVE)) == ["token-binding", "token-binding"]
    verified = als.verify(handed)
    assert (verified.delegated_to, verified.holder, verified.delegable) == ((BOB,), BOB, False)


def test_the_delegate_can_narrow_further(als: Facility) -> None:
    """What Bob was given he can narrow like any token."""
    handed = delegate(als.mint(), holder_key=als.holder, to_certificate=BOB, narrowing=NOTHING)
    narrowed = attenuate(handed, Narrowing(operations=("write",)))
    assert codes(als.ask(narrowed, peer_fingerprint=BOB)) == ["token-operation"]


def test_narrowed_tokens_can_be_delegated(als: Facility) -> None:
    """A narrowing made before the delegation still holds after it."""
    narrowed = attenuate(als.mint(), Narrowing(paths=("/data/run8/",)))
    handed = delegate(narrowed, holder_key=als.holder, to_certificate=BOB, narrowing=NOTHING)
    assert codes(als.ask(handed, peer_fingerprint=BOB)) == ["token-path"]


def test_a_thief_is_told_no(als: Facility) -> None:
    """Somebody with the token and another key is refused when delegating."""
    with pytest.raises(TokenError) as caught:
        delegate(als.mint(), holder_key=generate(Algorithm.P256), to_certificate=EVE, narrowing=NOTHING)
    assert caught.value.code == "token-wrong-holder"


def test_there_is_no_second_delegation(als: Facility) -> None:
    """Neither the delegate nor the holder can hand over what was handed over, and an undelegable token never was."""
    handed = delegate(als.mint(), holder_key=als.holder, to_certificate=BOB, narrowing=NOTHING)
    for token, key in ((handed, generate(Algorithm.P256)), (handed, als.holder), (als.mint(delegate_key=None), als.holder)):
        with pytest.raises(TokenError) as caught:
            delegate(token, holder_key=key, to_certificate=EVE, narrowing=NOTHING)
        assert caught.value.code == "token-not-delegable"


def test_the_name_of_a_certificate_is_checked(als: Facility) -> None:
    """A fingerprint that is none is refused before anything is signed."""
    with pytest.raises(UsageError):
        delegate(als.mint(), holder_key=als.holder, to_certificate="bob", narrowing=NOTHING)


def hand_over(token: bytes, key: SoftwareKey, block: Block) -> bytes:
    """A third-party block of any content, as somebody with ``key`` and none of our scruples could append it."""
    parent = decode(token)
    return encode(append_answer(parent, third_party_answer(third_party_request(parent), block, key), entropy=entropy))


def naming(to: str) -> Block:
    """What a delegation to ``to`` looks like."""
    return Block(5, facts=(fact("delegate", to),), checks=(Peer(to),))


@pytest.mark.parametrize(
    "attack",
    [
        lambda als, token: hand_over(token, generate(Algorithm.P256), naming(EVE)),  # with a key of her own
        lambda als, token: hand_over(  # Bob, to whom it was delegated, passes it on with his own key
            delegate(token, holder_key=als.holder, to_certificate=BOB, narrowing=NOTHING), generate(Algorithm.P256), naming(EVE)
        ),
    ],
    ids=["her own key", "the delegate's key"],
)
def test_a_stranger_speaks_in_no_token(als: Facility, attack: Callable[[Facility, bytes], bytes]) -> None:
    """A block signed by another key than the holder's is refused by the lint, whatever it says."""
    with pytest.raises(TokenError) as caught:
        als.verify(attack(als, als.mint()))
    assert caught.value.code == "lint-third-party"


@pytest.mark.parametrize(
    "block",
    [
        Block(5, facts=(fact("delegate", BOB),)),  # without giving it away
        Block(5, facts=(fact("delegate", BOB),), checks=(Peer(ALICE),)),
        Block(5, facts=(fact("delegate", BOB), fact("delegate", EVE)), checks=(Peer(BOB),)),
        Block(5, facts=(fact("user", "spiffe://als.example/user/root"),), checks=(Peer(BOB),)),
        Block(5, facts=(fact("time", 5),)),
        Block(5, facts=(fact("delegate", "bob"),)),
        Block(5, facts=(fact("delegate", BOB, EVE),)),
        Block(5, checks=(Peer(BOB),)),
    ],
)
def test_the_holder_may_say_one_thing(als: Facility, block: Block) -> None:
    """The holder's key may name one certificate and hand the token to it; other facts by it are refused."""
    with pytest.raises(TokenError) as caught:
        als.verify(hand_over(als.mint(), als.holder, block))
    assert caught.value.code == "lint-third-party"


def test_a_holder_delegating_twice_is_refused(als: Facility) -> None:
    """Once it is given away, the key of the one who gave it has no say in the token any more."""
    token = hand_over(hand_over(als.mint(), als.holder, naming(BOB)), als.holder, naming(EVE))
    with pytest.raises(TokenError) as caught:
        als.verify(token)
    assert caught.value.code == "lint-third-party"
    for peer in (ALICE, BOB, EVE):
        assert not engine_allows(als, token, peer)


# --- chains -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """Somebody with a certificate and its key."""

    key: SoftwareKey
    certificate: x509.Certificate

    @property
    def hex(self) -> str:
        return fingerprint(self.certificate)


def person(name: str, algorithm: Algorithm = Algorithm.P256, *, key: SoftwareKey | None = None) -> Person:
    """A person with a self-signed certificate: tokens look at its fingerprint and its key only."""
    key = key or generate(algorithm)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key, len(name) + 1, NOW, NOW + timedelta(days=1))
    return Person(key, builder.sign(key.private_key, None if key.algorithm is Algorithm.ED25519 else hashes.SHA256()))


A = person("alice")
B = person("bob", Algorithm.ED25519)
C, D, E, F = (person(name) for name in ("carol", "dave", "erin", "frank"))
PEOPLE = (A, B, C, D, E, F)


def minted(als: Facility, depth: int) -> bytes:
    """Alice's token, which may be handed over ``depth`` times in a row."""
    return als.mint(peer_fingerprint=A.hex, delegate_key=A.key.public_key, delegation_depth=depth)


def on(token: bytes, giver: Person, taker: Person, depth: int = 0, narrowing: Narrowing = NOTHING) -> bytes:
    """``token`` handed on."""
    return delegate(token, holder_key=giver.key, to_certificate=taker.certificate, depth=depth, narrowing=narrowing)


def works_for(als: Facility, token: bytes) -> list[Person]:
    """In whose hands it works."""
    return [peer for peer in PEOPLE if codes(als.ask(token, peer_fingerprint=peer.hex)) == []]


def naively(als: Facility, token: bytes) -> list[Person]:
    """In whose hands the engine alone would let it work, for somebody who believes whatever the last link says."""
    said = [fact.terms[-1] for block in decode(token).contents[1:] for fact in block.facts]
    return [peer for peer in PEOPLE if engine_allows(als, token, peer.hex, holder=str(said[-1]))]


def refused(als: Facility, token: bytes) -> str:
    """The code with which a token is refused at verification. The engine without a door lets nobody use it either."""
    assert [peer for peer in PEOPLE if engine_allows(als, token, peer.hex)] == []
    with pytest.raises(TokenError) as caught:
        als.verify(token)
    return caught.value.code


def test_a_chain_of_every_length(als: Facility) -> None:
    """A token handed on up to four times works for the last in the chain and for nobody else, and shows the whole way."""
    token = minted(als, 4)
    assert works_for(als, token) == [A]
    for number, (giver, taker) in enumerate(pairwise(PEOPLE[:5])):
        token = on(token, giver, taker, depth=3 - number)
        assert works_for(als, token) == naively(als, token) == [taker]
        assert [peer for peer in PEOPLE if engine_allows(als, token, peer.hex)] == [], "fails closed where nobody follows it"
        verified = als.verify(token)
        assert verified.delegated_to == tuple(peer.hex for peer in PEOPLE[1 : number + 2])
        assert [handed.key for handed in verified.hand_overs] == [key_ref(peer.key.public_key) for peer in PEOPLE[: number + 1]]
        assert (verified.holder, verified.delegable) == (taker.hex, number < 3)
        assert (verified.peer_fingerprint, verified.delegation_depth) == (A.hex, 4)
    with pytest.raises(TokenError) as caught:
        on(token, E, F)
    assert caught.value.code == "token-not-delegable"


def test_every_narrowing_on_the_way_holds(als: Facility) -> None:
    """What each giver took away stays away, and so does what was narrowed between."""
    token = on(minted(als, 2), A, B, depth=1, narrowing=Narrowing(paths=("/data/run7/", "/data/run8/")))
    token = attenuate(token, Narrowing(operations=("read",)))
    token = on(token, B, C, narrowing=Narrowing(paths=("/data/run7/",)))
    verified = als.verify(token)
    assert verified.makers == (None, A.hex, B.hex, B.hex)
    asked = {"peer_fingerprint": C.hex}
    assert codes(als.ask(token, **asked)) == []
    assert codes(als.ask(token, path="/data/run8/a", **asked)) == ["token-path"]
    assert codes(als.ask(token, path="/data/run9/a", **asked)) == ["token-path", "token-path"]
    assert codes(als.ask(token, operation="write", path="/data/alice/log", **asked)) == [
        "token-path",
        "token-operation",
        "token-path",
    ]


def test_nobody_passes_on_more_than_was_given(als: Facility) -> None:
    """Without a depth the new holder cannot hand it on; with one, only less often than the giver could."""
    with pytest.raises(TokenError) as caught:
        on(on(minted(als, 4), A, B), B, C)
    assert caught.value.code == "token-not-delegable"
    for depth in (2, 3, -1):
        with pytest.raises(TokenError) as caught:
            on(minted(als, 2), A, B, depth=depth)
        assert caught.value.code == "token-not-delegable"
    with pytest.raises(TokenError) as caught:
        on(on(minted(als, 4), A, B, depth=1), B, C, depth=1)
    assert caught.value.code == "token-not-delegable"
    with pytest.raises(TokenError) as caught:
        on(minted(als, 0), A, B)
    assert caught.value.code == "token-not-delegable"


def test_only_the_present_holder_hands_it_on(als: Facility) -> None:
    """Neither the first holder nor a stranger can, once it was handed over."""
    token = on(minted(als, 2), A, B, depth=1)
    for giver in (A, C):
        with pytest.raises(TokenError) as caught:
            on(token, giver, D)
        assert caught.value.code == "token-wrong-holder"


def test_handing_on_needs_the_certificate(als: Facility) -> None:
    """The next holder's key is named, so a fingerprint is not enough, and an RSA key cannot be named."""
    with pytest.raises(UsageError) as usage:
        delegate(minted(als, 2), holder_key=A.key, to_certificate=B.hex, depth=1)
    assert usage.value.code == "certificate-needed"
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([])
    weak = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1)).sign(key, hashes.SHA256())
    with pytest.raises(KeyMaterialError) as caught:
        delegate(minted(als, 2), holder_key=A.key, to_certificate=weak, depth=1)
    assert caught.value.code == "bad-key"
    final = delegate(minted(als, 2), holder_key=A.key, to_certificate=weak)  # to be its last holder, any key will do
    assert als.verify(final).holder == fingerprint(weak)


def link(depth: int, to: Person, key: Person | None = None, left: int = 1, *, bound_to: Person | None = None) -> Block:
    """A block that hands over, with nothing checked."""
    peer = Peer((bound_to or to).hex) if key is None else Peer((bound_to or to).hex, key_ref(key.key.public_key), left)
    return Block(5, (delegation(depth, to.hex),), (peer,))


ATTACKS: dict[str, Callable[[Facility], bytes]] = {
    "a link is skipped: carol was never given it": lambda als: hand_over(on(minted(als, 3), A, B, depth=2), C.key, link(2, D)),
    "bob names himself the first holder": lambda als: hand_over(minted(als, 3), B.key, link(3, B)),
    "the wrong order: the second link comes first": lambda als: hand_over(
        hand_over(minted(als, 3), B.key, link(2, C)), A.key, link(3, B, B, 2)
    ),
    "alice signs the second link as well": lambda als: hand_over(on(minted(als, 3), A, B, depth=2), A.key, link(2, C)),
    "bob repeats alice's number": lambda als: hand_over(on(minted(als, 3), A, B, depth=2), B.key, link(3, C)),
    "bob skips a number": lambda als: hand_over(on(minted(als, 4), A, B, depth=3), B.key, link(2, C)),
    "bob lets carol do what he could": lambda als: hand_over(on(minted(als, 3), A, B, depth=2), B.key, link(2, C, C, 2)),
    "bob lets carol do more": lambda als: hand_over(on(minted(als, 3), A, B, depth=2), B.key, link(2, C, C, 4)),
    "the last holder goes on": lambda als: hand_over(on(minted(als, 2), A, B), B.key, link(1, C)),
    "named is one, bound is another": lambda als: hand_over(on(minted(als, 2), A, B, depth=1), B.key, link(1, C, bound_to=D)),
    "a first-party block claims it": lambda als: with_block(minted(als, 2), Block(5, (delegation(2, E.hex),), (Peer(E.hex),))),
    "so does one after a hand-over": lambda als: with_block(
        on(minted(als, 3), A, B, depth=2), Block(5, (delegation(2, E.hex),), (Peer(E.hex),))
    ),
}


AGREED = {
    "bob lets carol do what he could",
    "bob lets carol do more",
}
"""Here everybody whose key is needed did sign, more than the issuer allows: what is wrong with it only the lint sees."""


@pytest.mark.parametrize("name", ATTACKS)
def test_a_forged_chain_is_refused(als: Facility, name: str) -> None:
    """Properly signed by whoever forges it, and still refused by the lint; nor could the engine alone be fooled."""
    token = ATTACKS[name](als)
    assert refused(als, token).startswith("lint-")
    assert naively(als, token) == ([C] if name in AGREED else [])


def test_a_block_that_gives_to_everybody_is_refused(als: Facility) -> None:
    """A hand-over must bind the token to the one it names, although nobody else could use it anyway."""
    token = hand_over(minted(als, 2), A.key, Block(5, (delegation(2, B.hex),)))
    with pytest.raises(TokenError) as caught:
        als.verify(token)
    assert caught.value.code == "lint-third-party"
    assert naively(als, token) == [A, B]


def test_a_link_fits_one_token(als: Facility) -> None:
    """A link signed for one token cannot be appended to another, nor to the same one with something before it."""
    first, second = minted(als, 2), minted(als, 2)
    answer = third_party_answer(third_party_request(decode(first)), link(2, B, B), A.key)
    encode(append_answer(decode(first), answer, entropy=entropy))
    for other in (second, attenuate(first, Narrowing(operations=("read",)))):
        with pytest.raises(TokenError) as caught:
            append_answer(decode(other), answer, entropy=entropy)
        assert caught.value.code == "token-signature"
        # The same without the check of whoever appends it: a thief has no reason to make it.
        genuine = decode(encode(append_answer(decode(first), answer, entropy=entropy)))
        stolen = hand_over(other, E.key, link(2, B, B))
        forged = decode(stolen)
        last = forged.blocks[-1]._replace(external=genuine.blocks[-1].external, content=genuine.blocks[-1].content)
        swapped = encode(_resigned(decode(other), forged, last))
        assert [peer for peer in PEOPLE if engine_allows(als, swapped, peer.hex)] == []
        with pytest.raises(TokenError) as caught:
            als.verify(swapped)
        assert caught.value.code == "token-signature"


def _resigned(parent: Token, forged: Token, last: SignedBlock) -> Token:
    """``parent`` with ``last``, whose own signature is made with the parent's secret: only the external one is replayed."""
    secret = Ed25519PrivateKey.from_private_bytes(parent.proof)
    payload = signing._payload(last.content, last.next_key, previous=parent.blocks[-1].signature, external=last.external)
    link = last._replace(signature=secret.sign(payload))
    return replace(forged, blocks=(*parent.blocks, link), contents=(*parent.contents, forged.contents[-1]))


def test_a_swapped_certificate_is_seen(als: Facility) -> None:
    """Changing in a genuine link whom it names breaks the giver's signature."""
    token = decode(on(minted(als, 2), A, B))
    link = token.blocks[-1]
    changed = link.content.replace(B.hex.encode(), E.hex.encode())
    assert changed != link.content
    parent = replace(token, blocks=token.blocks[:-1], contents=token.contents[:-1], proof=decode(minted(als, 2)).proof)
    forged = encode(replace(token, blocks=(*parent.blocks, link._replace(content=changed))))
    assert refused(als, forged) == "token-signature"


def test_handing_it_back_and_forth_opens_nothing(als: Facility) -> None:
    """Keys and certificates may recur in a chain: what one said earlier never meets what is demanded later."""
    again = person("alice again", key=A.key)
    token = on(on(on(minted(als, 4), A, B, depth=3), B, A, depth=2), A, B, depth=1)
    assert works_for(als, token) == [B]
    token = on(on(minted(als, 4), A, again, depth=3), again, A, depth=2)
    assert works_for(als, token) == [A]
    assert works_for(als, on(token, A, C)) == [C]


def test_other_checks_of_a_link_name_no_key(als: Facility) -> None:
    """Only the first condition of a hand-over says who may hand it on; a second one with another key is refused."""
    block = link(2, B, B)
    wide = block._replace(checks=(*block.checks, Peer(B.hex, key_ref(E.key.public_key), 1)))
    with pytest.raises(TokenError) as caught:
        als.verify(hand_over(minted(als, 2), A.key, wide))
    assert caught.value.code == "lint-key"
    same = block._replace(checks=(*block.checks, Peer(C.hex, key_ref(B.key.public_key), 1)))
    with pytest.raises(TokenError) as caught:
        als.verify(hand_over(minted(als, 2), A.key, same))
    assert caught.value.code == "lint-scope"


def test_the_whole_chain_counts(als: Facility) -> None:
    """The decision is the engine's for the verified chain: taking a link away from a genuine token leaves no token."""
    token = on(on(minted(als, 2), A, B, depth=1), B, C)
    decoded = decode(token)
    for missing in (1, 2):
        blocks = tuple(block for number, block in enumerate(decoded.blocks) if number != missing)
        contents = tuple(block for number, block in enumerate(decoded.contents) if number != missing)
        assert refused(als, encode(replace(decoded, blocks=blocks, contents=contents))) in {
            "token-signature",
            "lint-third-party",
        }
    assert lint(decoded).peer == Peer(C.hex)
