"""HTTP to a provider: what is sent, what is taken back, and what is never repeated."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from certauth.errors import UnavailableError
from signer.outbound import MAX_ANSWER, Answer, Outbound, in_words
from tests.simulator.hostile_provider import HostileProvider, Mode, hostile_provider

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The signer runs on asyncio."""
    return "asyncio"


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider on loopback."""
    with hostile_provider() as running:
        yield running


async def test_what_is_sent(provider: HostileProvider) -> None:
    """Nothing about us but the program's name; no cookies, no compression, no credentials unless given."""
    provider.headers["set-cookie"] = "tracking=1"
    outbound = Outbound()
    for _ in range(2):
        await outbound.get(f"{provider.issuer}/jwks")
    for seen in provider.seen:
        assert seen.keys() <= {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert (seen["user-agent"], seen["accept-encoding"]) == ("certauth", "identity")
    await outbound.get(f"{provider.issuer}/jwks", bearer="secret", host="other.example")
    assert (provider.seen[-1]["authorization"], provider.seen[-1]["host"]) == ("Bearer secret", "other.example")


async def test_a_form_and_its_answer(provider: HostileProvider) -> None:
    """Any status is an answer to a form; the caller knows what each means there."""
    provider.says, provider.status = {"error": "invalid_grant"}, 400
    answer = await Outbound().post(f"{provider.issuer}/token", {"a": "1 &="}, basic=("us", "pass:word"))
    assert (answer.status, answer.content_type, answer.body) == (400, "application/json", b'{"error": "invalid_grant"}')
    assert provider.forms == [{"a": "1 &="}]
    assert base64.b64decode(provider.seen[0]["authorization"].removeprefix("Basic ")) == b"us:pass:word"


@pytest.mark.parametrize(
    ("mode", "words"), [("huge", "larger than"), ("zipped", "compressed"), ("silent", "in time"), ("drip", "in time")]
)
async def test_a_form_has_the_same_bounds(provider: HostileProvider, mode: Mode, words: str) -> None:
    """Size, form and time of the answer."""
    provider.mode = mode
    with pytest.raises(UnavailableError, match=words):
        await Outbound(timeout=0.5 if words == "in time" else 30).post(f"{provider.issuer}/token", {})


async def test_a_redirect_is_not_followed(provider: HostileProvider) -> None:
    """Neither with a form, whose answer it is, nor without."""
    provider.mode = "redirect"
    assert (await Outbound().post(f"{provider.issuer}/token", {"secret": "x"})).status == 302
    with pytest.raises(UnavailableError, match="302"):
        await Outbound().get(f"{provider.issuer}/jwks")
    assert provider.fetches["elsewhere"] == 0


@pytest.mark.parametrize(
    ("cache_control", "max_age"),
    [("max-age=60", 60.0), ("private, max-age=7", 7.0), ("s-maxage=9", None), ("max-age=-1", None), ("", None)],
)
async def test_how_long_an_answer_is_good(provider: HostileProvider, cache_control: str, max_age: float | None) -> None:
    """Only Cache-Control's max-age."""
    provider.headers["cache-control"] = cache_control
    assert (await Outbound().get(f"{provider.issuer}/jwks")).max_age == max_age


def test_an_answer_does_not_show_its_body() -> None:
    """It may be a token."""
    answer = Answer(status=200, body=b"secret", content_type="application/json", max_age=None)
    assert repr(answer) == "Answer(status=200, 6 bytes of 'application/json')"


async def test_no_foreign_words_leave(provider: HostileProvider) -> None:
    """An answer that breaks HTTP is described by its kind; neither it nor its cause is quoted, not even in a traceback."""
    provider.headers["x-broken"] = "a\r\n secret-in-a-folded\x00header"
    with pytest.raises(UnavailableError) as caught:
        await Outbound().get(f"{provider.issuer}/jwks")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert in_words(ValueError("secret")) == "its answer cannot be used (ValueError)"
    assert MAX_ANSWER == 256 * 1024
