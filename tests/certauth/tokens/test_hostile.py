"""Tokens built to keep an enforcement point busy are refused before the engine sees them.

The attacks are properly signed blocks that any holder can append offline. The controls show, in processes of their own with a
limit on their CPU time, that the engine alone does not survive them, whatever limit it is given.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from biscuit_auth import Biscuit, BlockBuilder

from certauth.errors import CertauthError, TokenError
from certauth.tokens.attenuate import attenuate
from certauth.tokens.authorizer import Allowed
from certauth.tokens.block_writer import encode_key
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BYTES, MAX_TEXT, decode, from_text, to_text
from certauth.tokens.conditions import Operations
from certauth.tokens.datalog import QUERY_HEAD, Binary, Check, KeyRef, Query, Variable
from certauth.tokens.delegate import delegate
from certauth.tokens.inspect import describe
from certauth.tokens.lint import lint
from certauth.tokens.signing import key_ref
from certauth.tokens.verify import verify
from certauth.tokens.vocabulary import Narrowing, Right
from certauth.tokens.wire import integer, nested
from tests.certauth.tokens.kit import BOB, NOW, Facility, codes, fact, with_block
from tests.costs import least_cost, slowness

NUMBERS = " ".join(f"n({number});" for number in range(30))
JOIN = ", ".join(f"n($x{number})" for number in range(5))
IMPOSSIBLE = "$x0 + $x1 + $x2 + $x3 + $x4 === -1"

FAMILIES = {
    "facts joined with themselves": (f"{NUMBERS} check if {JOIN}, {IMPOSSIBLE};", "lint-fact"),
    "a rule that derives combinations": (f"c($x0, $x1, $x2, $x3) <- {JOIN};", "lint-rule"),
    "a long body": (f"check if {JOIN};", "lint-query"),
    "nested closures": (
        "check if operation($o), {1,2,3}.any($a -> {1,2,3}.any($b -> {1,2,3}.any($c -> $a + $b + $c < 0)));",
        "lint-",
    ),
    "a regular expression": ('check if path($p), $p.matches("((a{50}){50}){50}");', "lint-regex"),
    "a foreign function": ("check if {1}.extern::f();", "lint-"),
    "arithmetic": ("check if time($t), 9223372036854775807 + 1 > 0;", "lint-operator"),
    "strings that grow": ("check if path($p), ($p + $p).length() > 0;", "lint-operator"),
    "a scope of everybody": ("check if right($s, $o, $p) trusting previous;", "lint-scope"),
    "a condition turned around": ("reject if time($t), $t > 2020-01-01T00:00:00Z;", "lint-"),
}


def appended(als: Facility, token: bytes, source: str) -> bytes:
    """``token`` with a block of the engine's own making, as an attacker with any Biscuit library has it."""
    biscuit = Biscuit.from_bytes(token, als.roots[als.kid].engine_key)
    return bytes(biscuit.append(BlockBuilder(source)).to_bytes())


@pytest.mark.parametrize(("source", "code"), FAMILIES.values(), ids=FAMILIES)
def test_bombs_are_refused_unread(als: Facility, source: str, code: str) -> None:
    """Each family of hostile blocks, made with the engine's own parser, is refused by a rule of the lint."""
    token = appended(als, als.mint(), source)
    assert len(token) < MAX_BYTES
    with pytest.raises(TokenError) as caught:
        als.verify(token)
    assert caught.value.code.startswith(code)


def test_a_tokens_own_rights_are_no_fuel(als: Facility) -> None:
    """Joining the rights of the token with themselves, which needs no fact of the attacker's, is refused as well."""
    token = als.mint(rights=tuple(Right("files", "read", f"/{number}") for number in range(60)))
    names = [fact("right", *(Variable(f"v{number}{index}") for index in range(3))) for number in range(4)]
    bomb = Block(3, checks=(Check((Query(QUERY_HEAD, tuple(names), ((Variable("v00"), "x", Binary.EQUAL),), ()),)),))
    with pytest.raises(TokenError) as caught:
        als.verify(with_block(token, bomb))
    assert caught.value.code == "lint-join"


def sets(count: int, size: int) -> str:
    """So many facts of one set each, none of them equal."""
    return " ".join(f"s({{{', '.join(str(item + 1000 * number) for item in range(size))}}});" for number in range(count))


FEW = "{" + ", ".join(map(str, range(30))) + "}"

BOMBS = {
    "facts joined with themselves": FAMILIES["facts joined with themselves"][0],
    "a rule that derives combinations": f"{NUMBERS} n(30); n(31); n(32); c($x0, $x1, $x2, $x3, $x4) <- {JOIN};",
    "the token's own rights": "check if " + ", ".join(f"right($a{n}, $b{n}, $c{n})" for n in range(4)) + ', $a0 === "x";',
    "nested closures": "check if operation($o), "
    + "".join(f"{FEW}.any(${name} -> " for name in "abcde")
    + "$a + $b + $c + $d + $e < 0"
    + ")" * 5,
    "a regular expression": " ".join(f"s({n});" for n in range(60))
    + ' check if s($x), s($y), path($p), $p.matches("(((a{90}){90}){9})");',
    "big sets, joined": f"{sets(12, 30)} check if "
    + ", ".join(f"s($x{n})" for n in range(5))
    + ", $x0.union($x1).union($x2).union($x3).union($x4).length() === 0;",
}
"""The families that burn time, at less than 6 kB each."""

BOUND_SECONDS = 0.001
"""CPU time on the reference machine, where the costliest takes half of it."""


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_at_once(als: Facility, source: str) -> None:
    """Reading and refusing takes less than a millisecond, whatever it would take to evaluate."""
    token = appended(als, with_rights(als), source)
    assert len(token) < MAX_BYTES
    found: set[str] = set()

    def refuse() -> None:
        try:
            lint(decode(token))
        except TokenError as error:
            found.add(error.code)

    assert least_cost(refuse) < BOUND_SECONDS * slowness()
    assert len(found) == 1
    assert found.pop().startswith("lint-")


def with_rights(als: Facility) -> bytes:
    """A token of the facility's own with forty rights, which is honest."""
    return als.mint(rights=tuple(Right("files", "read", f"/{number}") for number in range(40)))


def test_sets_within_sets_are_refused(als: Facility) -> None:
    """As many sets within each other as fit into a token are no reason to recurse until the stack ends."""
    term = nested(0x3A, b"")
    while len(term) < 5500:
        term = nested(0x3A, nested(0x0A, term))
    content = integer(0x18, 3) + nested(0x22, nested(0x0A, integer(0x08, 0) + nested(0x12, term)))
    link = nested(0x0A, content) + nested(0x12, encode_key(KeyRef(0, b"k" * 32))) + nested(0x1A, b"s" * 64) + integer(0x28, 1)
    data = nested(0x12, link) + nested(0x22, nested(0x0A, b"p" * 32))
    assert len(data) < MAX_BYTES
    for see in (decode, lambda data: verify(to_text(data), als.roots), lambda data: describe(to_text(data), now=NOW)):
        with pytest.raises(TokenError) as caught:
            see(data)
        assert caught.value.code == "token-malformed"


CONTROL = """
    import math, resource, sys, time
    from datetime import timedelta
    from biscuit_auth import AuthorizerBuilder, Biscuit, PublicKey
    key, token, seconds = sys.argv[1:]
    most = math.ceil(time.process_time() + float(seconds) - 0.5)  # whole seconds, not counting what the start has taken
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    biscuit = Biscuit.from_base64(token, PublicKey(key))
    builder = AuthorizerBuilder('operation("read"); path("/aaaaaaaa"); allow if true')
    limits = builder.limits()
    limits.max_time = timedelta(milliseconds=10)
    builder.set_limits(limits)
    if {extern}:
        builder.register_extern_func("f", lambda *terms: True)
    print("evaluating", flush=True)
    try:
        builder.build(biscuit).authorize()
    except Exception:
        pass
    print("done", flush=True)
"""


def start_engine(als: Facility, token: bytes, cpu_seconds: int, *, extern: bool = False) -> subprocess.Popen[str]:
    """The bare engine at work on ``token``, with a time limit of 10 ms of its own; killed after some ``cpu_seconds``."""
    key = f"ed25519/{key_ref(als.root.public_key).key.hex()}"
    program = textwrap.dedent(CONTROL).replace("{extern}", str(extern))
    command = [sys.executable, "-c", program, key, to_text(token), str(cpu_seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_the_control_without_the_lint_the_engine_hangs(als: Facility) -> None:
    """The same process answers for an honest token, and for each bomb is still busy after fifty times its own limit."""
    tokens = {name: appended(als, with_rights(als), source) for name, source in BOMBS.items()}
    honest = start_engine(als, with_rights(als), 1)
    assert honest.communicate(timeout=60)[0].split() == ["evaluating", "done"]
    assert honest.returncode == 0
    running = {name: start_engine(als, token, 1) for name, token in tokens.items()}
    ended = {name: (process.communicate(timeout=120)[0].split(), process.returncode) for name, process in running.items()}
    assert ended == dict.fromkeys(BOMBS, (["evaluating"], -9))


def test_the_control_a_foreign_function_panics_through(als: Facility) -> None:
    """Where a door has any foreign function, a holder's block ends its process: that is no ``Exception`` it could catch."""
    process = start_engine(als, appended(als, als.mint(), FAMILIES["a foreign function"][0]), 5, extern=True)
    assert process.communicate(timeout=60)[0].split() == ["evaluating"]
    assert process.returncode == 1


# --- bad input, through every door ------------------------------------------------------------------------------------------


def doors(als: Facility, data: bytes) -> dict[str, str]:
    """What every function that takes a stranger's token makes of ``data``: a code, or "taken"."""
    return {
        "decode": outcome(lambda: lint(decode(data))),
        "verify": outcome(lambda: verify(to_text(data), als.roots)),
        "inspect": outcome(lambda: describe(to_text(data), now=NOW)),
        "attenuate": outcome(lambda: attenuate(data, Narrowing(operations=("read",)))),
        "delegate": outcome(lambda: hand_over(als, data)),
    }


def outcome(action: Callable[[], object]) -> str:
    """The code of the error that ``action`` raises. Anything but an error of ours passes through and fails the test."""
    try:
        action()
    except CertauthError as error:
        return error.code
    return "taken"


def hand_over(als: Facility, data: bytes) -> bytes:
    """``data``, delegated to Bob with the holder's key."""
    return delegate(data, holder_key=als.holder, to_certificate=BOB, narrowing=Narrowing())


@pytest.fixture(scope="module")
def chain(als: Facility) -> bytes:
    """A token with every kind of link: authority, attenuation, and a hand-over signed by a P-256 key."""
    return hand_over(als, attenuate(als.mint(), Narrowing(paths=("/data/run7/",))))


def test_the_control_honest_tokens_are_taken(als: Facility, chain: bytes) -> None:
    """What is refused below is so for what was done to it: every door takes the token itself."""
    assert set(doors(als, als.mint()).values()) == {"taken"}
    assert {door: code for door, code in doors(als, chain).items() if code != "taken"} == {"delegate": "token-not-delegable"}


def test_every_changed_byte_is_refused_wherever_it_is(als: Facility, chain: bytes) -> None:
    """In a token of all kinds of links no bit can change; doors that verify no signature refuse it or see the change only."""
    for position in range(len(chain)):
        for flip in (0x01, 0x80):
            changed = bytes((*chain[:position], chain[position] ^ flip, *chain[position + 1 :]))
            assert outcome(lambda changed=changed: verify(to_text(changed), als.roots)) != "taken"
            describe_or_refuse(changed)


def test_every_changed_character_is_refused_wherever_it_is(als: Facility, chain: bytes) -> None:
    """The same of a token's text: another letter, the other alphabet, padding, space or anything else, at every place."""
    text = to_text(chain)
    assert outcome(lambda: verify(text, als.roots)) == "taken"
    for position, character in enumerate(text):
        for other in {*"AB-_+/= \n.é\x00", "", character * 2} - {character}:
            changed = text[:position] + other + text[position + 1 :]
            assert outcome(lambda changed=changed: verify(changed, als.roots)) != "taken", (position, other)


def describe_or_refuse(data: bytes) -> None:
    """Whoever only looks gets a description or an error of ours."""
    outcome(lambda: describe(to_text(data), now=NOW))
    outcome(lambda: attenuate(data, Narrowing(operations=("read",))))


def test_every_cut_and_every_addition_is_refused(als: Facility, chain: bytes) -> None:
    """No beginning of a token is one, and nothing can follow one."""
    for size in range(len(chain)):
        assert set(doors(als, chain[:size]).values()) <= {"token-malformed", "token-not-canonical"}
    for tail in (b"\x00", b"\x08\x00", nested(0x22, b""), nested(0x2A, b"x"), chain):
        assert set(doors(als, chain + tail).values()) <= {"token-malformed", "token-not-canonical"}


def fields(data: bytes) -> list[tuple[int, int]]:
    """Where the length-delimited fields of a message begin and end; none if it is not a message."""
    found, position = [], 0
    while position < len(data):
        start, kind = position, data[position] & 7
        position += 1
        value = shift = 0
        while True:
            value |= (data[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if data[position - 1] < 0x80:
                break
        position += value if kind == 2 else 0
        found.append((start, position))
    return found


def test_no_field_can_be_given_twice(als: Facility) -> None:
    """Other readers of Protocol Buffers take the last of two singular fields: here neither token nor link may repeat one."""
    token = als.mint()
    for start, end in fields(token):
        doubled = token[:end] + token[start:end] + token[end:]
        assert set(doors(als, doubled).values()) == {"token-not-canonical"}
    start, end = fields(token)[1]
    link = token[start:end][-(decode_length(token, start)) :]
    for first, last in fields(link):
        doubled = token[:start] + nested(0x12, link[:last] + link[first:last] + link[last:]) + token[end:]
        assert set(doors(als, doubled).values()) == {"token-not-canonical"}


def decode_length(data: bytes, start: int) -> int:
    """How long the content of the field at ``start`` is."""
    return next(size for size in range(len(data)) if nested(data[start], data[-size:])[1:3] == data[start + 1 : start + 3])


def test_thousands_of_blocks_and_bytes_are_refused_for_their_number(als: Facility) -> None:
    """A thousand blocks, small or real, and a header of 41 kB are refused before any of it is looked at."""
    token = als.mint()
    head, proof = token[: fields(token)[1][1]], token[slice(*fields(token)[2])]
    small = head + nested(0x1A, b"") * 1000 + proof
    assert set(doors(als, small).values()) == {"too-many-blocks"}
    real = head + nested(0x1A, bytes(150)) * 1000 + proof
    assert set(doors(als, real).values()) == {"token-too-large"}
    assert set(doors(als, bytes(41_000 * 3 // 4)).values()) == {"token-too-large"}
    for text in ("A" * 41_000, "=" * 41_000, "€" * 41_000, "\x00" * (MAX_TEXT + 1)):
        assert outcome(lambda text=text: verify(text, als.roots)) == "token-too-large"
        assert outcome(lambda text=text: describe(text, now=NOW)) == "token-too-large"


@pytest.mark.parametrize("text", ["", " ", "\x00", "токен", "biscuit:AA", "a\nb", "'; --", "%00", "AA==\r\nX: y", "\ud800"])
def test_texts_that_are_none(als: Facility, text: str) -> None:
    """Nothing, control characters, other alphabets and half a character are no token."""
    assert outcome(lambda: from_text(text) and verify(text, als.roots)) in {"token-malformed", "taken"}
    assert outcome(lambda: verify(text, als.roots)) == "token-malformed"


def test_versions_nobody_has_heard_of_are_refused(als: Facility) -> None:
    """An unknown version of payload, of Datalog, or of algorithm is refused with a code, at every door."""
    token = decode(als.mint())
    link = token.blocks[0]
    key = encode_key(link.next_key)

    def written(*, version: int = 1, content: bytes = link.content, key: bytes = key) -> bytes:
        body = nested(0x0A, content) + nested(0x12, key) + nested(0x1A, link.signature) + integer(0x28, version)
        return nested(0x12, body) + nested(0x22, nested(0x0A, token.proof))

    assert set(doors(als, written(version=2)).values()) == {"lint-version"}
    assert set(doors(als, written(version=2**63)).values()) == {"lint-version"}
    for datalog in (0, 2, 6, 7, 2**32):
        content = link.content.replace(integer(0x18, 4), integer(0x18, datalog), 1)
        assert content != link.content
        assert set(doors(als, written(content=content)).values()) == {"lint-version"}
    assert set(doors(als, written(key=b"\x08\x02" + key[2:])).values()) == {"token-malformed"}


INJECTION = 'x"); right("files", "write", "/'


@pytest.mark.parametrize("name", [INJECTION, '"); admin("true', "{p}", "$x", "\\", "// comment", "а\u0501min", "ＡＤＭＩＮ"])
def test_names_stay_names(als: Facility, name: str) -> None:
    """Text with the syntax of Datalog, or that looks like another, is what it is: one string, and nobody else's."""
    token = attenuate(als.mint(groups=(name,), projects=(name,)), Narrowing(projects=(name,)))
    verified = als.verify(token)
    assert verified.groups == (name,)
    assert als.ask(token, project=name) == Allowed()
    assert codes(als.ask(token, project="admin")) == ["token-project"]
    assert codes(als.ask(token, project=name, operation="write", path="/etc")) == ["right-not-held"]
    assert name not in {"admin", "ADMIN"}


@pytest.mark.parametrize("name", ["a\x00b", "\x1b[2J", "a\u202eb", "a\u200bb", "", "x" * 129])
def test_names_that_deceive_are_in_no_token(als: Facility, name: str) -> None:
    """NUL, escape sequences, direction marks and invisible characters are refused when writing, and when reading."""
    with pytest.raises(CertauthError) as caught:
        als.mint(groups=(name,))
    assert caught.value.code == "bad-token"
    with pytest.raises(CertauthError) as caught:
        Narrowing(projects=(name,))
    assert caught.value.code == "bad-narrowing"
    if name and len(name) < 128:
        forged = with_block(als.mint(), Block(3, checks=(Operations((name,)),)))
        assert doors(als, forged)["verify"] == "lint-string"


def test_the_same_text_to_the_eye_is_another_service(als: Facility) -> None:
    """Services and operations are ASCII, so nothing else can look like them."""
    for name in ("fіles", "ｆｉｌｅｓ", "files\u200b"):
        with pytest.raises(CertauthError):
            als.mint(audience=(name,))
        with pytest.raises(CertauthError):
            Narrowing(services=(name,))
