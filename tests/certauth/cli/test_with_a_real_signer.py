"""One journey of the user's program against the real signer and a real identity provider, every part its own process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from certauth.bundles import TrustBundle
from certauth.clock import system_clock
from certauth.revocation import open_feed
from tests.demo.stage import free_port
from tests.simulator.openid_provider import Provider, running_provider

CERTAUTH = Path(sys.executable).with_name("certauth")
ROOT = Path(__file__).resolve().parents[3]


class Facility:
    """A running signer, its admin, and its users."""

    def __init__(self, directory: Path, provider: Provider, url: str) -> None:
        self.directory = directory
        self.provider = provider
        self.url = url

    def run(self, *words: object, home: str = "nobody", status: int = 0) -> Mapping[str, object]:
        """Run ``certauth … --json``; its result, or the error it reported."""
        done = subprocess.run(
            [CERTAUTH, *map(str, words), "--json"],
            env={**os.environ, "CERTAUTH_HOME": str(self.directory / home), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout) if status == 0 else json.loads(done.stderr.splitlines()[-1])["error"]

    def browser(self, user: str) -> str:
        """A command that does what the browser of ``user`` would."""
        return f"{sys.executable} -m tests.simulator.openid_provider --user {user} --ca-file {self.provider.ca_file} --browse"

    def login(self, user: str, *words: object, status: int = 0) -> Mapping[str, object]:
        """Log in as ``user``, with a browser that fills in the provider's form."""
        roots = self.directory / "facility" / "certificates" / "root.pem"
        trusted = ("--ca-file", roots, "--ca-file", self.provider.ca_file)
        return self.run("login", self.url, *trusted, "--browser-command", self.browser(user), *words, home=user, status=status)

    def enrol(self, user: str, *words: object) -> None:
        """Enrol ``user`` as the admin does."""
        subject = ("--subject", self.provider.subject_of(user), "--reason", "a test")
        self.run("signer", "user", "enroll", user, *subject, *words, "--settings", self.directory / "facility" / "signer.toml")


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """A facility made by ``certauth signer init`` and served by ``certauth signer serve``."""
    directory = tmp_path_factory.mktemp("real")
    port = free_port()
    with running_provider(directory / "provider") as provider:
        place = Facility(directory, provider, f"https://127.0.0.1:{port}")
        place.run(
            *("signer", "init", "--directory", directory / "facility", "--trust-domain", "als.example"),
            *("--public-url", place.url, "--listen", f"127.0.0.1:{port}"),
            *("--issuer-url", provider.issuer, "--client-id", provider.client_id, "--issuer-ca", provider.ca_file),
        )
        with (directory / "signer.log").open("wb") as log:
            command = [CERTAUTH, "signer", "serve", "--settings", directory / "facility" / "signer.toml"]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        try:
            _wait(process, port, directory / "signer.log")
            yield place
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(log.read_text())


def test_from_a_login_to_an_offline_proof(facility: Facility):
    """Refused while unknown, then enrolled: certificate, token, narrower token, and receipts that the log itself confirms."""
    unknown = facility.login("alice", status=3)
    assert unknown["code"] == "not-enrolled"
    assert facility.provider.subject_of("alice") in str(unknown["hint"])

    facility.enrol("alice", "--right", "data:read,write:/alice/")
    done = facility.login("alice", "--for", "7d")
    assert done["principal"] == "spiffe://als.example/user/alice"
    assert isinstance(done["clamped"], dict)
    assert facility.run("login", home="alice")["already"] is True

    token = facility.run("token", "mint", "data", "--read", "/alice/run7/", "--for", "10m", home="alice")
    assert token["rights"] == [["data", "read", "/alice/run7/"]]
    refused = facility.run("token", "mint", "data", "--read", "/bob/", home="alice", status=3)
    assert refused["code"] == "right-not-held"
    assert facility.run("token", "mint", "elsewhere", home="alice", status=3)["code"] == "audience-unknown"
    facility.run("token", "attenuate", "data", "--for", "1m", "--as", "brief", home="alice")
    assert facility.run("token", "verify", "brief", home="alice")["state"] == "valid"

    database = facility.directory / "facility" / "signer.db"
    report = facility.run("audit", "verify", database, home="alice")
    receipts = sorted((facility.directory / "alice" / "als.example" / "receipts").iterdir())
    assert len(receipts) == 2
    for receipt in receipts:
        checked = facility.run("audit", "check-receipt", receipt, home="alice")
        assert int(str(checked["index"])) < int(str(report["entries"]))
        proved = facility.run("audit", "prove", database, checked["index"], home="alice")
        again = facility.directory / "again.json"
        again.write_text(json.dumps(proved["receipt"], separators=(",", ":"), sort_keys=True))
        assert facility.run("audit", "check-receipt", again, home="alice")["record"] == checked["record"]


def test_a_part_of_a_token_is_revoked_by_itself(facility: Facility):
    """``--only-this`` takes back what was derived and leaves the rest; somebody else may take back neither."""
    facility.enrol("bob", "--right", "data:read,write:/bob/")
    facility.login("bob")
    tokens = facility.directory / "bob" / "als.example" / "tokens"
    facility.run("token", "mint", "data", home="bob")
    for derived in ("brief", "other"):
        facility.run("token", "attenuate", "data", "--read", "/bob/run1/", "--as", derived, home="bob")
    stolen = facility.directory / "stolen"
    stolen.touch(mode=0o600)
    stolen.write_text((tokens / "data").read_text())
    done = facility.run("token", "revoke", "brief", "--only-this", home="bob")
    assert (done["kind"], done["forgotten"]) == ("block", ["brief"])
    assert facility.run("token", "verify", "other", home="bob")["state"] == "valid"
    assert revoked_at(facility) == {("block", done["value"])}

    facility.enrol("alice", "--right", "data:read:/alice/")
    facility.login("alice")
    assert facility.run("token", "revoke", stolen, home="alice", status=3)["code"] == "not-yours"
    whole = facility.run("token", "revoke", "data", "--reason", "laptop lost", home="bob")
    assert (whole["kind"], whole["forgotten"]) == ("jti", ["data", "other"])
    assert revoked_at(facility) == {("block", done["value"]), ("jti", whole["value"])}


def revoked_at(facility: Facility) -> set[tuple[str, object]]:
    """What services read in the feed."""
    roots = facility.directory / "facility" / "certificates" / "root.pem"
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(roots)), trust_env=False, timeout=30) as client:
        feed = client.get(f"{facility.url}/v1/revocations").content
    bundle = TrustBundle.parse((facility.directory / "facility" / "bundle.json").read_bytes(), allow_example_keys=False)
    opened = open_feed(feed, key=bundle.feed_key, domain=bundle.domain, newest_sequence=0, now=system_clock())
    return {(str(entry.kind), entry.value) for entry in opened.entries}


def test_two_logins_at_once_do_not_disturb_each_other(facility: Facility):
    """Two processes of one user log in at the same time; what is stored afterwards belongs together."""
    facility.enrol("bob", "--right", "data:read:/bob/")
    roots = facility.directory / "facility" / "certificates" / "root.pem"
    command = [CERTAUTH, "login", facility.url, "--force", "--ca-file", roots, "--ca-file", facility.provider.ca_file]
    command += ["--browser-command", facility.browser("bob")]
    environment = {**os.environ, "CERTAUTH_HOME": str(facility.directory / "bob"), "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert facility.run("whoami", home="bob")["state"] == "valid"
    assert facility.run("token", "mint", "data", home="bob")["rights"] == [["data", "read", "/bob/"]]
