"""``login``, ``logout``, ``whoami``, ``status`` as their users see them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.certificates import dump_chain, load_chain
from tests.certauth.cli.conftest import BROWSER, Run
from tests.simulator.hostile_signer import HostileSigner, problem


def test_a_login_says_who_until_when_and_where(signer: HostileSigner, stranger: Run):
    """The address is printed on stderr whatever opens it; the result says what was stored and how to undo it."""
    done = stranger("login", signer.url, "--ca-file", signer.ca_file, "--browser-command", BROWSER, "--for", "2h")
    assert done.status == 0
    assert f"{signer.url}/idp/authorize?" in done.err
    for said in ("Logged in.", signer.subject_uri, "left", signer.url, "certauth logout", "nobody"):
        assert said in done.text
    again = stranger("login", "--json")
    assert again.status == 0
    assert again.data["already"] is True
    assert again.err == ""
    assert set(again.data) == {
        "domain", "signer", "stored", "principal", "fingerprint", "serial", "not_before", "not_after", "state", "assurance",
        "already", "ignored", "clamped",
    }  # fmt: skip


def test_progress_is_json_lines_and_the_wishes_are_reported(signer: HostileSigner, run: Run):
    """With --json the address arrives as a JSON line; clamped and ignored wishes and dropped tokens are in the result."""
    clamp = {"what": "lifetime", "requested": 172800, "granted": 86400, "by": "the facility's cap"}
    signer.lies["/v1/certificates"] = lambda answer: answer | {"clamped": clamp, "ignored": ["CN=bob"]}
    arguments = ("login", signer.url, "--force", "--browser-command", BROWSER, "--for", "48h")
    done = run(*arguments, "--json")
    assert "idp/authorize" in json.loads(done.err.splitlines()[0])["progress"]
    assert (done.data["clamped"], done.data["ignored"], done.data["already"]) == (clamp, ["CN=bob"], False)
    run("token", "mint", "data")
    said = run(*arguments).text
    assert "cut: 2 d asked, 1 d granted by the facility's cap" in said
    assert "CN=bob" in said
    assert "Deleted 1 token of the previous certificate." in said
    signer.lies["/v1/certificates"] = lambda answer: answer | {"clamped": {"x": 1}}
    assert "cut: the signer granted less" in run(*arguments).text


def test_a_refused_login_is_three_and_an_unreachable_signer_five(signer: HostileSigner, stranger: Run):
    """The exit status tells a script what to do next; the signer's code and hint are shown."""
    signer.lies["/v1/certificates"] = lambda _: problem(403, "not-enrolled", "nobody enrolled you", hint="ask")
    done = stranger("login", signer.url, "--ca-file", signer.ca_file, "--browser-command", BROWSER)
    assert done.status == 3
    assert done.err.endswith("certauth: error: nobody enrolled you [not-enrolled]\ncertauth: hint: ask\n")
    assert stranger("login", "https://127.0.0.1:1", "--no-browser").status == 5
    untrusted = stranger("login", signer.url, "--no-browser")
    assert (untrusted.status, "server-untrusted" in untrusted.err, "--ca-file" in untrusted.err) == (3, True, True)
    assert stranger("login", "http://plain.example").status == 2
    assert stranger("login").status == 4
    assert stranger("status").status == 4


def test_a_login_can_wait_less(signer: HostileSigner, stranger: Run):
    """--timeout ends the wait for the browser."""
    done = stranger("login", signer.url, "--ca-file", signer.ca_file, "--no-browser", "--timeout", "1s", "--json")
    assert (done.status, done.error["code"]) == (5, "login-timeout")
    assert stranger("login", signer.url, "--timeout", "soon").status == 2


def test_ca_files_must_be_reasonable(signer: HostileSigner, stranger: Run, tmp_path: Path):
    """A CA file of megabytes is a mistake."""
    big = tmp_path / "big.pem"
    big.write_bytes(bytes(2 * 1024 * 1024))
    assert stranger("login", signer.url, "--ca-file", big).status == 2
    assert stranger("login", signer.url, "--ca-file", tmp_path / "missing").status == 2


def test_whoami(signer: HostileSigner, run: Run, stranger: Run):
    """Who, until when, from where; 4 without a login, with the command."""
    done = run("whoami", "--json")
    assert (done.status, done.data["principal"], done.data["state"]) == (0, signer.subject_uri, "valid")
    assert signer.subject_uri in run("whoami").text
    nobody = stranger("whoami", "--json")
    assert (nobody.status, nobody.error["status"]) == (4, 4)
    assert str(nobody.error["hint"]).startswith("certauth login")
    assert run("whoami", "--profile", "als.example").status == 2
    assert run("whoami", CERTAUTH_PROFILE="als.example").status == 2
    assert run("whoami", "--profile", "../home").status == 2


def test_status_shows_every_profile(signer: HostileSigner, run: Run, home: Path):
    """All profiles with their state; one that is damaged or logged out is shown as such."""
    done = run("status", "--json")
    assert done.status == 0
    assert done.data["active"] == "hostile.example"
    profiles = done.data["profiles"]
    assert isinstance(profiles, list)
    assert [(one["domain"], one["state"], one["tokens"]) for one in profiles] == [("hostile.example", "valid", 1)]
    assert "*  hostile.example" in run("status").text
    (home / "active").unlink()
    assert run("status", "--json").data["active"] is None
    (home / "hostile.example" / "key.pem").chmod(0o644)
    damaged = run("status")
    assert damaged.status == 4
    assert "key-file-open" in damaged.text


def test_an_expired_certificate_is_said_to_be(
    signer: HostileSigner, stranger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A certificate that ran out is shown as expired; logging in again is possible without naming the signer."""
    stranger("login", signer.url, "--ca-file", signer.ca_file, "--browser-command", BROWSER)
    monkeypatch.setattr(signer, "lifetime", timedelta(seconds=-1))
    chain = tmp_path / "nobody" / "hostile.example" / "chain.pem"
    chain.write_bytes(dump_chain([signer.leaf(load_chain(chain.read_bytes())[0].public_key()), signer.issuing]))
    assert stranger("whoami", "--json").error["hint"] == f"certauth login {signer.url}"
    status = stranger("status", "--json")
    assert (status.status, status.data["profiles"][0]["state"]) == (4, "expired")  # type: ignore[index]  # a list of objects
    assert stranger("cert", "inspect").status == 3
    monkeypatch.setattr(signer, "lifetime", timedelta(hours=1))
    assert stranger("login", "--browser-command", BROWSER).status == 0
    assert stranger("whoami").status == 0


def test_logout(run: Run, home: Path):
    """After a logout nothing secret is left and every command says how to log in."""
    done = run("logout", "--json")
    assert (done.status, done.data) == (0, {"domain": "hostile.example", "tokens": 1})
    assert not list(home.rglob("key.pem"))
    assert run("whoami").status == 4
    assert "0 tokens" in run("logout").text
