"""``certauth token request``, ``attest`` and ``append``: three steps, two files, two facilities."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.clock import system_clock
from certauth.keys import Algorithm, generate, save_private
from certauth.tokens import append_attestation, attest, from_text, request_to_text, to_text
from certauth.tokens.block_writer import encode_block
from certauth.tokens.codec import decode, encode
from certauth.tokens.datalog import Tables
from certauth.tokens.signing import seal
from tests.certauth.cli.conftest import Run
from tests.certauth.cli.holders import token_of
from tests.simulator.hostile_signer import DOMAIN, HostileSigner


@pytest.fixture
def group_key(tmp_path: Path) -> Path:
    """The key with which another facility vouches for its groups, and its public half beside it."""
    key = generate(Algorithm.ED25519)
    save_private(tmp_path / "group-key.pem", key, passphrase=None)
    (tmp_path / "group.pub").write_bytes(key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return tmp_path / "group-key.pem"


@pytest.fixture
def bundle(signer: HostileSigner, tmp_path: Path) -> Path:
    """The trust bundle of the facility of the one who asks, as the other facility has it."""
    (tmp_path / "bundle.json").write_bytes(signer.bundle().to_json())
    return tmp_path / "bundle.json"


def test_three_steps(signer: HostileSigner, run: Run, stranger: Run, group_key: Path, bundle: Path, tmp_path: Path):
    """The holder asks, the other facility answers, the holder's token then says who vouches for what, until when."""
    asked, answer = tmp_path / "data.request", tmp_path / "data.answer"
    member = ("--member", f"als:run7@{group_key.with_name('group.pub')}")
    assert run("token", "attenuate", "data", *member, "--as", "members").status == 0
    assert run("token", "inspect", "members", "--json").data["refused"] is True
    assert run("token", "request", "members", "-o", asked, "--json").data == {"output": str(asked)}
    words = ("token", "attest", asked, "--group", "als:run7", "--key", group_key, "--for", "20m", "--bundle", bundle)
    done = stranger(*words, "--user", signer.subject_uri, "-o", answer)
    assert done.status == 0, done.err
    assert f"that {signer.subject_uri} is in als:run7" in done.text
    assert stat.S_IMODE(answer.stat().st_mode) == 0o644
    assert run("token", "append", "members", answer, "--as", "vouched").status == 0
    facts = run("token", "inspect", "vouched", "--json").data
    assert facts["refused"] is False
    (attestation,) = facts["attestations"]  # type: ignore[misc]  # a list of one
    assert attestation["groups"] == ["als:run7"]
    assert facts["usable_until"] == attestation["expires_at"]
    verified = run("token", "verify", "vouched")
    assert (verified.status, "is for each service to say" in verified.text) == (0, True)
    assert "vouched  data  valid" in run("token", "list").text


def test_by_pipe_and_under_the_profile_of_the_other_facility(run: Run, group_key: Path):
    """Requests and answers go through pipes; who logged in at the other facility needs no bundle file."""
    asked = run("token", "request", "data")
    answer = run("token", "attest", "-", "--group", "g", "--key", group_key, "--json", stdin=asked.out)
    assert set(answer.data) == {"answer", "user", "groups", "kid", "expires_at"}
    text = run("token", "attest", "-", "--group", "g", "--key", group_key, stdin=asked.out)
    assert text.text.startswith("certauth-answer:")
    appended = run("token", "append", "data", "-", stdin=text.out)
    assert appended.status == 0, appended.err
    assert run("token", "inspect", "-", "--json", stdin=appended.out).data["attestations"]
    assert run("token", "append", "-", "-", stdin=text.out).status == 2


def test_nobody_is_vouched_for_unseen(
    signer: HostileSigner, run: Run, stranger: Run, group_key: Path, bundle: Path, home: Path
):
    """Without the keys of the asker's facility, under other keys, or about somebody else, nothing is signed."""
    asked = run("token", "request", "data").out
    words = ("token", "attest", "-", "--group", "g", "--key", group_key, "--json")
    blind = stranger(*words, stdin=asked)
    assert (blind.status, blind.error["code"], blind.out) == (2, "no-bundle", b"")
    stranger_token = token_of(signer, home, issuer="spiffe://other.example", user="spiffe://other.example/user/x")
    unknown = run("token", "request", "-", stdin=stranger_token.encode()).out
    assert run(*words, stdin=unknown).error["code"] == "no-bundle", "a login elsewhere says nothing about them"
    other = run(*words, "--user", f"spiffe://{DOMAIN}/user/bob", stdin=asked)
    assert (other.status, other.error["code"], other.out) == (3, "other-user", b"")
    token_key, signer.token_key = signer.token_key, generate(Algorithm.ED25519)
    bundle.write_bytes(signer.bundle().to_json())
    signer.token_key = token_key
    foreign = stranger(*words, "--bundle", bundle, stdin=asked)
    assert (foreign.status, foreign.error["code"]) == (3, "token-unknown-key")


def test_a_request_in_the_name_of_another_gets_no_answer(signer: HostileSigner, run: Run, home: Path, group_key: Path):
    """Eve copies a request of Alice's content over her own token's signature: without verification the answer would be hers."""
    eve = decode(from_text(token_of(signer, home, user=f"spiffe://{DOMAIN}/user/eve")))
    alice = decode(from_text(token_of(signer, home)))
    content = encode_block(alice.contents[0], Tables())
    lie = replace(eve, blocks=(eve.blocks[0]._replace(content=content),), contents=alice.contents)
    request = encode(seal(lie))
    # What would happen: the key signs for "alice", and the answer fits Eve's genuine token.
    group = generate(Algorithm.ED25519)
    answer = attest(request, key=group, groups=["g"], expires_at=system_clock().replace(year=2040))
    assert append_attestation(encode(eve), answer)
    refused = run(
        *("token", "attest", "-", "--group", "g", "--key", group_key, "--user", signer.subject_uri, "--json"),
        stdin=request_to_text(request).encode(),
    )
    assert (refused.status, refused.error["code"], refused.out) == (3, "token-signature", b"")


def test_what_is_no_request_or_answer(run: Run, group_key: Path, home: Path):
    """A token, rubbish, endless input, an answer for another token: refused with a code."""
    token = (home / "hostile.example" / "tokens" / "data").read_bytes()
    for text in (token, b"rubbish", b"certauth-request:!!", b"certauth-request:" + b"A" * 100_000, b"\xff\x00"):
        refused = run("token", "attest", "-", "--group", "g", "--key", group_key, "--json", stdin=text)
        assert (refused.status, refused.out) == (3, b""), text[:40]
        assert str(refused.error["code"]).startswith("token-")
        assert run("token", "append", "data", "-", stdin=text).status == 3
    asked = run("token", "request", "data").out
    answer = run("token", "attest", "-", "--group", "g", "--key", group_key, stdin=asked).out
    assert run("token", "attenuate", "data", "--for", "5m", "--as", "narrowed").status == 0
    elsewhere = run("token", "append", "narrowed", "-", "--json", stdin=answer)
    assert (elsewhere.status, elsewhere.error["code"]) == (3, "token-signature")
    assert run("token", "attest", "-", "--group", "", "--key", group_key, stdin=asked).status == 2
    assert run("token", "attest", "-", "--key", group_key, stdin=asked).status == 2
    sealed = run("token", "seal", "data").out
    assert run("token", "request", "-", stdin=sealed).status == 3


def test_a_key_made_by_openssl_vouches(run: Run, tmp_path: Path):
    """The commands of the how-to make a key that this program takes, open or locked, Ed25519 or P-256."""
    asked = run("token", "request", "data").out
    (tmp_path / "secret").write_text("open sesame\n")
    (tmp_path / "secret").chmod(0o600)
    kinds = {"ed25519": ["-algorithm", "ed25519"], "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]}
    for kind, words in kinds.items():
        for locked in (False, True):
            key = tmp_path / f"{kind}-{locked}.pem"
            protect = ["-aes-256-cbc", "-pass", f"file:{tmp_path / 'secret'}"] if locked else []
            subprocess.run(["openssl", "genpkey", *words, *protect, "-out", str(key)], check=True, capture_output=True)
            key.chmod(0o600)
            more = ("--passphrase-file", tmp_path / "secret") if locked else ()
            done = run("token", "attest", "-", "--group", "g", "--key", key, *more, stdin=asked)
            assert done.status == 0, (kind, locked, done.err)
    public = tmp_path / "public.pem"
    command = ["openssl", "pkey", "-in", str(tmp_path / "p256-False.pem"), "-pubout", "-out", str(public)]
    subprocess.run(command, check=True, capture_output=True)
    assert run("token", "attenuate", "data", "--member", f"g@{public}").status == 0
    assert to_text(from_text(run("token", "append", "data", "-", stdin=done.out).text.strip()))
