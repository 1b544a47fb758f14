"""``policy.middleware``: every way through the door, in process and over real mutual TLS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

import policy
from certauth.audit import decisions
from certauth.errors import StoreError, UnavailableError
from certauth.revocation import RevocationKind
from policy import cutoff
from policy.caller import Caller
from policy.decision_log import DecisionLog
from policy.middleware import PolicyMiddleware
from policy.rules import Policy, RecordMode
from policy.testing import Facility, Peer, assert_denied, assert_permitted, client
from policy.tls import FailedHandshake
from tests.policy.live import MovableClock, until

RULES = b"""
version = 1
service = "data"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/me"
methods = ["GET", "POST"]
access = "certificate"
[[route]]
path = "/crash"
access = "certificate"
[[route]]
path = "/stream"
access = "certificate"
[[route]]
path = "/files/"
methods = ["GET", "PUT", "DELETE"]
access = "token"
[[route]]
path = "/live"
websocket = true
access = "token"
"""
RIGHTS = ("read /files/", "connect /live")


def told(caller: Caller, request: Request | WebSocket) -> dict[str, Any]:
    """What an app sees of a request."""
    return {
        "identity": caller.identity,
        "principal": str(caller.principal or ""),
        "groups": list(caller.groups),
        "operation": caller.operation,
        "path": caller.path,
        "headers": dict(request.headers),
        "subprotocols": request.scope.get("subprotocols"),
    }


async def show(request: Request) -> JSONResponse:
    """Say who is asking."""
    assert request.user is request.state.certauth
    return JSONResponse({**told(request.user, request), "body": len(await request.body())})


@requires("group:staff")
async def staff(request: Request) -> JSONResponse:
    """Starlette's own authorization, fed by the door."""
    return JSONResponse({"staff": request.user.display_name})


async def crash(_request: Request) -> JSONResponse:
    """An app that fails."""
    raise ZeroDivisionError("the app's own mistake")


async def stream(_request: Request) -> StreamingResponse:
    """A response without an end."""

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"tick\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(forever())


async def live(websocket: WebSocket) -> None:
    """Say who is there, then whatever is said."""
    await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
    await websocket.send_json(told(websocket.user, websocket))
    async for text in websocket.iter_text():
        await websocket.send_text(text)


APP = Starlette(
    routes=[
        Route("/livez", show),
        Route("/me", show, methods=["GET", "POST"]),
        Route("/crash", crash),
        Route("/stream", stream),
        Route("/files/staff", staff),
        Route("/files/{path:path}", show, methods=["GET", "PUT", "DELETE"]),
        WebSocketRoute("/live", live),
    ]
)


class Door:
    """A guarded app, its facility, its people and its log."""

    def __init__(self, directory: Path) -> None:
        self.clock = MovableClock()
        self.facility = Facility("als.example")
        self.alice = self.facility.peer("alice")
        self.directory = directory
        self.made: list[PolicyMiddleware] = []
        self.app = self.guard(APP)

    def guard(self, app: Any, *, mode: RecordMode = RecordMode.STRICT, **options: Any) -> PolicyMiddleware:
        """Another app behind a door with the same rules."""
        log = DecisionLog(self.directory / "decisions.jsonl", mode=mode, clock=self.clock, program="test")
        made = PolicyMiddleware(
            app,
            **{
                "policy": Policy.parse(RULES),
                "trust": self.facility.trust(),
                "decisions": log,
                "clock": self.clock,
                "recheck_seconds": 0.05,
                **options,
            },
        )
        self.made.append(made)
        return made

    def token(self, peer: Peer | None = None, **options: Any) -> str:
        return self.facility.token(peer or self.alice, "data", **{"rights": RIGHTS, **options})

    def client(self, peer: Peer | None = None, token: str | None = None, *, app: Any = None) -> TestClient:
        return client(app or self.app, peer, token)

    def records(self) -> list[dict[str, Any]]:
        """What was recorded, from files that verify."""
        found = []
        for path in sorted(self.directory.glob("decisions-*.jsonl")):
            with path.open("rb") as file:
                decisions.verify_lines(file)
            found += [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
        return [line for line in found if line["event"] != "started"]

    def last(self) -> dict[str, Any]:
        return self.records()[-1]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A door that records strictly."""
    made = Door(tmp_path)
    yield made
    for middleware in made.made:
        middleware.stop()


def test_a_public_route_asks_nothing_and_is_recorded(door: Door) -> None:
    """Nobody is somebody to the log, too; the app is told that nobody was asked."""
    answer = door.client().get("/livez")
    assert_permitted(answer)
    assert answer.json()["identity"] == ""
    assert (door.last()["outcome"], door.last()["code"], door.last()["path"]) == ("permit", "permitted", "/livez")


def test_the_app_is_told_who_calls(door: Door) -> None:
    """Principal and user in ``request.user`` and ``request.state``; the record names them by the same request id."""
    answer = door.client(door.alice, door.token(groups=["staff"])).get("/files/run-7")
    assert_permitted(answer)
    seen = answer.json()
    assert seen["identity"] == seen["principal"] == "spiffe://als.example/user/alice"
    assert (seen["groups"], seen["operation"], seen["path"]) == (["staff"], "read", "/files/run-7")
    last = door.last()
    assert last["request"] == answer.headers["x-request-id"]
    assert (last["principal"], last["user"]) == (seen["principal"], seen["identity"])
    assert last["certificate"] == door.alice.fingerprint
    assert (last["method"], last["operation"], last["route"]) == ("GET", "read", "route 5 (/files/)")
    assert last["blocks"]
    assert last["address"] == "127.0.0.1"


def test_starlette_s_requires_works(door: Door) -> None:
    """Groups of the token are scopes of the request."""
    assert door.client(door.alice, door.token(groups=["staff"])).get("/files/staff").json() == {
        "staff": "spiffe://als.example/user/alice"
    }
    assert door.client(door.alice, door.token()).get("/files/staff").status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("GET", "/nowhere", "no-route", 403),
        ("PATCH", "/files/x", "no-route", 403),
        ("TRACE", "/files/x", "method-unknown", 501),
        ("GET", "/files/%2e%2e/me", "path-ambiguous", 400),
        ("GET", "/files%2Fx", "path-ambiguous", 400),
        ("GET", "/livez//", "path-ambiguous", 400),
        ("PUT", "/files/x", "right-not-held", 403),
    ],
)
def test_every_denial_is_a_problem_and_a_record(door: Door, method: str, path: str, code: str, status: int) -> None:
    """A stable code, a request id, a sentence; and the same in the log, for malformed requests, too."""
    answer = door.client(door.alice, door.token()).request(method, path)
    assert_denied(answer, code)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    last = door.last()
    assert (last["outcome"], last["code"], last["status"], last["method"]) == ("deny", code, status, method)
    assert last["request"] == answer.headers["x-request-id"] == answer.json()["request_id"]


def test_what_is_missing_is_asked_for(door: Door) -> None:
    """401 with a challenge: no certificate, no token, a token nobody signed, a token in wrong hands."""
    bob = door.facility.peer("bob")
    for who, token, code, challenge in [
        (None, None, "certificate-required", False),
        (door.alice, None, "token-required", False),
        (door.alice, "bm90IGEgdG9rZW4", None, True),
        (bob, door.token(), "token-binding", True),
        (Facility("als.example").peer("alice"), door.token(), None, False),
    ]:
        answer = door.client(who, token).get("/files/x")
        assert answer.status_code == 401
        if code is not None:
            assert_denied(answer, code)
        assert ("invalid_token" in answer.headers["www-authenticate"]) is challenge
        assert door.last()["outcome"] == "deny"


def test_an_expired_certificate_is_refused_on_the_same_connection(door: Door) -> None:
    """Connections outlive certificates: the dates are looked at again on each request."""
    http = door.client(door.alice)
    assert_permitted(http.get("/me"))
    door.clock.ahead = timedelta(hours=9)
    answer = http.get("/me")
    assert_denied(answer, "certificate-expired")
    assert answer.status_code == 401


def test_a_revoked_certificate_and_token_are_refused_at_once(door: Door) -> None:
    """What is withdrawn between two requests does not serve the second."""
    http, token = door.client(door.alice, door.token()), door.token()
    assert_permitted(http.get("/files/x"))
    door.facility.revoke(RevocationKind.CERTIFICATE, door.alice.fingerprint)
    assert_denied(http.get("/files/x"), "certificate-revoked")
    assert token


def test_two_tokens_are_none(door: Door) -> None:
    """Which of them would decide is nobody's guess."""
    answer = door.client(door.alice, door.token()).get("/files/x", headers={"biscuit": door.token()})
    assert_denied(answer, "token-ambiguous")
    assert answer.status_code == 400


def test_a_request_without_accept_or_user_agent_is_served_and_recorded(door: Door) -> None:
    """No header is needed to be seen."""
    http = door.client(door.alice)
    http.headers.clear()
    assert_permitted(http.get("/me"))
    assert door.last()["path"] == "/me"


def test_the_app_never_sees_the_token_it_was_let_in_with(door: Door) -> None:
    """In whichever place it came; other credentials, and on request this one, pass."""
    token = door.token()
    seen = door.client(door.alice, token).get("/files/x").json()["headers"]
    assert "authorization" not in seen
    seen = door.client(door.alice).get("/files/x", headers={"biscuit": token, "authorization": "Basic x"}).json()["headers"]
    assert "biscuit" not in seen
    assert seen["authorization"] == "Basic x"
    forwarding = door.guard(APP, forward_credentials=True)
    seen = door.client(door.alice, token, app=forwarding).get("/files/x").json()["headers"]
    assert seen["authorization"] == f"Bearer {token}"
    seen = door.client(door.alice, token).get("/me").json()["headers"]
    assert seen["authorization"] == f"Bearer {token}", "a credential that was not asked for is the app's own business"


def test_smuggled_certificate_headers_do_not_arrive(door: Door) -> None:
    """Whoever writes ``X-SSL-Client-Cert`` becomes nobody by it; the attempt is counted."""
    answer = door.client(door.alice).get("/me", headers={"X-SSL-Client-Cert": "bob", "Client_Cert": ":bob:", "accept": "x"})
    assert answer.json()["headers"].keys().isdisjoint({"x-ssl-client-cert", "client_cert"})
    assert answer.json()["principal"] == "spiffe://als.example/user/alice"
    assert door.last()["stripped"] == 2


def test_the_request_id_is_the_client_s_if_it_is_harmless(door: Door) -> None:
    """One id from end to end; an unsafe one is replaced; an app's own does not double it."""
    http = door.client(door.alice)
    assert http.get("/me", headers={"x-request-id": "trace-0001"}).headers["x-request-id"] == "trace-0001"
    made = http.get("/me", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert made[14] == "7"

    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"app")]})
        await send({"type": "http.response.body", "body": b""})

    answer = door.client(app=door.guard(own)).get("/livez", headers={"x-request-id": "trace-0002"})
    assert answer.headers.get_list("x-request-id") == ["trace-0002"]


def test_an_app_that_crashes_is_recorded_twice(door: Door) -> None:
    """The decision before, the crash after; the exception is the app's and goes on to the server."""
    with pytest.raises(ZeroDivisionError):
        door.client(door.alice).get("/crash")
    decision, end = door.records()[-2:]
    assert (decision["event"], decision["outcome"]) == ("decision", "permit")
    assert (end["event"], end["code"], end["request"]) == ("ended", "app-crashed", decision["request"])

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        door.client(app=door.guard(broken)).get("/livez")
    assert door.last()["code"] == "app-crashed"


def test_a_websocket_is_guarded_like_everything_else(door: Door) -> None:
    """The app knows who is there; the token travels as a header or as a subprotocol and does not reach the app."""
    token = door.token()
    with door.client(door.alice, token).websocket_connect("/live") as websocket:
        seen = websocket.receive_json()
        assert (seen["identity"], seen["operation"]) == ("spiffe://als.example/user/alice", "connect")
        assert "authorization" not in seen["headers"]
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
    with door.client(door.alice).websocket_connect("/live", subprotocols=["chat", f"certauth.bearer.{token}"]) as websocket:
        seen = websocket.receive_json()
        assert websocket.accepted_subprotocol == "chat"
    assert seen["subprotocols"] == ["chat"]
    assert seen["headers"]["sec-websocket-protocol"] == "chat"
    with door.client(door.alice).websocket_connect("/live", subprotocols=[f"certauth.bearer.{token}"]) as websocket:
        assert "sec-websocket-protocol" not in websocket.receive_json()["headers"]


def test_a_websocket_is_denied_before_it_is_accepted(door: Door) -> None:
    """With a problem document where the server can send one, else with a close code that says the same."""
    with pytest.raises(WebSocketDenialResponse) as caught, door.client().websocket_connect("/live"):
        pass
    assert caught.value.status_code == 401
    assert caught.value.json()["code"] == "certificate-required"
    assert (door.last()["kind"], door.last()["code"]) == ("websocket", "certificate-required")

    sent = []

    async def call() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        scope = {"type": "websocket", "path": "/live", "raw_path": b"/live", "headers": [], "subprotocols": [], "client": None}
        await door.app(scope, receive, send)

    asyncio.run(call())
    assert sent == [{"type": "websocket.close", "code": 4401, "reason": "certificate-required"}]


def test_an_open_websocket_ends_with_its_credential(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """When the certificate expires the connection is closed with 4401, and the log says why."""
    with door.client(door.alice, door.token()).websocket_connect("/live") as websocket:
        websocket.receive_json()
        door.clock.ahead = timedelta(hours=9)
        with pytest.raises(WebSocketDisconnect) as caught:
            websocket.receive_text()
    assert (caught.value.code, caught.value.reason) == (4401, "certificate-expired")
    end = door.last()
    assert (end["event"], end["outcome"], end["code"]) == ("ended", "deny", "certificate-expired")
    assert not caplog.records


def test_an_open_websocket_ends_when_its_token_is_revoked(door: Door) -> None:
    """A revocation reaches connections that are open already."""
    with door.client(door.alice, door.token()).websocket_connect("/live") as websocket:
        websocket.receive_json()
        door.facility.revoke(RevocationKind.JTI, door.last()["token"])
        with pytest.raises(WebSocketDisconnect) as caught:
            websocket.receive_text()
    assert (caught.value.code, caught.value.reason) == (4401, "token-revoked")


async def raw_call(door: Door, app: Any, path: str) -> list[dict[str, Any]]:
    """Call a guarded app as a server does; what it sends."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    body: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not body:
            await asyncio.sleep(60)  # a client that stays
        return body.pop()

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "headers": [],
        "client": None,
        "extensions": {"certauth.peer": {"chain_der": door.alice.chain_der, "address": None, "uid": None}},
    }
    await app(scope, receive, send)
    return sent


def test_a_streaming_response_ends_with_its_credential(door: Door) -> None:
    """It is left incomplete, which a client can tell, and the app's own task is ended."""

    async def until_the_end(scope: Any, receive: Any, send: Any) -> None:
        async def ending(message: dict[str, Any]) -> None:
            await send(message)
            door.clock.ahead = timedelta(hours=9)

        await APP(scope, receive, ending)

    async def call() -> list[dict[str, Any]]:
        async with asyncio.timeout(60):
            return await raw_call(door, door.guard(until_the_end), "/stream")

    sent = asyncio.run(call())
    assert sent[0]["status"] == 200
    assert {message.get("more_body") for message in sent[1:]} == {True}
    assert door.last()["code"] == "certificate-expired"


@pytest.mark.parametrize("manners", ["obedient", "deaf", "angry"])
def test_a_request_that_has_not_answered_yet_is_denied_instead(door: Door, manners: str) -> None:
    """Also if the app swallows its cancellation and goes on, or turns it into an error of its own."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        door.clock.ahead = timedelta(hours=9)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if manners == "obedient":
                raise
            if manners == "angry":
                raise ZeroDivisionError from None
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def call() -> list[dict[str, Any]]:
        sent = await raw_call(door, door.guard(slow), "/me")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return sent

    sent = asyncio.run(call())
    assert sent[0]["status"] == 401
    assert json.loads(sent[1]["body"])["code"] == "certificate-expired"


class Stubborn:
    """A client that goes on sending, and an app that catches its first cancellation and goes on receiving."""

    def __init__(self, door: Door, kind: str, *, accepts: bool, own_task: bool = False) -> None:
        self.door, self.kind, self.accepts, self.own_task = door, kind, accepts, own_task
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.cancellations = 0
        self.listening, self.told = asyncio.Event(), asyncio.Event()
        """The app has received a few messages; the client has been told the end."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if self.accepts:
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await send({"type": "websocket.accept"} if self.kind == "websocket" else start)
        while True:
            try:
                # A task of its own is not reached by the cancellation of the request's.
                next_one = asyncio.create_task(self.listen(receive)) if self.own_task else self.listen(receive)
                await (asyncio.shield(next_one) if isinstance(next_one, asyncio.Task) else next_one)
            except asyncio.CancelledError:
                self.cancellations += 1
                if self.cancellations > 1:
                    raise

    async def listen(self, receive: Any) -> None:
        while True:
            self.received.append(await receive())
            if len(self.received) == 3:
                self.listening.set()

    async def receive(self) -> dict[str, Any]:
        # One whose messages could wake the app falls silent at the end: the app must not wait for it then.
        await asyncio.sleep(60 if self.door.clock.ahead and not self.own_task else 0.01)
        if self.kind == "websocket":
            return {"type": "websocket.receive", "text": "more"}
        return {"type": "http.request", "body": b"more", "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] in {"websocket.close", "http.response.body", "websocket.http.response.body"}:
            self.told.set()

    async def run(self) -> None:
        path = "/live" if self.kind == "websocket" else "/me"
        headers = [(b"authorization", f"Bearer {self.door.token()}".encode())]
        facts = {"chain_der": self.door.alice.chain_der, "address": None, "uid": None}
        scope = {"type": self.kind, "method": "GET", "path": path, "headers": headers, "client": None, "subprotocols": []}
        scope["extensions"] = {"certauth.peer": facts, "websocket.http.response": {}}
        await self.door.guard(self.app)(scope, self.receive, self.send)

    async def cut_off(self) -> None:
        """Run until it is over; the credential ends as soon as the app receives."""
        request = asyncio.create_task(self.run())
        async with asyncio.timeout(60) as limit:
            await self.listening.wait()
            self.door.clock.ahead = timedelta(hours=9)
            if self.kind == "websocket" or not self.accepts:
                await self.told.wait()
                assert not request.done(), "the client was told only when the app returned"
            await request
        assert not limit.expired(), "it was ended by this test, and not by the door"


@pytest.mark.parametrize("own_task", [False, True])
@pytest.mark.parametrize(("kind", "accepts"), [("http", True), ("http", False), ("websocket", True), ("websocket", False)])
def test_an_app_that_goes_on_receives_nothing_more_and_is_cancelled_again(
    door: Door, kind: str, *, accepts: bool, own_task: bool
) -> None:
    """From the moment a request is cut off: the client is told, and what it still sends does not arrive."""

    async def call() -> Stubborn:
        stubborn = Stubborn(door, kind, accepts=accepts, own_task=own_task)
        await stubborn.cut_off()
        return stubborn

    made = asyncio.run(call())
    assert made.cancellations == 2
    data = [message["type"] in {"http.request", "websocket.receive"} for message in made.received]
    end = data.index(False)
    assert end > 2
    assert not any(data[end:]), "it received after it was cut off"
    if kind == "http":
        assert made.received[end] == {"type": "http.disconnect"}
    else:
        assert made.received[end] == {"type": "websocket.disconnect", "code": 4401, "reason": "certificate-expired"}
    ends = [line for line in door.records() if line["event"] == "ended"]
    assert [line["code"] for line in ends] == ["certificate-expired"]
    match kind, accepts:
        case "http", True:
            assert [message["type"] for message in made.sent] == ["http.response.start"]
        case "websocket", True:
            assert made.sent[1:] == [{"type": "websocket.close", "code": 4401, "reason": "certificate-expired"}]
        case _:
            assert made.sent[0]["status"] == 401


def test_a_stranger_cannot_fill_the_decision_log(door: Door) -> None:
    """Characters that take four bytes, or six when escaped, in the longest path: less than 1.5 kB for each request."""
    lines = door.directory / "decisions-0.jsonl"
    http = door.client()
    http.get("/livez")
    for path in ("/" + "\U0001f511" * 2000, "/" + "%01" * 2000, "/nowhere/" + '"' * 2000):
        before = lines.stat().st_size
        assert http.get(path).status_code in {400, 403}
        assert lines.stat().st_size - before < 1536
    longest = door.client(door.alice, door.token()).get("/files/" + "x" * 2000)
    assert_permitted(longest)
    assert len(door.last()["path"]) == 1024 - len("…".encode()) + 1


def test_a_websocket_not_yet_accepted_is_denied_when_it_is_cut_off(door: Door) -> None:
    """The app took its time; the credential did not last that long."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(60)

    door.app = door.guard(slow)
    token = door.token(lifetime=timedelta(minutes=5))
    door.clock.ahead = timedelta(minutes=4, seconds=59)
    with pytest.raises(WebSocketDenialResponse) as caught, door.client(door.alice, token).websocket_connect("/live"):
        pass
    assert caught.value.json()["code"] == "token-expired"


def test_background_work_after_the_answer_is_not_cut_off(door: Door) -> None:
    """The client has its answer; what the app does afterwards is its own."""
    done = []

    async def later(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        door.clock.ahead = timedelta(hours=9)
        await asyncio.sleep(3 * cutoff.TICK_SECONDS)
        done.append(True)

    asyncio.run(raw_call(door, door.guard(later), "/me"))
    assert done


def test_a_server_that_gives_up_is_not_answered(door: Door) -> None:
    """A cancellation that is not ours goes through."""

    async def call() -> None:
        under_way = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            under_way.set()
            await asyncio.sleep(60)

        task = asyncio.ensure_future(raw_call(door, door.guard(slow), "/me"))
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(call())
    assert door.last()["event"] == "decision"


def test_strict_permits_nothing_that_cannot_be_recorded(door: Door) -> None:
    """The log is gone: 503, when to come back, and the app is not called."""
    called = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope)

    guarded = door.guard(app)
    guarded.start()
    guarded.log.close()
    for path in ("/livez", "/nowhere"):
        answer = door.client(app=guarded).get(path)
        assert_denied(answer, "decision-log-failed")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert called == []


def test_a_door_that_cannot_open_its_log_does_not_open(door: Door) -> None:
    """A lifespan that fails keeps the server from serving; without one each request is told."""
    log = DecisionLog(door.directory / ("x" * 300), mode=RecordMode.BUFFERED, clock=door.clock, program="test")
    closed = PolicyMiddleware(APP, policy=Policy.parse(RULES), trust=door.facility.trust(), decisions=log)
    answer = client(closed).get("/livez")
    assert_denied(answer, "decision-log-failed")
    assert answer.status_code == 503

    async def lifespan() -> list[str]:
        sent: list[str] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message["type"])

        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.startup"}

        await closed({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(lifespan()) == ["lifespan.startup.failed"]


@pytest.mark.parametrize(("error", "code", "status"), [(UnavailableError("decision-limit", "x"), "decision-limit", 503)])
def test_the_engine_s_limit_says_nothing_about_the_right(door: Door, error: Any, code: str, status: int) -> None:
    """503 and Retry-After, never 403: it is our machine that could not tell."""

    class Limited:
        """Trust as it looks to a request while the engine gives up."""

        generation = 1

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        @property
        def state(self) -> Any:
            raise error

    guarded = door.guard(APP)
    guarded._trust = Limited(guarded._trust)
    answer = door.client(door.alice, app=guarded).get("/me")
    assert_denied(answer, code)
    assert answer.status_code == status
    assert "retry-after" in answer.headers
    assert door.last()["code"] == code


def test_a_mistake_of_ours_is_a_denial(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever fails inside the door, the app is not called, the request is recorded, and the error is logged."""
    guarded = door.guard(APP)
    guarded._trust = None  # type: ignore[assignment]  # the mistake
    guarded._log.start()
    guarded._started = True
    answer = door.client(door.alice, app=guarded).get("/me")
    assert_denied(answer, "internal-error")
    assert answer.status_code == 500
    assert door.last()["code"] == "internal-error"
    assert "could not be decided" in caplog.text
    guarded._trust = door.facility.trust()


def test_what_cannot_be_decided_again_is_ended_and_what_is_unknown_goes_on(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure of ours ends a running request; an engine or feed that cannot tell now does not."""
    errors: list[Exception] = [UnavailableError("decision-limit", "x")] * 2 + [ZeroDivisionError()]

    class Failing:
        """Trust that fails in several ways, one after the other."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.first = inner, True

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        @property
        def state(self) -> Any:
            if self.first:
                self.first = False
                return self.inner.state
            raise errors.pop(0)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    guarded = door.guard(slow)
    guarded._trust = Failing(guarded._trust)
    sent = asyncio.run(raw_call(door, guarded, "/me"))
    assert sent[0]["status"] == 500
    assert errors == []
    assert "could not be decided again" in caplog.text


def test_only_http_and_websocket_reach_the_app(door: Door) -> None:
    """A scope nobody has thought of is not let through."""

    async def call() -> None:
        await door.app({"type": "webtransport"}, None, None)  # type: ignore[arg-type]  # never used

    with pytest.raises(ValueError, match="webtransport"):
        asyncio.run(call())


def test_no_task_no_app(door: Door) -> None:
    """Without a task there is nothing that could be cut off later; the app is not called."""

    async def call() -> None:
        guarded = door.guard(APP, mode=RecordMode.OFF)
        outcome: list[BaseException] = []

        def outside_of_any_task() -> None:
            try:
                raw_call(door, guarded, "/me").send(None)
            except BaseException as error:
                outcome.append(error)

        asyncio.get_running_loop().call_soon(outside_of_any_task)
        await asyncio.sleep(0.01)
        assert isinstance(outcome[0], RuntimeError)

    asyncio.run(call())


def test_all_that_runs_is_watched(door: Door) -> None:
    """Several requests of one loop, one timer: each is ended when its time has come, and no other."""

    async def call() -> list[int]:
        under_way = asyncio.Semaphore(0)

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            under_way.release()
            await asyncio.sleep(60)

        guarded = door.guard(slow)
        ending = [asyncio.ensure_future(raw_call(door, guarded, "/me")) for _ in range(3)]
        staying = asyncio.ensure_future(raw_call(door, guarded, "/livez"))
        for _ in range(4):
            await under_way.acquire()
        door.clock.ahead = timedelta(hours=9)
        sent = await asyncio.gather(*ending)
        assert not staying.done()
        staying.cancel()
        return [messages[0]["status"] for messages in sent]

    assert asyncio.run(call()) == [401, 401, 401]


def test_an_app_may_close_its_websocket(door: Door) -> None:
    """What the app says goes through as it is."""

    async def closing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 3000, "reason": "done"})

    guarded = door.guard(closing)
    with (
        pytest.raises(WebSocketDisconnect) as caught,
        door.client(door.alice, door.token(), app=guarded).websocket_connect("/live") as websocket,
    ):
        websocket.receive_text()
    assert (caught.value.code, caught.value.reason) == (3000, "done")


def test_a_failed_handshake_is_recorded(door: Door) -> None:
    """What TLS refused is a line of the same log."""
    door.app.start()
    door.app.note_failed_handshake(FailedHandshake(reason="CERTIFICATE_VERIFY_FAILED", verify_code=10, address="192.0.2.1"))
    until(door.records)
    last = door.last()
    assert (last["event"], last["outcome"], last["address"]) == ("handshake", "deny", "192.0.2.1")
    assert last["reasons"] == ["CERTIFICATE_VERIFY_FAILED"]


def test_the_app_s_lifespan_runs_inside_the_door_s(door: Door) -> None:
    """The log is open before the app starts and closed after it has stopped; its state reaches requests."""
    seen = []

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[dict[str, Any]]:
        seen.append(door.app.log.file is not None)
        yield {"answer": 42}
        seen.append(door.app._started)

    async def state(request: Request) -> JSONResponse:
        return JSONResponse({"answer": request.state.answer})

    door.app = door.guard(Starlette(routes=[Route("/livez", state)], lifespan=lifespan))
    with door.client() as http:
        assert http.get("/livez").json() == {"answer": 42}
    assert seen == [True, True]
    assert door.app._started is False


def test_an_app_without_a_lifespan_gets_one(door: Door) -> None:
    """Or the log would not be flushed at the end."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    door.app = door.guard(plain, mode=RecordMode.BUFFERED)
    with door.client() as http:
        assert_permitted(http.get("/livez"))
    assert door.app._started is False
    assert door.last()["path"] == "/livez"


def test_an_app_that_fails_to_start_fails_as_before(door: Door) -> None:
    """Its error goes to the server; the door closes behind it."""

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    door.app = door.guard(Starlette(lifespan=lifespan))
    with pytest.raises(ZeroDivisionError), door.client():
        pass
    assert door.app._started is False


def test_documents_are_read_from_files(door: Door) -> None:
    """``policy="policy.toml"``: the rules, and the log they describe."""
    (door.directory / "policy.toml").write_bytes(RULES)
    guarded = PolicyMiddleware(APP, policy=door.directory / "policy.toml", trust=door.facility.trust())
    assert guarded.log.mode is RecordMode.BUFFERED
    with client(guarded) as http:
        assert_permitted(http.get("/livez"))
    assert door.last()["path"] == "/livez"
    assert guarded.trust.generation
    (door.directory / "trust.toml").write_text("")
    with pytest.raises(Exception, match=r"trust\.toml"):
        PolicyMiddleware(APP, policy=door.directory / "policy.toml", trust=door.directory / "trust.toml")


def test_the_public_names_of_the_package() -> None:
    """``from policy import PolicyMiddleware``; and nothing by accident."""
    assert policy.PolicyMiddleware is PolicyMiddleware
    assert policy.Caller is Caller
    with pytest.raises(AttributeError, match="Middleware"):
        _ = policy.Middleware  # type: ignore[attr-defined]  # the point of the test


def test_starting_twice_and_stopping_twice_is_once(door: Door) -> None:
    """Both may be called by a lifespan and by whoever owns the door."""
    door.app.start()
    door.app.start()
    door.app.stop()
    door.app.stop()
    with pytest.raises(StoreError):
        asyncio.run(door.app.log.record(None))  # type: ignore[arg-type]  # it never gets that far
