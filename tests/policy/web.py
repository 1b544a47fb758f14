"""A facility's web server on loopback, which says what a test wants it to say."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

from certauth.certificates import dump_chain, make_service
from certauth.keys import Algorithm, generate, save_private
from certauth.names import Kind, Principal
from certauth.revocation import sign_feed
from policy.testing import Facility
from tests.policy.door import START


class WebServer:
    """A facility's web server on loopback; ``answer`` is what it does with each request."""

    def __init__(self, directory: Path, facility: Facility) -> None:
        self.requests = 0
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: handler.send_error(404)
        certificate, key = directory / "server.pem", directory / "server.key"
        service = generate(Algorithm.P256)
        leaf = make_service(
            principal=Principal.make(facility.domain, Kind.SERVICE, "ca"),
            public_key=service.public_key,
            ip_addresses=[IPv4Address("127.0.0.1")],
            issuer=facility.issuing,
            issuer_key=facility.issuing_key,
            serial=77,
            not_before=datetime.now(START.tzinfo) - timedelta(minutes=1),
            not_after=datetime.now(START.tzinfo) + timedelta(hours=1),
        )
        certificate.write_bytes(dump_chain([leaf]))  # without its issuer: the bundle holds that
        save_private(key, service, passphrase=None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parameter's name
                """Keep the test's output clean."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that refuses our certificate or hangs up is what some tests want to see."""

        self._server = Quiet(("127.0.0.1", 0), Handler, bind_and_activate=True)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/v1/revocations"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def serve_feed(self, facility: Facility) -> None:
        """Answer with the facility's feed as it is at each request."""
        self.serve(lambda: sign_feed(facility.feed(), facility.feed_key))

    def serve(self, document: Callable[[], bytes]) -> None:
        """Answer with what ``document`` gives at each request."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            data = document()
            handler.send_response(200)
            handler.send_header("content-length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        self.answer = answer

    def redirect(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer: a redirect to the same place."""
        handler.send_response(302)
        handler.send_header("location", self.url)
        handler.send_header("content-length", "0")
        handler.end_headers()

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer: a byte now and then, until somebody hangs up."""
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b" ")
                time.sleep(0.05)

    def drip_headers(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer: a byte of a header now and then, until somebody hangs up."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b"x")
                time.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
