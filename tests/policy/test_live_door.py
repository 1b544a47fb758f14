"""The whole door over real mutual TLS, as a client meets it; and what is left of its log when it is killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import client as http_client
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from certauth.audit import decisions
from policy.decision_log import DecisionLog
from policy.middleware import PolicyMiddleware
from policy.rules import Policy, RecordMode
from policy.testing import Facility, Peer
from tests.demo.stage import free_port
from tests.policy.live import (
    LOCALHOST,
    SECONDS,
    Live,
    MovableClock,
    ask,
    client_context,
    client_roots,
    serving,
    until,
    write_server_files,
)
from tests.policy.test_middleware import APP, RULES

CHUNK = os.urandom(64 * 1024)
CHUNKS = 80
HTTP = ["H11Protocol", "HttpToolsProtocol"]
WEBSOCKET = ["WebSocketProtocol", "LegacyWebSocketProtocol"]


async def transfers(scope: Any, receive: Any, send: Any) -> None:
    """An app that hashes what is uploaded and streams what is downloaded; the Starlette app for all the rest."""
    if scope["type"] != "http" or not scope["path"].startswith("/files/big"):
        await APP(scope, receive, send)
        return
    if scope["method"] == "PUT":
        digest, pieces = hashlib.sha256(), 0
        while True:
            message = await receive()
            digest.update(message["body"])
            pieces += 1
            if not message.get("more_body"):
                break
        body = json.dumps({"digest": digest.hexdigest(), "pieces": pieces}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class LiveDoor:
    """A door, served."""

    def __init__(self, directory: Path, facility: Facility, alice: Peer, clock: MovableClock, live: Live) -> None:
        self.directory, self.facility, self.alice, self.clock, self.live = directory, facility, alice, clock, live
        self.token = facility.token(alice, "data", rights=["read /files/", "write /files/", "connect /live"])

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def connect(self, peer: Peer | None) -> http_client.HTTPSConnection:
        return self.live.connect(client_context(self.facility, peer, self.directory))

    def records(self) -> list[dict[str, Any]]:
        path = self.directory / "decisions-0.jsonl"
        with path.open("rb") as file:
            decisions.verify_lines(file)
        return [json.loads(line) for line in path.read_bytes().splitlines()[1:]]


@pytest.fixture(scope="module")
def facility() -> Facility:
    """One facility for all."""
    return Facility("als.example")


@pytest.fixture(scope="module")
def alice(facility: Facility) -> Peer:
    """A user."""
    return facility.peer("alice")


@contextmanager
def opened(facility: Facility, alice: Peer, directory: Path, **settings: Any) -> Iterator[LiveDoor]:
    """A door with strict records around ``transfers``."""
    clock = MovableClock()
    log = DecisionLog(directory / "decisions.jsonl", mode=RecordMode.STRICT, clock=clock, program="test")
    guarded = PolicyMiddleware(
        transfers, policy=Policy.parse(RULES), trust=facility.trust(), decisions=log, clock=clock, recheck_seconds=0.1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of websockets' older implementation
        with serving(guarded, facility, directory, on_failed_handshake=guarded.note_failed_handshake, **settings) as live:
            yield LiveDoor(directory, facility, alice, clock, live)
    assert log.failure is None


@pytest.mark.parametrize("http", HTTP)
def test_a_certificate_that_expires_on_a_kept_connection(facility: Facility, alice: Peer, tmp_path: Path, http: str) -> None:
    """The same connection, the same certificate, one request later: 401."""
    with opened(facility, alice, tmp_path, http=http) as door:
        connection = door.connect(alice)
        assert ask(connection, "GET", "/me").status == 200
        port = connection.sock.getsockname()[1]
        door.clock.ahead = timedelta(hours=9)
        answer = ask(connection, "GET", "/me")
        assert connection.sock.getsockname()[1] == port
        connection.close()
    assert (answer.status, answer.json["code"]) == (401, "certificate-expired")
    assert answer.headers["www-authenticate"] == 'Bearer realm="certauth"'
    assert [record["outcome"] for record in door.records()] == ["permit", "deny"]


@pytest.mark.parametrize("http", HTTP)
def test_uploads_and_downloads_stream_through(facility: Facility, alice: Peer, tmp_path: Path, http: str) -> None:
    """Five megabytes each way, in many pieces, unchanged."""
    whole = hashlib.sha256(CHUNK * CHUNKS).hexdigest()
    with opened(facility, alice, tmp_path, http=http) as door:
        connection = door.connect(alice)
        answer = ask(connection, "PUT", "/files/big", body=(CHUNK for _ in range(CHUNKS)), **door.bearer)
        assert answer.json["digest"] == whole
        assert answer.json["pieces"] > 10
        assert hashlib.sha256(ask(connection, "GET", "/files/big", **door.bearer).body).hexdigest() == whole
        connection.close()


def test_a_denied_upload_is_not_read(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """Who asks first ("Expect: 100-continue") is told no before a byte of the body is sent."""
    with (
        opened(facility, alice, tmp_path) as door,
        socket.create_connection((LOCALHOST, door.live.port)) as plain,
        client_context(facility, alice, tmp_path).wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"PUT /files/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n")
        assert tls.recv(4096).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("http", HTTP)
def test_smuggled_headers_and_paths(facility: Facility, alice: Peer, tmp_path: Path, http: str) -> None:
    """On the wire as in memory: certificate headers do not arrive, and a path with two readings is refused."""
    with opened(facility, alice, tmp_path, http=http) as door:
        connection = door.connect(alice)
        answer = ask(connection, "GET", "/me", x_ssl_client_cert="bob", client_cert=":Ym9i:", x_forwarded_client_cert="Hash=b")
        assert not {name for name in answer.json["headers"] if "cert" in name}
        assert answer.json["identity"] == "spiffe://als.example/user/alice"
        for path in ("/files/%2e%2e/me", "/files/..%2fme", "/files//x", "/files/%252e%252e/me", "/files/%ff", "/livez%00"):
            assert ask(connection, "GET", path).json["code"] == "path-ambiguous"
        answer = ask(connection, "GET", "http://evil.example/livez")
        assert answer.status == (400 if http == "H11Protocol" else 200)  # h11 leaves the authority in, httptools takes it out
        connection.close()


@pytest.mark.parametrize("http", HTTP)
@pytest.mark.parametrize("websocket", WEBSOCKET)
def test_websockets(facility: Facility, alice: Peer, tmp_path: Path, http: str, websocket: str) -> None:
    """Denied with a real 401, served with the identity, and closed when the credential ends."""
    with opened(facility, alice, tmp_path, http=http, websocket=websocket) as door:
        url, context = f"wss://localhost:{door.live.port}/live", client_context(facility, alice, tmp_path)
        with pytest.raises(InvalidStatus) as denied:
            connect(url, ssl=context, proxy=None)
        assert denied.value.response.status_code == 401
        assert denied.value.response.headers["content-type"] == "application/problem+json"
        if websocket == "WebSocketProtocol":  # the older implementation drops the body of a denial
            assert json.loads(denied.value.response.body or b"")["code"] == "token-required"
        with connect(url, ssl=context, proxy=None, additional_headers=door.bearer) as open_one:
            assert json.loads(open_one.recv())["identity"] == "spiffe://als.example/user/alice"
            open_one.send("hello")
            assert open_one.recv() == "hello"
            door.clock.ahead = timedelta(hours=9)
            with pytest.raises(ConnectionClosedError) as closed:
                open_one.recv(timeout=SECONDS)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "certificate-expired")


@pytest.mark.parametrize("http", HTTP)
def test_a_stream_ends_with_its_credential(facility: Facility, alice: Peer, tmp_path: Path, http: str) -> None:
    """The client can tell that the response is incomplete."""
    with opened(facility, alice, tmp_path, http=http) as door:
        connection = door.connect(alice)
        connection.request("GET", "/stream")
        response = connection.getresponse()
        assert response.read(5) == b"tick\n"
        door.clock.ahead = timedelta(hours=9)
        with pytest.raises((http_client.IncompleteRead, OSError)):
            response.read()
        connection.close()
    assert door.records()[-1]["code"] == "certificate-expired"


def test_a_refused_handshake_is_in_the_same_log(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """A stranger's certificate never makes a request, but it makes a record."""
    eve = Facility("elsewhere.example").peer("eve")
    with opened(facility, alice, tmp_path) as door:
        connection = door.connect(eve)
        with pytest.raises(ssl.SSLError):
            ask(connection, "GET", "/livez")
        connection.close()
        until(lambda: [record for record in door.records() if record["event"] == "handshake"])


PROGRAM = """
import sys
from pathlib import Path
from policy.middleware import PolicyMiddleware
from policy.server import ServerSettings, serve

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

directory, port = Path(sys.argv[1]), int(sys.argv[2])
guarded = PolicyMiddleware(app, policy=directory / "policy.toml", trust=directory / "trust.toml")
roots = (directory / "roots.pem").read_bytes()
serve(guarded, ServerSettings(host="127.0.0.1", port=port, certificate=directory / "server.pem", key=directory / "server.key",
                              client_roots=lambda: roots))
"""


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0


def killed_under_load(facility: Facility, alice: Peer, directory: Path, mode: str) -> set[str]:
    """Kill a server that four clients are busy with; the request ids it answered with 200 and did not record."""
    directory.mkdir()
    (directory / "policy.toml").write_bytes(RULES + f'[record]\nmode = "{mode}"\npath = "decisions.jsonl"\n'.encode())
    (directory / "bundle.json").write_bytes(facility.bundle().to_json())
    (directory / "trust.toml").write_text(
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\n'
    )
    (directory / "roots.pem").write_bytes(client_roots(facility))
    write_server_files(facility, directory)
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(directory), str(port)])
    answered: list[str] = []

    context = client_context(facility, alice, directory)

    def load() -> None:
        connection = http_client.HTTPSConnection(LOCALHOST, port, context=context, timeout=SECONDS)
        try:
            while True:
                answer = ask(connection, "GET", "/me")
                assert answer.status == 200
                answered.append(answer.headers["x-request-id"])
        except (OSError, http_client.HTTPException):
            connection.close()

    try:
        until(lambda: listens(port))
        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        until(lambda: len(answered) > 200)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for client in clients:
        client.join()
    with (directory / "decisions-0.jsonl").open("rb") as file:
        found = decisions.verify_lines(file)
    whole = (directory / "decisions-0.jsonl").read_bytes()[: found.size]
    return set(answered) - {json.loads(line).get("request") for line in whole.splitlines()}


def test_kill_9_loses_no_record_of_a_permitted_request(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """Strict mode under load: every request that was answered is in the log, and the chain verifies."""
    assert killed_under_load(facility, alice, tmp_path / "strict", "strict") == set()


def test_the_control_buffered_mode_does_lose_some(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """The negative control of the test above: what the buffer held is gone, as its documentation says."""
    assert any(killed_under_load(facility, alice, tmp_path / f"{number}", "buffered") for number in range(5))
