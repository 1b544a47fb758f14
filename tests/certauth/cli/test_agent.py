"""``certauth agent`` and ``certauth renew`` as their users see them, at a real signer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certauth.cli.conftest import Run, run_in
from tests.journeys.server import serving
from tests.signer.client_home import log_in
from tests.signer.kit import DOMAIN, Site, facility

CERTAUTH = Path(sys.executable).with_name("certauth")
ROOT = Path(__file__).resolve().parents[3]
SECONDS = 60
CREATE = ("agent", "create")
RIGHTS = ("--service", "files", "--read", "/alice/run7/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility that serves."""
    with facility(tmp_path_factory.mktemp("site")) as made:
        made.enroll("alice", "files:read,write:/alice/", "mail:send:/")
        made.enroll("bob", "files:read:/bob/")
        with serving(made):  # a process of its own: what it logs is not what a command prints
            yield made


@pytest.fixture
def alice(site: Site, tmp_path: Path) -> Run:
    """Somebody who is logged in for an hour."""
    log_in(site, "alice", tmp_path / "alice", lifetime=3600)
    return run_in(tmp_path / "alice")


def test_an_agent_is_made_used_seen_and_stopped(alice: Run, tmp_path: Path):
    """What is printed is what the job needs: with it, it mints and is somebody; when stopped, it is nobody."""
    done = alice(*CREATE, "run7", *RIGHTS, "--for", "14d", "--output", tmp_path / "job")
    assert done.status == 0, done.err
    for said in (
        f"spiffe://{DOMAIN}/agent/alice.run7",
        "read /alice/run7/ at files",
        f"export CERTAUTH_HOME={tmp_path / 'job'}",
    ):
        assert said in done.text
    job = run_in(tmp_path / "job")
    assert job("whoami", "--json").data["principal"] == f"spiffe://{DOMAIN}/agent/alice.run7"
    minted = job("token", "mint", "files", "--json")
    assert minted.data["rights"] == [["files", "read", "/alice/run7/"]]
    refused = job("token", "mint", "files", "--write", "/alice/run7/", "--json")
    assert (refused.status, refused.error["code"]) == (3, "right-not-held")
    listed = alice("agent", "list")
    assert "run7" in listed.text
    assert "active" in listed.text
    assert job("agent", "list").text.startswith("You have no agents")
    assert job(*CREATE, "child", *RIGHTS, "--for", "1d", "--json").error["code"] == "agent-not-allowed"
    stopped = alice("agent", "stop", "run7", "--yes", "--reason", "finished")
    assert stopped.text.startswith("Stopped run7")
    assert "had been stopped before" in alice("agent", "stop", "run7", "--yes").text
    dead = job("token", "mint", "files", "--json")
    assert (dead.status, dead.error["code"]) == (4, "certificate-revoked")
    assert alice("agent", "list", "--json").data["agents"][0]["state"] == "stopped"  # type: ignore[index]  # a list


def test_nothing_is_given_that_was_not_said(alice: Run):
    """No rights, no service, no time: usage errors, and nobody is enrolled. Everything must be asked for as that."""
    before = alice("agent", "list", "--json").data["agents"]
    for words in (
        ("--service", "files", "--for", "1d"),
        ("--read", "/alice/", "--for", "1d"),
        RIGHTS,
        (*RIGHTS, "--all", "--for", "1d"),
        (*RIGHTS, "--for", "soon"),
    ):
        assert alice(*CREATE, "nothing", *words).status == 2, words
    assert alice("agent", "list", "--json").data["agents"] == before
    made = alice(*CREATE, "everything", "--all", "--for", "400d", "--json")
    assert {tuple(right) for right in made.data["rights"]} == {  # type: ignore[attr-defined]  # a list
        ("files", "read", "/alice/"),
        ("files", "write", "/alice/"),
        ("mail", "send", "/"),
    }
    assert made.data["clamped"]["granted"] == 30 * 86_400  # type: ignore[index]  # a mapping
    directory = Path(str(made.data["directory"]))
    assert directory.parts[-3:] == (".agents", DOMAIN, "everything")
    again = alice(*CREATE, "everything", *RIGHTS, "--for", "1d", "--json")
    assert again.error["code"] == "agent-directory"
    cut = alice(*CREATE, "cut", *RIGHTS, "--for", "400d")
    assert "Less than you asked for: 400 d asked, 30 d granted." in cut.text
    for name in ("everything", "cut"):
        assert alice("agent", "stop", name, "--yes").status == 0


def test_stopping_is_asked_about(alice: Run):
    """A no, or nobody to ask, stops nothing."""
    assert alice(*CREATE, "asked", *RIGHTS, "--for", "1d").status == 0
    no = alice("agent", "stop", "asked", stdin=b"n\n")
    assert (no.status, "nothing was stopped" in no.err) == (2, True)
    assert alice("agent", "stop", "asked").status == 130
    assert alice("agent", "stop", "asked", stdin=b"y\n").status == 0


def test_somebody_elses_agent_is_none_of_yours(site: Site, alice: Run, tmp_path: Path):
    """Nor is there a word whether it exists."""
    assert alice(*CREATE, "hers", *RIGHTS, "--for", "1d").status == 0
    log_in(site, "bob", tmp_path / "bob")
    bob = run_in(tmp_path / "bob")
    for name in ("hers", "nobodys"):
        refused = bob("agent", "stop", name, "--yes", "--json")
        assert (refused.status, refused.error["code"]) == (3, "agent-unknown")
    assert alice("agent", "stop", "hers", "--yes").status == 0


# --- renew ---------------------------------------------------------------------------------------------------------------


def test_renewing_by_hand(alice: Run):
    """Certificate and tokens, in words and as JSON; --once does nothing until it is due."""
    assert alice("token", "mint", "files", "--for", "30m").status == 0
    idle = alice("renew", "--once")
    assert (idle.status, idle.text[:22]) == (0, "Nothing is due before ")
    assert alice("renew", "--once", "--json").data["renewed"] is False
    before = alice("whoami", "--json").data
    done = alice("renew", "--json")
    assert done.data["renewed"] is True
    assert done.data["tokens"] == ["files"]
    assert str(done.data["not_after"]) > str(before["not_after"])
    assert alice("whoami", "--json").data["fingerprint"] != before["fingerprint"]
    due = alice("renew", "--once", "--before", "0.999999")
    assert due.text.startswith("Renewed the certificate until ")
    assert "and the tokens files" in due.text


@pytest.mark.parametrize(
    "words",
    [
        ("--daemon", "--once"),
        ("--before", "2"),
        ("--before", "0"),
        ("--before", "1/0"),
        ("--before", "x"),
        ("--exec", ""),
        ("--exec", "'"),
    ],
)
def test_what_cannot_be(alice: Run, words: tuple[str, ...]):
    """Usage errors, before anything is asked."""
    assert alice("renew", *words).status == 2


def test_without_a_certificate_the_hint_is_the_login(alice: Run, site: Site):
    """Exit status 4, with --once and with --daemon too."""
    assert alice("logout").status == 0
    for words in ((), ("--once",), ("--daemon",)):
        done = alice("renew", *words, "--json")
        assert (done.status, done.error["hint"]) == (4, f"certauth login {site.url}")


def test_an_agent_renews_itself(alice: Run, tmp_path: Path):
    """In its own home, also when it has no certificate."""
    assert alice(*CREATE, "self", *RIGHTS, "--for", "1d", "--output", tmp_path / "job").status == 0
    job = run_in(tmp_path / "job")
    assert job("renew", "--json").data["principal"] == f"spiffe://{DOMAIN}/agent/alice.self"
    assert job("logout").status == 0
    assert job("renew", "--once", "--json").data["renewed"] is True
    assert job("whoami").status == 0
    assert alice("agent", "stop", "self", "--yes").status == 0


def test_the_hook_runs_after_an_act(alice: Run, tmp_path: Path):
    """With the home in its environment and no shell; that it fails is said and costs nothing."""
    script = tmp_path / "hook.sh"
    script.write_text(f'#!/bin/sh\necho "$CERTAUTH_HOME $1" > {tmp_path}/ran\nexit 3\n')
    script.chmod(0o700)
    done = subprocess_run(tmp_path / "alice", "renew", "--exec", f"{script} '$HOME;'")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").read_text() == f"{tmp_path / 'alice'} $HOME;\n"
    assert "ended with status 3" in done.stderr
    missing = subprocess_run(tmp_path / "alice", "renew", "--exec", "/nowhere/at-all")
    assert missing.returncode == 0
    assert "could not be run" in missing.stderr


def environment(home: Path) -> dict[str, str]:
    """As a job has it."""
    measured = {name: value for name, value in os.environ.items() if name.startswith("COV")}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home)} | measured


def subprocess_run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``certauth`` as a process of its own."""
    return subprocess.run(
        [CERTAUTH, *words], env=environment(home), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@contextlib.contextmanager
def daemon(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A running ``certauth renew --daemon``."""
    command = [str(CERTAUTH), "renew", "--daemon", *words]
    process = subprocess.Popen(command, env=environment(home), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def until(condition: Any) -> None:
    """Wait for it."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_daemon_renews_is_alone_and_stops_when_told(site: Site, tmp_path: Path):
    """One line for each act; a second one is refused; SIGTERM ends it cleanly, with everything stored."""
    home = tmp_path / "alice"
    _, profile = log_in(site, "alice", home, lifetime=3600)
    before = profile.stored_credential().fingerprint
    with daemon(home, "--before", "0.9999", "--json") as process:
        until(lambda: profile.stored_credential().fingerprint != before or process.poll() is not None)
        second = subprocess_run(home, "renew", "--json")
        assert (second.returncode, json.loads(second.stderr)["error"]["code"]) == (2, "renewal-running")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        lines = [json.loads(line)["progress"] for line in process.stderr]
    assert lines
    assert all(" renewed the certificate until " in line for line in lines)
    assert profile.stored_credential()
    assert subprocess_run(home, "renew").returncode == 0, "the lock is gone with it"


def test_a_daemon_survives_a_signer_that_is_down(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """It says so, tries again, and succeeds when the signer is back."""
    with facility(tmp_path_factory.mktemp("down")) as place:
        place.enroll("alice", "files:read:/alice/")
        with serving(place):
            _, profile = log_in(place, "alice", tmp_path / "alice", lifetime=3600)
        before = profile.stored_credential().fingerprint
        with daemon(tmp_path / "alice", "--before", "0.99") as process:
            # Until the first failure is said; it is the only thing that it says then.
            assert process.stderr is not None
            assert "not renewed: " in process.stderr.readline()
            assert process.poll() is None
            with serving(place):
                until(lambda: profile.stored_credential().fingerprint != before)
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
