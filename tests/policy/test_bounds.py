"""``policy.bounds`` over real TLS: nobody holds memory or a connection before there is a request to decide on."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from policy import bounds, tls
from policy.testing import Facility
from tests.policy.live import LOCALHOST, Live, ask, client_context, serving

HTTP = ["H11Protocol", "HttpToolsProtocol"]
PATIENCE = 1.0
"""Seconds for a head; also what a client may take here between connecting and sending one, so not too few."""
LONG = 60.0
"""Seconds after which a server that has not ended a connection never will."""


async def counting(scope: Any, receive: Any, send: Any) -> None:
    """An app that counts the bytes of a body, or echoes one message after a while."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(size).encode()})


@pytest.fixture
def facility() -> Facility:
    """A facility."""
    return Facility()


@contextmanager
def raw(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to write anything to."""
    with (
        socket.create_connection((LOCALHOST, port), timeout=LONG) as plain,
        context.wrap_socket(plain, server_hostname=LOCALHOST) as connection,
    ):
        yield connection


@contextmanager
def serve(facility: Facility, directory: Path, **settings: Any) -> Iterator[tuple[Live, ssl.SSLContext]]:
    """A server, and a client of it that nobody vouches for."""
    with serving(counting, facility, directory, **settings) as running:
        yield running, client_context(facility, None, directory)


def ended(connection: ssl.SSLSocket) -> bool:
    """Whether the server has ended the connection, within the socket's timeout."""
    try:
        while connection.recv(1000):
            pass  # an answer of 400 may come first
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("http", HTTP)
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\nslow: "], ids=["nothing", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(
    facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: str, sent: bytes
) -> None:
    """Neither silence nor a trickle keeps a connection: the clock runs until the head is complete."""
    monkeypatch.setattr(getattr(tls, http), "head_seconds", PATIENCE)
    with serve(facility, tmp_path, http=http) as (running, context), raw(running.port, context) as connection:
        connection.sendall(sent)
        assert ended(connection)


@pytest.mark.parametrize("http", HTTP)
def test_the_next_head_of_a_kept_connection_has_its_own_time(
    facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: str
) -> None:
    """A request that takes long is not cut off, and a half head after an answer is."""
    monkeypatch.setattr(getattr(tls, http), "head_seconds", PATIENCE)
    with serve(facility, tmp_path, http=http) as (running, context), raw(running.port, context) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
        time.sleep(PATIENCE * 1.25)
        connection.sendall(b"cd")
        assert b"200" in connection.recv(1000).split(b"\r\n")[0]
        connection.sendall(b"GET / HTT")
        assert ended(connection)


@pytest.mark.parametrize("http", HTTP)
def test_a_websocket_outlives_the_patience_for_heads(
    facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: str
) -> None:
    """After the upgrade the connection belongs to another protocol, which has no head to wait for."""
    monkeypatch.setattr(getattr(tls, http), "head_seconds", PATIENCE)
    with (
        serve(facility, tmp_path, http=http) as (running, context),
        connect(f"wss://{LOCALHOST}:{running.port}/", ssl=context, proxy=None) as websocket,
    ):
        time.sleep(PATIENCE * 1.25)
        websocket.send("still here")
        assert websocket.recv(timeout=LONG) == "still here"


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;",
    ],
    ids=["head", "trailers", "chunk extension"],
)
@pytest.mark.parametrize("filling", [b"a: b\r\n" * 1000, b"x" * 6000], ids=["many", "long"])
@pytest.mark.parametrize("http", HTTP)
def test_what_is_neither_head_nor_body_is_bounded(
    facility: Facility, tmp_path: Path, start: bytes, filling: bytes, http: str
) -> None:
    """Header lines, trailers and chunk extensions without end are cut off, not kept."""
    with serve(facility, tmp_path, http=http) as (running, context), raw(running.port, context) as connection:
        try:
            connection.sendall(start)
            for _ in range(20 * bounds.MAX_PENDING // len(filling)):
                connection.sendall(filling)
        except OSError:
            return  # cut off while we were still sending
        assert ended(connection), "the server still listens"


@pytest.mark.parametrize("http", HTTP)
def test_bodies_stream_without_a_bound(facility: Facility, tmp_path: Path, http: str) -> None:
    """A large body passes, in large pieces and in many tiny chunks."""
    with serve(facility, tmp_path, http=http) as (running, context):
        connection = running.connect(context)
        assert ask(connection, "POST", "/", body=bytes(20 * bounds.MAX_PENDING)).json == 20 * bounds.MAX_PENDING
        chunks = iter([b"x"] * (bounds.MAX_PENDING // 4))
        assert ask(connection, "POST", "/", body=chunks).json == bounds.MAX_PENDING // 4
        connection.close()


def test_connections_are_bounded(facility: Facility, tmp_path: Path) -> None:
    """Beyond the bound a connection is closed at once, and those that are there are served on."""
    with serve(facility, tmp_path, max_connections=3) as (running, context):
        first = running.connect(context)
        assert ask(first, "GET", "/").status == 200
        refused = 0
        held = []
        for _ in range(8):
            plain = socket.create_connection((LOCALHOST, running.port), timeout=LONG)
            try:
                held.append(context.wrap_socket(plain, server_hostname=LOCALHOST))
            except OSError:
                plain.close()
                refused += 1
        assert refused >= 5
        assert ask(first, "GET", "/").status == 200
        for each in [first, *held]:
            each.close()
