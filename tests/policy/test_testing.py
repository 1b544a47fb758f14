from __future__ import annotations

from datetime import timedelta

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocket

from certauth.errors import UsageError
from certauth.names import Kind
from certauth.revocation import RevocationKind
from policy.middleware import PolicyMiddleware
from policy.rules import Policy
from policy.testing import Facility, assert_denied, assert_permitted, client
from tests.policy.door import HandClock

RULES = b"""
version = 1
service = "data"
[record]
mode = "off"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/files/"
methods = ["GET", "PUT"]
access = "token"
[[route]]
path = "/live"
websocket = true
access = "token"
"""


async def answer(request: Request) -> Response:
    """The app, over HTTP."""
    match request.url.path:
        case "/livez":
            return PlainTextResponse("alive")
        case "/files/problem":
            return JSONResponse({"title": "ours"}, status_code=409, media_type="application/problem+json")
        case _:
            return PlainTextResponse(f"{request.method} by {request.user.identity}")


async def live(socket: WebSocket) -> None:
    """The app, over a WebSocket."""
    await socket.accept()
    await socket.send_text(str(socket.user.identity))
    await socket.close()


def guarded(facility: Facility) -> PolicyMiddleware:
    """The app behind its door."""
    app = Starlette(
        routes=[
            Route("/livez", answer),
            Route("/files/{path:path}", answer, methods=["GET", "PUT"]),
            WebSocketRoute("/live", live),
        ]
    )
    return PolicyMiddleware(app, policy=Policy.parse(RULES), trust=facility.trust(), clock=facility.clock)


def test_an_apps_tests_call_it_as_anybody_in_one_line() -> None:
    """The kit's own example: a peer and a token in a line each, a call that is permitted, and one that is denied."""
    facility = Facility()
    app = guarded(facility)
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/alice/"])
    response = client(app, alice, token).get("/files/alice/run-7")
    assert_permitted(response)
    assert response.text == "GET by spiffe://test.example/user/alice"
    assert_denied(client(app, alice, token).put("/files/alice/run-7"), "right-not-held")
    assert_denied(client(app, facility.peer("bob"), token).get("/files/alice/run-7"), "token-binding")
    assert_denied(client(app, alice).get("/files/alice/run-7"), "token-required")
    assert_denied(client(app, None, token).get("/files/alice/run-7"), "certificate-required")
    assert_permitted(client(app).get("/livez"))


def test_the_apps_own_errors_are_no_denials() -> None:
    """A problem document of the app means that the door let the request through."""
    facility = Facility()
    app, alice = guarded(facility), facility.peer("alice")
    calls = client(app, alice, facility.token(alice, "data", rights=["read /files/"]))
    response = calls.get("/files/problem")
    assert response.status_code == 409
    assert_permitted(response)


def test_a_wrong_expectation_fails_and_says_what_was_decided() -> None:
    """The assertions of the kit are no rubber stamps: each of the three mistakes is reported with the decision."""
    facility = Facility()
    app, alice = guarded(facility), facility.peer("alice")
    refused = client(app, alice).get("/files/x")
    with pytest.raises(AssertionError, match="token-required"):
        assert_permitted(refused)
    with pytest.raises(AssertionError, match="denied with token-required"):
        assert_denied(refused, "token-expired")
    with pytest.raises(AssertionError, match="permitted, and the app answered 200"):
        assert_denied(client(app).get("/livez"), "token-required")


def test_websockets_are_called_the_same_way() -> None:
    """The identity reaches a websocket, and a denied one is answered before it is accepted."""
    facility = Facility()
    app, alice = guarded(facility), facility.peer("alice")
    token = facility.token(alice, "data", rights=["connect /live"])
    with client(app, alice, token).websocket_connect("/live") as socket:
        assert socket.receive_text() == "spiffe://test.example/user/alice"
    with pytest.raises(WebSocketDenialResponse) as caught, client(app, alice).websocket_connect("/live"):
        pass
    assert_denied(caught.value, "token-required")


def test_a_facility_revokes_and_its_clock_can_be_moved() -> None:
    """What ends and what is withdrawn can be tested without waiting, and the lifespan runs like on a server."""
    clock = HandClock()
    facility = Facility(clock=clock)
    alice, robot = facility.peer("alice", lifetime=timedelta(hours=2)), facility.peer("robot", kind=Kind.AGENT)
    with client(guarded(facility), alice, facility.token(alice, "data", rights=["read /files/"])) as calls:
        assert_permitted(calls.get("/files/x"))
        clock.forward(hours=1)
        assert_denied(calls.get("/files/x"), "token-expired")
    again = facility.token(alice, "data", rights=["read /files/"])
    app = guarded(facility)
    assert_permitted(client(app, alice, again).get("/files/x"))
    facility.revoke(RevocationKind.PRINCIPAL, str(alice.principal), reason="left")
    assert_denied(client(app, alice, again).get("/files/x"), "certificate-revoked")
    assert_permitted(client(app, robot, facility.token(robot, "data", rights=["read /files/"])).get("/files/x"))


def test_a_visitor_comes_from_a_facility_of_its_own() -> None:
    """Two facilities trust each other, or not, in one argument."""
    ours, theirs = Facility("als.example"), Facility("nsls.example")
    visitor = theirs.peer("bob")
    token = theirs.token(visitor, "data", rights=["read /files/"], delegable=False)
    app = PolicyMiddleware(answer_all, policy=Policy.parse(RULES), trust=ours.trust())
    assert_denied(client(app, visitor, token).get("/files/x"), "domain-unknown")
    app = PolicyMiddleware(answer_all, policy=Policy.parse(RULES), trust=ours.trust(theirs))
    assert_permitted(client(app, visitor, token).get("/files/x"))


async def answer_all(scope: object, receive: object, send: object) -> None:
    """The smallest app: any request is answered with 200 and nothing."""
    await PlainTextResponse("")(scope, receive, send)  # type: ignore[arg-type]  # typed as objects to stay an ASGI app


def test_a_right_that_is_none_is_refused() -> None:
    """A typing mistake in a test's right is told, not minted."""
    facility = Facility()
    with pytest.raises(UsageError, match="not a right"):
        facility.token(facility.peer("alice"), "data", rights=["/files/"])
