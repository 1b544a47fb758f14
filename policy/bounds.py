"""What a client may make a connection hold before there is a request to decide on: bytes and time.

h11 bounds the head of a request, httptools does not; neither bounds how long a head may take, and httptools keeps trailers
without end. All of that comes before the first of our checks can see a request, and from anybody who can connect.

    before a request   ``MAX_PENDING`` bytes and ``head_seconds`` seconds for its head to be complete
    during a request   ``MAX_PENDING`` bytes that are neither body nor the end of the request

Bodies have no bound here: they stream to the app as fast as it reads them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

MAX_PENDING: Final = 64 * 1024
HEAD_SECONDS: Final = 10.0


def bounded(base: type[Any]) -> dict[str, Any]:
    """The members that make a subclass of one of uvicorn's HTTP protocol classes keep the bounds."""

    def connection_made(self: Any, transport: asyncio.Transport) -> None:
        base.connection_made(self, transport)
        self.pending_bytes, self.progressed, self.patience = 0, False, None
        _wait(self)

    def connection_lost(self: Any, error: Exception | None) -> None:
        _done(self)
        base.connection_lost(self, error)

    def data_received(self: Any, data: bytes) -> None:
        self.progressed = False
        base.data_received(self, data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            _done(self)  # over, or a WebSocket from now on
            return
        if _between_requests(self):
            _wait(self)
        else:
            _done(self)
        self.pending_bytes = 0 if self.progressed else self.pending_bytes + len(data)
        if self.pending_bytes > MAX_PENDING:
            _cut_off(self)

    members: dict[str, Any] = {
        "head_seconds": HEAD_SECONDS,
        "connection_made": connection_made,
        "connection_lost": connection_lost,
        "data_received": data_received,
    }
    for name in ("on_headers_complete", "on_body", "on_message_complete"):
        if hasattr(base, name):
            members[name] = _noting_progress(getattr(base, name))
    if "on_body" not in members:
        members["data_received"] = _h11_data_received(base)
    return members


def _noting_progress(callback: Any) -> Any:
    """A callback of the parser that also notes that the request got on."""

    def noted(self: Any, *arguments: Any) -> Any:
        self.progressed = True
        return callback(self, *arguments)

    return noted


def _h11_data_received(base: type[Any]) -> Any:
    """h11 counts bytes itself; what it lacks is a clock."""

    def data_received(self: Any, data: bytes) -> None:
        base.data_received(self, data)
        ours = not self.transport.is_closing() and self.transport.get_protocol() is self
        if ours and _between_requests(self):
            _wait(self)
        else:
            _done(self)

    return data_received


def _between_requests(self: Any) -> bool:
    return self.cycle is None or self.cycle.response_complete


def _wait(self: Any) -> None:
    """Begin to wait for a head, unless that has begun."""
    if self.patience is None:
        self.patience = self.loop.call_later(self.head_seconds, _cut_off, self)


def _done(self: Any) -> None:
    if self.patience is not None:
        self.patience.cancel()
        self.patience = None


def _cut_off(self: Any) -> None:
    """End a connection that asked too slowly or too much. Nobody is told why: it was no request."""
    _done(self)
    self.transport.abort()
