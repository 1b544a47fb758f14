"""Bodies that must be known before they are acted upon.

A token can be narrowed to one request body, by its SHA-256. An app that gets the body piece by piece may act on the first piece
before the last has shown that it is another body; so for such a token, and for no other, the body is read whole, up to a bound,
before the app hears of the request. Everything else about the request has been found right by then.

The digest is of the body as the app would receive it: after transfer codings are undone, before content codings are.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field

from policy.asgi import Message, Receive
from policy.request import Headers
from policy.rules import MAX_BODY

MAX_TOGETHER = 64
"""Bodies of that size that are held at the same time."""
BODY_SECONDS = 30.0
"""How long a client may take to send one."""
_LENGTH = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class BodyRefused:
    """The body cannot be read whole. ``status`` is the HTTP status that says so."""

    code: str
    status: int
    reason: str
    hint: str | None = None


@dataclass(slots=True, eq=False)
class Body:
    """A whole body, held until the app takes it or the request is over."""

    sha256: str
    """Of all of it, in hex."""
    _data: bytes | None = field(repr=False)
    _reader: BodyReader = field(repr=False)
    _size: int

    def replay(self, receive: Receive) -> Receive:
        """``receive`` for the app: the body in one message, then whatever comes after it."""

        async def replayed() -> Message:
            data = self._data
            if data is None:
                return await receive()
            self.release()
            return {"type": "http.request", "body": data, "more_body": False}

        return replayed

    def release(self) -> None:
        """Hold it no longer; idempotent."""
        if self._data is not None:
            self._data = None
            self._reader.held -= self._size


class BodyReader:
    """Reads bodies whole, for the requests of one event loop or several."""

    def __init__(self, max_bytes: int = MAX_BODY, *, seconds: float = BODY_SECONDS, together: int = MAX_TOGETHER) -> None:
        self._max, self._seconds, self._all = max_bytes, seconds, max_bytes * together
        self.held = 0
        """Bytes held at the moment, and those that requests under way have announced or are allowed to send."""

    async def read(self, headers: Headers, receive: Receive) -> Body | BodyRefused:
        """The body of a request, or why it is refused: ``body-too-large`` (413), ``body-timeout`` (408), ``body-incomplete``
        (400), ``body-busy`` (503).
        """
        announced = [value for name, value in headers if name.lower() == b"content-length"]
        if len(announced) == 1 and _LENGTH.fullmatch(announced[0]) and int(announced[0]) > self._max:
            return self._too_large()
        # Room is taken before anything is read: otherwise every one of many requests would be found too much at its end.
        if self.held + self._max > self._all:
            return BodyRefused("body-busy", 503, "too many bodies are being read at the moment", "try again soon")
        self.held += self._max
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                data = await self._all_of(receive)
            if isinstance(data, BodyRefused):
                return data
            size = len(data)
        except TimeoutError:
            return BodyRefused("body-timeout", 408, "the body did not arrive in time", "send it again, faster")
        finally:
            self.held += size - self._max
        return Body(hashlib.sha256(data).hexdigest(), data, self, size)

    async def _all_of(self, receive: Receive) -> bytes | BodyRefused:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return BodyRefused("body-incomplete", 400, "the client went away before its body was complete")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max:
                return self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> BodyRefused:
        return BodyRefused(
            "body-too-large",
            413,
            f"the token is for one body, and such bodies have at most {self._max} bytes here",
            "use a token that is not narrowed to a body, or send less",
        )
