"""``policy.remembered``: an equal request is not decided again, and is as soon as anything could decide it otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from certauth.clock import system_clock
from certauth.revocation import RevocationKind
from certauth.tokens.attenuate import attenuate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import from_text, to_text
from certauth.tokens.datalog import QUERY_HEAD, Check, Predicate, Query, Variable
from certauth.tokens.vocabulary import Narrowing
from policy import remembered
from policy.decision import Permit
from policy.decision_log import DecisionLog
from policy.middleware import PolicyMiddleware
from policy.remembered import MAX_KEPT, key_of, stands_until
from policy.request import PEER_EXTENSION, read_headers
from policy.rules import Policy, RecordMode
from policy.testing import Facility, MemoryUses, Peer
from tests.certauth.tokens.kit import with_block

RULES = b"""
version = 1
service = "data"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/me"
access = "certificate"
[[route]]
path = "/files/"
methods = ["GET", "PUT"]
access = "token"
[[route]]
path = "/long"
access = "certificate"
min_remaining = "20m"
"""
RIGHTS = ("read /files/", "write /files/")


async def answer(request: Request) -> JSONResponse:
    """What the app is told."""
    caller = request.state.certauth
    return JSONResponse({"user": caller.user, "request": caller.request_id})


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = system_clock().replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now


class Door:
    """A door with a clock, which says whether it decided a request or remembered."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.facility = Facility(clock=self.clock)
        routes = [Route(path, answer, methods=["GET", "PUT"]) for path in ("/livez", "/me", "/long", "/files/{x:path}")]
        self.log = DecisionLog(directory / "decisions.jsonl", mode=RecordMode.STRICT, clock=self.clock, program="test")
        self.app = PolicyMiddleware(
            Starlette(routes=routes),
            policy=Policy.parse(RULES),
            trust=self.facility.trust(),
            decisions=self.log,
            clock=self.clock,
            uses=MemoryUses(),
        )
        self.decided = 0
        real = self.app._decide

        def counting(*given: Any, **more: Any) -> Any:
            self.decided += 1
            return real(*given, **more)

        monkeypatch.setattr(self.app, "_decide", counting)

    def asks(self, peer: Peer | None, token: str | None, path: str = "/files/a", method: str = "GET", **more: Any) -> int:
        """The status of the answer."""
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        asyncio.run(self.app(scope(peer, token, path, method, **more), receive, send))
        return int(messages[0]["status"])

    def decides(self, *request: Any, status: int = 200, **more: Any) -> bool:
        """Whether a request with this answer was decided."""
        before = self.decided
        assert self.asks(*request, **more) == status
        return self.decided > before

    def remembers(self, *request: Any, **more: Any) -> None:
        """From the third on, it does."""
        assert [self.decides(*request, **more) for _ in range(4)] == [True, True, False, False]


def scope(
    peer: Peer | None,
    token: str | None,
    path: str,
    method: str = "GET",
    *,
    uid: int | None = None,
    raw: bytes | None = None,
    address: str = "127.0.0.1",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> dict[str, Any]:
    """A request as a server passes it on."""
    credentials = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    shown = {"chain_der": peer.chain_der if peer else (), "address": (address, 50000), "uid": uid}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw is None else raw,
        "query_string": b"",
        "headers": [*headers, *credentials],
        "state": {},
        "extensions": {PEER_EXTENSION: shown},
    }


@contextmanager
def opened(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A door between start and stop."""
    door = Door(directory, monkeypatch)
    door.app.start()
    try:
        yield door
    finally:
        door.app.stop()


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """An open one."""
    with opened(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def alice(door: Door) -> Peer:
    """A user."""
    return door.facility.peer("alice", lifetime=timedelta(hours=8))


def test_equal_requests_are_permitted_alike_and_recorded_each(door: Door, alice: Peer) -> None:
    """A record and an id of its own for each; nothing else differs."""
    token = door.facility.token(alice, "data", rights=RIGHTS)
    door.remembers(alice, token)
    door.remembers(alice, None, "/me")
    door.remembers(None, None, "/livez")
    door.app.stop()
    lines = [json.loads(line) for line in (door.log.file or Path()).read_bytes().splitlines()[1:]]
    lines = [line for line in lines if line["event"] == "decision"]
    assert len(lines) == 12
    assert len({line["request"] for line in lines}) == 12
    for first in range(0, 12, 4):
        same = [
            {name: line[name] for name in line.keys() - {"request", "seq", "_chain", "at"}} for line in lines[first : first + 4]
        ]
        assert same[0] == same[1] == same[2] == same[3]


def test_whatever_differs_is_decided(door: Door, alice: Peer) -> None:
    """Path, its bytes, method, token, certificate, address, user id, and further credentials."""
    bob = door.facility.peer("bob", lifetime=timedelta(hours=8))
    token = door.facility.token(alice, "data", rights=RIGHTS)
    door.remembers(alice, token)
    assert door.decides(alice, token, "/files/b")
    assert door.decides(alice, token, raw=b"/files/%61")
    assert door.decides(alice, token, method="PUT")
    assert door.decides(alice, token, address="127.0.0.2")
    assert door.decides(alice, token, uid=1000)
    assert door.decides(alice, door.facility.token(alice, "data", rights=RIGHTS))
    assert door.decides(bob, token, status=401)
    assert door.decides(None, token, status=401)
    assert door.decides(alice, None, status=401)
    assert door.asks(alice, token, headers=((b"biscuit", token.encode()),)) == 400
    assert door.asks(alice, token, raw=b"/files/..%2fa") == 400
    assert not door.decides(alice, token)


def test_a_withdrawal_ends_it_at_once(door: Door, alice: Peer) -> None:
    """Of the certificate or the token, on the very next request; and any change of trust is looked at."""
    token = door.facility.token(alice, "data", rights=RIGHTS)
    door.remembers(alice, token)
    door.facility.revoke(RevocationKind.CERTIFICATE, door.facility.peer("bob").fingerprint)
    assert door.decides(alice, token), "trust has changed"
    assert not door.decides(alice, token)
    door.facility.revoke(RevocationKind.CERTIFICATE, alice.fingerprint)
    assert door.decides(alice, token, status=401)


@pytest.mark.parametrize(("at", "minutes"), [("narrowing", 10), ("token", 30), ("certificate", 60)])
def test_it_ends_with_the_first_credential(door: Door, at: str, minutes: int) -> None:
    """To the moment: a narrowing, the token, or the certificate."""
    alice = door.facility.peer("alice", lifetime=timedelta(hours=1))
    lifetime = timedelta(minutes=30) if at != "certificate" else timedelta(hours=2)
    token = door.facility.token(alice, "data", rights=RIGHTS, lifetime=lifetime)
    if at == "narrowing":
        end = door.clock() + timedelta(minutes=10)
        token = to_text(attenuate(from_text(token), Narrowing(expires_at=end)))
    begin = door.clock()
    door.remembers(alice, token)
    door.clock.now = begin + timedelta(minutes=minutes, microseconds=-1)
    assert not door.decides(alice, token)
    door.clock.now = begin + timedelta(minutes=minutes)
    assert door.decides(alice, token, status=401)


def test_it_ends_when_the_credential_no_longer_lasts_as_long_as_the_route_takes(door: Door) -> None:
    """``min_remaining`` is asked each time."""
    alice = door.facility.peer("alice", lifetime=timedelta(hours=1))
    begin = door.clock()
    door.remembers(alice, None, "/long")
    door.clock.now = begin + timedelta(minutes=40, seconds=1)
    assert door.decides(alice, None, "/long", status=422)


def test_a_clock_that_goes_back_is_believed(door: Door, alice: Peer) -> None:
    """Nothing is known of what was before."""
    door.remembers(alice, None, "/me")
    door.clock.now -= timedelta(seconds=1)
    assert door.decides(alice, None, "/me")


def test_what_is_counted_or_about_a_body_is_decided_each_time(door: Door, alice: Peer) -> None:
    """A token with a number of uses is used up like before."""
    token = door.facility.token(alice, "data", rights=RIGHTS)
    narrow = to_text(attenuate(from_text(token), Narrowing(max_uses=3)))
    assert [door.asks(alice, narrow) for _ in range(4)] == [200, 200, 200, 403]


def test_denials_are_decided_each_time(door: Door, alice: Peer) -> None:
    """Only permits are kept."""
    token = door.facility.token(alice, "data", rights=("read /files/x/",))
    assert all(door.decides(alice, token, status=403) for _ in range(4))


def permit_of(door: Door, alice: Peer, token: str | None = None) -> Permit:
    """What a door decides about a request."""
    path = "/me" if token is None else "/files/a"
    asked = scope(alice, token, path)
    judged = door.app._judge(asked, read_headers(asked["headers"]), door.clock())
    assert isinstance(judged.decision, Permit)
    return judged.decision


def test_freshness_is_a_moment_too(door: Door, alice: Peer) -> None:
    """When a feed begins to be stale, and when that has lasted too long for reading."""
    now, state = door.clock(), door.app.trust.state
    permit = permit_of(door, alice)
    (domain, found), *_ = state.domains.items()
    soon = now + timedelta(minutes=1)

    def until(fresh_until: datetime) -> datetime:
        changed = replace(found, fresh_until=fresh_until, stale_reading=timedelta(minutes=5))
        return stands_until(
            permit, replace(state, domains={domain: changed}), now, path_ends=alice.certificate.not_valid_after_utc
        )

    assert until(soon) == soon
    assert until(now - timedelta(minutes=1)) == now + timedelta(minutes=4)


def test_what_is_not_known_to_stand_does_not(door: Door, alice: Peer) -> None:
    """Neither without the path's end, nor with a count, a body, or a check of another program's making."""
    now, state = door.clock(), door.app.trust.state
    token = from_text(door.facility.token(alice, "data", rights=RIGHTS))
    strange = Check((Query(QUERY_HEAD, (Predicate("time", (Variable("t"),)),), (), ()),))
    of_another = with_block(token, Block(3, checks=(strange,)))

    def until(data: bytes, path_ends: datetime | None = now + timedelta(hours=8)) -> datetime:
        return stands_until(permit_of(door, alice, to_text(data)), state, now, path_ends=path_ends)

    assert until(token) > now
    assert until(token, None) == now
    assert until(of_another) == now
    assert until(attenuate(token, Narrowing(max_uses=3))) == now
    assert until(attenuate(token, Narrowing(body_sha256="0" * 64))) == now


def test_memory_is_bounded(door: Door, alice: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large requests are not kept, requests that come once are known by a number, and not too many of these."""
    large = scope(alice, None, "/me", headers=((b"authorization", b"Basic " + b"x" * MAX_KEPT),))
    assert key_of(large, read_headers(large["headers"])) is None
    assert all(door.decides(alice, None, "/me", headers=tuple(large["headers"])) for _ in range(4))
    elsewhere = {**scope(alice, None, "/me"), "extensions": {}}
    assert key_of(elsewhere, read_headers([])) is None
    monkeypatch.setattr(remembered, "SEEN", 2)
    assert all(door.decides(alice, None, "/me", address=f"127.0.0.{number % 4}") for number in range(8))
