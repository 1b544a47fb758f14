"""Limited uses and single bodies at the door: counted and compared before the app hears of the request, or refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from certauth.clock import system_clock
from certauth.errors import StoreError
from certauth.revocation import RevocationKind
from certauth.tokens import attenuate, delegate, from_text, to_text
from policy.body import BodyReader
from policy.caller import Caller
from policy.counting import NotReserved, Reservation, Reserved
from policy.decision import Decision, Deny, Permit
from policy.middleware import PolicyMiddleware
from policy.request import ReadHeaders, read_headers
from policy.rules import Policy, RecordMode
from policy.stateful import Uses, is_settled, settle
from policy.testing import Facility, MemoryUses, assert_denied, assert_permitted
from policy.uses import UseFile
from tests.policy.test_middleware import APP, RULES, Door

BODY = b'{"sample": 7}'
RIGHTS = ("read /files/", "write /files/", "connect /live")
WITH_FILE = RULES.replace(b'service = "data"\n', b'service = "data"\n[uses]\npath = "uses.sqlite"\n[body]\nmax_bytes = 64\n')


@pytest.fixture
def counter() -> MemoryUses:
    """What was counted."""
    return MemoryUses()


@pytest.fixture
def door(tmp_path: Path, counter: MemoryUses) -> Iterator[Door]:
    """A door that counts."""
    made = Door(tmp_path)
    made.app = made.guard(APP, uses=counter)
    yield made
    for middleware in made.made:
        middleware.stop()


def limited(door: Door, uses: int = 1, **options: Any) -> str:
    """A token of Alice's for so many uses."""
    return door.token(rights=RIGHTS, max_uses=uses, **options)


def total(counter: MemoryUses) -> int:
    """How many uses were counted."""
    return sum(counter.counts.values())


# --- uses ---------------------------------------------------------------------------------------------------------------


def test_a_token_works_as_often_as_it_may(door: Door) -> None:
    """Twice, and not a third time; the record says which use it was."""
    client = door.client(door.alice, limited(door, 2))
    for number in (1, 2):
        assert_permitted(client.get("/files/x"))
        (said,) = door.last()["uses"]
        assert said.endswith(f": {number} of 2")
    answer = client.get("/files/x")
    assert_denied(answer, "token-used-up")
    assert answer.status_code == 403
    assert (door.last()["outcome"], door.last()["code"], door.last()["held"][-1]) == ("deny", "token-used-up", "requirements")
    assert door.last()["token"]


def test_what_is_refused_for_another_reason_is_not_counted(door: Door, counter: MemoryUses) -> None:
    """Only a request that passes everything else uses a token up."""
    token = limited(door)
    eve = door.facility.peer("eve")
    assert_denied(door.client(eve, token).get("/files/x"), "token-binding")
    assert_denied(door.client(door.alice, token).delete("/files/x"), "right-not-held")
    assert_denied(door.client(None, token).get("/files/x"), "certificate-required")
    narrow = attenuate(token, read="/files/y/")
    assert_denied(door.client(door.alice, narrow).get("/files/x"), "token-path")
    assert total(counter) == 0
    assert_permitted(door.client(door.alice, token).get("/files/x"))
    assert total(counter) == 1


def test_derived_tokens_use_up_the_same(door: Door) -> None:
    """Narrowing a token with one use does not make two of it, not even by setting the same counter a higher limit."""
    token = limited(door)
    one, other = (attenuate(token, read=f"/files/{name}") for name in ("a", "b"))
    more = attenuate(token, max_uses=100)
    assert_permitted(door.client(door.alice, one).get("/files/a"))
    for spent, path in ((other, "b"), (token, "a"), (more, "a")):
        assert_denied(door.client(door.alice, spent).get(f"/files/{path}"), "token-used-up")


def test_tokens_made_apart_count_apart(door: Door) -> None:
    """Two tokens with one use each from one parent are two uses."""
    parent = door.token(rights=RIGHTS)
    for token in (attenuate(parent, max_uses=1), attenuate(parent, max_uses=1)):
        assert_permitted(door.client(door.alice, token).get("/files/x"))
        assert_denied(door.client(door.alice, token).get("/files/x"), "token-used-up")
    assert_permitted(door.client(door.alice, parent).get("/files/x"))


def test_a_websocket_is_one_use(door: Door, counter: MemoryUses) -> None:
    """Opening it uses the token, and being decided again while it is open does not, although nothing is left."""
    with door.client(door.alice, limited(door)).websocket_connect("/live") as socket:
        socket.receive_json()
        for number in range(5):
            socket.send_text(str(number))
            assert socket.receive_text() == str(number)
        assert total(counter) == 1
        running = next(iter(door.app._cut_offs._latest.running))  # type: ignore[union-attr]  # one is open
        assert isinstance(door.app._decide_again(running, door.clock()), Permit)
    assert total(counter) == 1


def test_a_door_that_does_not_count_refuses(door: Door) -> None:
    """Without a counter, the token is refused for that: 403, with a code of its own."""
    plain = door.guard(APP)
    answer = door.client(door.alice, limited(door), app=plain).get("/files/x")
    assert_denied(answer, "uses-not-supported")
    assert answer.status_code == 403
    assert_permitted(door.client(door.alice, door.token(), app=plain).get("/files/x"))


class Broken:
    """A counter that cannot count."""

    def __init__(self, error: Exception, *, at_start: bool = False) -> None:
        self.error, self.at_start = error, at_start

    def start(self) -> None:
        if self.at_start:
            raise self.error

    def reserve(self, token: str, limits: Mapping[str, int], *, until: datetime, now: datetime) -> Reservation:
        raise self.error

    def close(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(StoreError("uses-unavailable", "no disk", retry_after=3), "uses-unavailable", 503), (OSError(), "internal-error", 500)],
)
def test_a_counter_that_fails_lets_nobody_in(door: Door, error: Exception, code: str, status: int) -> None:
    """Uses that cannot be counted are not had; tokens without a number of uses are none of its business."""
    app = door.guard(APP, uses=Broken(error))
    answer = door.client(door.alice, limited(door), app=app).get("/files/x")
    assert_denied(answer, code)
    assert answer.status_code == status
    if status == 503:
        assert answer.headers["retry-after"] == "3"
    assert_permitted(door.client(door.alice, door.token(), app=app).get("/files/x"))


def test_a_door_does_not_open_without_its_counter(door: Door) -> None:
    """A counter that cannot start is told at the start, and at every request of a server without one."""
    app = door.guard(APP, uses=Broken(StoreError("uses-unavailable", "no disk"), at_start=True))
    with pytest.raises(StoreError):
        app.start()
    app._log.start()
    assert_denied(door.client(door.alice, door.token(), app=app).get("/files/x"), "uses-unavailable")
    app._log.close()


def test_a_use_is_counted_before_it_is_recorded_and_recorded_before_it_is_had(door: Door, counter: MemoryUses) -> None:
    """If it cannot be recorded, the app hears nothing of it, and the use is gone: never the other way round."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope["path"])

    guarded = door.guard(app, uses=counter)
    guarded.start()
    seen: list[int] = []

    async def failing(_record: Any) -> None:
        seen.append(total(counter))
        raise StoreError("decision-log-failed", "the disk is full")

    guarded._log.record = failing  # type: ignore[method-assign,assignment]
    answer = door.client(door.alice, limited(door), app=guarded).get("/files/x")
    assert_denied(answer, "decision-log-failed")
    assert (heard, seen, total(counter)) == ([], [1], 1)


def test_policy_toml_names_the_file(door: Door, tmp_path: Path) -> None:
    """With ``[uses]``, doors of the same file count together, now and after a restart."""
    rules = Policy.parse(WITH_FILE, base=tmp_path)
    assert rules.uses_path == tmp_path / "uses.sqlite"
    token = limited(door, 3)
    for _ in range(2):
        app = door.guard(APP, policy=rules, mode=RecordMode.OFF)
        assert_permitted(door.client(door.alice, token, app=app).get("/files/x"))
        app.stop()
    one, two = (door.guard(APP, policy=rules, mode=RecordMode.OFF) for _ in range(2))
    assert_permitted(door.client(door.alice, token, app=one).get("/files/x"))
    assert_denied(door.client(door.alice, token, app=two).get("/files/x"), "token-used-up")


def test_waiting_requests_are_bounded(door: Door) -> None:
    """Behind a slow disk a bounded number waits; the others are told to come again, and nobody after the end."""
    token = door.app._tokens.verify(limited(door), now=door.clock())
    uses = Uses(MemoryUses(), waiting=1)

    async def race() -> list[Any]:
        return await asyncio.gather(*(uses.reserve(token, now=door.clock()) for _ in range(2)), return_exceptions=True)

    unstarted = asyncio.run(race())
    assert [type(each) for each in unstarted] == [StoreError, StoreError]
    uses.start()
    uses.start()
    first, second = asyncio.run(race())
    assert not isinstance(first, Exception)
    assert isinstance(second, StoreError)
    assert isinstance(asyncio.run(race())[0], NotReserved)
    uses.close()
    uses.close()


def test_without_a_counter_no_permit_gets_through(door: Door) -> None:
    """Should a permit for a limited token ever come this far at a door that does not count, it ends here."""
    now = door.clock()
    token = door.app._tokens.verify(limited(door), now=now)
    peer = door.app._peers.verify(door.alice.chain_der, now=now)
    permit = Permit(held=(), route=Policy.parse(RULES).routes[4], peer=peer, token=token)
    assert not is_settled(permit)

    async def nothing() -> Any:
        raise AssertionError("there is no body to read")

    def never(_digest: str) -> Decision:
        raise AssertionError("there is nothing to decide again")

    settled = asyncio.run(
        settle(permit, headers=[], receive=nothing, bodies=BodyReader(), uses=None, decide_again=never, clock=system_clock)
    )
    assert isinstance(settled.decision, Deny)
    assert settled.decision.code == "uses-not-supported"


# --- bodies -------------------------------------------------------------------------------------------------------------


def test_only_the_one_body(door: Door) -> None:
    """The body the token is for arrives whole; any other is refused before the app hears of the request."""
    client = door.client(door.alice, door.token(rights=RIGHTS, body=BODY))
    answer = client.put("/files/x", content=BODY)
    assert_permitted(answer)
    assert answer.json()["body"] == len(BODY)
    for other in (b"", BODY + b" ", BODY[:-1]):
        answer = client.put("/files/x", content=other)
        assert_denied(answer, "token-body")
        assert answer.status_code == 403
    assert door.last()["code"] == "token-body"
    assert door.app._bodies.held == 0


def test_the_app_hears_nothing_of_another_body(door: Door) -> None:
    """Not the request, not a part of the body."""
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await receive())
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    guarded = door.guard(app)
    client = door.client(door.alice, door.token(rights=RIGHTS, body=BODY), app=guarded)
    assert_denied(client.put("/files/x", content=b"another"), "token-body")
    assert heard == []
    assert_permitted(client.put("/files/x", content=BODY))
    assert heard == [{"type": "http.request", "body": BODY, "more_body": False}]


def test_in_pieces_as_well(door: Door) -> None:
    """However it is cut up on the way."""
    client = door.client(door.alice, door.token(rights=RIGHTS, body=BODY))
    assert_permitted(client.put("/files/x", content=iter((BODY[:3], BODY[3:]))))
    assert_denied(client.put("/files/x", content=iter((BODY[3:], BODY[:3]))), "token-body")


def test_a_request_without_a_body_has_the_empty_one(door: Door) -> None:
    """Which a token can be for."""
    assert_permitted(door.client(door.alice, door.token(body=b"")).get("/files/x"))
    assert_denied(door.client(door.alice, door.token(body=BODY)).get("/files/x"), "token-body")


def test_two_bodies_are_none(door: Door) -> None:
    """A token narrowed to one body and then to another is for neither, and nothing is read."""
    digest = hashlib.sha256(b"another").hexdigest()
    token = attenuate(door.token(rights=RIGHTS, body=BODY), body_sha256=digest)
    for content in (BODY, b"another"):
        assert_denied(door.client(door.alice, token).put("/files/x", content=content), "token-body")


def test_a_websocket_has_no_body(door: Door) -> None:
    """A token for one body opens none."""
    with (
        pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)),
        door.client(door.alice, door.token(body=b"")).websocket_connect("/live"),
    ):
        pass
    assert door.last()["code"] == "token-body"


def test_a_body_beyond_the_bound_is_refused(door: Door, tmp_path: Path) -> None:
    """413, by what is announced or by what comes; without such a token, bodies of any size stream through."""
    app = door.guard(APP, policy=Policy.parse(WITH_FILE, base=tmp_path))
    large = b"x" * 65
    token = door.token(rights=RIGHTS, body=large)
    for content in (large, iter((large,))):
        answer = door.client(door.alice, token, app=app).put("/files/x", content=content)
        assert_denied(answer, "body-too-large")
        assert answer.status_code == 413
    assert door.last()["principal"] == "spiffe://als.example/user/alice"
    answer = door.client(door.alice, door.token(rights=RIGHTS), app=app).put("/files/x", content=large)
    assert answer.json()["body"] == 65


def test_no_stranger_has_anything_read(door: Door) -> None:
    """Only a request that is right in everything else has its body read."""
    token = door.token(body=BODY)
    asked: list[Any] = []
    original = door.app._bodies.read

    async def noting(headers: Any, receive: Any) -> Any:
        asked.append(headers)
        return await original(headers, receive)

    door.app._bodies.read = noting  # type: ignore[method-assign]
    assert_denied(door.client(door.facility.peer("eve"), token).put("/files/x", content=BODY), "token-binding")
    assert_denied(door.client(door.alice, token).put("/files/x", content=BODY), "right-not-held")
    assert asked == []
    assert_permitted(door.client(door.alice, door.token(rights=RIGHTS, body=BODY)).put("/files/x", content=BODY))
    assert len(asked) == 1


def test_what_changed_while_it_was_read_counts(door: Door) -> None:
    """The decision that lets the request through is taken when the body is there: a token that was revoked meanwhile is."""
    token = door.token(rights=RIGHTS, body=BODY)
    jti = door.app._tokens.verify(token, now=door.clock()).jti
    original = door.app._bodies.read

    async def meanwhile(headers: Any, receive: Any) -> Any:
        body = await original(headers, receive)
        door.facility.revoke(RevocationKind.JTI, jti)
        return body

    door.app._bodies.read = meanwhile  # type: ignore[method-assign]
    assert_denied(door.client(door.alice, token).put("/files/x", content=BODY), "token-revoked")
    assert door.app._bodies.held == 0


def test_body_and_use_together(door: Door, counter: MemoryUses) -> None:
    """A wrong body uses nothing up; the right one does, once."""
    client = door.client(door.alice, limited(door, body=BODY))
    assert_denied(client.put("/files/x", content=b"another"), "token-body")
    assert total(counter) == 0
    assert_permitted(client.put("/files/x", content=BODY))
    assert_denied(client.put("/files/x", content=BODY), "token-used-up")
    assert (total(counter), door.app._bodies.held) == (1, 0)


def test_a_failure_in_between_keeps_no_body(door: Door) -> None:
    """Room is given back whatever happens: a counter that fails, a log that fails, an app that does not read."""
    failing = door.guard(APP, uses=Broken(StoreError("uses-unavailable", "no disk")))
    token = limited(door, body=BODY)
    assert_denied(door.client(door.alice, token, app=failing).put("/files/x", content=BODY), "uses-unavailable")
    assert failing._bodies.held == 0

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    app = door.guard(deaf)
    assert_permitted(door.client(door.alice, door.token(rights=RIGHTS, body=BODY), app=app).put("/files/x", content=BODY))
    assert app._bodies.held == 0


def test_only_a_permit_is_settled(door: Door) -> None:
    """Settling anything else is a mistake of ours and no permit."""
    judgement = door.app._judge({"type": "http", "path": "/nowhere", "method": "GET", "headers": []}, _headers(), door.clock())

    async def nothing() -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError):
        asyncio.run(door.app._settle(judgement, _headers(), nothing))


def _headers() -> ReadHeaders:
    return read_headers([])


def test_files_of_uses_are_what_the_middleware_makes(tmp_path: Path) -> None:
    """``[uses]`` alone is enough: the file is made at the start, and let go at the end."""
    app = PolicyMiddleware(APP, policy=Policy.parse(WITH_FILE, base=tmp_path), trust=Facility().trust())
    app.start()
    assert (tmp_path / "uses.sqlite").exists()
    app.stop()
    counter, now = UseFile(tmp_path / "uses.sqlite"), system_clock()
    assert isinstance(counter.reserve("t", {"n": 1}, until=now + timedelta(hours=1), now=now), Reserved)
    counter.close()


def test_the_record_and_the_app_see_the_chain_and_who_vouched(door: Door) -> None:
    """Through whose hands a token went, and what others vouched for, is recorded and told to the app."""
    nsls = Facility("nsls.example")
    bob, job = door.facility.peer("bob"), door.facility.peer("job")
    token = from_text(door.token(delegations=2))
    token = delegate(token, holder_key=door.alice.key, to_certificate=bob.certificate, depth=1)
    token = delegate(token, holder_key=bob.key, to_certificate=job.certificate)
    text = nsls.vouch(to_text(token), "run7")
    seen: list[Caller] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["user"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    guarded = door.guard(app, trust=door.facility.trust(attesters=[nsls.attester("run*")]))
    assert_permitted(door.client(job, text, app=guarded).get("/files/x"))
    assert door.last()["delegated"] == [bob.fingerprint, job.fingerprint]
    assert door.last()["vouched"] == ["nsls.example:run7"]
    assert len(door.last()["blocks"]) == 4
    (caller,) = seen
    assert caller.handed_over == (door.alice.fingerprint, bob.fingerprint, job.fingerprint)
    assert caller.members == ("nsls.example:run7",)
    assert "member:nsls.example:run7" in caller.scopes
    assert_permitted(door.client(door.alice, door.token(), app=guarded).get("/files/x"))
    assert (seen[1].handed_over, seen[1].members, door.last().get("vouched")) == ((), (), None)
