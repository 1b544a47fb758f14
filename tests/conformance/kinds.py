"""One token of our own for each kind of sample that the Biscuit specification has, with requests and what is to come of them.

The specification's samples are data that this project does not carry; what each of them tries is a fact. The 38 names are
theirs, in their order; Datalog, keys and requests are ours. What comes of a request is written here and asked of two
implementations, so a kind that did not try what its name says would be noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from biscuit_auth import (
    Algorithm,
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitValidationError,
    BlockBuilder,
    KeyPair,
    PublicKey,
)

from certauth.tokens.blocks import Block
from certauth.tokens.codec import SignedBlock, Token, decode, encode
from certauth.tokens.datalog import Predicate, Query, Variable
from certauth.tokens.signing import append, seal
from tests.certauth.tokens.kit import entropy
from tests.conformance.agreement import key_text
from tests.conformance.corpus import DATALOG, Sample, root, written

REFUSED, FAILED = "refused", "failed"
"""A request that is not allowed, and one that ends in an error. One that is allowed has the number of the policy that did."""

ALLOW = "allow if true;"


class Kind(NamedTuple):
    """How such a token is made, whether its signatures verify, and requests (Datalog of a door) with what comes of each."""

    make: Callable[[], Sample]
    requests: dict[str, str] = {}  # noqa: RUF012 - never changed
    verifies: bool = True


def plain(*blocks: str, algorithm: Algorithm = Algorithm.Ed25519) -> Callable[[], Sample]:
    """The engine's token of these blocks."""

    def make() -> Sample:
        private, reference = root(algorithm)
        return Sample(bytes(written(blocks, private).to_bytes()), reference)

    return make


TWO = ('may("scan", "sample-1"); may("scan", "sample-2");', 'check if target($t), action("scan"), may("scan", $t);')


def damaged(how: Callable[[Token], tuple[SignedBlock, ...]], *blocks: str) -> Callable[[], Sample]:
    """Such a token whose links are others than were signed."""

    def make() -> Sample:
        data, reference = plain(*blocks)()
        return Sample(relinked(data, how), reference)

    return make


def relinked(data: bytes, how: Callable[[Token], tuple[SignedBlock, ...]]) -> bytes:
    """A token with other links than it has."""
    token = decode(data)
    return encode(replace(token, blocks=how(token)))


def short_signature(token: Token) -> tuple[SignedBlock, ...]:
    """The last signature lacks its last 16 bytes."""
    *others, last = token.blocks
    return (*others, last._replace(signature=last.signature[:-16]))


def random_block(token: Token) -> tuple[SignedBlock, ...]:
    """The last block is noise."""
    *others, last = token.blocks
    return (*others, last._replace(content=hashlib.sha256(b"noise").digest()))


def changed_signature(token: Token) -> tuple[SignedBlock, ...]:
    """One bit of the first signature is another."""
    first, *others = token.blocks
    return (first._replace(signature=bytes((first.signature[0] ^ 1,)) + first.signature[1:]), *others)


def reordered(token: Token) -> tuple[SignedBlock, ...]:
    """The last two blocks have changed places."""
    *others, one, two = token.blocks
    return (*others, two, one)


DAMAGE = {
    "invalid signature format": short_signature,
    "random block": random_block,
    "invalid signature": changed_signature,
    "reordered blocks": reordered,
}


def another_root() -> Sample:
    """Signed by somebody else."""
    return Sample(bytes(written(TWO, root(Algorithm.Ed25519, 9)[0]).to_bytes()), root(Algorithm.Ed25519)[1])


def unbound() -> Sample:
    """A rule that concludes about something it never looked at: no parser writes one, so our writer does."""
    head, body = Predicate("action", (Variable("unbound"), "scan")), Predicate("action", (Variable("a"), Variable("b")))
    data, reference = plain(TWO[0])()
    rule = Block(3, rules=(Query(head, (body,), (), ()),))
    return Sample(encode(append(decode(data), rule, entropy=entropy)), reference)


def sealed() -> Sample:
    """Nothing can be appended any more."""
    data, reference = plain(*TWO)()
    return Sample(encode(seal(decode(data))), reference)


def vouched(algorithm: Algorithm) -> Callable[[], Sample]:
    """The root asks that another key has said something, which it has; what it cannot see, it cannot check."""

    def make() -> Sample:
        private, reference = root(Algorithm.Ed25519)
        signer, key = root(algorithm, 2)
        token = written((f'may("scan"); check if member("run7") trusting {key_text(key)};',), private)
        answer = token.third_party_request().create_block(signer, BlockBuilder('member("run7"); check if may("scan") or true;'))
        appended = token.append_third_party(KeyPair.from_private_key(signer).public_key, answer)
        return Sample(bytes(appended.to_bytes()), reference)

    return make


def interned() -> Sample:
    """Two other keys, named in several blocks and by each other: each block has tables of its own."""
    private, reference = root(Algorithm.Ed25519)
    signers = [root(Algorithm.Ed25519, seed) for seed in (2, 3)]
    one, two = (key_text(key) for _, key in signers)
    token = written((f"asked(0); check if said(1) trusting {two};",), private)
    for number in range(4):
        signer, key = signers[number % 2]
        code = f"said({number}); check if asked(0) trusting authority, {two}; check if said({number}) trusting {key_text(key)};"
        answer = token.third_party_request().create_block(signer, BlockBuilder(code))
        token = token.append_third_party(KeyPair.from_private_key(signer).public_key, answer)
    return Sample(bytes(token.append(BlockBuilder(f"check if said(3) trusting {two}, {one};")).to_bytes()), reference)


TRUSTED = " ".join(f"allow if said(9) trusting {key_text(root(Algorithm.Ed25519, seed)[1])};" for seed in (2, 3))
OPERATORS = ("comparisons", "arithmetic", "text operators", "concatenation", "a regular expression", "sets in checks", "logic")
NEWER = ("bits", "lenient equality", "closures")
SCAN = 'target("sample-1"); action("scan");'

KINDS: dict[str, Kind] = {
    "basic token": Kind(plain(*TWO), {SCAN + ALLOW: "0", 'target("sample-1");' + ALLOW: REFUSED}),
    "different root key": Kind(another_root, verifies=False),
    **{name: Kind(damaged(how, *TWO, "check if true;"), verifies=False) for name, how in DAMAGE.items()},
    "scoped rules": Kind(
        plain(
            'owner("alice", "sample-1");',
            "may($t) <- owner($u, $t), user($u);",
            'owner("alice", "sample-2"); check if may($t);',
        ),
        {'user("alice");' + ALLOW: REFUSED},
    ),
    "scoped checks": Kind(
        plain('may("sample-1");', "check if target($t), may($t);", 'may("sample-2");'),
        {'target("sample-2");' + ALLOW: REFUSED, 'target("sample-1");' + ALLOW: "0"},
    ),
    "expired token": Kind(
        plain("f(1);", "check if time($t), $t <= 2026-01-01T00:00:00Z;"),
        {"time(2026-01-01T00:00:01Z);" + ALLOW: REFUSED, "time(2025-12-31T23:59:59Z);" + ALLOW: "0"},
    ),
    "authorizer scope": Kind(
        plain('may("sample-1");', 'may("sample-2");'),
        {'check if may("sample-2");' + ALLOW: REFUSED, 'check if may("sample-1");' + ALLOW: "0"},
    ),
    "authorizer authority checks": Kind(
        plain('may("sample-1");'), {'target("sample-2"); check if target($t), may($t);' + ALLOW: REFUSED}
    ),
    "authority checks": Kind(
        plain('check if target("sample-1");'), {'target("sample-1");' + ALLOW: "0", 'target("sample-2");' + ALLOW: REFUSED}
    ),
    "block rules": Kind(
        plain(
            'may("sample-1");',
            'inside($t) <- time($now), target($t), $now < 2026-01-01T00:00:00Z, {"sample-1"}.contains($t);'
            "check if inside($t), target($t);",
        ),
        {
            'target("sample-1"); time(2025-06-01T00:00:00Z);' + ALLOW: "0",
            'target("sample-1"); time(2026-06-01T00:00:00Z);' + ALLOW: REFUSED,
            'target("sample-2"); time(2025-06-01T00:00:00Z);' + ALLOW: REFUSED,
        },
    ),
    "regex constraint": Kind(
        plain('check if target($t), $t.matches("^sample-[0-9]+$");'),
        {'target("sample-12");' + ALLOW: "0", 'target("sample-x");' + ALLOW: REFUSED},
    ),
    "multi queries checks": Kind(
        plain("may(1);"), {"check if may(2) or may(1);" + ALLOW: "0", "check if may(2) or may(3);" + ALLOW: REFUSED}
    ),
    "check head name independent of fact names": Kind(
        plain('check if target("here");', 'query("here"); check if true;'), {ALLOW: REFUSED, 'target("here");' + ALLOW: "0"}
    ),
    "expressions": Kind(plain("".join(DATALOG[name][0] for name in OPERATORS)), {ALLOW: "0"}),
    "rule with unbound variables": Kind(unbound, {'action("a", "b");' + ALLOW: REFUSED}),
    "rule that generates ambient facts": Kind(
        plain("check if action($o);", "action($any) <- action($any), other($any); action($x) <- other($x);"),
        {'other("scan");' + ALLOW: REFUSED, 'action("scan");' + ALLOW: "0"},
    ),
    "sealed token": Kind(sealed, {SCAN + ALLOW: "0"}),
    "parsing": Kind(plain(r'f("a\"b\\c\n", "é𐍈");'), {r'check if f("a\"b\\c\n", "é𐍈");' + ALLOW: "0"}),
    "default symbols": Kind(
        plain('read("write"); right("role", "owner"); tenant("namespace"); user("team"); service("admin"); email("group");'),
        {'check if read("write"), tenant("namespace"), email("group");' + ALLOW: "0"},
    ),
    "execution scope": Kind(
        plain("first(1);", "second(2);", "check if first(1); check if second(2);"), {ALLOW: REFUSED, "second(2);" + ALLOW: "0"}
    ),
    "third party": Kind(vouched(Algorithm.Ed25519), {ALLOW: "0"}),
    "check all": Kind(
        plain('may({"scan", "move"}); check all action($o), may($set), $set.contains($o);'),
        {'action("scan"); action("move");' + ALLOW: "0", 'action("scan"); action("burn");' + ALLOW: REFUSED, ALLOW: REFUSED},
    ),
    "public keys interning": Kind(interned, {ALLOW: "0", TRUSTED: REFUSED, TRUSTED + ALLOW: "2"}),
    "integer wraparound": Kind(
        plain("check if 9223372036854775807 + 1 !== 0; check if -9223372036854775808 - 1 !== 0;"), {ALLOW: FAILED}
    ),
    "expressions of newer versions": Kind(plain("".join(DATALOG[name][0] for name in NEWER)), {ALLOW: "0"}),
    "reject if": Kind(plain("reject if test($t), $t;"), {"test(false);" + ALLOW: "0", "test(true);" + ALLOW: REFUSED}),
    "null": Kind(
        plain("check if state(null, $x), $x == null; reject if state($a, $b), $a != $b;"),
        {"state(null, null);" + ALLOW: "0", "state(null, 1);" + ALLOW: REFUSED, ALLOW: REFUSED},
    ),
    "heterogeneous equality": Kind(
        plain('check if 1 != "1"; check if !(true == 1); f(1);'),
        {'check if f($x), $x != "1";' + ALLOW: "0", 'check if f($x), $x == "1";' + ALLOW: REFUSED},
    ),
    "laziness and closures": Kind(
        plain("check if !false || (9223372036854775807 + 1 > 0); check if {1, 2}.all($x -> $x > 0);"),
        {ALLOW: "0", "allow if {1}.any($p -> {2}.all($p -> $p > 0));": FAILED},
    ),
    "types of terms": Kind(plain(DATALOG["types"][0]), {ALLOW: "0", "check if f(1);" + ALLOW: REFUSED}),
    "arrays and maps": Kind(plain(DATALOG["arrays"][0] + DATALOG["maps"][0]), {ALLOW: "0"}),
    "foreign functions": Kind(plain("check if true.extern::unknown();"), {ALLOW: FAILED}),
    "ECDSA secp256r1 signatures": Kind(plain(*TWO, algorithm=Algorithm.Secp256r1), {SCAN + ALLOW: "0", ALLOW: REFUSED}),
    "ECDSA secp256r1 signature on third-party block": Kind(vouched(Algorithm.Secp256r1), {ALLOW: "0"}),
    "try operation": Kind(
        plain("check if (true === 12).try_or(true); reject if (true == 12).try_or(true);"),
        {ALLOW: "0", "allow if true === 12;": FAILED},
    ),
}


def verdict(sample: Sample, request: str) -> str:
    """What the engine says to a request with this token: the number of the policy that allowed it, or why it is not."""
    token = Biscuit.from_bytes(sample.data, PublicKey(key_text(sample.root)))
    try:
        return str(AuthorizerBuilder(request).build(token).authorize())
    except (AuthorizationError, BiscuitValidationError) as error:
        return REFUSED if str(error).startswith("authorization failed") else FAILED
