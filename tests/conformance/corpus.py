"""Tokens of the engine's making with everything the format has: terms, operators, scopes, keys, versions, third parties, seals.

Each is made when it is asked for, from Datalog of our own. Most are far outside profile ``fac/1``; the codec reads them all the
same, so that the lint can name what it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from biscuit_auth import Algorithm, Biscuit, BiscuitBuilder, BlockBuilder, KeyPair, PrivateKey

from certauth.tokens.codec import decode, encode
from certauth.tokens.datalog import KeyRef
from certauth.tokens.signing import seal
from tests.conformance.agreement import Reading, read


class Sample(NamedTuple):
    """A token and its root key."""

    data: bytes
    root: KeyRef


DATALOG: dict[str, tuple[str, ...]] = {
    "nothing at all": ("",),
    "facts of every plain term": ('f("s", 1, -1, 9223372036854775807, -9223372036854775808, true, false, hex:00ff);',),
    "dates": ("f(1970-01-01T00:00:00Z); f(2038-01-19T03:14:08Z); f(9999-12-31T23:59:59Z);",),
    "sets": ('f({1, 2}); f({"a", "b"}); f({hex:00, hex:01}); f({true, false}); f({2020-01-01T00:00:00Z}); f({,});',),
    "text of every kind": ('f(""); f("é€𐍈"); f("\\""); f("a\\nb"); f("read"); f("resource");',),
    "symbols of earlier blocks": ('f("a");', 'check if f("a"), g("b");', 'check if g("b"), h("c");'),
    "default symbols": ('read("write"); resource("operation"); right("time", "role"); nonce("query");',),
    "rules": ("f(1); g($x) <- f($x);", "h($x) <- f($x), $x > 0; check if h(1);"),
    "rules in every block": ("f(1);", "g($x) <- f($x) trusting previous;", "h($x) <- g($x) trusting authority, previous;"),
    "several alternatives": ("check if f(1) or f(2) or f(3), 1 < 2;",),
    "check all": ("f(1); f(2); check all f($x), $x > 0;",),
    "reject if": ("reject if f($x), $x > 3;",),
    "comparisons": ("check if 1 < 2, 2 > 1, 1 <= 1, 1 >= 1, 1 === 1, 1 !== 2;",),
    "lenient equality": ("check if 1 == 1, 1 != 2, 1 != true;",),
    "arithmetic": ("check if 1 + 2 * 3 - 4 / 2 === 5, (1 + 2) * 3 === 9;",),
    "bits": ("check if 1 & 3 === 1, 1 | 2 === 3, 1 ^ 3 === 2;",),
    "text operators": ('check if "abc".starts_with("a"), "abc".ends_with("c"), "abc".contains("b"), "abc".length() === 3;',),
    "concatenation": ('check if "a" + "b" === "ab";',),
    "a regular expression": ('check if "abc".matches("a.c");',),
    "sets in checks": ("check if {1, 2}.contains(1), {1}.union({2}).length() === 2, {1, 2}.intersection({2}) === {2};",),
    "logic": ("check if !false, true && true, false || true;",),
    "closures": ("check if {1, 2}.any($x -> $x > 1), {1, 2}.all($x -> {1, 2}.any($y -> $x <= $y));",),
    "null": ("f(null); check if f(null), null === null;",),
    "arrays": ('f([1, "a", true]); check if [1, 2].contains(1), [1, 2].get(0) === 1, [1] === [1];',),
    "maps": ('f({"a": 1, 2: [3]}); check if {"a": 1}.get("a") === 1, {"a": 1}.contains("a");',),
    "types": ('check if 1.type() === "integer", null.type() === "null";',),
    "errors caught": ("check if (true === 12).try_or(true);",),
    "foreign functions": ("check if true.extern::f(); check if true.extern::f(1);",),
    "a scope for a whole block": ("trusting authority; f(1);", "trusting previous; check if f(1);"),
    "many blocks": ("f(0);", *(f"check if f({number});" for number in range(7))),
    "long lists": (" ".join(f'f("{number}");' for number in range(300)),),
}


def root(algorithm: Algorithm, seed: int = 1) -> tuple[PrivateKey, KeyRef]:
    """A key that is the same in every run."""
    private = PrivateKey.from_bytes(bytes([seed]) * 32, algorithm)
    return private, reference(private)


def reference(private: PrivateKey) -> KeyRef:
    """The public half of an engine's key."""
    name, digits = repr(KeyPair.from_private_key(private).public_key).split("/")
    return KeyRef(("ed25519", "secp256r1").index(name), bytes.fromhex(digits))


def written(blocks: tuple[str, ...], private: PrivateKey) -> Biscuit:
    """The token of these blocks."""
    token = BiscuitBuilder(blocks[0]).build(private)
    for block in blocks[1:]:
        token = token.append(BlockBuilder(block))
    return token


def samples() -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Every sample by its name."""
    for name, blocks in DATALOG.items():
        yield name, lambda blocks=blocks: _plain(blocks, Algorithm.Ed25519)
        yield f"{name}, P-256", lambda blocks=blocks: _plain(blocks, Algorithm.Secp256r1)
    for number, third in enumerate((Algorithm.Ed25519, Algorithm.Secp256r1)):
        yield f"third parties, {number}", lambda third=third: _third_parties(third)
        yield f"a rule that trusts a key, {number}", lambda third=third: _trusting(third)
    yield "a root key id", _with_root_key_id
    yield "sealed", _sealed


ATTEMPTS = 200
"""Half of all ECDSA signatures have the form we do not read: a token with three of them is read once in eight attempts."""


def readable(make: Callable[[], Sample]) -> tuple[Sample, Reading]:
    """A sample, and its reading. What we do not read for a signature's form alone is made again, with another signature."""
    for _ in range(ATTEMPTS):
        sample = make()
        reading = read(*sample)
        if not reading.accepted or reading.token is not None:
            return sample, reading
        assert (reading.code, reading.differences) == ("token-not-canonical", [])
    raise AssertionError("no attempt was read")


def _plain(blocks: tuple[str, ...], algorithm: Algorithm) -> Sample:
    private, ref = root(algorithm)
    return Sample(bytes(written(blocks, private).to_bytes()), ref)


def _third_parties(algorithm: Algorithm) -> Sample:
    private, ref = root(Algorithm.Ed25519)
    token = written(('f("mine");', 'check if f("mine");'), private)
    for seed in (2, 3, 2):
        signer, _ = root(algorithm, seed)
        block = token.third_party_request().create_block(signer, BlockBuilder(f'member("{seed}"); check if f("mine");'))
        token = token.append_third_party(KeyPair.from_private_key(signer).public_key, block).append(BlockBuilder("g(1);"))
    return Sample(bytes(token.to_bytes()), ref)


def _trusting(algorithm: Algorithm) -> Sample:
    private, ref = root(Algorithm.Ed25519)
    keys = {name: KeyPair.from_private_key(root(algorithm, seed)[0]).public_key for name, seed in (("a", 2), ("b", 3))}
    builder = BiscuitBuilder("check if member($x) trusting authority, {a} or other($x) trusting {b};", {}, keys)
    block = BlockBuilder("h($x) <- member($x) trusting {b}, {a}, previous; check if h(1) trusting {b};", {}, keys)
    return Sample(bytes(builder.build(private).append(block).to_bytes()), ref)


def _with_root_key_id() -> Sample:
    private, ref = root(Algorithm.Ed25519)
    builder = BiscuitBuilder("f(1);")
    builder.set_root_key_id(2**32 - 1)
    return Sample(bytes(builder.build(private).to_bytes()), ref)


def _sealed() -> Sample:
    private, ref = root(Algorithm.Ed25519)
    return Sample(encode(seal(decode(bytes(written(("f(1);", "check if f(1);"), private).to_bytes())))), ref)
