"""``certauth token revoke`` as its users see it, at a signer that can lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certauth.audit import record
from tests.certauth.cli.conftest import Run
from tests.certauth.cli.holders import Holder, token_of
from tests.simulator.hostile_signer import HostileSigner, problem

REVOCATIONS = "/v1/revocations"


@pytest.fixture
def revoking(signer: HostileSigner) -> HostileSigner:
    """The signer, which records what it is asked to revoke."""

    def honest(_: object) -> object:
        body = json.loads(signer.seen[-1][3])
        event = record.CredentialRevoked(
            credential=body["kind"], value=body["value"], reason=body["reason"], by=signer.subject_uri
        )
        return {"kind": body["kind"], "value": body["value"], "receipt": signer.receipt(event).to_dict()}

    signer.lies[REVOCATIONS] = honest
    return signer


def asked(signer: HostileSigner) -> dict[str, str]:
    """The last body that reached the signer."""
    body = json.loads(signer.seen[-1][3])
    assert isinstance(body, dict)
    return body


def test_a_token_and_all_derived_from_it(revoking: HostileSigner, run: Run, home: Path):
    """By name: the whole token dies, the copies stored here are deleted, and that is said."""
    jti = run("token", "inspect", "data", "--json").data["jti"]
    run("token", "attenuate", "data", "--for", "5m", "--as", "narrow")
    run("token", "mint", "data", "--name", "other")
    done = run("token", "revoke", "narrow", "--reason", "laptop lost")
    assert done.status == 0, done.err
    body = asked(revoking)
    assert {name: body[name] for name in ("kind", "value", "reason")} == {"kind": "jti", "value": jti, "reason": "laptop lost"}
    assert "token" not in body
    assert revoking.peers[-1] is not None
    assert "everything derived from it" in done.text
    assert "Deleted here: data, narrow." in done.text
    assert [path.name for path in (home / "hostile.example" / "tokens").iterdir()] == ["other"]


def test_only_what_was_made_last(revoking: HostileSigner, run: Run, home: Path):
    """--only-this names the newest block and shows the sub-token; what it was derived from stays."""
    run("token", "attenuate", "data", "--read", "/data/run7/", "--as", "run7")
    run("token", "attenuate", "run7", "--for", "5m", "--as", "brief")
    facts = run("token", "inspect", "run7", "--json").data
    text = (home / "hostile.example" / "tokens" / "run7").read_text().strip()
    done = run("token", "revoke", "run7", "--only-this", "--json")
    block = facts["block_ids"][-1]  # type: ignore[index]  # a list
    assert done.data == {"kind": "block", "value": block, "reason": "revoked by its holder", "forgotten": ["brief", "run7"]}
    body = asked(revoking)
    assert (body["kind"], body["value"], body["token"]) == ("block", block, text)
    assert [path.name for path in (home / "hostile.example" / "tokens").iterdir()] == ["data"]
    said = run("token", "revoke", "-", "--only-this", stdin=text.encode()).text
    assert "What it was derived from goes on" in said
    # A token that was never narrowed is its own newest block: then all of it is meant.
    assert run("token", "revoke", "data", "--only-this", "--json").data["kind"] == "jti"


def test_by_id_alone(revoking: HostileSigner, run: Run):
    """A token that is not at hand is named by its id."""
    assert run("token", "revoke", "--jti", "ab" * 16, "--json").data["value"] == "ab" * 16
    for words in (("data", "--jti", "ab" * 16), ("--jti", "ab" * 16, "--only-this"), ()):
        assert run("token", "revoke", *words).status == 2, words


def test_what_is_not_proved_is_not_believed(revoking: HostileSigner, run: Run, home: Path):
    """A signer that only says so, shows the receipt of something else, or refuses: nothing is deleted here."""
    honest = revoking.lies[REVOCATIONS]
    other = record.CredentialRevoked(credential="jti", value="cd" * 16, reason="x", by=revoking.subject_uri)
    token = json.loads(next((home / "hostile.example" / "receipts").glob("token-*.json")).read_text())
    lies = {
        "receipt-malformed": lambda answer: honest(answer) | {"receipt": None},
        "wrong-receipt": lambda answer: honest(answer) | {"receipt": revoking.receipt(other).to_dict()},
        "not-yours": lambda _: problem(403, "not-yours", "only its owner or an administrator may revoke this"),
    }
    for code, lie in lies.items():
        revoking.lies[REVOCATIONS] = lie
        done = run("token", "revoke", "data", "--json")
        assert (done.status, done.error["code"]) == (3, code)
    revoking.lies[REVOCATIONS] = lambda answer: honest(answer) | {"receipt": token}
    assert run("token", "revoke", "data", "--json").error["code"] == "wrong-receipt"
    assert (home / "hostile.example" / "tokens" / "data").exists()


def test_tokens_of_others(revoking: HostileSigner, run: Run, stranger: Run, home: Path, tmp_path: Path):
    """Another facility's token is not asked for here; without a login nothing is asked; damaged ones do not disturb."""
    foreign = tmp_path / "foreign"
    foreign.write_text(token_of(revoking, home, issuer="spiffe://other.example", user="spiffe://other.example/user/x"))
    seen = len(revoking.seen)
    done = run("token", "revoke", foreign, "--json")
    assert (done.status, done.error["code"]) == (2, "other-issuer")
    assert stranger("token", "revoke", foreign).status == 4
    assert len(revoking.seen) == seen
    broken = home / "hostile.example" / "tokens" / "broken"
    broken.write_text("x")
    broken.chmod(0o600)
    job = Holder.make(revoking, tmp_path, "job")
    handed = run("token", "delegate", "data", "--to", job.certificate).out
    assert run("token", "revoke", "-", "--only-this", "--json", stdin=handed).data["forgotten"] == []
    assert broken.exists()
