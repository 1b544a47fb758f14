"""Our tokens in another implementation's hands, and its tokens in ours: npm ``@biscuit-auth/biscuit-wasm`` under Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from biscuit_auth import Algorithm

from certauth.errors import TokenError
from certauth.keys import Algorithm as Kind
from certauth.keys import SoftwareKey, generate
from certauth.tokens.attenuate import attenuate
from certauth.tokens.authorizer import Allowed
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode, encode
from certauth.tokens.conditions import Operations
from certauth.tokens.low_s import is_low_s
from certauth.tokens.signing import append_answer, key_ref, seal, third_party_answer, third_party_request
from certauth.tokens.vocabulary import Narrowing
from tests.certauth.tokens.kit import ALICE, NOW, Facility, codes, entropy, fact
from tests.conformance.agreement import key_text, read
from tests.conformance.corpus import root, samples

HERE = Path(__file__).parent
MODULE = HERE.parent / "node/node_modules/@biscuit-auth/biscuit-wasm/module/biscuit.js"
VOUCHED = Block(5, facts=(fact("member", "beamline-7"),))


@cache
def missing() -> str | None:
    """What the machine lacks for these tests, if anything."""
    if not MODULE.exists():
        return "npm's @biscuit-auth/biscuit-wasm is not installed in tests/node"
    return None if shutil.which("node") else "node is not installed"


@pytest.fixture(autouse=True)
def _node() -> None:
    """Skip, and say why, where there is no other implementation."""
    if reason := missing():
        pytest.skip(reason)


def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
    """The other implementation's answers, in order."""
    done = subprocess.run(
        ["node", "--experimental-wasm-modules", "--no-warnings", HERE / "biscuit.mjs", MODULE],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def about(token: bytes, als: Facility, what: str, **more: str) -> dict[str, Any]:
    """A question about a token of the facility's."""
    return {"do": what, "token": token.hex(), "root": key_text(key_ref(als.root.public_key)), **more}


@pytest.fixture(scope="module")
def als() -> Facility:
    """The facility whose tokens travel."""
    return Facility()


def secret(key: SoftwareKey) -> str:
    """A private key as questions carry it."""
    match key.private_key:
        case private if key.algorithm is Kind.ED25519:
            return "ed25519/" + private.private_bytes_raw().hex()  # type: ignore[union-attr]  # as the algorithm says
        case private:
            return "secp256r1/" + private.private_numbers().private_value.to_bytes(32).hex()  # type: ignore[union-attr]


def test_it_reads_our_tokens(als: Facility) -> None:
    """Minted, narrowed, vouched for by either kind of key, and sealed: the same links, and not a byte changed."""
    narrowed = decode(attenuate(als.mint(), Narrowing(operations=("read",), networks=("10.0.0.0/8",))))
    tokens = [decode(als.mint()), narrowed]
    for kind in (Kind.ED25519, Kind.P256):
        answer = third_party_answer(third_party_request(narrowed), VOUCHED, generate(kind))
        tokens.append(append_answer(narrowed, answer, entropy=entropy))
    tokens += [seal(token) for token in tokens]
    answers = ask(*(about(encode(token), als, "read") for token in tokens))
    assert answers == [
        {
            "blocks": len(token.blocks),
            "ids": [link.signature.hex() for link in token.blocks],
            "token": encode(token).hex(),
        }
        for token in tokens
    ]


def test_the_control_it_verifies(als: Facility) -> None:
    """It refuses our tokens from another root, and with a byte changed: what it accepts above, it verified."""
    token = als.mint()
    other = about(token, Facility(), "read")
    changed = about(token[:-1] + bytes((token[-1] ^ 1,)), als, "read")
    cut = about(token[:-1], als, "read")
    assert [set(answer) for answer in ask(other, changed, cut)] == [{"error"}] * 3


def test_its_attenuations_are_ours(als: Facility) -> None:
    """A block it appends is one of our conditions, verifies, and narrows; ours on top of it as well."""
    token = als.mint()
    code = 'check if operation("read"); check if path($p), $p.starts_with("/data/")'
    (answer,) = ask(about(token, als, "attenuate", code=code))
    narrowed = bytes.fromhex(answer["token"])
    assert als.verify(narrowed).blocks[1].checks[0] == Operations(("read",))
    again = attenuate(narrowed, Narrowing(expires_at=NOW + timedelta(minutes=5)))
    assert als.ask(again) == Allowed()
    assert codes(als.ask(again, operation="write", path="/data/alice/log")) == ["token-operation"]
    assert codes(als.ask(again, now=NOW + timedelta(minutes=6))) == ["token-expired"]
    assert ask(about(again, als, "read"))[0]["blocks"] == 3


def test_what_it_adds_beyond_the_profile_is_refused(als: Facility) -> None:
    """Facts, rules and newer Datalog of its making get the lint's codes."""
    code = {
        'right("files", "write", "/")': "lint-fact",
        "right($s, $o, $p) <- right($s, $o, $p)": "lint-rule",
        "check if operation($o), $o == $o": "lint-version",
    }
    token = als.mint()
    for answer, refusal in zip(ask(*(about(token, als, "attenuate", code=one) for one in code)), code.values(), strict=True):
        with pytest.raises(TokenError) as caught:
            als.verify(bytes.fromhex(answer["token"]))
        assert caught.value.code == refusal


def test_both_decide_the_same(als: Facility) -> None:
    """With the same facts about a request and the same policies, both allow and refuse the same requests."""
    token = attenuate(als.mint(), Narrowing(operations=("read", "write"), paths=("/data/",), networks=("10.0.0.0/8",)))
    requests = [
        {"operation": operation, "path": path, "peer_fingerprint": peer, "client_address": address}
        for operation in ("read", "write", "delete")
        for path in ("/data/run7/a", "/data/alice/log", "/etc")
        for peer in (ALICE, ALICE[::-1])
        for address in ("10.1.2.3", "192.0.2.1")
    ]
    answers = ask(*(about(token, als, "authorize", code=facts(als, **request)) for request in requests))
    ours = [als.ask(token, **request) for request in requests]
    assert [answer.get("policy") in {0, 1} for answer in answers] == [decision == Allowed() for decision in ours]
    assert 0 < sum("policy" in answer for answer in answers) < len(answers)


def facts(als: Facility, *, operation: str, path: str, peer_fingerprint: str, client_address: str) -> str:
    """A request in Datalog, as an enforcement point of another program would state it. The values are our own."""
    address = sum(int(part) << shift for part, shift in zip(client_address.split("."), (24, 16, 8, 0), strict=True))
    return f"""
        time(2026-01-01T12:00:00Z); service("files"); operation("{operation}"); path("{path}"); tree("/data/");
        peer_cert("{peer_fingerprint}"); client_ip4({address}); uid("{als.issuer}", "{als.issuer}/user/alice");
        allow if uid($i, $u), service($s), operation($o), path($p), right($s, $o, $p);
        allow if uid($i, $u), service($s), operation($o), path($p), right($s, $o, $t), tree($t), $p.starts_with($t);
        deny if true;
    """


@pytest.mark.parametrize("kind", [Kind.ED25519, Kind.P256])
def test_its_answers_are_appended(als: Facility, kind: Kind) -> None:
    """Requests are the same bytes; a third party of its kind signs, we append, and both verify the whole."""
    token = decode(als.mint())
    request = third_party_request(token).hex()
    keys = [generate(kind) for _ in range(12)]
    question = {"do": "answer", "request": request, "code": 'member("beamline-7")'}
    first, *answers = ask(about(encode(token), als, "request"), *({**question, "secret": secret(key)} for key in keys))
    assert first["request"] == request
    with_theirs = [append_answer(token, bytes.fromhex(answer["answer"]), entropy=entropy) for answer in answers]
    for appended, key in zip(with_theirs, keys, strict=True):
        external = appended.blocks[1].external
        assert external is not None
        assert external.key == key_ref(key.public_key)
        assert kind is Kind.ED25519 or is_low_s(external.signature)
        assert appended.contents[1].facts == VOUCHED.facts
        reading = read(encode(appended), key_ref(als.root.public_key))
        assert (reading.accepted, reading.differences) == (True, [])
    assert [answer.get("blocks") for answer in ask(*(about(encode(one), als, "read") for one in with_theirs))] == [2] * 12


@pytest.mark.parametrize("kind", [Kind.ED25519, Kind.P256])
def test_third_parties_it_appended_itself(als: Facility, kind: Kind) -> None:
    """A block it signs and appends in one go is read; a P-256 signature only in the form we take, and refused by name else."""
    keys = [generate(kind) for _ in range(32)]
    signers = [{"secret": secret(key), "key": key_text(key_ref(key.public_key))} for key in keys]
    token, seen = als.mint(), set()
    for answer in ask(*(about(token, als, "vouch", code='member("a")', **signer) for signer in signers)):
        reading = read(bytes.fromhex(answer["token"]), key_ref(als.root.public_key))
        assert (reading.accepted, reading.differences) == (True, [])
        seen.add(reading.code)
    assert seen <= {"lint-third-party", "token-not-canonical"}
    assert "lint-third-party" in seen
    assert kind is Kind.P256 or "token-not-canonical" not in seen


def test_seals_hold_on_both_sides(als: Facility) -> None:
    """What either sealed, neither appends to, and both still verify."""
    token = als.mint()
    ours = encode(seal(decode(token)))
    (answer,) = ask(about(token, als, "seal"))
    theirs = bytes.fromhex(answer["token"])
    assert als.verify(theirs).jti == als.verify(ours).jti
    for sealed in (ours, theirs):
        with pytest.raises(TokenError) as caught:
            attenuate(sealed, Narrowing(operations=("read",)))
        assert caught.value.code == "token-sealed"
    refused = ask(*(about(sealed, als, "attenuate", code="check if true") for sealed in (ours, theirs)))
    assert [set(answer) for answer in refused] == [{"error"}, {"error"}]
    assert [answer["blocks"] for answer in ask(about(ours, als, "read"), about(theirs, als, "read"))] == [1, 1]


@pytest.mark.parametrize("algorithm", ["ed25519", "secp256r1"])
def test_its_own_tokens_are_read_and_refused(algorithm: str) -> None:
    """What it mints has the older signed payload, or a P-256 root: the codec reads it, the profile does not take it."""
    private, ref = root((Algorithm.Ed25519, Algorithm.Secp256r1)[algorithm == "secp256r1"])
    question = {"do": "mint", "code": 'f("a"); check if f("a")', "secret": f"{algorithm}/{bytes(private.to_bytes()).hex()}"}
    (answer,) = ask(question)
    reading = read(bytes.fromhex(answer["token"]), ref)
    assert (reading.accepted, reading.differences) == (True, [])
    assert reading.token is not None
    assert [link.version for link in reading.token.blocks] == [int(algorithm == "secp256r1")]
    assert reading.code.startswith("lint-")


def test_all_three_read_the_same() -> None:
    """Every token of the corpus: the third implementation finds the same links and writes the same bytes."""
    made = [make() for _, make in samples()]
    answers = ask(*({"do": "read", "token": one.data.hex(), "root": key_text(one.root)} for one in made))
    for sample, answer in zip(made, answers, strict=True):
        assert answer["token"] == sample.data.hex()
        token = read(*sample).token
        assert token is None or answer["ids"] == [link.signature.hex() for link in token.blocks]
