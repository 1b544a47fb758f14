"""Certificate and token for programs that make their own requests: with httpx2 and httpx, synchronous or not."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

from certauth.client.auth import TokenAuth, client, context
from certauth.client.profile import Home
from certauth.clock import system_clock
from certauth.errors import CertauthError, LoginRequired, UsageError
from tests.simulator.hostile_signer import HostileSigner, Raw

LogIn = Callable[..., Any]
HELLO = "/data/hello"


@pytest.fixture
def done(log_me_in: LogIn) -> Any:
    """A finished login, with a token."""
    logged_in = log_me_in()
    logged_in.profile.store_token("t", "first.token")
    return logged_in


def clients() -> list[ModuleType]:
    """The HTTP libraries to try: httpx2, and httpx where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import httpx
        except ImportError:
            return [httpx2]
    return [httpx2, httpx]


def sent(signer: HostileSigner) -> str | None:
    """The authorization that arrived last."""
    return {name.lower(): value for name, value in signer.seen[-1][2].items()}.get("authorization")


def code(call: Callable[[], object]) -> str:
    """The code with which a call is refused."""
    with pytest.raises(CertauthError) as caught:
        call()
    return caught.value.code


def test_one_line_shows_certificate_and_token(signer: HostileSigner, done: Any):
    """A client of the profile shows both, and trusts the facility's roots."""
    with client(done.profile, token="t") as http:
        assert http.get(signer.url + HELLO).text == "hello\n"
    assert (signer.peers[-1], sent(signer)) == (done.credential.fingerprint, "Bearer first.token")
    with client(done.profile) as http:
        http.get(signer.url + HELLO)
    assert (signer.peers[-1], sent(signer)) == (done.credential.fingerprint, None)


def test_the_active_profile_is_used(signer: HostileSigner, done: Any, home: Home, monkeypatch: pytest.MonkeyPatch):
    """Without a profile it is the one that commands use, and without a login the user is told."""
    monkeypatch.setenv("CERTAUTH_HOME", str(home.directory))
    monkeypatch.delenv("CERTAUTH_PROFILE", raising=False)
    with client(token="t", base_url=signer.url) as http:
        assert http.get(HELLO).status_code == 200
    assert sent(signer) == "Bearer first.token"
    monkeypatch.setenv("CERTAUTH_HOME", str(home.directory / "nobody"))
    with pytest.raises(LoginRequired):
        client(token="t")
    with pytest.raises(LoginRequired):
        TokenAuth.stored("t")


def test_the_token_that_was_stored_last_is_sent(signer: HostileSigner, done: Any, tmp_path: Path):
    """Each request reads the token again; one that is gone is an error, not a request without it."""
    file = tmp_path / "t"
    for auth, write in (
        (TokenAuth.stored("t", profile=done.profile), lambda text: done.profile.store_token("t", text)),
        (TokenAuth.file(file), lambda text: file.write_text(text + "\n")),
    ):
        with client(done.profile, token=auth) as http:
            for text in ("one", "two"):
                write(text)
                http.get(signer.url + HELLO)
                assert sent(signer) == f"Bearer {text}"
            file.unlink(missing_ok=True)
            done.profile.token_path("t").unlink()
            seen = len(signer.seen)
            assert code(lambda http=http: http.get(signer.url + HELLO)) == "token-unreadable"
            assert len(signer.seen) == seen
            done.profile.store_token("t", "x")


@pytest.mark.parametrize("library", clients(), ids=lambda one: one.__name__)
def test_any_client_synchronous_or_not(library: Any, signer: HostileSigner, done: Any):
    """``TokenAuth`` and ``context`` serve every client of both libraries."""
    auth, tls = TokenAuth.stored("t", profile=done.profile), context(done.profile)
    with library.Client(auth=auth, verify=tls, trust_env=False) as http:
        assert http.get(signer.url + HELLO).status_code == 200
    assert sent(signer) == "Bearer first.token"

    async def fetch() -> int:
        async with library.AsyncClient(auth=auth, verify=tls, trust_env=False) as http:
            response = await http.get(signer.url + HELLO)
            return int(response.status_code)

    signer.seen.clear()
    assert asyncio.run(fetch()) == 200
    assert sent(signer) == "Bearer first.token"


@pytest.mark.parametrize("library", clients(), ids=lambda one: one.__name__)
def test_a_token_leaves_over_https_only(library: Any, done: Any):
    """Addresses without TLS are refused before anything is sent, whatever the client is."""
    reached: list[object] = []

    def handler(request: object) -> Any:
        reached.append(request)
        return library.Response(200)

    auth = TokenAuth.stored("t", profile=done.profile)
    with library.Client(auth=auth, transport=library.MockTransport(handler)) as http:
        for url in ("http://data.als.example/x", "http://127.0.0.1/x"):
            assert code(lambda url=url: http.get(url)) == "bad-url"
        assert reached == []
        http.get("https://data.als.example/x")
        assert len(reached) == 1


def test_a_token_for_one_origin_goes_to_no_other(signer: HostileSigner, done: Any):
    """With an address of its own, a client sends the token there alone; a redirect is not followed."""
    with client(done.profile, token="t", base_url=signer.url) as http:
        assert http.get(HELLO).status_code == 200
        assert code(lambda: http.get("https://elsewhere.example/")) == "other-origin"
        signer.lies[HELLO] = lambda _: Raw(status=302, headers={"location": "https://elsewhere.example/"})
        assert http.get(HELLO).status_code == 302
    with pytest.raises(UsageError):
        TokenAuth.stored("t", profile=done.profile, origin="http://data.als.example")


def test_redirects_that_a_user_follows_carry_no_token_elsewhere(done: Any):
    """Where somebody lets a client follow redirects, the other origin, and http, receive no token."""
    seen: list[tuple[str, bool]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append((str(request.url), "authorization" in request.headers))
        if request.url.host == "data.als.example" and request.url.scheme == "https":
            return httpx2.Response(302, headers={"location": request.url.params["to"]})
        return httpx2.Response(200)

    auth = TokenAuth.stored("t", profile=done.profile)
    with httpx2.Client(auth=auth, transport=httpx2.MockTransport(handler), follow_redirects=True) as http:
        for to in ("https://elsewhere.example/", "http://data.als.example/"):
            http.get("https://data.als.example/", params={"to": to})
            assert seen[-2][1]
            assert seen[-1] == (to, False)


def test_an_expired_certificate_makes_no_client(done: Any):
    """The login command is named instead."""
    end = done.credential.leaf.not_valid_after_utc
    with pytest.raises(LoginRequired):
        client(done.profile, clock=lambda: end)
    assert client(done.profile, clock=system_clock).is_closed is False


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    signer: HostileSigner, done: Any, monkeypatch: pytest.MonkeyPatch
):
    """A request to a service on loopback does not go through a proxy that could not reach it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with client(done.profile, token="t") as http:
        assert http.get(signer.url + HELLO).status_code == 200
        with pytest.raises(httpx2.HTTPError):
            http.get("https://data.als.example/")


def test_nothing_shows_the_token(done: Any):
    """Neither the auth object nor the client says it."""
    auth = TokenAuth.stored("t", profile=done.profile, origin="https://data.als.example/x")
    assert repr(auth) == "<TokenAuth for https://data.als.example>"
    assert repr(TokenAuth.stored("t", profile=done.profile)) == "<TokenAuth for any https origin>"
