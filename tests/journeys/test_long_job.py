"""A job that outlives several certificates while its owner is away, until the owner stops it. Every program is a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.client.profile import Home
from tests.journeys.kit import Door, door, until, verify_database
from tests.signer.client_home import log_in
from tests.signer.kit import DOMAIN, Site, facility

ROOT = Path(__file__).resolve().parents[2]
SIGNER_AHEAD, WORLD_AHEAD = 30, 85
"""Seconds: what the signer certifies for 75 s lasts 20 s in the world, and is in its time for TLS, which knows neither."""
LIFETIME = "75s"
SECONDS = 120.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with one person."""
    with facility(tmp_path / "site") as made:
        made.enroll("alice", "files:read:/alice/")
        with made.serving():
            yield made


@pytest.fixture
def files(site: Site, tmp_path: Path) -> Iterator[Door]:
    """A service behind a door, in the world; from now on the signer is somewhat ahead of the machine."""
    with door(site, tmp_path / "door") as running:
        site.clock.offset = timedelta(seconds=SIGNER_AHEAD)
        running.clock.ahead = timedelta(seconds=WORLD_AHEAD)
        yield running


def environment(home: Path) -> dict[str, str]:
    """As a job has it: nothing but its home."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home)}


def certauth(home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A command in the world."""
    command = [sys.executable, "-m", "tests.journeys.ahead", str(WORLD_AHEAD), *map(str, words)]
    return subprocess.run(
        command, env=environment(home), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def done(home: Path, *words: object) -> dict[str, Any]:
    """What a command answered that must succeed."""
    ran = certauth(home, *words, "--json")
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


class Keeping:
    """The job's ``certauth renew --daemon``, and what it says."""

    def __init__(self, home: Path) -> None:
        words = [str(WORLD_AHEAD), "renew", "--daemon", "--for", LIFETIME, "--before", "1/9"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.journeys.ahead", *words],
            env=environment(home),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stderr is not None:
            self.lines.extend(self.process.stderr)

    def close(self) -> None:
        """Not waited for any longer."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()


@pytest.fixture
def keeping() -> Iterator[list[Keeping]]:
    """What was started ends with the test."""
    started: list[Keeping] = []
    yield started
    for one in started:
        one.close()


def test_a_job_outlives_its_certificates_and_not_its_owners_will(
    site: Site, files: Door, tmp_path: Path, keeping: list[Keeping]
):
    """Reads go on over several certificates, each of which has ended; then it is stopped, and the next read is refused."""
    alice, job = tmp_path / "alice", tmp_path / "job"
    log_in(site, "alice", alice)
    rights = ("--service", "files", "--read", "/alice/run7/", "--for", "14d", "--output", job)
    assert done(alice, "agent", "create", "run7", *rights)["environment"] == {"CERTAUTH_HOME": str(job)}
    assert certauth(alice, "logout").returncode == 0
    done(job, "renew", "--for", LIFETIME)
    done(job, "token", "mint", "files")
    profile = Home(job).active()
    first = profile.stored_credential().leaf
    keeping.append(Keeping(job))
    url = f"{files.url}/files/alice/run7/frame"
    seen: set[str] = set()
    refusals: list[str] = []

    def read() -> bool:
        ran = certauth(job, "call", "GET", url, "--token", "files", "--json")
        seen.add(profile.stored_credential().fingerprint)
        if ran.returncode:
            refusals.append(json.loads(ran.stderr.splitlines()[-1])["error"]["code"])
        return ran.returncode == 0

    def ended(leaf: Any) -> bool:
        return datetime.now(UTC) + timedelta(seconds=WORLD_AHEAD) > leaf.not_valid_after_utc

    until(lambda: read() and ended(first) and len(seen) > 2, seconds=SECONDS)
    assert keeping[0].process.poll() is None, keeping[0].lines
    # A read may meet the moment in which the two files of a token and its certificate change places.
    assert set(refusals) <= {"token-binding"}
    assert refusals.count("token-binding") < len(files.reached)
    at = len(files.reached)
    assert at > 2
    principals = {record["principal"] for record in files.records() if record["code"] == "permitted"}
    assert principals == {f"spiffe://{DOMAIN}/agent/alice.run7"}

    # The control: what its owner lacks, and what it was not given, it cannot read.
    elsewhere = certauth(job, "call", "GET", f"{files.url}/files/alice/other", "--token", "files", "--json")
    assert json.loads(elsewhere.stderr.splitlines()[-1])["error"]["code"] in {"right-not-held", "token-binding"}

    log_in(site, "alice", alice)
    active = done(alice, "agent", "list")["agents"][0]
    assert (active["name"], active["state"]) == ("run7", "active")
    assert done(alice, "agent", "stop", "run7", "--yes", "--reason", "enough")["stopped"] is True
    refusals.clear()
    until(lambda: not read() and refusals[-1] == "certificate-revoked", seconds=SECONDS)
    reached = len(files.reached)
    assert not read()
    assert len(files.reached) == reached
    assert keeping[0].process.wait(SECONDS) == 4, keeping[0].lines
    assert verify_database(site).checkpoint.size > 10
