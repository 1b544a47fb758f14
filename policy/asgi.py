"""The ASGI side of a denial, of a request that is cut off, and of starting and stopping. No decisions are taken here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from certauth.errors import CertauthError
from policy.cutoff import Running
from policy.problem import Problem, close_code, problem_body, problem_headers
from policy.request import RequestKind, Scope

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("policy")

_DENIAL_RESPONSE = "websocket.http.response"
_REASON_BYTES = 123  # RFC 6455 §5.5: a control frame holds 125 bytes, two of them the code


class CutOffError(Exception):
    """Raised into an app that goes on sending after its request was cut off."""


class Incoming:
    """``receive`` for an app whose request may be cut off: from then on the client has gone, whatever it still sends."""

    __slots__ = ("_receive", "_running")

    def __init__(self, receive: Receive, *, running: Running) -> None:
        self._receive, self._running = receive, running

    async def __call__(self) -> Message:
        if self._running.ended is None:
            message = await self._receive()
            if self._running.ended is None:  # it may have ended while we waited
                return message
        await asyncio.sleep(0)  # an app that does not listen must not keep the loop from cancelling it
        if self._running.request.kind is RequestKind.HTTP:
            return {"type": "http.disconnect"}
        ended = self._running.ended
        return {"type": "websocket.disconnect", "code": close_code(ended.status), "reason": ended.code[:_REASON_BYTES]}


class Outgoing:
    """``send`` for the app: puts the request id on the response, and knows how far it has come."""

    __slots__ = ("_answered", "_request_id", "_scope", "_send", "over", "refusal", "running", "started")

    def __init__(self, send: Send, *, request_id: str, scope: Scope, refusal: Callable[[], Awaitable[Problem | None]]) -> None:
        """``refusal`` is what the door has to say in the app's place, if anything; asked before each message of the app."""
        self._send, self._scope, self.refusal = send, scope, refusal
        self._answered = False
        self.running: Running | None = None
        """Of a request that may be cut off."""
        self.over: Callable[[], None] = _nothing
        """Called when the answer is complete."""
        self._request_id = (b"x-request-id", request_id.encode("ascii"))
        self.started = False

    async def __call__(self, message: Message) -> None:
        if self.running is not None and self.running.ended is not None:
            raise CutOffError
        if await self.refused():
            return
        match message["type"]:
            case "http.response.start" | "websocket.accept" | "websocket.http.response.start":
                self.started = True
                kept = [header for header in message.get("headers") or () if header[0].lower() != b"x-request-id"]
                await self._send({**message, "headers": [*kept, self._request_id]})
            case "http.response.body" | "websocket.http.response.body":
                await self._send(message)
                if not message.get("more_body", False):
                    self.over()  # what the app does after its answer is not the client's doing any more
            case "websocket.close":
                self.over()
                await self._send(message)
            case _:
                await self._send(message)

    async def refused(self) -> bool:
        """Whether the door answered in the app's place, now or before: what the app says of it is not sent.

        An answer that has begun cannot be taken back; a WebSocket is closed.
        """
        if not self._answered and (problem := await self.refusal()) is not None:
            self._answered = not self.started or self._scope["type"] == "websocket"
            if self._answered:
                self.over()
                await cut_off(self._scope, self._send, problem, started=self.started)
                self.started = True
        return self._answered


def _nothing() -> None:
    pass


async def deny_request(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer a request with a problem document; a WebSocket where the server can, else by refusing it with a close code."""
    if scope["type"] == "websocket":
        if _DENIAL_RESPONSE not in (scope.get("extensions") or {}):
            await _close(send, problem)
            return
        kind = _DENIAL_RESPONSE
    else:
        kind = "http.response"
    body = problem_body(problem)
    headers = [*problem_headers(problem), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": f"{kind}.start", "status": problem.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def cut_off(scope: Scope, send: Send, problem: Problem, *, started: bool) -> None:
    """End a request whose permit no longer holds. A response under way is left incomplete, which clients can tell."""
    with contextlib.suppress(OSError):  # the client may have gone at the same moment
        if not started:
            await deny_request(scope, send, problem)
        elif scope["type"] == "websocket":
            await _close(send, problem)


async def _close(send: Send, problem: Problem) -> None:
    await send({"type": "websocket.close", "code": close_code(problem.status), "reason": problem.code[:_REASON_BYTES]})


class Lifespan:
    """Starts the door before the app and stops it after; an app without a lifespan of its own gets one."""

    def __init__(self, app: App, *, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self._app, self._start, self._stop = app, start, stop
        self._startup_answered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = [await receive()]
        try:
            self._start()
        except CertauthError as error:
            # A door that cannot record, or cannot know whom to believe, must not open.
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return

        async def replay() -> Message:
            return first.pop() if first else await receive()

        async def watched(message: Message) -> None:
            self._startup_answered = True
            if message["type"] != "lifespan.startup.complete":
                await asyncio.to_thread(self._stop)  # before the server hears that all is done, and exits
            await send(message)

        try:
            await self._app(scope, replay, watched)
        except Exception:
            if self._startup_answered:
                raise
            logger.debug("the app has no lifespan of its own", exc_info=True)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await asyncio.to_thread(self._stop)
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            await asyncio.to_thread(self._stop)
