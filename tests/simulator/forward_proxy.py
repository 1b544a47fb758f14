"""A forward proxy on loopback that tunnels ``CONNECT`` (RFC 9110 §9.3.6), remembers what was asked of it, and can refuse."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class ForwardProxy:
    """The proxy's address, the request lines and headers it has seen, and whether it lets anything through."""

    url: str
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refuses: bool = False


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_CONNECT(self) -> None:
        proxy = self.server.proxy
        proxy.asked.append(self.path)
        proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
        if proxy.refuses:
            self.send_error(403)
            return
        host, _, port = self.path.rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=10) as upstream:
            self.send_response(200)
            self.end_headers()
            self._tunnel(upstream)
        self.close_connection = True

    def _tunnel(self, upstream: socket.socket) -> None:
        other = {self.connection: upstream, upstream: self.connection}
        with selectors.DefaultSelector() as selector:
            for end in other:
                selector.register(end, selectors.EVENT_READ, data=end)
            while ready := selector.select(timeout=10):
                for key, _ in ready:
                    end = key.data
                    data = end.recv(65536)
                    if not data:
                        return
                    other[end].sendall(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: ForwardProxy


@contextlib.contextmanager
def forward_proxy() -> Iterator[ForwardProxy]:
    """A proxy in threads of this process."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.proxy = ForwardProxy(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            thread.join()
