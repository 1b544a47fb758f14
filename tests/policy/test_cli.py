from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from certauth.cli import root
from policy.testing import Facility, Peer
from tests.demo.stage import free_port
from tests.policy.door import decision, record
from tests.policy.live import LOCALHOST, SECONDS, Answer, ask, client_context, write_server_files

EXAMPLES = Path(__file__).parents[2] / "keys-example"
POLICY = """
version = 1
service = "data"
[record]
mode = "strict"
path = "decisions.jsonl"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/files/"
access = "token"
[[test]]
request = "GET /files/x"
as = "spiffe://als.example/user/alice"
rights = ["read /files/"]
expect = "permit"
"""
APP = """
class Inner:
    @staticmethod
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["user"].identity.encode()})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The files of a service that is about to be protected."""

    directory: Path
    facility: Facility

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def serve(self, app: str = "inner:Inner.app", listen: str = "127.0.0.1:0") -> list[str]:
        return [
            "policy", "run", app, "--app-dir", str(self.directory), "--policy", self.path("policy.toml"),
            "--trust", self.path("trust.toml"), "--certificate", self.path("server.pem"), "--key", self.path("server.key"),
            "--listen", listen,
        ]  # fmt: skip

    def context(self, peer: Peer | None) -> ssl.SSLContext:
        """A client of it, with the certificate of ``peer``."""
        return client_context(self.facility, peer, self.directory)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A service of a facility of its own, with every file it needs."""
    facility = Facility("als.example")
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "trust.toml").write_text(
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\n'
    )
    (tmp_path / "bundle.json").write_bytes(facility.bundle().to_json())
    (tmp_path / "inner.py").write_text(APP)
    write_server_files(facility, tmp_path)
    return Site(directory=tmp_path, facility=facility)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    result = CliRunner().invoke(root, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def data(text: str) -> dict[str, Any]:
    """The JSON object that a command printed."""
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def test_a_good_document_passes(site: Site) -> None:
    """``check`` says what it read and exits with 0, for people and for programs."""
    status, out, _ = run("policy", "check", site.path("policy.toml"))
    assert status == 0
    assert "2 routes, 1 test, 0 failed" in out
    status, out, _ = run("policy", "check", site.path("policy.toml"), "--trust", site.path("trust.toml"), "--json")
    assert status == 0
    found = data(out)
    assert found["service"] == "data"
    assert found["failed"] == 0
    assert found["routes"][1] == {"number": 2, "path": "/files/", "methods": ["GET"], "access": "token"}
    assert found["tests"][0]["got"] == "permit"
    assert found["trust"] == {"domains": ["als.example"], "problems": {}}


def test_a_test_that_comes_out_otherwise_exits_with_3(site: Site) -> None:
    """A document that does not keep its own promise is told with the explanation of the decision."""
    file = site.directory / "policy.toml"
    file.write_text(POLICY.replace('"read /files/"', '"write /files/"'))
    status, out, _ = run("policy", "check", str(file))
    assert status == 3
    assert "expected permit, got right-not-held" in out
    assert "failed     rights" in out
    assert run("policy", "check", str(file), "--json")[0] == 3


def test_a_wrong_document_exits_with_1_and_names_the_key(site: Site) -> None:
    """Unknown keys in either document are errors with their place, on standard error, as JSON if asked."""
    (site.directory / "policy.toml").write_text(POLICY.replace("access", "acess", 1))
    status, out, err = run("policy", "check", site.path("policy.toml"))
    assert (status, out) == (1, "")
    assert "route[1].acess" in err
    (site.directory / "policy.toml").write_text(POLICY)
    (site.directory / "trust.toml").write_text("version = 1\ndomains = []\n")
    status, _, err = run("policy", "check", site.path("policy.toml"), "--trust", site.path("trust.toml"), "--json")
    assert status == 1
    assert data(err)["error"]["code"] == "unknown-key"


def test_a_feed_that_is_not_there_yet_is_told(site: Site) -> None:
    """A missing feed is no mistake of the document, but the owner hears of it."""
    trust = site.directory / "trust.toml"
    trust.write_text(trust.read_text().replace('"none"', '"feed.json"'))
    status, out, _ = run("policy", "check", site.path("policy.toml"), "--trust", str(trust))
    assert status == 0
    assert "feed.json" in out


def test_a_missing_document_exits_with_1(site: Site) -> None:
    """A file that is not there is named."""
    status, _, err = run("policy", "check", site.path("nowhere.toml"))
    assert status == 1
    assert "nowhere.toml" in err


def test_websocket_routes_are_listed_as_such(site: Site) -> None:
    """A websocket has no method to list."""
    (site.directory / "policy.toml").write_text(POLICY + '[[route]]\npath = "/live"\nwebsocket = true\naccess = "token"\n')
    _, out, _ = run("policy", "check", site.path("policy.toml"), "--json")
    assert data(out)["routes"][2]["methods"] == ["WEBSOCKET"]


def test_an_unmodified_app_is_served_behind_its_policy_and_explains_itself(site: Site) -> None:
    """``run`` in a process of its own: permits, denies, records; ``explain`` finds the denial; SIGTERM ends it with 0."""
    port = free_port()
    command = [sys.executable, "-c", "from certauth.cli import main; main()", *site.serve(listen=f"{LOCALHOST}:{port}")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        alice = site.facility.peer("alice")
        token = site.facility.token(alice, "data", rights=["read /files/alice/"])
        with closing(answered(site.context(alice), port, process)) as connection:
            permitted = ask(connection, "GET", "/files/alice/x", Authorization=f"Bearer {token}")
            denied = ask(connection, "GET", "/files/bob/x", Authorization=f"Bearer {token}")
        assert (permitted.status, permitted.body) == (200, b"spiffe://als.example/user/alice")
        assert (denied.status, denied.json["code"]) == (403, "right-not-held")
        with closing(answered(site.context(None), port, process)) as connection:
            assert ask(connection, "GET", "/files/alice/x").json["code"] == "certificate-required"
        request_id = denied.json["request_id"]
        # The file is whole after every record, so the door need not be stopped to be explained.
        status, out, _ = run("policy", "explain", request_id, "--decisions", site.path("decisions.jsonl"))
        assert status == 0
        assert "DENY right-not-held: GET /files/bob/x" in out
        assert "route 2 (/files/)" in out
        _, out, _ = run("policy", "explain", request_id, "--decisions", site.path("decisions.jsonl"), "--json")
        (found,) = data(out)["decisions"]
        assert (found["outcome"], found["check"], found["principal"]) == ("deny", "rights", str(alice.principal))
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert b"inner:Inner.app on https://127.0.0.1" in err


def answered(context: ssl.SSLContext, port: int, process: subprocess.Popen[bytes]) -> http.client.HTTPSConnection:
    """A connection to the server, as soon as it answers."""
    end = time.monotonic() + SECONDS
    while True:
        connection = http.client.HTTPSConnection(LOCALHOST, port, context=context, timeout=SECONDS)
        try:
            health: Answer = ask(connection, "GET", "/livez")
        except ConnectionRefusedError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)
        else:
            assert health.status == 200
            return connection


def test_an_address_in_use_is_an_error_before_anything_is_served(site: Site) -> None:
    """The documents are read, the app is loaded, and the address is taken: exit 1 with a sentence."""
    with socket.socket() as taken:
        taken.bind((LOCALHOST, 0))
        taken.listen()
        status, _, err = run(*site.serve(listen=f"{LOCALHOST}:{taken.getsockname()[1]}"))
    assert status == 1
    assert "address-unusable" in err


@pytest.mark.parametrize("listen", ["8443", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:٣"])
def test_an_address_without_a_port_is_a_usage_error(site: Site, listen: str) -> None:
    """A mistyped address is exit 2 with an example."""
    status, _, err = run(*site.serve(listen=listen))
    assert status == 2
    assert "bad-address" in err


@pytest.mark.parametrize("listen", ["[::1]:0", ":0"])
def test_addresses_of_both_families_and_none_are_understood(site: Site, listen: str) -> None:
    """An IPv6 address is in brackets, and none means loopback: both get as far as the app that is missing."""
    status, _, err = run(*site.serve(app="nowhere:app", listen=listen))
    assert status == 1
    assert "app-unusable" in err


def example(site: Site, listen: str, *, mode: int) -> list[str]:
    """``run`` with the published key."""
    for name in ("service.pem", "service.key"):
        shutil.copy(EXAMPLES / name, site.path(name))
    Path(site.path("service.key")).chmod(mode)
    return [part.replace("server.", "service.") for part in site.serve(listen=listen)]


def test_a_published_or_open_key_is_not_served_with(site: Site) -> None:
    """The keys of ``keys-example/``, and a key that others can read, end ``run`` before a port is opened."""
    with socket.create_server((LOCALHOST, 0)) as taken:  # a door that takes the key ends here, with another code
        listen = f"{LOCALHOST}:{taken.getsockname()[1]}"
        status, _, err = run(*example(site, listen, mode=0o600))
        assert (status, "example-key" in err) == (1, True)
        status, _, err = run(*example(site, listen, mode=0o644), "--insecure-example-keys")
        assert (status, "key-file-open" in err) == (1, True)


def test_the_control_the_flag_lifts_it(site: Site) -> None:
    """With ``--insecure-example-keys`` the same key serves."""
    command = [sys.executable, "-c", "from certauth.cli import main; main()"]
    port = free_port()
    arguments = [*example(site, f"{LOCALHOST}:{port}", mode=0o600), "--insecure-example-keys"]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)
    try:
        careless = ssl.create_default_context()
        careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE  # nobody vouches for a published key
        answered(careless, port, process).close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("app", "status", "code"),
    [
        ("inner", 2, "bad-app"),
        ("inner:", 2, "bad-app"),
        ("nowhere:app", 1, "app-unusable"),
        ("inner:nothing", 1, "app-unusable"),
        ("inner:Inner.nothing", 1, "app-unusable"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_named(site: Site, app: str, status: int, code: str) -> None:
    """What cannot be imported is said before a port is opened."""
    found, _, err = run(*site.serve(app=app))
    assert found == status
    assert code in err


def test_a_recorded_request_is_explained_and_an_unknown_one_is_a_usage_error(tmp_path: Path) -> None:
    """What was recorded is told with exit 0, a mistyped id exits with 2, a missing file with 1."""
    record(tmp_path, decision("request-1", code="right-not-held", reasons=("no right to read /files/x",)))
    files = str(tmp_path / "decisions.jsonl")
    status, out, _ = run("policy", "explain", "request-1", "--decisions", files)
    assert status == 0
    assert "no right to read /files/x" in out
    status, _, err = run("policy", "explain", "request-2", "--decisions", files)
    assert status == 2
    assert "request-unknown" in err
    assert run("policy", "explain", "request-1", "--decisions", str(tmp_path / "nowhere.jsonl"))[0] == 1


def test_a_changed_decision_file_is_refused(tmp_path: Path) -> None:
    """A file that does not verify explains nothing, and exits with 3."""
    file = record(tmp_path, decision("request-1"))
    file.write_bytes(file.read_bytes().replace(b"permit", b"Permit"))
    assert run("policy", "explain", "request-1", "--decisions", str(file))[0] == 3
