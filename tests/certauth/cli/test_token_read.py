"""``certauth token inspect`` and ``verify`` as their users see them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.keys import Algorithm, generate
from tests.certauth.cli.conftest import Run
from tests.certauth.cli.holders import Holder, ended, token_of
from tests.demo.stage import ROOT
from tests.simulator.hostile_signer import HostileSigner


def checks(data: dict[str, Any], holds: bool | None) -> str:
    """What is said of the checks that hold, fail or are not known."""
    return "; ".join(one["says"] for one in data["checks"] if one["holds"] is holds)


def test_inspect_says_it_in_words_and_what_it_does_not_know(signer: HostileSigner, run: Run):
    """Who may do what, where and until when; what is open, and that nothing is verified."""
    done = run("token", "inspect", "data")
    assert done.status == 0
    for part in (signer.subject_uri, "/data/", "nothing known speaks against it", "a right to do something"):
        assert part in done.text
    assert "depends on the service" in done.text
    assert done.text.endswith("Not looked at: signatures, revocations, the service's own rules.\n")
    assert "valid" not in done.text.replace("invalid", "")


def test_inspect_answers_would_this_pass(run: Run, tmp_path: Path):
    """Each part of a request can be asked about; what fails is named, and exit status 3 says it."""
    body = tmp_path / "body"
    body.write_bytes(b"content")
    wishes = ("--read", "/data/run7/", "--from", "10.0.0.0/8", "--project", "p", "--body", body, "--service", "data")
    assert run("token", "attenuate", "data", *wishes, "--as", "run7").status == 0
    good: dict[str, object] = {"service": "data", "operation": "read", "path": "/data/run7/a", "from": "10.1.2.3"}
    good |= {"project": "p", "body": body}

    def ask(**changes: object) -> Any:
        given = {**good, **changes}
        words = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
        return run("token", "inspect", "run7", *words, "--json")

    passes = ask()
    assert (passes.status, passes.data["refused"], checks(passes.data, None), checks(passes.data, False)) == (0, False, "", "")
    for change, said in (
        ({"service": "other"}, "only at data"),
        ({"operation": "write"}, "only to read"),
        ({"path": "/data/run8/a"}, "only below /data/run7/"),
        ({"path": "/elsewhere"}, "a right to read /elsewhere at data"),
        ({"from": "192.0.2.1"}, "only from 10.0.0.0/8"),
        ({"from": "2001:db8::1"}, "only from 10.0.0.0/8"),
        ({"project": "q"}, "only for project p"),
        ({"body": "sha256:" + "0" * 64}, "only with a body"),
        ({"with": "ab" * 32}, "only in the hands of certificate"),
    ):
        fails = ask(**change)
        assert (fails.status, fails.data["refused"]) == (3, True), change
        assert said in checks(fails.data, False), change
    for name in ("service", "operation", "path", "from", "project", "body"):
        unknown = ask(**{name: None})
        assert unknown.status == 0
        assert checks(unknown.data, None), name
    assert run("token", "inspect", "run7", "--from", "10.1").status == 2


def test_inspect_names_a_wrong_certificate_at_hand(signer: HostileSigner, run: Run, stranger: Run, tmp_path: Path):
    """A token that is with somebody else would be refused from here; asked with their certificate it would not."""
    job = Holder.make(signer, tmp_path, "job")
    out = tmp_path / "job.token"
    assert run("token", "delegate", "data", "--to", job.certificate, "-o", out).status == 0
    mine = run("token", "inspect", out)
    assert (mine.status, "it would be refused" in mine.text) == (0, True)
    assert run("token", "inspect", out, "--with", job.certificate).status == 0
    assert run("token", "inspect", out, "--with", job.fingerprint).status == 0
    nobody = stranger("token", "inspect", out)
    assert "no certificate at hand" in nobody.text
    assert "depends on the certificate" in nobody.text


def test_inspect_with_a_damaged_login_still_reads(run: Run, home: Path):
    """A token in a file can be read although the stored certificate cannot."""
    (home / "hostile.example" / "chain.pem").write_text("rubbish")
    assert "no certificate at hand" in run("token", "inspect", "data").text


def test_inspect_knows_what_only_the_service_knows(run: Run):
    """How often a token was used is not known here, and not claimed."""
    run("token", "attenuate", "data", "--uses", "3", "--as", "thrice")
    said = run("token", "inspect", "thrice").text
    assert "depends on the service's counter" in said


def test_inspect_counts_down_and_says_when_it_has_ended(signer: HostileSigner, run: Run, home: Path):
    """An expired token, and one that is not valid yet, would be refused."""
    path = home / "hostile.example" / "tokens" / "data"
    for times, said in ((ended(), "ended 1 h"), (ended(ago=timedelta(hours=-60)), "ends in 2 d")):
        path.write_text(token_of(signer, home, **times))
        done = run("token", "inspect", "data")
        assert (done.status, "it would be refused" in done.text, said in done.text) == (0, True, True), done.text
        assert run("token", "inspect", "data", "--service", "data").status == 3


def test_verify_under_the_right_keys_only(signer: HostileSigner, run: Run, stranger: Run, home: Path, tmp_path: Path):
    """A token verifies under its facility's bundle and nobody else's; a changed one does not; an expired one is no."""
    assert "verified under the keys of hostile.example" in run("token", "verify", "data").text
    token = home / "hostile.example" / "tokens" / "data"
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(signer.bundle().to_json())
    assert stranger("token", "verify", token, "--bundle", bundle).status == 0
    token_key, signer.token_key = signer.token_key, generate(Algorithm.ED25519)
    bundle.write_bytes(signer.bundle().to_json())
    signer.token_key = token_key
    assert stranger("token", "verify", token, "--bundle", bundle).status == 3
    changed = bytearray(token.read_bytes().strip())
    changed[60] ^= 1
    (tmp_path / "changed").write_bytes(changed)
    assert run("token", "verify", tmp_path / "changed").status == 3
    token.write_text(token_of(signer, home, **ended()))
    over = run("token", "verify", "data", "--json")
    assert (over.status, over.data["state"]) == (3, "expired")
    assert "it has run out" in run("token", "verify", "data").text


def test_tokens_under_example_keys_verify_only_where_somebody_asks_for_it(stranger: Run):
    """The private half of those keys is published: without the option, no token is verified with them."""
    words = ("token", "verify", ROOT / "keys-example" / "alice.token", "--bundle", ROOT / "keys-example" / "bundle.json")
    refused = stranger(*words, "--json")
    assert (refused.status, refused.error["code"]) == (1, "example-key")
    asked = stranger(*words, "--insecure-example-keys", "--json")
    assert asked.data["user"] == "spiffe://facility.example/user/alice"


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_what_is_no_token(run: Run, verb: str):
    """Rubbish has a code and exit status 3, or 2 if it is not even one line of text."""
    assert run("token", verb, "-", stdin=b"rubbish").status == 3
    assert run("token", verb, "-", stdin=b"").status == 2
    assert run("token", verb, "-", stdin=b"\x00\xff").status == 2
