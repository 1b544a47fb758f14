"""``policy.body``: a body is read whole, within bounds of size, time and memory, or refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest

from policy.asgi import Message
from policy.body import Body, BodyReader, BodyRefused


def sending(*parts: bytes, last: Message | None = None) -> Callable[[], Awaitable[Message]]:
    """``receive`` of a client that sends these parts, and then ``last``."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    messages.append(last or {"type": "http.disconnect"})

    async def receive() -> Message:
        return messages.pop(0)

    return receive


def read(reader: BodyReader, *parts: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Body | BodyRefused:
    """What comes of a body in these parts."""
    return asyncio.run(reader.read(headers or [], sending(*parts)))


def refusal(found: Body | BodyRefused) -> tuple[str, int]:
    """The code and status of a refusal."""
    assert isinstance(found, BodyRefused)
    assert found.reason
    return found.code, found.status


@pytest.mark.parametrize("parts", [(b"",), (b"abc",), (b"a", b"", b"bc"), (b"x" * 100,)])
def test_a_body_is_read_whole_and_given_once(parts: tuple[bytes, ...]) -> None:
    """The digest is of all of it, and the app gets it in one piece, and then what the client did next."""
    reader = BodyReader(100)
    whole = b"".join(parts)

    async def run() -> list[Message]:
        receive = sending(*parts)
        body = await reader.read([], receive)
        assert isinstance(body, Body)
        assert body.sha256 == hashlib.sha256(whole).hexdigest()
        assert reader.held == len(whole)
        assert whole == b"" or repr(whole) not in repr(body)
        replayed = body.replay(receive)
        return [await replayed(), await replayed()]

    first, second = asyncio.run(run())
    assert first == {"type": "http.request", "body": whole, "more_body": False}
    assert second == {"type": "http.disconnect"}
    assert reader.held == 0


def test_a_message_may_leave_out_what_is_empty() -> None:
    """ASGI lets a server say less."""

    async def receive() -> Message:
        return {"type": "http.request"}

    body = asyncio.run(BodyReader().read([], receive))
    assert isinstance(body, Body)
    assert body.sha256 == hashlib.sha256(b"").hexdigest()


def test_what_is_too_large_is_not_read_to_its_end() -> None:
    """At the first byte too many, whatever was announced; and by what was announced, before anything is read."""
    reader = BodyReader(10)
    assert refusal(read(reader, b"x" * 11)) == ("body-too-large", 413)
    assert refusal(read(reader, b"x" * 6, b"x" * 5, b"never read")) == ("body-too-large", 413)

    async def never() -> Message:
        raise AssertionError("it was read")

    for length in (b"11", b"999999999999999999"):
        found = asyncio.run(reader.read([(b"Content-Length", length)], never))
        assert refusal(found) == ("body-too-large", 413)
    assert reader.held == 0


@pytest.mark.parametrize("lengths", [[b"ten"], [b"-1"], [b"1" * 30], [b"3", b"99"], []])
def test_an_announcement_is_only_a_hint(lengths: list[bytes]) -> None:
    """What makes no sense as a length is the server's business; what counts is what comes."""
    assert isinstance(read(BodyReader(10), b"abc", headers=[(b"content-length", each) for each in lengths]), Body)


def test_a_client_that_goes_away_sent_no_body() -> None:
    """Half a body is none."""
    reader = BodyReader(10)

    async def run() -> Body | BodyRefused:
        messages: list[Message] = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.disconnect"}]

        async def receive() -> Message:
            return messages.pop(0)

        return await reader.read([], receive)

    assert refusal(asyncio.run(run())) == ("body-incomplete", 400)
    assert reader.held == 0


def test_a_client_that_waits_is_not_waited_for() -> None:
    """A body that does not come is refused after a while, and its room given back; so it is when the server gives up."""
    reader = BodyReader(10, seconds=0.02)

    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    assert refusal(asyncio.run(reader.read([], silent))) == ("body-timeout", 408)
    assert reader.held == 0

    async def cancelled() -> None:
        task = asyncio.create_task(BodyReader.read(patient, [], silent))
        await asyncio.sleep(0)
        assert patient.held == 10
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    patient = BodyReader(10, seconds=600)
    asyncio.run(cancelled())
    assert patient.held == 0


def test_all_bodies_together_are_bounded() -> None:
    """When as many are held as may be, the next is refused at once; when one is let go, there is room again."""
    reader = BodyReader(10, together=2)

    async def run() -> None:
        held = [await reader.read([], sending(b"x" * 10)) for _ in range(2)]
        full = await reader.read([], sending(b""))
        assert refusal(full) == ("body-busy", 503)
        for body in held:
            assert isinstance(body, Body)
            body.release()
            body.release()
        assert isinstance(await reader.read([], sending(b"abc")), Body)
        assert reader.held == 3

    asyncio.run(run())


def test_no_body_at_all_may_be_the_bound() -> None:
    """A service can allow none but the empty body."""
    reader = BodyReader(0)
    assert isinstance(read(reader, b""), Body)
    assert refusal(read(reader, b"x")) == ("body-too-large", 413)
