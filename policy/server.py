"""An HTTPS server for one ASGI app: uvicorn, with mutual TLS that reloads and failed handshakes that leave a trace.

``certauth policy run`` and the signer serve with it. Connections are accepted here rather than by uvicorn, because only who
accepts knows both the client's address and why its handshake failed. Everything after the handshake is uvicorn's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from certauth.errors import CertauthError, ConfigError
from policy import tls
from policy.tls import FailedHandshake

logger = logging.getLogger("policy.server")

HANDSHAKE_SECONDS = 10.0
"""A client that has not finished its handshake by then is disconnected."""
LINGER_SECONDS = 0.5
"""How long a client whose handshake failed may take to read why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where and with what to serve. ``client_roots`` is asked again at each reload."""

    host: str
    port: int
    certificate: Path
    key: Path
    client_roots: Callable[[], bytes]
    passphrase: str | None = field(default=None, repr=False)
    allow_example_keys: bool = False
    """Serve with a key whose private half is published."""
    client_certificate: tls.ClientCertificate = tls.ClientCertificate.OPTIONAL
    reload_seconds: float = 2.0
    graceful_seconds: int = 10
    max_connections: int = 900
    """Beyond, connections are closed at once. Fewer than the 1024 files a process may have open by default."""
    share_port: bool = False
    """Let several processes listen on the same port (SO_REUSEPORT)."""
    http: str = "HTTPProtocol"
    websocket: str = "WebSocketProtocol"
    loop: str = "auto"


class Server(uvicorn.Server):
    """A server that is bound as soon as it exists; ``run()`` serves until a signal or ``stop()``."""

    def __init__(self, app: Any, settings: ServerSettings, *, on_failed_handshake: Callable[[FailedHandshake], None]) -> None:
        """Raises ``ConfigError`` (``tls-unusable``, ``address-unusable``) and ``KeyMaterialError``."""
        self._settings = settings
        self._on_failed_handshake = on_failed_handshake
        self._context = tls.ReloadingSSLContext(self._build)
        self._stamp = self._files()
        self._tasks: set[asyncio.Task[None]] = set()
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=getattr(tls, settings.http),
                ws=_websocket_class(settings.websocket),
                loop=settings.loop,
                lifespan="auto",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # they would let a local process choose the client address of the record
                timeout_graceful_shutdown=settings.graceful_seconds,
            )
        )
        self._listener = _listen(settings)
        self.port = int(self._listener.getsockname()[1])
        """The port that was bound, for ``port=0``."""

    def stop(self) -> None:
        """Finish the requests under way, then return from ``run()``. May be called from any thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[] if sockets is None else sockets)
        self._spawn(self._accept())
        self._spawn(self._watch())
        logger.info("serving https://%s:%d", self._settings.host, self.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()
        await super().shutdown(sockets)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:  # out of file descriptors, or the client was gone already: neither may end the service
                logger.warning("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            if len(self.server_state.connections) + len(self._tasks) > self._settings.max_connections:
                connection.close()  # said by nothing but the closing: an answer would need the handshake it cannot have
                continue
            self._spawn(self._handshake(connection, str(address[0])))

    async def _handshake(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()

        def failed(error: ssl.SSLError) -> None:
            self._on_failed_handshake(tls.failed_handshake(error, address=address))
            loop.call_later(LINGER_SECONDS, _hang_up, connection)

        tls.on_handshake_error.set(failed)
        # A client that just goes away, as port scanners and balancers' probes do all day, is an OSError and no failure.
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # uvicorn types it as bare Protocol
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def _watch(self) -> None:
        """Reload when the files or the roots change. Polled: it works in containers, on NFS, and for renamed symbolic links."""
        while True:
            await asyncio.sleep(self._settings.reload_seconds)
            stamp = self._files()
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                self._context.reload()
                logger.info("TLS certificate and client roots reloaded")
            except CertauthError as error:
                logger.error("TLS files cannot be used, serving on with the last good ones: %s", error)  # noqa: TRY400 - the error says it all

    def _build(self) -> ssl.SSLContext:
        settings = self._settings
        return tls.server_context(
            certificate=settings.certificate,
            key=settings.key,
            client_roots=settings.client_roots(),
            client_certificate=settings.client_certificate,
            passphrase=settings.passphrase,
            allow_example_keys=settings.allow_example_keys,
        )

    def _files(self) -> tuple[object, ...]:
        stamp: list[object] = [self._settings.client_roots()]
        for path in (self._settings.certificate, self._settings.key):
            with contextlib.suppress(OSError):
                status = path.stat()
                stamp.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(stamp)


def serve(
    app: Any, settings: ServerSettings, *, on_failed_handshake: Callable[[FailedHandshake], None] = lambda _failure: None
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, finish what is under way, and return. Raises ``ConfigError`` or
    ``KeyMaterialError`` before it serves.

    To be called from the main thread. SIGINT ends in ``KeyboardInterrupt``, as Python programs expect.
    """
    server = Server(app, settings, on_failed_handshake=on_failed_handshake)
    # uvicorn raises the signal that stopped it once more. By default that would kill the process before its caller has
    # closed its logs and its database. One that comes before uvicorn listens for it counts as well.
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: server.stop())
    try:
        server.run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _websocket_class(name: str) -> type[Any] | str:
    """The protocol class, or uvicorn's word for none: a service without WebSockets needs no package for them."""
    try:
        made: type[Any] = getattr(tls, name)
    except ConfigError as error:  # websockets-missing
        logger.warning("WebSockets are off: %s", error.hint)
        return "none"
    return made


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has gone by itself
        connection.shutdown(socket.SHUT_RDWR)


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        message = f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
        raise ConfigError("address-unusable", message) from error
    return listener
