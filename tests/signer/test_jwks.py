"""Keys of identity providers that are slow, down, lying, huge, redirecting, rotating; and what the others notice: nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from certauth.errors import ConfigError, ProofError, UnavailableError
from certauth.identity import BoundKey, Issuer, KeySet, read_proof, verify_id_token
from signer.jwks import IssuerSource, KeySource, Pace
from signer.outbound import MAX_ANSWER
from tests.simulator.certificates import ServerFiles, write_server_files
from tests.simulator.forward_proxy import forward_proxy
from tests.simulator.hostile_provider import HostileProvider, Mode, ProviderKey, hostile_provider, jwks
from tests.simulator.mock_provider import mock_log_in, mock_provider
from tests.simulator.node_provider import CLIENT_ID, node_provider
from tests.simulator.node_provider import log_in as node_log_in
from tests.simulator.openid_provider import log_in, running_provider

pytestmark = pytest.mark.anyio
PACE = Pace(timeout=60, cooldown=30)
made_once = cache(ProviderKey)


@pytest.fixture
def anyio_backend() -> str:
    """The signer runs on asyncio."""
    return "asyncio"


class Ticks:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider on loopback that publishes one key, so far in order."""
    with hostile_provider() as running:
        running.jwks = jwks(made_once("ES256", "a"))
        yield running


@pytest.fixture
def ticks() -> Ticks:
    """The clock of the key source."""
    return Ticks()


@asynccontextmanager
async def source_for(*providers: HostileProvider, ticks: Ticks, pace: Pace = PACE, **settings: Any) -> AsyncIterator[KeySource]:
    """A key source for these providers, closed at the end."""
    sources = [IssuerSource(url=each.issuer, allow_loopback_http=True, **settings) for each in providers]
    source = KeySource(sources, pace=pace, ticks=ticks)
    try:
        yield source
    finally:
        await source.aclose()


async def codes(*calls: Any) -> list[str]:
    """What each concurrent call came to: ``ok``, or the kind and code of its error."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return ["ok" if isinstance(each, KeySet) else f"{type(each).__name__} {getattr(each, 'code', each)}" for each in outcomes]


async def until(condition: Any) -> None:
    """Wait for something that happens in the background; fail after a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the threads of the simulator
            await asyncio.sleep(0.005)


# --- one fetch ------------------------------------------------------------------------------------------------------


async def test_300_cold_lookups_are_one_fetch(provider: HostileProvider, ticks: Ticks) -> None:
    """Three hundred requests at the same moment, nothing known yet: one discovery, one key set, all are served."""
    async with source_for(provider, ticks=ticks) as source:
        assert set(await codes(*(source.keys(provider.issuer, "a") for _ in range(300)))) == {"ok"}
    assert provider.fetches == {"discovery": 1, "jwks": 1}


async def test_an_impatient_client_does_not_end_the_fetch_of_the_others(provider: HostileProvider, ticks: Ticks) -> None:
    """The client that started the fetch hangs up; everybody else who waits for it is served by it."""
    provider.gate.clear()
    async with source_for(provider, ticks=ticks) as source:
        first = asyncio.create_task(source.keys(provider.issuer, "a"))
        await until(lambda: provider.fetches["discovery"])
        others = [asyncio.create_task(source.keys(provider.issuer, "a")) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        provider.gate.set()
        assert set(await codes(*others)) == {"ok"}
    assert provider.fetches["jwks"] == 1


async def test_closing_ends_a_fetch_under_way(provider: HostileProvider, ticks: Ticks) -> None:
    """The signer can stop while a provider keeps it waiting."""
    provider.gate.clear()
    async with source_for(provider, ticks=ticks) as source:
        waiting = asyncio.create_task(source.keys(provider.issuer, "a"))
        await until(lambda: provider.fetches["discovery"])
        await source.aclose()
        assert await codes(waiting) == ["CancelledError "]


# --- unknown keys and rotation --------------------------------------------------------------------------------------


async def test_300_unknown_ids_are_at_most_one_fetch_per_cooldown(provider: HostileProvider, ticks: Ticks) -> None:
    """Made-up key ids cost the provider one fetch per cooldown; known ones are served all the while, without waiting."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        withheld = await codes(*(source.keys(provider.issuer, f"made-up-{i}") for i in range(300)))
        assert set(withheld) == {"UnavailableError unknown-key"}
        assert provider.fetches["jwks"] == 1
        ticks.now += PACE.cooldown
        looked_for = await codes(*(source.keys(provider.issuer, f"made-up-{i}") for i in range(300)))
        assert set(looked_for) == {"ProofError unknown-key"}
        assert provider.fetches["jwks"] == 2
        again = await codes(*(source.keys(provider.issuer, f"made-up-{i}") for i in range(300)))
        assert set(again) == {"ProofError unknown-key"}
        assert await codes(source.keys(provider.issuer, "another")) == ["UnavailableError unknown-key"]
        assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
        assert provider.fetches["jwks"] == 2


async def test_what_was_looked_for_in_vain_is_remembered_within_bounds(provider: HostileProvider, ticks: Ticks) -> None:
    """Two thousand made-up ids leave at most 1024 behind in memory; the others are answered with *later*."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        ticks.now += PACE.cooldown
        await codes(*(source.keys(provider.issuer, f"made-up-{i}") for i in range(2000)))
        again = await codes(*(source.keys(provider.issuer, f"made-up-{i}") for i in range(2000)))
        assert (again.count("ProofError unknown-key"), again.count("UnavailableError unknown-key")) == (1024, 976)
        ticks.now += PACE.cooldown  # the next fetch begins a new memory: the first two thousand do not fill it for ever
        for _ in range(2):
            assert await codes(source.keys(provider.issuer, "made-up-later")) == ["ProofError unknown-key"]


async def test_a_withheld_refresh_says_when_to_come_back(provider: HostileProvider, ticks: Ticks) -> None:
    """A key published within the cooldown is answered with *later* and the seconds to wait, and found after them."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        provider.jwks = jwks(made_once("ES256", "a"), made_once("ES256", "b"))
        ticks.now += 10.5
        with pytest.raises(UnavailableError) as caught:
            await source.keys(provider.issuer, "b")
        assert (caught.value.code, caught.value.retry_after) == ("unknown-key", 20)
        ticks.now += 20
        assert "b" in (await source.keys(provider.issuer, "b")).by_kid


async def test_a_key_looked_for_in_vain_is_found_once_published(provider: HostileProvider, ticks: Ticks) -> None:
    """A provider that signs before it publishes is only late, not lost."""
    async with source_for(provider, ticks=ticks) as source:
        assert await codes(source.keys(provider.issuer, "b")) == ["ProofError unknown-key"]
        provider.jwks = jwks(made_once("ES256", "b"))
        ticks.now += PACE.cooldown
        assert await codes(source.keys(provider.issuer, "b")) == ["ok"]


async def test_no_key_id_never_causes_a_second_fetch(provider: HostileProvider, ticks: Ticks) -> None:
    """Tokens without a key id take the keys as they are."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, None)
        ticks.now += PACE.cooldown
        await source.keys(provider.issuer, None)
    assert provider.fetches["jwks"] == 1


# --- a key replaced under its old id --------------------------------------------------------------------------------

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
BOUND = BoundKey(signer_id="https://signer.example", spki=b"key", salt=bytes(16))
NONCE = BOUND.nonce()


async def verify(source: KeySource, provider: HostileProvider, signed_by: ProviderKey) -> str:
    """Verify a token of ``signed_by`` the way the signer does; ``ok`` or the code."""
    t = int(NOW.timestamp())
    token = signed_by.sign({"iss": provider.issuer, "aud": "us", "sub": "x", "iat": t, "exp": t + 60, "nonce": NONCE})
    issuer = Issuer(id="lab", url=provider.issuer, audience="us", allow_loopback_http=True)
    proof = read_proof(token)
    try:
        await source.verified(
            provider.issuer, proof.kid, lambda keys: verify_id_token(proof, issuer=issuer, keys=keys, key=BOUND, now=NOW)
        )
    except ProofError as error:
        return error.code
    return "ok"


async def test_a_key_replaced_under_its_old_id_is_fetched_once(provider: HostileProvider, ticks: Ticks) -> None:
    """After the cooldown a bad signature under a known id causes one fetch, and the token of the new key is accepted."""
    old, new = made_once("ES256", "a"), ProviderKey("ES256", "a")
    async with source_for(provider, ticks=ticks) as source:
        assert await verify(source, provider, old) == "ok"
        provider.jwks = jwks(new)
        assert await verify(source, provider, new) == "bad-signature"
        assert provider.fetches["jwks"] == 1
        ticks.now += PACE.cooldown
        assert await verify(source, provider, new) == "ok"
        assert await verify(source, provider, old) == "bad-signature"
    assert provider.fetches["jwks"] == 2


async def test_300_forged_signatures_are_at_most_one_fetch_per_cooldown(provider: HostileProvider, ticks: Ticks) -> None:
    """Forgeries under a known id cannot make us ask the provider more often, and are all refused."""
    forger = ProviderKey("ES256", "a")
    async with source_for(provider, ticks=ticks) as source:
        assert await verify(source, provider, made_once("ES256", "a")) == "ok"
        ticks.now += PACE.cooldown
        assert set(await asyncio.gather(*(verify(source, provider, forger) for _ in range(300)))) == {"bad-signature"}
        assert provider.fetches["jwks"] == 2
        assert await verify(source, provider, made_once("ES256", "a")) == "ok"


async def test_a_forgery_while_the_provider_is_down_harms_nobody(provider: HostileProvider, ticks: Ticks) -> None:
    """A fetch caused by a bad signature fails: the forgery stays refused, the known keys stay in use."""
    async with source_for(provider, ticks=ticks) as source:
        assert await verify(source, provider, made_once("ES256", "a")) == "ok"
        provider.mode = "down"
        ticks.now += PACE.cooldown
        assert await verify(source, provider, ProviderKey("ES256", "a")) == "bad-signature"
        assert await verify(source, provider, made_once("ES256", "a")) == "ok"


async def test_another_refusal_causes_no_fetch(provider: HostileProvider, ticks: Ticks) -> None:
    """Only a bad signature can mean a replaced key; a token refused for anything else is not worth a fetch."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        ticks.now += PACE.cooldown
        assert await verify(source, provider, ProviderKey("RS256", "a")) == "alg-not-allowed"
    assert provider.fetches["jwks"] == 1


# --- a provider that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("down", "503"),
        ("redirect", "302"),
        ("huge", "larger than"),
        ("zipped", "compressed"),
        ("text", "not one"),
        ("not-json", "cannot be used"),
        ("empty", "no usable key"),
        ("silent", "in time"),
        ("drip", "in time"),
    ],
)
async def test_a_failing_provider_is_asked_once_per_cooldown(
    provider: HostileProvider, ticks: Ticks, mode: Mode, words: str
) -> None:
    """However it fails: 300 requests, one fetch, *later* with the seconds to wait; then it works again."""
    provider.mode = mode
    pace = Pace(timeout=1.5 if words == "in time" else 30, cooldown=30)
    async with source_for(provider, ticks=ticks, pace=pace) as source:
        outcomes = await codes(*(source.keys(provider.issuer, "a") for _ in range(300)))
        assert set(outcomes) == {"UnavailableError issuer-unavailable"}
        assert provider.fetches["discovery"] == 1
        assert provider.fetches["elsewhere"] == 0
        with pytest.raises(UnavailableError, match=words) as caught:
            await source.keys(provider.issuer, "a")
        assert caught.value.retry_after == 30
        assert provider.fetches["discovery"] == 1
        provider.mode = "ok"
        ticks.now += 30
        assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
    assert provider.bytes_sent <= 20 * 2**20  # of 200 MiB: what the buffers of both ends held


@pytest.mark.parametrize(("size", "outcome"), [(MAX_ANSWER, "ok"), (MAX_ANSWER + 1, "UnavailableError issuer-unavailable")])
async def test_the_size_limit_is_exact(provider: HostileProvider, ticks: Ticks, size: int, outcome: str) -> None:
    """A key set of 256 KiB is read, one byte more is not."""
    provider.jwks = provider.jwks.ljust(size)
    async with source_for(provider, ticks=ticks) as source:
        assert await codes(source.keys(provider.issuer, "a")) == [outcome]


async def test_a_key_set_has_at_most_64_keys(provider: HostileProvider, ticks: Ticks) -> None:
    """More keys than anybody needs are somebody's attempt to keep us busy."""
    key = made_once("ES256", "a").jwk
    provider.jwks = jwks(*({**key, "kid": str(number)} for number in range(65)))
    async with source_for(provider, ticks=ticks) as source:
        with pytest.raises(UnavailableError, match="up to 64 keys"):
            await source.keys(provider.issuer, "1")


async def test_known_keys_outlive_a_failing_provider_for_a_day_and_no_longer(provider: HostileProvider, ticks: Ticks) -> None:
    """The provider goes down: known keys serve for ``expire_after`` seconds, then nothing does."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        provider.mode = "down"
        for _ in range(23):
            ticks.now += 3600
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
            await asyncio.sleep(0)
        await until(lambda: source.status()[0].failure)
        assert source.status()[0].state == "stale"
        ticks.now += 3600
        assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]
        [status] = source.status()
        assert (status.state, status.keys, status.age, status.ignored) == ("none", 0, None, ())
        provider.mode = "ok"
        ticks.now += PACE.cooldown
        assert await codes(source.keys(provider.issuer, "a")) == ["ok"]


async def test_an_unknown_id_while_the_provider_is_down_is_answered_with_later(provider: HostileProvider, ticks: Ticks) -> None:
    """When nobody can be asked, an unknown key id is no proof of guilt."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        provider.mode = "down"
        ticks.now += PACE.cooldown
        assert await codes(source.keys(provider.issuer, "b")) == ["UnavailableError issuer-unavailable"]
        assert await codes(source.keys(provider.issuer, "b")) == ["UnavailableError issuer-unavailable"]


async def test_old_keys_are_refreshed_behind_the_request(provider: HostileProvider, ticks: Ticks) -> None:
    """An hour later the known key is served at once, although the provider does not answer; then the new set is there."""
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        provider.jwks = jwks(made_once("ES256", "a"), made_once("ES256", "b"))
        ticks.now += 3600
        provider.gate.clear()
        assert (await source.keys(provider.issuer, "a")).by_kid.keys() == {"a"}
        await until(lambda: provider.fetches["jwks"] == 2)
        assert source.status()[0].state == "stale"
        provider.gate.set()
        await until(lambda: source.status()[0].state == "fresh")
        assert (await source.keys(provider.issuer, "a")).by_kid.keys() == {"a", "b"}
    assert provider.fetches == {"discovery": 1, "jwks": 2}


async def test_discovery_is_repeated_daily_and_after_a_failure(provider: HostileProvider, ticks: Ticks) -> None:
    """A provider that moves its key set is found again."""
    async with source_for(provider, ticks=ticks, pace=Pace(expire_after=7 * 86400)) as source:
        await source.warm()
        ticks.now += 86400
        await source.warm()
        assert provider.fetches == {"discovery": 2, "jwks": 2}
        provider.mode = "down"
        await source.warm()
        provider.mode = "ok"
        await source.warm()
    assert provider.fetches == {"discovery": 3, "jwks": 4}


@pytest.mark.parametrize(
    ("cache_control", "fresh_for"),
    [
        ("max-age=7200", 7200),
        ("public, MAX-AGE=10", 300),
        ("max-age=999999999, immutable", 21600),
        ("no-store", 3600),
        ("max-age=x", 3600),
    ],
)
async def test_the_providers_max_age_counts_within_limits(
    provider: HostileProvider, ticks: Ticks, cache_control: str, fresh_for: int
) -> None:
    """Cache-Control decides between five minutes and six hours; a provider can neither hurry nor freeze us."""
    provider.headers["cache-control"] = cache_control
    async with source_for(provider, ticks=ticks) as source:
        await source.keys(provider.issuer, "a")
        ticks.now += fresh_for - 1
        assert source.status()[0].state == "fresh"
        ticks.now += 1
        assert source.status()[0].state == "stale"


# --- a provider that lies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", ["https://evil.example", "", "{issuer}/", 7, None])
async def test_discovery_must_name_the_configured_issuer(provider: HostileProvider, ticks: Ticks, claimed: Any) -> None:
    """A document that speaks for another issuer, or nearly for this one, is not believed; its keys are not even fetched."""
    provider.claimed_issuer = claimed.format(issuer=provider.issuer) if isinstance(claimed, str) else claimed
    async with source_for(provider, ticks=ticks) as source:
        with pytest.raises(UnavailableError, match="another issuer"):
            await source.keys(provider.issuer, "a")
    assert provider.fetches["jwks"] == 0


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://evil.example/jwks",
        "http://127.0.0.1:1/jwks",
        "https://127.0.0.1/jwks",
        "http://localhost/jwks",
        "file:///etc/passwd",
        "//evil.example/jwks",
        "http://127.0.0.1@evil.example/jwks",
        "",
        7,
        None,
    ],
)
async def test_the_key_set_stays_at_home(provider: HostileProvider, ticks: Ticks, uri: object) -> None:
    """A key set elsewhere - another host, port, scheme, or the cloud's metadata service - is never fetched."""
    provider.jwks_uri = uri
    async with source_for(provider, ticks=ticks) as source:
        assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]
    assert provider.fetches == {"discovery": 1}


async def test_a_listed_host_may_hold_the_keys(provider: HostileProvider, ticks: Ticks) -> None:
    """Large providers keep their keys elsewhere; an admin lists that host."""
    with hostile_provider() as elsewhere:
        elsewhere.jwks = provider.jwks
        provider.jwks_uri = f"{elsewhere.issuer}/jwks?policy=login"
        async with source_for(provider, ticks=ticks) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]
        host = elsewhere.issuer.removeprefix("http://")
        async with source_for(provider, ticks=ticks, jwks_hosts=frozenset({host})) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]


async def test_a_down_or_lying_provider_never_affects_another(provider: HostileProvider, ticks: Ticks) -> None:
    """One provider keeps everybody waiting, another publishes a foreign key of the same id; the third works as ever."""
    with hostile_provider() as silent, hostile_provider() as liar:
        silent.gate.clear()
        liar.jwks = jwks(ProviderKey("ES256", "a"), ProviderKey("ES256", "b"))
        async with source_for(silent, liar, provider, ticks=ticks) as source:
            stuck = [asyncio.create_task(source.keys(silent.issuer, "a")) for _ in range(100)]
            await until(lambda: silent.fetches["discovery"])
            assert await codes(source.keys(liar.issuer, "a")) == ["ok"]
            assert await verify(source, provider, made_once("ES256", "a")) == "ok"
            assert await codes(source.keys(provider.issuer, "b")) == ["UnavailableError unknown-key"]
            assert not any(task.done() for task in stuck)
            states = {status.url: status.state for status in source.status()}
            assert states == {silent.issuer: "none", liar.issuer: "fresh", provider.issuer: "fresh"}
            silent.gate.set()
            await asyncio.gather(*stuck, return_exceptions=True)


async def test_only_configured_issuers_are_asked(provider: HostileProvider, ticks: Ticks) -> None:
    """An issuer that is not configured is refused without any request, whatever its token says."""
    async with source_for(provider, ticks=ticks) as source:
        assert await codes(source.keys(provider.issuer + "/", "a")) == ["ProofError unknown-issuer"]
    assert not provider.fetches


async def test_warming_reports_failures_in_the_status_only(provider: HostileProvider, ticks: Ticks) -> None:
    """At the start all providers are asked at once; one that is down does not stop the service, and can be seen."""
    provider.jwks = jwks(made_once("ES256", "a"), {"kty": "oct", "kid": "secret"})
    with hostile_provider() as down:
        down.mode = "down"
        async with source_for(provider, down, ticks=ticks) as source:
            assert [status.state for status in source.status()] == ["none", "none"]
            await source.warm()
            fresh, none = source.status()
    assert (fresh.state, fresh.keys, fresh.age, fresh.failure, fresh.next_fetch_in) == ("fresh", 1, 0, None, 30)
    assert "secret" in fresh.ignored[0]
    assert (none.state, none.keys, none.failure) == ("none", 0, "it answered 503")


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    """A throwaway CA and a certificate for loopback."""
    return write_server_files(tmp_path_factory.mktemp("tls"))


def server_context(files: ServerFiles) -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context


async def test_the_issuers_own_ca_file_is_trusted_and_no_other(tls_files: ServerFiles, ticks: Ticks, tmp_path: Path) -> None:
    """With the provider's CA its keys are fetched; with the system's or a foreign CA the certificate is not trusted."""
    foreign = write_server_files(tmp_path)
    with hostile_provider(tls=server_context(tls_files)) as provider:
        provider.jwks = jwks(made_once("ES256", "a"))
        async with source_for(provider, ticks=ticks, ca_file=tls_files.ca) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
        for ca_file in (None, foreign.ca):
            async with source_for(provider, ticks=ticks, ca_file=ca_file) as source:
                with pytest.raises(UnavailableError, match="TLS certificate is not trusted"):
                    await source.keys(provider.issuer, "a")


async def test_no_downgrade_to_http(tls_files: ServerFiles, provider: HostileProvider, ticks: Ticks) -> None:
    """A provider on https cannot send us to http for its keys, even on the same host and listed."""
    with hostile_provider(tls=server_context(tls_files)) as secure:
        secure.jwks_uri = f"{provider.issuer}/jwks"
        host = provider.issuer.removeprefix("http://")
        settings = IssuerSource(url=secure.issuer, ca_file=tls_files.ca, jwks_hosts=frozenset({host}))
        source = KeySource([settings], ticks=ticks)
        with pytest.raises(UnavailableError, match="https"):
            await source.keys(secure.issuer, "a")
    assert provider.fetches["jwks"] == 0


async def test_nobody_listens(ticks: Ticks) -> None:
    """A provider whose port is closed is unavailable, in words."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        source = KeySource([IssuerSource(url=url, allow_loopback_http=True)], ticks=ticks)
        with pytest.raises(UnavailableError, match="ConnectError"):
            await source.keys(url, "a")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_unusable_ca_file_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    """A CA file that is missing or holds no certificate is a mistake in the configuration, found at the start."""
    ca_file = tmp_path / "ca.crt"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        KeySource([IssuerSource(url="https://idp.example", ca_file=ca_file)])
    assert caught.value.code == "ca-file-unreadable"


@pytest.mark.parametrize("url", ["http://idp.example", "http://127.0.0.1:8080", "https://idp.example?x=1"])
def test_an_unsafe_issuer_url_stops_the_start(url: str) -> None:
    """Plain http, unless allowed for loopback, and anything but an issuer's URL is refused before a request is made."""
    with pytest.raises(ConfigError) as caught:
        KeySource([IssuerSource(url=url)])
    assert caught.value.code == "issuer-invalid"


# --- other ways to the keys -----------------------------------------------------------------------------------------


async def test_a_configured_key_address_skips_discovery(provider: HostileProvider, ticks: Ticks) -> None:
    """Some issuers publish keys and no document: with ``jwks_uri`` only the keys are asked for, wherever they are."""
    with hostile_provider() as elsewhere:
        elsewhere.jwks = provider.jwks
        async with source_for(provider, ticks=ticks, jwks_uri=f"{elsewhere.issuer}/jwks") as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
            with pytest.raises(UnavailableError) as caught:
                await source.discovery(provider.issuer)
    assert caught.value.code == "no-discovery"
    assert not provider.fetches
    assert elsewhere.fetches == {"jwks": 1}


async def test_a_bearer_token_is_sent_and_read_anew(
    provider: HostileProvider, ticks: Ticks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubernetes asks for a token at its keys and replaces it every hour; it is in no log and no message."""
    caplog.set_level(0)
    provider.bearer, file = "first.Token-1", tmp_path / "token"
    file.write_text("first.Token-1\n")
    async with source_for(provider, ticks=ticks, bearer_file=file) as source:
        assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
        assert [seen["authorization"] for seen in provider.seen] == ["Bearer first.Token-1"] * 2
        provider.bearer = "second.Token-2"
        ticks.now += PACE.cooldown
        with pytest.raises(UnavailableError) as refused:
            await source.keys(provider.issuer, "b")
        file.write_text("second.Token-2")
        ticks.now += PACE.cooldown
        assert await codes(source.keys(provider.issuer, "b")) == ["ProofError unknown-key"]
    assert "401" in refused.value.message
    said = caplog.text + repr(source.status()) + repr(refused.value)
    assert "Token-1" not in said
    assert "Token-2" not in said


@pytest.mark.parametrize("content", [None, b"", b"two words", b"line\r\ninjected: header", b"x" * (16 * 1024 + 1), b"\xff"])
async def test_a_bearer_file_without_a_token_sends_nothing(
    provider: HostileProvider, ticks: Ticks, tmp_path: Path, content: bytes | None
) -> None:
    """A file that is missing, empty, or holds what would become another header: no request is made, the status says why."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    async with source_for(provider, ticks=ticks, bearer_file=file) as source:
        assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]
        assert str(file) in str(source.status()[0].failure)
    assert not provider.seen


async def test_the_bearer_token_stays_with_the_provider(provider: HostileProvider, ticks: Ticks, tmp_path: Path) -> None:
    """A redirect, or a key set elsewhere, is not followed with the token in hand."""
    file = tmp_path / "token"
    file.write_text("secret")
    with hostile_provider() as thief:
        provider.jwks_uri = f"{thief.issuer}/jwks"
        async with source_for(provider, ticks=ticks, bearer_file=file) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]
            provider.jwks_uri, provider.mode = f"{provider.issuer}/jwks", "redirect"
            ticks.now += PACE.cooldown
            assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]
    assert not thief.seen


async def test_a_proxy_is_used_when_configured_and_only_then(
    tls_files: ServerFiles, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``proxy`` the provider is reached through it, TLS end to end; the environment's proxy is never used."""
    with hostile_provider(tls=server_context(tls_files)) as provider, forward_proxy() as proxy:
        provider.jwks = jwks(made_once("ES256", "a"))
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with source_for(provider, ticks=ticks, ca_file=tls_files.ca) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
        assert proxy.asked == []
        async with source_for(provider, ticks=ticks, ca_file=tls_files.ca, proxy=proxy.url) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
            assert proxy.asked == [provider.issuer.removeprefix("https://")] * 2
            proxy.refuses = True
            ticks.now += PACE.cooldown
            with pytest.raises(UnavailableError, match="proxy"):
                await source.keys(provider.issuer, "b")


async def test_the_bearer_token_is_not_shown_to_the_proxy(tls_files: ServerFiles, ticks: Ticks, tmp_path: Path) -> None:
    """What is sent to the provider travels inside TLS."""
    file = tmp_path / "token"
    file.write_text("secret-token")
    with hostile_provider(tls=server_context(tls_files)) as provider, forward_proxy() as proxy:
        provider.jwks = jwks(made_once("ES256", "a"))
        settings: dict[str, Any] = {"ca_file": tls_files.ca, "proxy": proxy.url, "bearer_file": file}
        async with source_for(provider, ticks=ticks, **settings) as source:
            assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
    assert provider.seen[0]["authorization"] == "Bearer secret-token"
    assert "secret-token" not in repr(proxy)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:1080",
        "http://user:secret@proxy.example",
        "http://",
        "proxy.example:3128",
        "http://[",
        "http://p/x?y",
    ],
)
def test_an_unusable_proxy_stops_the_start(proxy: str) -> None:
    """A proxy is http://host[:port]; a password in the settings is refused, and not repeated."""
    with pytest.raises(ConfigError) as caught:
        KeySource([IssuerSource(url="https://idp.example", proxy=proxy)])
    assert caught.value.code == "proxy-invalid"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"jwks_file": Path("keys.json"), "jwks_uri": "https://idp.example/jwks"},
        {"jwks_file": Path("keys.json"), "bearer_file": Path("token")},
        {"jwks_uri": "http://idp.example/jwks"},
        {"jwks_uri": "https://user:secret@idp.example/jwks"},
    ],
)
def test_contradictory_ways_to_the_keys_stop_the_start(settings: dict[str, Any]) -> None:
    """Keys in a file are never fetched, and what is fetched is fetched over https."""
    with pytest.raises(ConfigError) as caught:
        KeySource([IssuerSource(url="https://idp.example", **settings)])
    assert caught.value.code == "issuer-invalid"


# --- discovery ------------------------------------------------------------------------------------------------------


async def test_endpoints_come_with_the_keys(provider: HostileProvider, ticks: Ticks) -> None:
    """Asking for endpoints fetches keys too, once for everybody; a provider that is not configured is not asked."""
    provider.more["token_endpoint"] = f"{provider.issuer}/token"
    async with source_for(provider, ticks=ticks) as source:
        found = await asyncio.gather(*(source.discovery(provider.issuer) for _ in range(50)))
        assert {each.token_endpoint for each in found} == {f"{provider.issuer}/token"}
        assert await codes(source.keys(provider.issuer, "a")) == ["ok"]
        with pytest.raises(ProofError) as caught:
            await source.discovery("https://elsewhere.example")
        assert caught.value.code == "unknown-issuer"
        with pytest.raises(ProofError):
            source.outbound("https://elsewhere.example")
        assert source.outbound(provider.issuer) is source.outbound(provider.issuer)
    assert provider.fetches == {"discovery": 1, "jwks": 1}


async def test_known_endpoints_never_wait_and_are_looked_at_daily(provider: HostileProvider, ticks: Ticks) -> None:
    """A day later the known endpoints are given at once, the document is read behind the request, and moves are reported."""
    provider.more["token_endpoint"] = f"{provider.issuer}/token"
    pace = Pace(refresh_most=7 * 86400, refresh_after=7 * 86400, expire_after=7 * 86400)
    async with source_for(provider, ticks=ticks, pace=pace) as source:
        await source.discovery(provider.issuer)
        assert source.status()[0].moved == ()
        provider.more["token_endpoint"] = f"{provider.issuer}/elsewhere"
        ticks.now += 86400
        provider.gate.clear()
        assert (await source.discovery(provider.issuer)).token_endpoint == f"{provider.issuer}/token"
        await until(lambda: provider.fetches["discovery"] == 2)
        provider.gate.set()
        await until(lambda: source.status()[0].moved)
        assert source.status()[0].moved == ("token_endpoint",)
        assert (await source.discovery(provider.issuer)).token_endpoint == f"{provider.issuer}/elsewhere"
        provider.mode = "down"
        ticks.now += 8 * 86400
        with pytest.raises(UnavailableError):
            await source.discovery(provider.issuer)
        with pytest.raises(UnavailableError) as caught:
            await source.discovery(provider.issuer)
        assert (caught.value.code, caught.value.retry_after) == ("issuer-unavailable", 30)


async def test_endpoints_of_a_provider_whose_keys_are_missing(provider: HostileProvider, ticks: Ticks) -> None:
    """The document alone is good: endpoints are known, although no token can be verified yet."""
    provider.jwks = b"{}"
    async with source_for(provider, ticks=ticks) as source:
        assert (await source.discovery(provider.issuer)).issuer == provider.issuer
        assert await codes(source.keys(provider.issuer, "a")) == ["UnavailableError issuer-unavailable"]


# --- the real thing -------------------------------------------------------------------------------------------------


async def test_a_real_provider_that_changes_its_keys(tmp_path: Path, ticks: Ticks) -> None:
    """The provider restarts with new keys: its new tokens verify after the cooldown, those of the old keys no longer."""

    async def verified(source: KeySource, token: str, url: str) -> str:
        issuer, proof = Issuer(id="demo", url=url, audience="certauth-demo"), read_proof(token)
        identity = await source.verified(
            url, proof.kid, lambda keys: verify_id_token(proof, issuer=issuer, keys=keys, key=BOUND, now=datetime.now(UTC))
        )
        return identity.subject

    with running_provider(tmp_path, users=("alice",)) as op:
        source = KeySource([IssuerSource(url=op.issuer, ca_file=op.ca_file)], ticks=ticks)
        before = log_in(op, "alice", nonce=NONCE)["id_token"]
        assert await verified(source, before, op.issuer) == op.subject_of("alice")
    with running_provider(tmp_path, users=("alice",), port=int(op.issuer.rpartition(":")[2])) as op:
        after = log_in(op, "alice", nonce=NONCE)["id_token"]
        with pytest.raises(UnavailableError):
            await verified(source, after, op.issuer)
        ticks.now += PACE.cooldown
        assert await verified(source, after, op.issuer) == op.subject_of("alice")
        with pytest.raises((ProofError, UnavailableError)):
            await verified(source, before, op.issuer)
    await source.aclose()


def signed_for(source: KeySource, url: str, token: str, *, audience: str, **settings: Any) -> Any:
    """Verify a token as the signer does, against the provider ``url``; what ``verify_id_token`` returns or raises."""
    issuer, proof = Issuer(id="op", url=url, audience=audience, **settings), read_proof(token)
    return source.verified(
        url, proof.kid, lambda keys: verify_id_token(proof, issuer=issuer, keys=keys, key=BOUND, now=datetime.now(UTC))
    )


async def test_keys_of_one_provider_never_verify_tokens_of_another(tmp_path: Path, ticks: Ticks) -> None:
    """Two real providers with keys of the same id and the same client: each token is good at home, refused when crossed."""
    with node_provider(tmp_path / "one") as one, node_provider(tmp_path / "two") as two:
        source = KeySource([IssuerSource(url=each.issuer, ca_file=each.ca_file) for each in (one, two)], ticks=ticks)
        tokens = {each.issuer: node_log_in(each, "alice", nonce=NONCE)["id_token"] for each in (one, two)}
        assert read_proof(tokens[one.issuer]).kid == read_proof(tokens[two.issuer]).kid == "rs-1"
        for home, away in ((one, two), (two, one)):
            identity = await signed_for(source, home.issuer, tokens[home.issuer], audience=CLIENT_ID)
            assert (identity.issuer, identity.subject) == (home.issuer, "alice")
            with pytest.raises(ProofError) as caught:
                await signed_for(source, away.issuer, tokens[home.issuer], audience=CLIENT_ID)
            assert caught.value.code == "unknown-issuer"
        # The keys themselves: the same token, its issuer believed for once, does not verify under the other's key.
        lying = Issuer(id="op", url=one.issuer, audience=CLIENT_ID)
        proof, foreign = read_proof(tokens[one.issuer]), await source.keys(two.issuer, "rs-1")
        with pytest.raises(ProofError) as caught:
            verify_id_token(proof, issuer=lying, keys=foreign, key=BOUND, now=datetime.now(UTC))
        assert caught.value.code == "bad-signature"
        await source.aclose()


async def test_a_real_rotation_loses_nobody(tmp_path: Path, ticks: Ticks) -> None:
    """A provider that rotates as it should: tokens of both keys verify, the new ones after the cooldown, no outage between."""
    with node_provider(tmp_path) as op:
        source = KeySource([IssuerSource(url=op.issuer, ca_file=op.ca_file)], ticks=ticks)
        before = node_log_in(op, "alice", nonce=NONCE)["id_token"]
        assert (await signed_for(source, op.issuer, before, audience=CLIENT_ID)).subject == "alice"
        op.change(keys=[{"kid": "rs-2", "alg": "RS256"}, {"kid": "rs-1", "alg": "RS256"}])
        after = node_log_in(op, "alice", nonce=NONCE)["id_token"]
        assert (read_proof(before).kid, read_proof(after).kid) == ("rs-1", "rs-2")
        with pytest.raises(UnavailableError) as caught:
            await signed_for(source, op.issuer, after, audience=CLIENT_ID)
        assert caught.value.retry_after == PACE.cooldown
        assert (await signed_for(source, op.issuer, before, audience=CLIENT_ID)).subject == "alice"
        ticks.now += PACE.cooldown
        for token in (after, before):
            assert (await signed_for(source, op.issuer, token, audience=CLIENT_ID)).subject == "alice"
        await source.aclose()


async def test_a_real_provider_that_reuses_a_key_id(tmp_path: Path, ticks: Ticks) -> None:
    """The key is replaced and its id kept: one fetch after the cooldown, then the new key's tokens verify."""
    with node_provider(tmp_path) as op:
        source = KeySource([IssuerSource(url=op.issuer, ca_file=op.ca_file)], ticks=ticks)
        before = node_log_in(op, "alice", nonce=NONCE)["id_token"]
        await signed_for(source, op.issuer, before, audience=CLIENT_ID)
        op.change(keys=[{"kid": "rs-1", "alg": "RS256", "renewed": 1}])
        after = node_log_in(op, "alice", nonce=NONCE)["id_token"]
        assert read_proof(after).kid == "rs-1"
        ticks.now += PACE.cooldown
        assert (await signed_for(source, op.issuer, after, audience=CLIENT_ID)).subject == "alice"
        with pytest.raises(ProofError):
            await signed_for(source, op.issuer, before, audience=CLIENT_ID)
        await source.aclose()


async def test_the_careless_provider(tmp_path: Path, ticks: Ticks) -> None:
    """Its tokens name no key, and its issuer follows the Host header: refused by default, with the right setting accepted."""
    with mock_provider(tmp_path) as op:
        source = KeySource([IssuerSource(url=op.issuer, ca_file=op.ca_file)], ticks=ticks)
        token = mock_log_in(op, "alice", nonce=NONCE)["id_token"]
        with pytest.raises(ProofError) as caught:
            await signed_for(source, op.issuer, token, audience="careless")
        assert caught.value.code == "unknown-key"
        identity = await signed_for(source, op.issuer, token, audience="careless", single_key=True)
        assert identity.subject == "alice"
        other = mock_log_in(op, "alice", nonce=NONCE, base=op.other_name)["id_token"]
        assert read_proof(other).unverified_issuer == op.other_name
        with pytest.raises(ProofError) as caught:
            await signed_for(source, op.issuer, other, audience="careless", single_key=True)
        assert caught.value.code == "unknown-issuer"
        with pytest.raises(ProofError) as caught:
            await source.keys(op.other_name, None)
        assert caught.value.code == "unknown-issuer"
        await source.aclose()
