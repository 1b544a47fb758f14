"""Work that would outlast its credential is refused before it begins: by the route, or by the app when it knows how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from certauth.audit import decisions
from certauth.errors import ConfigError
from certauth.tokens import Narrowing, attenuate, from_text, to_text
from policy import require_remaining
from policy.decision_log import DecisionLog
from policy.explain import check_of, explain_record
from policy.middleware import PolicyMiddleware
from policy.remaining import CredentialTooShort
from policy.rules import Policy, RecordMode
from policy.testing import Facility, Peer, assert_denied, assert_permitted, client
from tests.policy.live import MovableClock

RULES = b"""
version = 1
service = "data"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/jobs"
methods = ["POST"]
access = "certificate"
min_remaining = "2h"
[[route]]
path = "/files/"
access = "token"
min_remaining = "30m"
[[route]]
path = "/takes/{minutes}"
methods = ["GET", "POST"]
access = "certificate"
[[route]]
path = "/live/{minutes}"
websocket = true
access = "certificate"
"""


async def done(_request: Request) -> JSONResponse:
    """Reached."""
    return JSONResponse({"done": True})


async def work(request: Request) -> JSONResponse:
    """Takes as long as its path says."""
    require_remaining(request, timedelta(minutes=int(request.path_params["minutes"])))
    return JSONResponse({"done": True})


async def live(websocket: WebSocket) -> None:
    """A session as long as its path says, which is looked at before or after it is accepted."""
    early = "late" not in websocket.query_params
    if not early:
        await websocket.accept()
        await websocket.send_text("hello")
    require_remaining(websocket.user, timedelta(minutes=int(websocket.path_params["minutes"])))
    if early:
        await websocket.accept()
    await websocket.send_text("working")
    await websocket.close()


APP = Starlette(
    routes=[
        Route("/livez", done),
        Route("/jobs", done, methods=["POST"]),
        Route("/files/{path:path}", done),
        Route("/takes/{minutes}", work, methods=["GET", "POST"]),
        WebSocketRoute("/live/{minutes}", live),
    ]
)


class Door:
    """A guarded app, somebody with a certificate of an hour, and what was recorded."""

    def __init__(self, directory: Path) -> None:
        self.clock = MovableClock()
        self.facility = Facility("als.example")
        self.alice = self.facility.peer("alice", lifetime=timedelta(hours=1))
        self.bob = self.facility.peer("bob", lifetime=timedelta(hours=8))
        self.directory = directory
        self.made: list[PolicyMiddleware] = []

    def __call__(self, peer: Peer | None = None, token: str | None = None, *, app: Any = APP) -> Any:
        log = DecisionLog(self.directory / "decisions.jsonl", mode=RecordMode.STRICT, clock=self.clock, program="test")
        guarded = PolicyMiddleware(
            app,
            policy=Policy.parse(RULES),
            trust=self.facility.trust(),
            decisions=log,
            clock=self.clock,
            recheck_seconds=0.05,
        )
        self.made.append(guarded)
        return client(guarded, peer, token)

    def token(self, peer: Peer, minutes: int) -> str:
        return self.facility.token(peer, "data", rights=["read /files/"], lifetime=timedelta(minutes=minutes))

    def records(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.directory.glob("decisions-*.jsonl")):
            with path.open("rb") as file:
                decisions.verify_lines(file)
            found += [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
        return [line for line in found if line["event"] != "started"]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A door that records strictly."""
    made = Door(tmp_path)
    yield made
    for middleware in made.made:
        middleware.stop()


def short(answer: Any, *, required: int, at_most: int) -> None:
    """A problem that says how much is missing."""
    assert_denied(answer, "credential-too-short")
    body = answer.json()
    assert (answer.status_code, body["status"], body["required_seconds"]) == (422, 422, required)
    assert at_most - 60 <= body["remaining_seconds"] <= at_most
    assert "certauth renew" in body["hint"]
    assert "certauth agent create" in body["hint"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_route_that_takes_long_wants_a_credential_that_lasts(door: Door) -> None:
    """Refused with both numbers, recorded, explained; who has longer is let in."""
    short(door(door.alice).post("/jobs"), required=7200, at_most=3600)
    record = door.records()[-1]
    assert (record["outcome"], record["code"], record["status"]) == ("deny", "credential-too-short", 422)
    assert "requirements" not in record["held"]
    assert "2 h" in explain_record(record).text
    assert check_of("credential-too-short") == "requirements"
    assert_permitted(door(door.bob).post("/jobs"))


def test_the_last_moment_still_counts(door: Door) -> None:
    """A credential that lasts exactly as long is long enough; a while later it is not."""
    door.clock.ahead = timedelta(hours=5, minutes=59)
    assert_permitted(door(door.bob).post("/jobs"))
    door.clock.ahead = timedelta(hours=6, seconds=2)
    short(door(door.bob).post("/jobs"), required=7200, at_most=7200)


def test_the_token_and_every_narrowing_of_it_must_last(door: Door) -> None:
    """The first of them to end decides: certificate, token, or what its holder made of it."""
    assert_permitted(door(door.bob, door.token(door.bob, 45)).get("/files/x"))
    short(door(door.bob, door.token(door.bob, 20)).get("/files/x"), required=1800, at_most=1200)
    soon = Narrowing(expires_at=door.clock().replace(microsecond=0) + timedelta(minutes=10))
    narrow = to_text(attenuate(from_text(door.token(door.bob, 45)), soon))
    short(door(door.bob, narrow).get("/files/x"), required=1800, at_most=600)
    brief = door.facility.peer("carol", lifetime=timedelta(minutes=15))
    short(door(brief, door.token(brief, 45)).get("/files/x"), required=1800, at_most=900)


def test_nobody_is_told_before_they_are_known(door: Door) -> None:
    """Whoever has no right there learns that, and not how long it takes."""
    assert_denied(door().post("/jobs"), "certificate-required")
    other = door.facility.token(door.alice, "data", rights=["read /other/"], lifetime=timedelta(minutes=5))
    assert_denied(door(door.alice, other).get("/files/x"), "right-not-held")


def test_a_request_under_way_is_not_asked_again(door: Door) -> None:
    """It was permitted for all of it: that less is left while it runs is what was meant."""

    async def stream(_request: Request) -> StreamingResponse:
        async def slowly() -> Any:
            for _ in range(8):
                door.clock.ahead += timedelta(minutes=10)
                yield b"tick\n"
                await asyncio.sleep(0.15)

        return StreamingResponse(slowly())

    app = Starlette(routes=[Route("/jobs", stream, methods=["POST"])])
    door.clock.ahead = timedelta(hours=5)
    answer = door(door.bob, app=app).post("/jobs")
    assert answer.text == "tick\n" * 8
    assert all(record["event"] != "ended" for record in door.records())
    short(door(door.bob).post("/jobs"), required=7200, at_most=6000)


@pytest.mark.parametrize("text", ["2", "2 h", "-2h", "25h", ""])
def test_a_span_that_is_none_is_a_mistake(text: str) -> None:
    """Also one that no credential could meet."""
    with pytest.raises(ConfigError, match="min_remaining"):
        Policy.parse(RULES.replace(b'"2h"', json.dumps(text).encode()))


def test_a_public_route_asks_for_no_credential() -> None:
    """So it cannot ask how long that lasts."""
    with pytest.raises(ConfigError, match="public"):
        Policy.parse(RULES.replace(b'access = "public"', b'access = "public"\nmin_remaining = "2h"'))


# --- the app's own question ----------------------------------------------------------------------------------------------


def test_an_app_that_learns_it_from_the_request_refuses_it(door: Door) -> None:
    """The same answer as from a route, recorded once as the end of a permitted request."""
    assert_permitted(door(door.alice).get("/takes/30"))
    short(door(door.alice).get("/takes/90"), required=5400, at_most=3600)
    ended = [record for record in door.records() if record["event"] == "ended"]
    assert [(record["outcome"], record["code"], record["status"]) for record in ended] == [
        ("deny", "credential-too-short", 422)
    ]


def test_whatever_the_app_makes_of_it_the_door_answers(door: Door) -> None:
    """It catches the exception and says 200, turns it into something else, or is no framework at all: always 422."""

    async def stubborn(request: Request) -> JSONResponse:
        try:
            require_remaining(request, timedelta(hours=2))
        except HTTPException:
            return JSONResponse({"secret": "result"})
        return JSONResponse({})

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            require_remaining(Request(scope), timedelta(hours=2))

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            with pytest.raises(CredentialTooShort) as caught:
                require_remaining(Request(scope), timedelta(hours=2))
            assert caught.value.shortage.required == timedelta(hours=2)

    async def handler(_request: Request, _error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", status_code=418)

    handled = Starlette(routes=[Route("/takes/{minutes}", work)], exception_handlers={CredentialTooShort: handler})
    for app in (Starlette(routes=[Route("/takes/{minutes}", stubborn)]), plain, silent, handled):
        answer = door(door.alice, app=app).get("/takes/90")
        short(answer, required=answer.json()["required_seconds"], at_most=3600)
        assert "secret" not in answer.text
    ended = [record for record in door.records() if record["event"] == "ended"]
    assert [record["code"] for record in ended] == ["credential-too-short"] * 4


def test_an_answer_that_has_begun_cannot_be_taken_back(door: Door) -> None:
    """It is recorded, and the app's own failure with it; the client sees that the answer is not complete."""

    async def late(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            require_remaining(Request(scope), timedelta(hours=2))

    with pytest.raises(CredentialTooShort):
        door(door.alice, app=late).get("/takes/90")
    codes = [record["code"] for record in door.records() if record["event"] == "ended"]
    assert codes == ["credential-too-short", "app-crashed"]


def test_a_websocket_is_refused_or_closed(door: Door) -> None:
    """Before it is accepted like any denial; after that it is closed with 4422."""
    with door(door.alice).websocket_connect("/live/30") as session:
        assert session.receive_text() == "working"
    with pytest.raises(WebSocketDenialResponse) as denied, door(door.alice).websocket_connect("/live/90"):
        pass
    assert denied.value.status_code == 422
    with door(door.alice).websocket_connect("/live/90?late") as session:
        assert session.receive_text() == "hello"
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()
    assert (closed.value.code, closed.value.reason) == (4422, "credential-too-short")


def test_on_a_public_route_nothing_ends(door: Door) -> None:
    """Nobody was asked for a credential, so none is too short."""
    app = Starlette(routes=[Route("/livez", _asked)])
    assert_permitted(door(app=app).get("/livez"))


def _asked(request: Request) -> JSONResponse:
    require_remaining(request.user, timedelta(days=1))
    return JSONResponse({})


def test_without_a_door_nobody_can_tell() -> None:
    """An app that forgot its door must not take silence for yes."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": {}}
    with pytest.raises(RuntimeError, match="PolicyMiddleware"):
        require_remaining(Request(scope), timedelta(minutes=1))
