"""Opaque access tokens: one question for many waiters, short memory, bounded load, and no answer that is not one."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.errors import CertauthError, ProofError, UnavailableError
from certauth.identity import Binding, BoundKey, Issuer, ProofKind, verify_introspected
from signer.introspection import Introspection, IntrospectionSource
from signer.jwks import IssuerSource, KeySource, Pace
from tests.signer.test_jwks import Ticks, made_once, until
from tests.simulator.hostile_provider import HostileProvider, Mode, hostile_provider, jwks
from tests.simulator.node_provider import SIGNER_CLIENT_ID, SIGNER_SECRET, confidential_client, log_in, node_provider

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
ACTIVE = {"active": True, "sub": "alice"}
SECRET = "s3cret & sauce"


@pytest.fixture
def anyio_backend() -> str:
    """The signer runs on asyncio."""
    return "asyncio"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """The client's secret, private."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put something else into a file."""
    path.chmod(mode)
    path.write_bytes(content)


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider that answers questions about tokens."""
    with hostile_provider() as running:
        running.jwks = jwks(made_once("ES256", "a"))
        running.more["introspection_endpoint"] = f"{running.issuer}/introspect"
        running.says = ACTIVE
        yield running


@pytest.fixture
def ticks() -> Ticks:
    """The clock of durations."""
    return Ticks()


@asynccontextmanager
async def asking(
    provider: HostileProvider,
    secret_file: Path,
    ticks: Ticks,
    *,
    seconds: float = 60,
    hosts: frozenset[str] = frozenset(),
) -> AsyncIterator[Callable[[str], Any]]:
    """A function that asks the provider about a token; everything is closed at the end."""
    pace = Pace(timeout=seconds)
    key_source = KeySource([IssuerSource(url=provider.issuer, allow_loopback_http=True)], pace=pace, ticks=ticks)
    source = IntrospectionSource(url=provider.issuer, client_id="us:them", secret_file=secret_file, hosts=hosts)
    introspection = Introspection([source], key_source=key_source, clock=lambda: NOW, ticks=ticks)
    try:
        yield lambda token: introspection.introspect(provider.issuer, token)
    finally:
        await introspection.aclose()
        await key_source.aclose()


async def outcome(call: Any) -> str:
    """``active``, ``inactive``, or the kind and code of the error."""
    try:
        return "active" if (await call)["active"] else "inactive"
    except CertauthError as error:
        return f"{type(error).__name__} {error.code}"


# --- the question ---------------------------------------------------------------------------------------------------


async def test_the_question_is_that_of_the_specification(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    """The token in the body, our client in the header, form-encoded first; neither token nor secret in any log."""
    caplog.set_level(0)
    async with asking(provider, secret_file, ticks) as ask:
        answer = await ask("opaque-token_1")
    assert dict(answer) == ACTIVE
    assert provider.forms == [{"token": "opaque-token_1", "token_type_hint": "access_token"}]
    scheme, _, credentials = provider.seen[-1]["authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", b"us%3Athem:s3cret+%26+sauce")
    assert "opaque-token_1" not in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_provider_that_wants_the_secret_in_the_form_gets_it_there(
    provider: HostileProvider, secret_file: Path, ticks: Ticks
) -> None:
    """``client_secret_post``; what the introspection endpoint says counts more than what the token endpoint says."""
    provider.more["introspection_endpoint_auth_methods_supported"] = ["client_secret_post"]
    provider.more["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    async with asking(provider, secret_file, ticks) as ask:
        assert await outcome(ask("x")) == "active"
    assert provider.forms[0] | {"token": ""} == {
        "token": "",
        "token_type_hint": "access_token",
        "client_id": "us:them",
        "client_secret": SECRET,
    }
    assert "authorization" not in provider.seen[-1]


async def test_a_new_secret_is_used_without_a_restart(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """The file is read for each question."""
    async with asking(provider, secret_file, ticks) as ask:
        await ask("x")
        write(secret_file, b"another")
        await ask("y")
    assert base64.b64decode(provider.seen[-1]["authorization"].partition(" ")[2]).endswith(b":another")


@pytest.mark.parametrize("case", ["missing", "open", "not-text"])
async def test_without_a_usable_secret_nothing_is_asked(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, case: str
) -> None:
    """A secret that others can read is none; the error does not tell callers about our files."""
    if case == "missing":
        secret_file = secret_file.with_name("missing")
    else:
        write(secret_file, b"\xff" if case == "not-text" else b"secret", mode=0o644 if case == "open" else 0o600)
    async with asking(provider, secret_file, ticks) as ask:
        with pytest.raises(UnavailableError) as caught:
            await ask("x")
    assert str(secret_file) not in str(caught.value)
    assert not provider.forms


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"introspection_endpoint": ...}, "names no introspection endpoint"),
        ({"introspection_endpoint": "http://evil.example/introspect"}, "names no introspection endpoint"),
        ({"introspection_endpoint_auth_methods_supported": ["private_key_jwt"]}, "takes no client secret"),
    ],
)
async def test_a_provider_that_cannot_be_asked(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, more: dict[str, object], words: str
) -> None:
    """No endpoint, an unsafe one, no way to show who we are: *later*, with the reason."""
    provider.more |= more
    async with asking(provider, secret_file, ticks) as ask:
        with pytest.raises(UnavailableError, match=words) as caught:
            await ask("x")
    assert (caught.value.code, caught.value.retry_after) == ("issuer-unavailable", 5)
    assert not provider.forms


async def test_the_secret_is_not_sent_elsewhere(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """A discovery document that names an endpoint on another host gets our secret there only if it is listed."""
    with hostile_provider() as thief:
        thief.says = ACTIVE
        provider.more["introspection_endpoint"] = f"{thief.issuer}/introspect"
        async with asking(provider, secret_file, ticks) as ask:
            with pytest.raises(UnavailableError, match="not listed"):
                await ask("x")
        assert not thief.seen
        async with asking(provider, secret_file, ticks, hosts=frozenset({thief.issuer.removeprefix("http://")})) as ask:
            assert await outcome(ask("x")) == "active"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "proof-malformed"),
        ("two words", "proof-malformed"),
        ("line\nbreak", "proof-malformed"),
        ("tökn", "proof-malformed"),
        ("x" * (16 * 1024 + 1), "proof-too-large"),
    ],
)
async def test_what_can_be_no_token_is_not_asked_about(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, token: str, code: str
) -> None:
    """RFC 6750 §2.1 says which characters a bearer token has."""
    async with asking(provider, secret_file, ticks) as ask:
        assert await outcome(ask(token)) == f"ProofError {code}"
    assert not provider.fetches


async def test_only_configured_providers_are_asked(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """A provider for which introspection is not switched on hears of no token."""
    key_source = KeySource([IssuerSource(url=provider.issuer, allow_loopback_http=True)], ticks=ticks)
    introspection = Introspection([], key_source=key_source, clock=lambda: NOW)
    assert await outcome(introspection.introspect(provider.issuer, "x")) == "ProofError unknown-issuer"
    assert not provider.fetches


# --- one question, short memory -------------------------------------------------------------------------------------


async def test_300_who_bring_one_token_ask_once(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """All wait for one answer, and it is known for half a minute."""
    async with asking(provider, secret_file, ticks) as ask:
        assert set(await asyncio.gather(*(outcome(ask("x")) for _ in range(300)))) == {"active"}
        assert await outcome(ask("x")) == "active"
        assert len(provider.forms) == 1
        ticks.now += 29.9
        await ask("x")
        assert len(provider.forms) == 1
        ticks.now += 0.1
        provider.says = {"active": False}
        assert await outcome(ask("x")) == "inactive"
        assert len(provider.forms) == 2


async def test_an_answer_is_not_kept_past_the_end_of_the_token(
    provider: HostileProvider, secret_file: Path, ticks: Ticks
) -> None:
    """A token that ends in ten seconds is asked about again after ten seconds."""
    provider.says = ACTIVE | {"exp": int(NOW.timestamp()) + 10}
    async with asking(provider, secret_file, ticks) as ask:
        for seconds, asked in ((0, 1), (9.9, 1), (0.1, 2)):
            ticks.now += seconds
            await ask("x")
            assert len(provider.forms) == asked


@pytest.mark.parametrize(("exp", "asked"), [(0, 2), (-(10**300), 2), (10**300, 1), (1e300, 1), ("soon", 1), (None, 1)])
async def test_an_odd_end_is_kept_for_a_moment_or_not_at_all(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, exp: object, asked: int
) -> None:
    """Integers that no float can hold, texts, the past: what they mean is decided elsewhere, here nothing breaks."""
    provider.says = ACTIVE | {"exp": exp}
    async with asking(provider, secret_file, ticks) as ask:
        assert [await outcome(ask("x")) for _ in range(2)] == ["active", "active"]
    assert len(provider.forms) == asked


async def test_the_memory_is_bounded(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """After 1024 further tokens the first is asked about again; made-up ones do not fill memory."""
    provider.says = {"active": False}
    async with asking(provider, secret_file, ticks) as ask:
        await ask("token-0")  # alone: the answers of a batch come in any order
        for batch in range(1, 1025, 10):
            await asyncio.gather(*(ask(f"token-{number}") for number in range(batch, min(batch + 10, 1025))))
        assert len(provider.forms) == 1025
        await ask("token-1024")
        assert len(provider.forms) == 1025
        await ask("token-0")
        assert len(provider.forms) == 1026


async def test_the_answer_cannot_be_changed_by_who_reads_it(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """Many share it."""
    async with asking(provider, secret_file, ticks) as ask:
        answer = await ask("x")
        with pytest.raises(TypeError):
            answer["sub"] = "mallory"


async def test_an_impatient_client_does_not_end_the_question_of_the_others(
    provider: HostileProvider, secret_file: Path, ticks: Ticks
) -> None:
    """The client that asked hangs up; the others get the answer."""
    async with asking(provider, secret_file, ticks) as ask:
        await ask("warm")
        provider.gate.clear()
        first = asyncio.create_task(ask("x"))
        await until(lambda: len(provider.forms) == 2)
        second = asyncio.create_task(outcome(ask("x")))
        await asyncio.sleep(0)
        first.cancel()
        provider.gate.set()
        assert await second == "active"
    assert len(provider.forms) == 2


async def test_a_failure_that_nobody_waits_for_is_quiet(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody hangs up, then the question fails: the event loop has nothing to complain about."""
    caplog.set_level(logging.ERROR)
    async with asking(provider, secret_file, ticks) as ask:
        await ask("warm")
        provider.gate.clear()
        only = asyncio.create_task(ask("x"))
        await until(lambda: len(provider.forms) == 2)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)
        provider.says = "not an answer"
        provider.gate.set()
        await until(lambda: provider.fetches["introspect"] == 2)
        assert await outcome(ask("y")) == "UnavailableError issuer-unavailable"
    gc.collect()
    assert caplog.text == ""


# --- answers that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "status", "headers", "words"),
    [
        ({"active": "true"}, 200, {}, "does not say whether"),
        ({"active": 1}, 200, {}, "does not say whether"),
        ({}, 200, {}, "does not say whether"),
        ([True], 200, {}, "does not say whether"),
        (b'{"active": true, "active": false}', 200, {}, "not strict JSON"),
        (b"active", 200, {}, "not strict JSON"),
        (b'{"active": true, "exp": NaN}', 200, {}, "not strict JSON"),
        (ACTIVE, 200, {"content-type": "text/html"}, "not with a token's state"),
        (ACTIVE, 200, {"content-encoding": "gzip"}, "compressed"),
        (b'{"active": true, "x": "' + b"x" * 262144 + b'"}', 200, {}, "larger than"),
        (ACTIVE, 201, {}, "answered 201"),
        (ACTIVE, 302, {"location": "/elsewhere"}, "answered 302"),
        (ACTIVE, 400, {}, "answered 400"),
        (ACTIVE, 401, {}, "does not accept our client id"),
        (ACTIVE, 403, {}, "does not accept our client id"),
        (ACTIVE, 500, {}, "answered 500"),
        (ACTIVE, 503, {}, "answered 503"),
    ],
)
async def test_an_answer_that_is_none_accepts_nothing(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, says: object, status: int, headers: dict[str, str], words: str
) -> None:
    """Only a JSON object with a boolean ``active`` and status 200 is an answer. Anything else is *later*, and is not kept."""
    async with asking(provider, secret_file, ticks) as ask:
        await ask("warm")
        provider.says, provider.status, provider.headers = says, status, headers
        with pytest.raises(UnavailableError, match=words) as caught:
            await ask("x")
        assert (caught.value.code, caught.value.retry_after) == ("issuer-unavailable", 5)
        provider.says, provider.status, provider.headers = ACTIVE, 200, {}
        ticks.now += 5
        assert await outcome(ask("x")) == "active"
    assert provider.fetches["elsewhere"] == 0


# --- load and outages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["silent", "drip"])
async def test_a_provider_that_does_not_answer_is_left_alone_for_a_while(
    provider: HostileProvider, secret_file: Path, ticks: Ticks, mode: Mode
) -> None:
    """One deadline for the whole answer; then nobody waits for it for five seconds, and known tokens are still known."""
    async with asking(provider, secret_file, ticks, seconds=1.5) as ask:
        await ask("known")
        provider.mode = mode
        assert await outcome(ask("x")) == "UnavailableError issuer-unavailable"
        asked = len(provider.forms)
        outcomes = await asyncio.gather(*(outcome(ask(f"t{number}")) for number in range(100)))
        assert set(outcomes) == {"UnavailableError issuer-unavailable"}
        assert len(provider.forms) == asked
        assert await outcome(ask("known")) == "active"
        provider.mode = "ok"
        ticks.now += 5
        assert await outcome(ask("x")) == "active"


async def test_a_flood_of_made_up_tokens_is_bounded(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """Sixteen questions at once and no more; the rest is told to come back in a second; what is known is answered meanwhile."""
    async with asking(provider, secret_file, ticks) as ask:
        await ask("known")
        provider.gate.clear()
        flood = [asyncio.create_task(outcome(ask(f"made-up-{number}"))) for number in range(200)]
        await until(lambda: len(provider.forms) == 17)
        assert await outcome(ask("known")) == "active"
        with pytest.raises(UnavailableError) as caught:
            await ask("late")
        assert caught.value.retry_after == 1
        provider.gate.set()
        outcomes = await asyncio.gather(*flood)
    assert (outcomes.count("active"), outcomes.count("UnavailableError issuer-unavailable")) == (16, 184)
    assert len(provider.forms) == 17


async def test_a_provider_that_is_down_says_when_to_come_back(
    provider: HostileProvider, secret_file: Path, ticks: Ticks
) -> None:
    """Not even its discovery document can be had: the key source's cooldown counts."""
    provider.mode = "down"
    async with asking(provider, secret_file, ticks) as ask:
        with pytest.raises(UnavailableError) as caught:
            await ask("x")
    assert caught.value.retry_after == 30


async def test_one_provider_holds_up_no_other(provider: HostileProvider, secret_file: Path, ticks: Ticks) -> None:
    """All questions to one provider are stuck; another answers as ever."""
    with hostile_provider() as other:
        other.jwks, other.says = provider.jwks, ACTIVE
        other.more["introspection_endpoint"] = f"{other.issuer}/introspect"
        sources = [IssuerSource(url=each.issuer, allow_loopback_http=True) for each in (provider, other)]
        key_source = KeySource(sources, ticks=ticks)
        asked = [IntrospectionSource(url=each.issuer, client_id="us", secret_file=secret_file) for each in (provider, other)]
        introspection = Introspection(asked, key_source=key_source, clock=lambda: NOW, ticks=ticks)
        provider.gate.clear()
        stuck = [asyncio.create_task(outcome(introspection.introspect(provider.issuer, f"t{n}"))) for n in range(30)]
        await until(lambda: provider.fetches)
        assert await outcome(introspection.introspect(other.issuer, "x")) == "active"
        await introspection.aclose()
        provider.gate.set()
        await asyncio.gather(*stuck, return_exceptions=True)
        await key_source.aclose()


# --- the real thing -------------------------------------------------------------------------------------------------


async def test_a_real_provider_is_asked_about_its_opaque_tokens(tmp_path: Path, ticks: Ticks) -> None:
    """Its default access token is opaque: active and alice's; a made-up one is inactive; a wrong secret is our problem."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SIGNER_SECRET)
    resource = "https://signer.example"
    with node_provider(tmp_path / "op", resources={resource: {"format": "opaque"}}) as op:
        key_source = KeySource([IssuerSource(url=op.issuer, ca_file=op.ca_file)], ticks=ticks)
        source = IntrospectionSource(url=op.issuer, client_id=SIGNER_CLIENT_ID, secret_file=secret)
        introspection = Introspection([source], key_source=key_source, clock=lambda: datetime.now(UTC), ticks=ticks)
        token = log_in(op, "alice", resource=resource)["access_token"]
        assert token.count(".") == 0
        answer = await introspection.introspect(op.issuer, token)
        issuer = Issuer(
            id="op",
            url=op.issuer,
            audience="certauth-cli",
            kinds=frozenset({ProofKind.ACCESS_TOKEN}),
            bindings=frozenset({Binding.NONE}),
            access_token_audience=resource,
            assurance=1,
        )
        key, digest = BoundKey(signer_id=resource, spki=b""), hashlib.sha256(token.encode()).digest()
        identity = verify_introspected(answer, token_digest=digest, issuer=issuer, key=key, now=datetime.now(UTC))
        assert (identity.subject, identity.assurance) == ("alice", 1)
        made_up = await introspection.introspect(op.issuer, "made-up")
        assert dict(made_up) == {"active": False}
        with pytest.raises(ProofError):
            verify_introspected(made_up, token_digest=digest, issuer=issuer, key=key, now=datetime.now(UTC) + timedelta(0))
        op.change(clients=[confidential_client(secret="another one that is long enough")])
        with pytest.raises(UnavailableError, match="does not accept our client id"):
            await introspection.introspect(op.issuer, "made-up-too")
        await introspection.aclose()
        await key_source.aclose()
