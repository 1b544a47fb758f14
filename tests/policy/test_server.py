"""``policy.tls`` and ``policy.server`` over real mutual TLS on loopback, with every protocol class there is."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from certauth.errors import ConfigError, KeyMaterialError
from certauth.keys import save_private
from policy.server import Server, ServerSettings, serve
from policy.testing import Facility, Peer
from policy.tls import ClientCertificate
from tests.demo.stage import free_port
from tests.policy.live import LOCALHOST, Live, ask, client_context, client_roots, new_key, serving, until, write_server_files

EXAMPLES = Path(__file__).parents[2] / "keys-example"
HTTP = ["H11Protocol", "HttpToolsProtocol"]
WEBSOCKET = ["WebSocketProtocol", "LegacyWebSocketProtocol"]
LOOPS = ["asyncio", "uvloop"]


async def mirror(scope: Any, receive: Any, send: Any) -> None:
    """An app that says what it was told about the connection."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    peer = scope["extensions"]["certauth.peer"]
    told = json.dumps(
        {
            "chain": [der.hex() for der in peer["chain_der"]],
            "pem": [ssl.PEM_cert_to_DER_cert(pem).hex() for pem in scope["extensions"]["tls"]["client_cert_chain"]],
            "address": peer["address"],
            "client": list(scope["client"]),
            "uid": peer["uid"],
        }
    )
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": told})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told.encode()})


@pytest.fixture(scope="module")
def facility() -> Facility:
    """One facility for all: making keys is slow, and nothing here changes it."""
    return Facility()


@pytest.fixture(scope="module")
def alice(facility: Facility) -> Peer:
    """A user."""
    return facility.peer("alice")


@contextmanager
def live(facility: Facility, directory: Path, **settings: Any) -> Iterator[Live]:
    """A mirror, served."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of websockets' older implementation, still in use out there
        with serving(mirror, facility, directory, **settings) as running:
            yield running


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("http", HTTP)
def test_every_request_of_a_connection_knows_its_peer(
    facility: Facility, alice: Peer, tmp_path: Path, http: str, loop: str
) -> None:
    """The chain as presented, leaf first, on the first request of a connection and on the next; and the real address."""
    with live(facility, tmp_path, http=http, loop=loop) as running:
        connection = running.connect(client_context(facility, alice, tmp_path))
        for _ in range(2):
            told = ask(connection, "GET", "/").json
            assert told["chain"] == told["pem"] == [der.hex() for der in alice.chain_der]
            assert told["address"] == told["client"] == list(connection.sock.getsockname())
            assert told["uid"] is None
        connection.close()


@pytest.mark.parametrize("http", HTTP)
@pytest.mark.parametrize("websocket", WEBSOCKET)
def test_a_websocket_knows_its_peer(facility: Facility, alice: Peer, tmp_path: Path, http: str, websocket: str) -> None:
    """Both implementations, behind both parsers: an upgrade does not lose who is there."""
    with live(facility, tmp_path, http=http, websocket=websocket) as running:
        context = client_context(facility, alice, tmp_path)
        with connect(f"wss://localhost:{running.port}/", ssl=context, proxy=None) as websocket_client:
            told = json.loads(websocket_client.recv())
    assert told["chain"] == [der.hex() for der in alice.chain_der]
    assert told["address"][0] == LOCALHOST


def test_a_leaf_alone_is_enough_and_no_certificate_is_nobody(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """Some clients send no issuer: the server holds it. Without any certificate the chain is empty, not made up."""
    with live(facility, tmp_path) as running:
        connection = running.connect(client_context(facility, alice, tmp_path, leaf_only=True))
        assert ask(connection, "GET", "/").json["chain"] == [alice.chain_der[0].hex()]
        connection.close()
        connection = running.connect(client_context(facility, None, tmp_path))
        assert ask(connection, "GET", "/").json["chain"] == []
        connection.close()


def test_a_certificate_can_be_demanded(facility: Facility, tmp_path: Path) -> None:
    """With REQUIRED, nobody without a certificate gets as far as a request, and the failure is reported."""
    with live(facility, tmp_path, client_certificate=ClientCertificate.REQUIRED) as running:
        connection = running.connect(client_context(facility, None, tmp_path))
        with pytest.raises((ssl.SSLError, OSError)):
            ask(connection, "GET", "/")
        connection.close()
        failure = until(lambda: running.failures)[0]
    assert failure.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert (failure.verify_code, failure.address) == (None, LOCALHOST)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_failed_handshake_is_told_to_both_sides(facility: Facility, tmp_path: Path, loop: str) -> None:
    """The client receives the alert that says why, and the server's owner reason, code and address."""
    stranger = Facility("elsewhere.example").peer("eve")
    with live(facility, tmp_path, loop=loop) as running:
        connection = running.connect(client_context(facility, stranger, tmp_path))
        with pytest.raises(ssl.SSLError) as caught:
            ask(connection, "GET", "/")
        connection.close()
        failure = until(lambda: running.failures)[0]
    assert caught.value.reason == "TLSV1_ALERT_UNKNOWN_CA"
    assert failure.reason.startswith("CERTIFICATE_VERIFY_FAILED: unable to get local issuer")
    assert (failure.verify_code, failure.address) == (20, LOCALHOST)


def test_an_expired_certificate_gets_no_connection(tmp_path: Path, facility: Facility) -> None:
    """The handshake itself refuses what ended before it."""
    late = facility.peer("late", lifetime=timedelta(seconds=-10))
    with live(facility, tmp_path) as running:
        connection = running.connect(client_context(facility, late, tmp_path))
        with pytest.raises(ssl.SSLError, match="EXPIRED"):
            ask(connection, "GET", "/")
        connection.close()
        assert until(lambda: running.failures)[0].verify_code == 10


def test_a_service_serves_on_while_strangers_knock(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """Plain text on the TLS port is reported; a client that just leaves is not worth a record; others are served."""
    with live(facility, tmp_path) as running:
        with socket.create_connection((LOCALHOST, running.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            plain.recv(100)
        socket.create_connection((LOCALHOST, running.port)).close()
        connection = running.connect(client_context(facility, alice, tmp_path))
        assert ask(connection, "GET", "/").status == 200
        connection.close()
        assert until(lambda: running.failures)[0].reason == "HTTP_REQUEST"
        assert len(running.failures) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_session_is_never_resumed(
    facility: Facility, alice: Peer, tmp_path: Path, version: ssl.TLSVersion, loop: str
) -> None:
    """A resumed session would let a certificate in after its end. TLS 1.3 offers none; TLS 1.2 does, and is refused it."""
    context = client_context(facility, alice, tmp_path)
    context.minimum_version = context.maximum_version = version

    def request(session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with (
            socket.create_connection((LOCALHOST, running.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b""
            while data := tls.recv(4096):
                answer += data
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ConnectionError("no answer")
            assert tls.session_reused is False
            return tls.session

    with live(facility, tmp_path, loop=loop) as running:
        session = request(None)
        if version is ssl.TLSVersion.TLSv1_3:
            assert session is None or not session.has_ticket
            request(None)
            return
        assert session is not None
        with pytest.raises(OSError, match=r"no answer|reset|EOF"):
            request(session)
        assert until(lambda: running.failures)[0].reason == "SESSION_RESUMED"
        request(None)


def test_the_control_a_default_context_does_resume(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """The negative control of the test above: Python's defaults resume, so that test can fail."""
    files = write_server_files(facility, tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    server.load_verify_locations(cadata=client_roots(facility).decode())
    server.verify_mode = ssl.CERT_REQUIRED
    client = client_context(facility, alice, tmp_path)
    session, reused = None, []
    for _ in range(2):
        ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
        there = server.wrap_bio(theirs, ours, server_side=True)
        here = client.wrap_bio(ours, theirs, server_hostname="localhost", session=session)
        for step in (here.do_handshake, there.do_handshake, here.do_handshake, there.do_handshake, partial(here.read, 1)):
            with suppress(ssl.SSLWantReadError):
                step()
        session = here.session
        reused.append(here.session_reused)
    assert reused == [False, True]


def test_no_tls_older_than_1_2(facility: Facility, tmp_path: Path) -> None:
    """An old protocol is refused in the handshake."""
    context = client_context(facility, None, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with live(facility, tmp_path) as running:
        connection = running.connect(context)
        with pytest.raises((ssl.SSLError, OSError)):
            ask(connection, "GET", "/")
        connection.close()


def test_certificate_and_roots_change_without_a_restart(
    facility: Facility, alice: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New files serve new connections; one that was open lives on; unreadable files and published keys change nothing."""
    others = Facility("other.example")
    roots = [client_roots(facility)]
    bob = others.peer("bob")
    (tmp_path / "others").mkdir()
    with live(facility, tmp_path, client_roots=lambda: b"".join(roots)) as running:
        kept = running.connect(client_context(facility, alice, tmp_path))
        ask(kept, "GET", "/")
        first = kept.sock.getpeercert(binary_form=True)

        running.files.certificate.write_bytes(b"garbage")
        until(lambda: running.server._stamp == running.server._files())
        still = running.connect(client_context(facility, alice, tmp_path))
        assert ask(still, "GET", "/").status == 200
        assert still.sock.getpeercert(binary_form=True) == first
        still.close()

        good = (files := running.files).key.read_bytes()
        shutil.copy(EXAMPLES / "service.pem", files.certificate)
        files.key.write_bytes((EXAMPLES / "service.key").read_bytes())  # a pair that belongs together, and to everybody
        until(lambda: running.server._stamp == running.server._files())
        assert "a published example" in until(lambda: caplog.messages)[-1]
        still = running.connect(client_context(facility, alice, tmp_path))
        assert ask(still, "GET", "/").status == 200
        assert still.sock.getpeercert(binary_form=True) == first
        still.close()
        files.key.write_bytes(good)

        write_server_files(facility, tmp_path)
        roots.append(client_roots(others))

        def new_certificate_for_bob() -> bool:
            context = client_context(facility, bob, tmp_path)
            connection = running.connect(context)
            try:
                served = ask(connection, "GET", "/").status == 200
                return served and connection.sock.getpeercert(binary_form=True) != first
            except OSError:
                return False
            finally:
                connection.close()

        until(new_certificate_for_bob)
        assert ask(kept, "GET", "/").json["chain"] == [der.hex() for der in alice.chain_der]
        kept.close()


def test_a_request_under_way_is_finished_before_the_server_stops(facility: Facility, tmp_path: Path) -> None:
    """Stopping waits for the answer; the port is given back."""
    reached: list[Any] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        if scope["type"] != "http":
            raise RuntimeError
        reached.append(scope)
        await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with serving(slow, facility, tmp_path) as running:
        connection = running.connect(client_context(facility, None, tmp_path))
        connection.request("GET", "/")
        until(lambda: reached)
        running.server.stop()
        assert connection.getresponse().status == 204
        connection.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((LOCALHOST, running.port))


def test_what_cannot_be_served_is_said_before_anything_is_served(facility: Facility, tmp_path: Path) -> None:
    """A port in use, a key of another certificate, a missing file: each has a code, and no server comes to be."""
    files = write_server_files(facility, tmp_path)
    settings = {
        "host": LOCALHOST,
        "port": 0,
        "certificate": files.certificate,
        "key": files.key,
        "client_roots": lambda: client_roots(facility),
    }

    def server(**changes: Any) -> Server:
        return Server(mirror, ServerSettings(**{**settings, **changes}), on_failed_handshake=lambda _failure: None)

    with socket.create_server((LOCALHOST, 0)) as taken:
        with pytest.raises(ConfigError) as caught:
            server(port=taken.getsockname()[1])
        assert caught.value.code == "address-unusable"
        with pytest.raises(ConfigError):
            serve(mirror, ServerSettings(**{**settings, "port": taken.getsockname()[1]}))
    other = tmp_path / "other.key"
    save_private(other, new_key(), passphrase=None)
    for changes, code in (
        ({"key": other}, "tls-unusable"),
        ({"client_roots": lambda: b"garbage"}, "tls-unusable"),
        ({"key": tmp_path / "none"}, "key-unreadable"),
        ({"key": files.certificate}, "key-file-open"),
    ):
        with pytest.raises((ConfigError, KeyMaterialError)) as refused:
            server(**changes)
        assert refused.value.code == code


def test_a_service_without_websockets_says_so_once_and_serves(facility: Facility, tmp_path: Path) -> None:
    """The package is missing: HTTP works, and the log says what to install. Asked for by name, the class says it, too."""
    files = write_server_files(facility, tmp_path)
    (tmp_path / "roots.pem").write_bytes(client_roots(facility))
    program = (
        "import logging, sys\n"
        "sys.modules['websockets'] = None\n"
        "from pathlib import Path\n"
        "from certauth.errors import ConfigError\n"
        "from policy import server, tls\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "for name in ('WebSocketProtocol', 'LegacyWebSocketProtocol'):\n"
        "    try:\n"
        "        getattr(tls, name)\n"
        "    except ConfigError as error:\n"
        "        print(error.code, error.hint)\n"
        "here = Path(sys.argv[1])\n"
        "settings = server.ServerSettings(host='127.0.0.1', port=0, certificate=here / 'server.pem', key=here / 'server.key',\n"
        "                                 client_roots=(here / 'roots.pem').read_bytes)\n"
        "made = server.Server(None, settings, on_failed_handshake=print)\n"
        "print(made.config.ws)\n"
        "made._listener.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(files.key.parent)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "websockets-missing pip install 'iri-certauth[signer]'\n" * 2 + "none\n", done.stderr
    assert done.stderr == "WARNING WebSockets are off: pip install 'iri-certauth[signer]'\n"


def test_processes_can_share_a_port(facility: Facility, tmp_path: Path) -> None:
    """With ``share_port`` a second server binds the same port."""
    with live(facility, tmp_path, share_port=True) as running:
        settings = ServerSettings(
            host=LOCALHOST,
            port=running.port,
            certificate=running.files.certificate,
            key=running.files.key,
            client_roots=lambda: client_roots(facility),
            share_port=True,
        )
        second = Server(mirror, settings, on_failed_handshake=lambda _failure: None)
        assert second.port == running.port
        second._listener.close()


def test_an_error_in_accepting_does_not_end_the_service(facility: Facility, alice: Peer, tmp_path: Path) -> None:
    """A process that runs out of file descriptors serves the connections it has, and goes on trying."""
    with live(facility, tmp_path) as running:
        connection = running.connect(client_context(facility, alice, tmp_path))
        ask(connection, "GET", "/")
        running.server._listener.shutdown(socket.SHUT_RDWR)  # every accept fails from here on
        time.sleep(0.15)
        assert ask(connection, "GET", "/").status == 200
        connection.close()


EARLY = """
import signal
from policy.server import Server

run = Server.run

def told_to_stop_first(server):
    signal.raise_signal(signal.SIGTERM)
    run(server)

Server.run = told_to_stop_first
"""
PROGRAM = """
import sys
from pathlib import Path
from policy.server import ServerSettings, serve

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

directory, port = Path(sys.argv[1]), int(sys.argv[2])
roots = (directory / "roots.pem").read_bytes()
serve(app, ServerSettings(host="127.0.0.1", port=port, certificate=directory / "server.pem", key=directory / "server.key",
                          client_roots=lambda: roots))
"""


def test_serve_runs_until_it_is_told_to_stop(facility: Facility, tmp_path: Path) -> None:
    """In a process of its own: it serves, and a SIGTERM ends it in good order."""
    write_server_files(facility, tmp_path)
    (tmp_path / "roots.pem").write_bytes(client_roots(facility))
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), str(port)])

    def served() -> bytes:
        connection = http.client.HTTPSConnection(LOCALHOST, port, context=client_context(facility, None, tmp_path))
        try:
            return ask(connection, "GET", "/").body
        except OSError:
            return b""
        finally:
            connection.close()

    try:
        assert until(served) == b"served"
    finally:
        process.terminate()
        status = process.wait(60)
    assert status in {0, -15}


def test_a_signal_that_comes_while_the_server_starts_is_not_lost(facility: Facility, tmp_path: Path) -> None:
    """SIGTERM between the opening of the port and the first request: the server ends in good order, and does not serve on."""
    write_server_files(facility, tmp_path)
    (tmp_path / "roots.pem").write_bytes(client_roots(facility))
    command = [sys.executable, "-c", EARLY + PROGRAM, str(tmp_path), "0"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
