"""``certauth token list``, ``get-token`` and ``forget`` as their users see them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.certauth.cli.conftest import Run
from tests.certauth.cli.holders import Holder, ended, token_of
from tests.simulator.hostile_signer import HostileSigner


def test_list_shows_the_state_of_each(signer: HostileSigner, run: Run, home: Path, stranger: Run):
    """Valid, expired and damaged tokens are told apart; no token's text is shown."""
    tokens = home / "hostile.example" / "tokens"
    for name, text in (("broken", "x\n"), ("old", token_of(signer, home, **ended()))):
        (tokens / name).write_text(text)
        (tokens / name).chmod(0o600)
    done = run("token", "list", "--json")
    states = {one["name"]: one["state"] for one in done.data["tokens"]}  # type: ignore[attr-defined]  # a list of objects
    assert (states["data"], states["old"]) == ("valid", "expired")
    assert states["broken"].startswith("token-")
    assert set(done.data["tokens"][0]) == {"name", "stored", "state", "audience", "usable_until"}  # type: ignore[index]
    said = run("token", "list").text
    assert (tokens / "data").read_text()[:30] not in said
    for path in tokens.iterdir():
        path.unlink()
    assert run("token", "list").text.startswith("No tokens are stored")
    assert stranger("token", "list").status == 4


def test_get_token_prints_what_works(run: Run, home: Path, stranger: Run):
    """The token alone on standard output, or with its end as JSON; by name, file, pipe or discovery."""
    path = home / "hostile.example" / "tokens" / "data"
    text = path.read_text().strip()
    plain = run("token", "get-token", "data")
    assert (plain.status, plain.text, plain.err) == (0, f"{text}\n", "")
    facts = run("token", "get-token", "data", "--json").data
    assert set(facts) == {"token", "token_type", "expires_at", "holder"}
    assert (facts["token"], facts["token_type"]) == (text, "Bearer")
    assert run("token", "get-token", "-", stdin=text.encode()).text.strip() == text
    assert stranger("token", "get-token", path).text.strip() == text
    assert stranger("token", "get-token", BEARER_TOKEN=text).text.strip() == text
    assert stranger("token", "get-token").status == 2


def test_get_token_refuses_what_ends_too_soon(signer: HostileSigner, run: Run, home: Path, stranger: Run, tmp_path: Path):
    """Exit status 4, and the hint is the command that gets a new one."""
    run("token", "mint", "data", "--read", "/data/my run/", "--right", "delete:/data/x", "--for", "10m", "--name", "short")
    soon = run("token", "get-token", "short", "--min-remaining", "2h", "--json")
    assert (soon.status, soon.error["code"], soon.out) == (4, "token-ending", b"")
    assert soon.error["hint"] == ("certauth token mint data --read '/data/my run/' --right delete:/data/x --name short")
    assert run(*str(soon.error["hint"]).replace("'/data/my run/'", "/data/x").split()[1:]).status == 0
    run("token", "attenuate", "data", "--for", "5m", "--as", "narrow")
    derived = run("token", "get-token", "narrow", "--min-remaining", "2h", "--json")
    assert derived.error["hint"] == "certauth token mint data --read /data/; then derive from it as you did before"
    given = stranger("token", "get-token", home / "hostile.example" / "tokens" / "data", "--min-remaining", "2h", "--json")
    assert (given.status, given.error["hint"]) == (4, "ask whoever gave it to you for a new one")
    others = tmp_path / "others"
    others.write_text(token_of(signer, home, user="spiffe://hostile.example/user/bob"))
    assert run("token", "get-token", others, "--min-remaining", "2h", "--json").error["hint"] == given.error["hint"]
    others.write_text(token_of(signer, home, **ended()))
    (home / "hostile.example" / "chain.pem").unlink()
    gone = run("token", "get-token", "data", "--min-remaining", "2h", "--json")
    assert gone.error["hint"] == f"certauth login {signer.url}"
    over = stranger("token", "get-token", others, "--min-remaining", "0s")
    assert (over.status, over.out) == (4, b"")
    assert "the token ended" in over.err


def test_get_token_remarks_that_it_is_with_somebody_else(signer: HostileSigner, run: Run, home: Path, tmp_path: Path):
    """A token stored for a job is printed, and on standard error it is said that it will not work from here."""
    job = Holder.make(signer, tmp_path, "job")
    run("token", "delegate", "data", "--to", job.certificate, "--as", "job")
    done = run("token", "get-token", "job")
    assert done.status == 0
    assert f"in the hands of certificate {job.fingerprint[:16]}" in done.err
    assert run("token", "get-token", "job", "--json").data["holder"] == job.fingerprint
    (home / "hostile.example" / "chain.pem").unlink()
    assert run("token", "get-token", "job").err == ""


def test_a_file_for_other_tools(run: Run, stranger: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The bearer file is private, not printed, found again by discovery, and replaced as a whole."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    path = runtime / f"bt_u{os.geteuid()}"
    for _ in range(2):
        done = run("token", "get-token", "data", "--write-bearer-file", XDG_RUNTIME_DIR=str(runtime))
        assert (done.status, done.text.startswith(f"The token is in {path}")) == (0, True)
    text = (home / "hostile.example" / "tokens" / "data").read_text()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (text, 0o600)
    assert text.strip() not in done.text
    facts = run("token", "get-token", "data", "--write-bearer-file", "--json", XDG_RUNTIME_DIR=str(runtime)).data
    assert set(facts) == {"output", "token_type", "expires_at", "holder"}
    assert stranger("token", "inspect", XDG_RUNTIME_DIR=str(runtime)).status == 0
    nowhere = run("token", "get-token", "data", "--write-bearer-file", "--json", XDG_RUNTIME_DIR=str(tmp_path / "gone"))
    assert (nowhere.status, nowhere.error["code"]) == (1, "cannot-write")


def test_forget_deletes_what_is_named_or_nothing(run: Run, home: Path, stranger: Run):
    """Stored tokens go, all that were named or none; receipts stay; no name leads elsewhere."""
    run("token", "attenuate", "data", "--for", "5m", "--as", "narrow")
    tokens, receipts = home / "hostile.example" / "tokens", home / "hostile.example" / "receipts"
    before = sorted(receipts.iterdir())
    unknown = run("token", "forget", "narrow", "nothing", "--json")
    assert (unknown.status, unknown.error["code"]) == (2, "token-unknown")
    assert sorted(path.name for path in tokens.iterdir()) == ["data", "narrow"]
    for name in ("../key.pem", "..", "a/b", "."):
        assert run("token", "forget", name).status == 2, name
    assert (home / "hostile.example" / "key.pem").exists()
    assert run("token", "forget", "narrow", "data", "--json").data == {"forgotten": ["narrow", "data"]}
    assert list(tokens.iterdir()) == []
    assert sorted(receipts.iterdir()) == before
    assert run("token", "forget").status == 2
    assert stranger("token", "forget", "data").status == 4
