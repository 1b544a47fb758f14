"""``policy.tls`` apart from a running server: chains, UNIX sockets, names of classes, the command line of uvicorn."""

from __future__ import annotations

import asyncio
import http.client
import os
import pickle
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certauth.errors import ConfigError, KeyMaterialError
from certauth.keys import check_tls_key, load_private, save_private
from policy import tls
from policy.request import PEER_EXTENSION
from policy.testing import Facility, Peer
from policy.tls import ClientCertificate, ReloadingSSLContext, connection_extensions, peer_uid, presented_chain, server_context
from tests.demo.stage import free_port
from tests.policy.live import LOCALHOST, SECONDS, ask, client_context, client_roots, write_server_files

EXAMPLES = Path(__file__).parents[2] / "keys-example"
APP = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    if scope["type"] != "http":
        raise RuntimeError
    peer = scope.get("extensions", {}).get("certauth.peer", {"chain_der": (), "address": None, "uid": None})
    body = f"{len(peer['chain_der'])} {peer['address']} {peer['uid']} {'tls' in scope.get('extensions', {})}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module")
def facility() -> Facility:
    """One facility for all."""
    return Facility()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; the server's side of it."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(theirs, ours, server_side=True)
    here = client.wrap_bio(ours, theirs, server_hostname="localhost")
    for side in (here, there, here, there):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return there


def context_of(facility: Facility, directory: Path) -> ssl.SSLContext:
    """A server context of ours."""
    files = write_server_files(facility, directory)
    return server_context(
        certificate=files.certificate,
        key=files.key,
        client_roots=client_roots(facility),
        client_certificate=ClientCertificate.OPTIONAL,
    )


def test_the_context_keeps_its_rules(facility: Facility, tmp_path: Path) -> None:
    """What the module promises about TLS, read back from the context."""
    context = context_of(facility, tmp_path)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert context.num_tickets == 0
    assert context.post_handshake_auth is False
    for option in (ssl.OP_NO_TICKET, ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION):
        assert context.options & option


def test_an_encrypted_key_does_not_ask_on_the_terminal(facility: Facility, tmp_path: Path) -> None:
    """A service has none; without its passphrase the key is unusable, at once."""
    files = write_server_files(facility, tmp_path)
    save_private(files.key, load_private(files.key, passphrase=None), passphrase=b"secret")

    def context(passphrase: str | None) -> ssl.SSLContext:
        return server_context(
            certificate=files.certificate,
            key=files.key,
            client_roots=client_roots(facility),
            client_certificate=ClientCertificate.REQUIRED,
            passphrase=passphrase,
        )

    for passphrase, code in ((None, "key-locked"), ("", "key-locked"), ("other", "bad-key")):
        with pytest.raises(KeyMaterialError) as caught:
            context(passphrase)
        assert caught.value.code == code
        assert "other" not in str(caught.value)
    assert context("secret").verify_mode is ssl.CERT_REQUIRED


def pem_of(private: PrivateKeyTypes, passphrase: bytes | None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """A private key as other programs write it."""
    return private.private_bytes(
        Encoding.PEM, form, NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    )


def test_tls_keys_of_every_usual_kind_are_read(tmp_path: Path) -> None:
    """RSA and EC, PKCS#8 and traditional, locked or not; a passphrase for a key that needs none is no error."""
    path = tmp_path / "key"
    path.touch(mode=0o600)
    curve, rsa_key = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)
    for private in (curve, rsa_key, ed25519.Ed25519PrivateKey.generate()):
        for passphrase in (None, b"secret"):
            path.write_bytes(pem_of(private, passphrase))
            check_tls_key(path, passphrase=b"secret", allow_example_keys=False)
    for traditional in (curve, rsa_key):
        path.write_bytes(pem_of(traditional, None, PrivateFormat.TraditionalOpenSSL))
        check_tls_key(path, passphrase=None, allow_example_keys=False)


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        ((EXAMPLES / "service.key").read_bytes(), 0o600, "example-key"),
        ((EXAMPLES / "service.pem").read_bytes() + (EXAMPLES / "service.key").read_bytes(), 0o600, "example-key"),
        (
            pem_of(load_pem_private_key((EXAMPLES / "root.key").read_bytes(), None), b"x"),
            0o600,
            "example-key",
        ),
        ((EXAMPLES / "service.key").read_bytes(), 0o644, "key-file-open"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), None), 0o640, "key-file-open"),
        (pem_of(x25519.X25519PrivateKey.generate(), None), 0o600, "bad-key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "bad-key"),
    ],
    ids=["example", "example behind its certificate", "example in disguise", "open example", "open", "cannot sign", "garbage"],
)
def test_keys_that_openssl_would_take_and_we_do_not(tmp_path: Path, content: bytes, mode: int, code: str) -> None:
    """Published, encrypted again or not; readable by others; of no use."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(KeyMaterialError) as caught:
        check_tls_key(path, passphrase=b"x", allow_example_keys=False)
    assert caught.value.code == code
    if code == "example-key":
        check_tls_key(path, passphrase=b"x", allow_example_keys=True)


def test_the_presented_chain_has_the_leaf_first(facility: Facility, tmp_path: Path) -> None:
    """On any Python: at least the leaf; on this one, the chain as sent. No connection, no certificate: nothing."""
    alice: Peer = facility.peer("alice")
    server = context_of(facility, tmp_path)
    made = handshake(server, client_context(facility, alice, tmp_path))
    assert presented_chain(made) == alice.chain_der
    assert presented_chain(handshake(server, client_context(facility, None, tmp_path))) == ()
    assert presented_chain(None) == ()

    class OnlyTheLeaf:
        """What a Python without the private function would offer."""

        def getpeercert(self, *, binary_form: bool) -> bytes:
            return alice.chain_der[0] if binary_form else b""

    assert presented_chain(OnlyTheLeaf()) == alice.chain_der[:1]  # type: ignore[arg-type]  # the outside world's part


def test_a_failed_handshake_without_a_listener_is_still_a_failure(facility: Facility, tmp_path: Path) -> None:
    """Nobody asked to be told; the handshake fails all the same, the second time it is tried as well."""
    eve = Facility("elsewhere.example").peer("eve")
    failed = handshake(context_of(facility, tmp_path), client_context(facility, eve, tmp_path))
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError):
            failed.do_handshake()


def test_a_failed_reload_keeps_the_last_good_context(facility: Facility, tmp_path: Path) -> None:
    """The error is raised to whoever reloads, and the next connection is served as before."""
    contexts: list[Any] = [context_of(facility, tmp_path)]

    def build() -> ssl.SSLContext:
        if not contexts:
            raise ConfigError("tls-unusable", "nothing there")
        context: ssl.SSLContext = contexts.pop()
        return context

    reloading = ReloadingSSLContext(build)
    with pytest.raises(ConfigError):
        reloading.reload()
    alice = facility.peer("alice")
    assert presented_chain(handshake(reloading, client_context(facility, alice, tmp_path))) == alice.chain_der


def test_the_kernel_says_who_is_at_a_unix_socket() -> None:
    """The uid of the process at the other end; other sockets have none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs, socket.socket(socket.AF_INET) as inet:
        assert peer_uid(ours) == os.getuid()
        assert peer_uid(inet) is None
    assert peer_uid(None) is None


def test_a_plain_connection_has_an_address_and_no_tls() -> None:
    """Behind a server without TLS the app is told who connects, and nothing about certificates."""

    class Plain(asyncio.Transport):
        """A transport as the event loop hands it over."""

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return {"peername": ("192.0.2.7", 9)}.get(name, default)

    assert connection_extensions(Plain()) == {PEER_EXTENSION: {"chain_der": (), "address": ("192.0.2.7", 9), "uid": None}}


class ResumedTransport(asyncio.Transport):
    """A transport as uvicorn's own context makes it, whose client went on with an earlier session or not."""

    def __init__(self, *, session_reused: bool) -> None:
        self.context, self.session_reused, self.aborted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), session_reused, False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sslcontext": self.context, "ssl_object": self}.get(name, default)

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        return None

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("session_reused", [True, False])
def test_a_resumed_connection_is_ended_and_not_listened_to(*, session_reused: bool) -> None:
    """Also to what has arrived already; and the context issues no more tickets."""

    class Base:
        """What all of uvicorn's protocol classes have in common."""

        def __init__(self) -> None:
            self.app, self.heard = None, b""

        def connection_made(self, transport: asyncio.Transport) -> None: ...

        def data_received(self, data: bytes) -> None:
            self.heard += data

    transport, made = ResumedTransport(session_reused=session_reused), tls.with_peer(Base, "Made")()
    for _ in range(2):  # the context is left alone once it is as it should be
        made.connection_made(transport)
    made.data_received(b"GET /")
    assert transport.aborted is session_reused
    assert made.heard == (b"" if session_reused else b"GET /")
    assert (made.app is None) is session_reused
    assert transport.context.num_tickets == 0
    assert transport.context.options & ssl.OP_NO_TICKET


def test_a_plain_connection_resumes_nothing() -> None:
    """Without TLS there is no session; the class serves as ever."""

    class Base:
        """The least a protocol class has."""

        app = None

        def connection_made(self, transport: asyncio.Transport) -> None: ...

    class Plain(asyncio.Transport):
        """A connection to a UNIX socket, or behind a proxy that ends TLS."""

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def abort(self) -> None:
            raise AssertionError("it was ended")

    made = tls.with_peer(Base, "Made")()
    made.connection_made(Plain())
    assert made.app is not None


@pytest.mark.parametrize("name", ["H11Protocol", "HttpToolsProtocol", "HTTPProtocol", "WebSocketProtocol"])
def test_protocol_classes_are_attributes_of_the_module(name: str) -> None:
    """Uvicorn finds them by name, and its worker processes unpickle them by name."""
    made = getattr(tls, name)
    assert made is getattr(tls, name)
    assert pickle.loads(pickle.dumps(made)) is made
    assert (made.__module__, made.__qualname__) == ("policy.tls", name)


def test_no_other_attribute_appears() -> None:
    """A misspelt name is an error, not a class without our addition."""
    with pytest.raises(AttributeError, match="H12Protocol"):
        _ = tls.H12Protocol


def test_without_websockets_the_class_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name on uvicorn's command line ends in a sentence and not in an import error."""
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(ConfigError) as caught:
        tls.__getattr__("LegacyWebSocketProtocol")
    assert (caught.value.code, caught.value.hint) == ("websockets-missing", "pip install 'iri-certauth[signer]'")


def test_the_base_installation_is_enough(tmp_path: Path) -> None:
    """Without httptools, websockets and uvloop the module loads, and h11 serves."""
    program = (
        "import sys\n"
        "for name in ('httptools', 'websockets', 'uvloop'): sys.modules[name] = None\n"
        "from policy.tls import H11Protocol, HTTPProtocol\n"
        "import policy.server\n"
        "print(HTTPProtocol.__mro__[1].__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("H11Protocol\n", "")


@contextmanager
def uvicorn_command(directory: Path, *arguments: str, ws: str = "policy.tls:WebSocketProtocol") -> Iterator[None]:
    """Uvicorn as its own command line starts it."""
    (directory / "guarded.py").write_text(APP)
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "guarded:app",
        "--app-dir",
        str(directory),
        "--ws",
        ws,
    ]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def retry(call: Any) -> Any:
    """The result of ``call`` once the server is up."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return call()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_uvicorn_s_own_command_line_takes_the_classes(facility: Facility, tmp_path: Path) -> None:
    """``--http policy.tls:H11Protocol``: the app learns of the client's chain with no change to the app or to uvicorn."""
    files = write_server_files(facility, tmp_path)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(client_roots(facility))
    alice = facility.peer("alice")
    port = free_port()
    options = ["--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key)]
    options += ["--ssl-ca-certs", str(roots), "--ssl-cert-reqs", "1", "--http", "policy.tls:H11Protocol", "--port", str(port)]
    with uvicorn_command(tmp_path, *options):

        def call() -> bytes:
            context = client_context(facility, alice, tmp_path)
            connection = http.client.HTTPSConnection(LOCALHOST, port, context=context, timeout=SECONDS)
            try:
                return ask(connection, "GET", "/").body
            finally:
                connection.close()

        told = retry(call).decode()
    assert told.startswith("2 ('127.0.0.1', ")
    assert told.endswith(" None True")


def resumes(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, head: bytes) -> tuple[bool, bytes, Any]:
    """One connection that asks to go on with ``session``: whether the server went on with it, its answer, the next session."""
    with (
        socket.create_connection((LOCALHOST, port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as tls_socket,
    ):
        answer = b""
        with suppress(ConnectionError, ssl.SSLError):
            tls_socket.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n")
            while (data := tls_socket.recv(4096)) and b"\r\n\r\n" not in answer:
                answer += data
        return bool(tls_socket.session_reused), answer, tls_socket.session


UPGRADE = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CLOSE = b"connection: close\r\n"


@pytest.mark.parametrize(
    ("http_class", "ws_class", "head", "refused"),
    [
        ("policy.tls:H11Protocol", "policy.tls:WebSocketProtocol", CLOSE, True),
        ("policy.tls:HttpToolsProtocol", "policy.tls:WebSocketProtocol", CLOSE, True),
        ("h11", "policy.tls:WebSocketProtocol", UPGRADE, True),
        ("h11", "policy.tls:LegacyWebSocketProtocol", UPGRADE, True),
        ("h11", "policy.tls:WebSocketProtocol", CLOSE, False),
        ("h11", "websockets-sansio", UPGRADE, False),
    ],
    ids=["h11", "httptools", "websocket", "legacy websocket", "control", "control websocket"],
)
def test_plain_uvicorn_resumes_no_session_into_our_classes(
    facility: Facility, tmp_path: Path, http_class: str, ws_class: str, head: bytes, *, refused: bool
) -> None:
    """Uvicorn's own context takes resumed sessions, as the controls show; our classes stop that, or end the connection."""
    files = write_server_files(facility, tmp_path)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(client_roots(facility))
    new, old = (client_context(facility, facility.peer("alice"), tmp_path) for _ in range(2))
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.options |= ssl.OP_NO_TICKET  # by session id, from a cache that Python cannot switch off
    port = free_port()
    options = ["--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key), "--ssl-ca-certs", str(roots)]
    options += ["--ssl-cert-reqs", "1", "--http", http_class, "--port", str(port)]
    with uvicorn_command(tmp_path, *options, ws=ws_class):
        _, answer, session = retry(lambda: resumes(port, new, None, head))
        assert answer.startswith(b"HTTP/1.1 ")
        assert session.has_ticket, "there is nothing to resume, so this proves nothing"
        # A ticket from before is no longer taken: the client is verified like a new one, and need not try again.
        reused, answer, _ = resumes(port, new, session, head)
        assert (reused, answer.startswith(b"HTTP/1.1 ")) == (not refused, True)
        _, _, session = resumes(port, new, None, head)
        assert (session is None or not session.has_ticket) is refused
        _, answer, session = resumes(port, old, None, head)
        assert answer.startswith(b"HTTP/1.1 ")
        reused, answer, _ = resumes(port, old, session, head)
        assert reused, "the server did not take the session, so this proves nothing"
        assert (answer == b"") is refused
        assert resumes(port, old, None, head)[1].startswith(b"HTTP/1.1 ")


def test_over_a_unix_socket_the_app_learns_the_uid(tmp_path: Path) -> None:
    """Plain HTTP on a UNIX socket: no chain, no address, but the peer's user id."""
    path = tmp_path / "s"

    def call() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
            return answer.rpartition(b"\r\n\r\n")[2]

    with uvicorn_command(tmp_path, "--uds", str(path), "--http", "policy.tls:HttpToolsProtocol"):
        assert retry(call).decode() == f"0 None {os.getuid()} False"
