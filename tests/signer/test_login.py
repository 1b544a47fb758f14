"""The steps of a mediated login, each tie between them cut once, and every way in which a provider can let us down."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from certauth import keys
from certauth.clock import system_clock
from certauth.encoding import b64, b64url
from certauth.errors import CertauthError, ProofError, Refused, RequestError, UnavailableError
from certauth.identity import Issuer, VerifiedIdentity, nonce_for
from certauth.keys import Algorithm
from signer.jwks import IssuerSource, KeySource
from signer.login import Logins, cookie_name
from signer.login_code import Guesses
from signer.login_provider import Provider
from signer.login_state import Answer, Begun, Login, LoginLimits, Stage
from tests.signer.login_kit import CLIENT_ID, Scripted, Ticks, logins_for, provider_for, scripted_provider

pytestmark = pytest.mark.anyio

SPKI = keys.spki(keys.generate(Algorithm.P256).public_key)
CLI, BROWSER = "192.0.2.1", "198.51.100.2"


@pytest.fixture
def anyio_backend() -> str:
    """The signer runs on asyncio."""
    return "asyncio"


@pytest.fixture
def provider() -> Iterator[Scripted]:
    """A provider that does as it is told."""
    with scripted_provider() as running:
        yield running


@pytest.fixture
def ticks() -> Ticks:
    """The clock of the logins."""
    return Ticks()


class Try:
    """One login, step by step; each step can be taken wrongly."""

    def __init__(self, logins: Logins) -> None:
        self.logins = logins
        self.secret = secrets.token_urlsafe(24)
        self.cookies: dict[str, str] = {}
        self.begun = Begun(login="", user_code="", verification_uri="", expires_in=0, interval=0)

    async def begin(
        self, *, issuer: str | None = None, spki: bytes = SPKI, address: str | None = CLI, link: str | None = None
    ) -> Try:
        self.begun = await self.logins.begin(
            spki=spki,
            issuer=issuer,
            host="login1",
            secret_digest=hashlib.sha256(self.secret.encode()).digest(),
            address=address,
            link=link,
        )
        return self

    def enter(self, code: str | None = None, *, address: str | None = BROWSER) -> Try:
        shown = self.logins.enter(self.begun.user_code if code is None else code, address=address, cookies=self.cookies)
        if shown.cookie is not None:
            self.cookies[cookie_name(shown.login)] = shown.cookie
        return self

    async def confirm(self) -> str:
        url = await self.logins.confirm(self.begun.login, cookies=self.cookies, yes=True)
        if url is None:
            raise AssertionError("a yes leads to the provider")
        return url

    async def to_provider(self, **wish: Any) -> str:
        await self.begin(**wish)
        return await self.enter().confirm()

    async def back(
        self,
        answer: Mapping[str, str],
        *,
        issuer: str | None = None,
        cookies: Mapping[str, str] | None = None,
        address: str | None = BROWSER,
    ) -> VerifiedIdentity:
        read = Answer.read("&".join(f"{name}={value}" for name, value in answer.items()))
        given = self.cookies if cookies is None else cookies
        login, identity = await self.logins.callback(read, issuer=issuer, cookies=given, address=address)
        assert login == self.begun.login
        return identity

    def state(self, secret: str | None = None) -> str:
        return self.logins.state(self.begun.login, self.secret if secret is None else secret).state

    def claim(self, *, spki: bytes = SPKI, secret: str | None = None, link: str | None = None) -> VerifiedIdentity:
        return self.logins.claim(self.begun.login, self.secret if secret is None else secret, spki, link=link)


@asynccontextmanager
async def one(provider: Scripted, ticks: Ticks, **more: Any) -> AsyncIterator[Try]:
    """A login that is not begun yet."""
    settings = {name: more.pop(name) for name in ("limits", "guesses", "entropy") if name in more}
    async with logins_for(provider_for(provider, **more), ticks=ticks, **settings) as logins:
        yield Try(logins)


async def code_of(awaitable: Any) -> str:
    """The code of the error that this ends with."""
    with pytest.raises(CertauthError) as caught:
        await awaitable
    return caught.value.code


def refused(call: Callable[[], object]) -> CertauthError:
    """The error that this raises."""
    with pytest.raises(CertauthError) as caught:
        call()
    return caught.value


# --- the way it should go --------------------------------------------------------------------------------------------------


async def test_a_login(provider: Scripted, ticks: Ticks) -> None:
    """From the key to the identity; the program sees pending, confirmed and ready."""
    async with one(provider, ticks) as it:
        await it.begin()
        assert it.begun.verification_uri == "https://signer.example/login"
        assert (it.begun.expires_in, it.begun.interval) == (600, 2)
        assert it.state() == "pending"
        it.enter()
        ticks.now += 2
        assert it.state() == "pending"
        url = await it.confirm()
        ticks.now += 2
        assert it.state() == "confirmed"
        assert (await it.back(provider.authorize(url))).subject == "alice"
        assert it.state() == "ready"
        who = it.claim()
        assert (who.issuer_id, who.subject, who.mediated, who.assurance, who.binding) == ("campus", "alice", True, 2, "nonce")
        assert it.logins.under_way == 1


async def test_the_request_to_the_provider(provider: Scripted, ticks: Ticks) -> None:
    """Nonce from signer, key and our salt; PKCE S256; a state; the exact redirect address; the maximum age if there is one."""
    settings = {"scopes": ("openid", "email"), "max_authentication_age": timedelta(minutes=15)}
    provider.discovery["authorization_endpoint"] = f"{provider.issuer}/authorize?tenant=a"
    async with one(provider, ticks, issuer=settings) as it:
        url = await it.to_provider()
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        login = it.logins._register.find(it.begun.login, at=ticks())
        assert login is not None
        assert asked.pop("nonce") == nonce_for(signer_id="https://signer.example", spki=SPKI, salt=login.salt)
        assert asked.pop("code_challenge") == b64url(hashlib.sha256(login.verifier.encode()).digest())
        assert len(asked.pop("state")) == 43
        assert len(login.verifier) == 43
        assert asked == {
            "tenant": "a",
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": "https://signer.example/login/callback",
            "scope": "openid email",
            "code_challenge_method": "S256",
            "max_age": "900",
        }


async def test_the_request_for_the_token(provider: Scripted, ticks: Ticks, tmp_path: Path) -> None:
    """A confidential client authenticates with its form-encoded secret, read from its file; a public one names itself."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("p%s&?\n")
    async with one(provider, ticks, secret_file=secret) as it:
        await it.back(provider.authorize(await it.to_provider()))
        form = provider.forms[-1]
        assert set(form) == {"grant_type", "code", "redirect_uri", "code_verifier"}
        assert form["grant_type"] == "authorization_code"
        basic = "the+signer+%26+co:p%25s%26%3F"
        assert provider.authorizations[-1] == f"Basic {b64(basic.encode())}"
        assert "p%s" not in repr(it.logins) + repr(provider_for(provider, secret_file=secret))
    async with one(provider, ticks) as it:
        await it.back(provider.authorize(await it.to_provider()))
        assert provider.forms[-1]["client_id"] == CLIENT_ID
        assert provider.authorizations[-1] is None


async def test_nothing_of_a_login_is_shown(provider: Scripted, ticks: Ticks) -> None:
    """Code, secrets, cookie, state and verifier are in no text that Python makes of these objects."""
    async with one(provider, ticks) as it:
        url = await it.to_provider()
        login = it.logins._register.find(it.begun.login, at=ticks())
        assert isinstance(login, Login)
        state = parse_qs(urlsplit(url).query)["state"][0]
        answer = Answer.read(f"code=the-code&state={state}")
        secret_texts = [it.begun.user_code, it.secret, login.code, state, login.verifier, *it.cookies.values(), "the-code"]
        texts = f"{login!r} {it.begun!r} {it.logins!r} {it.logins._register!r} {answer!r}"
        assert [text for text in secret_texts if text in texts] == []
        assert all(
            text.encode() not in (login.secret_digest, login.browser_digest, login.state_digest) for text in secret_texts
        )


# --- who may ask ------------------------------------------------------------------------------------------------------------


async def test_a_stranger_learns_nothing(provider: Scripted, ticks: Ticks) -> None:
    """A wrong secret and a login that never was get the same answer, and change nothing."""
    async with one(provider, ticks) as it:
        await it.begin()
        wrong = refused(lambda: it.state("not the secret"))
        never = refused(lambda: it.logins.state("AAAAAAAAAAAAAAAAAAAAAA", it.secret))
        assert (wrong.code, wrong.message, wrong.hint) == (never.code, never.message, never.hint)
        assert wrong.code == "login-unknown"
        assert refused(lambda: it.claim(secret="\udcff")).code == "login-unknown"
        assert it.state() == "pending"


async def test_asking_too_often(provider: Scripted, ticks: Ticks) -> None:
    """Who does not wait is told to; who waits is answered, whatever they did before. A stranger cannot use up the turn."""
    async with one(provider, ticks) as it:
        await it.begin()
        it.state()
        for _ in range(3):
            slow = refused(it.state)
            assert (slow.code, slow.retry_after) == ("slow-down", 2)
        assert refused(lambda: it.state("a stranger's secret")).code == "login-unknown"
        ticks.now += 1.9
        assert it.state() == "pending"


async def test_the_result_is_for_the_key_that_began(provider: Scripted, ticks: Ticks) -> None:
    """Who stole the secret does not have the key; who has another login of their own does not get this one's result."""
    async with one(provider, ticks) as it:
        await it.begin()
        assert refused(it.claim).code == "login-pending"
        await it.back(provider.authorize(await it.enter().confirm()))
        other = keys.spki(keys.generate(Algorithm.P256).public_key)
        stolen = refused(lambda: it.claim(spki=other))
        assert isinstance(stolen, ProofError)
        assert stolen.code == "key-not-bound"
        assert it.claim() is it.claim()


async def test_the_result_is_for_what_the_person_was_told(provider: Scripted, ticks: Ticks) -> None:
    """A login that was confirmed as one thing is never another: no certificate of a link, no link of a certificate."""
    alice, mallory = "spiffe://als.example/user/alice", "spiffe://als.example/user/mallory"
    for begun, others in ((alice, (mallory, None, "")), (None, (alice, ""))):
        async with one(provider, ticks) as it:
            await it.back(provider.authorize(await it.to_provider(link=begun)))
            for other in others:
                wrong = refused(partial(it.claim, link=other))
                assert isinstance(wrong, ProofError)
                assert (wrong.code, bool(wrong.hint)) == ("wrong-purpose", True)
            assert it.claim(link=begun).subject == it.claim(link=begun).subject


async def test_a_result_is_remembered_as_used_for_as_long_as_it_can_be_claimed(provider: Scripted, ticks: Ticks) -> None:
    """An ID token of ten seconds: the replay row must not end before the login, or a second certificate could follow."""
    now = int(system_clock().timestamp())
    provider.claims = {"iat": now, "exp": now + 10}
    async with one(provider, ticks, issuer={"skew": timedelta(0)}) as it:
        await it.back(provider.authorize(await it.to_provider()))
        who = it.claim()
        assert who.replay_until >= system_clock() + timedelta(seconds=595)
        ticks.now += 599
        assert it.claim().proof_digest == who.proof_digest
        ticks.now += 1
        assert refused(it.claim).code == "login-expired"


# --- one browser, one answer --------------------------------------------------------------------------------------------------


async def test_a_code_belongs_to_the_first_browser(provider: Scripted, ticks: Ticks) -> None:
    """Read over somebody's shoulder and typed elsewhere, it is just wrong; typed again in the same browser it is right."""
    async with one(provider, ticks) as it:
        await it.begin()
        it.enter()
        it.enter()
        late = refused(lambda: it.logins.enter(it.begun.user_code, address=BROWSER, cookies={}))
        never = refused(lambda: it.logins.enter("BBBB-BBBB", address=BROWSER, cookies={}))
        assert (late.code, late.message) == (never.code, never.message)
        assert late.code == "code-wrong"
        assert refused(lambda: it.enter("no code at all")).code == "code-wrong"
        await it.confirm()
        it.enter()
        await it.back(provider.authorize(await it.confirm()))
        assert refused(it.enter).code == "code-wrong"


async def test_too_many_wrong_codes(provider: Scripted, ticks: Ticks) -> None:
    """Beyond its budget an address is not even told about the right one; what is no code at all costs nothing."""
    async with one(provider, ticks, guesses=Guesses(burst=2)) as it:
        await it.begin()
        for typed in ("", "hello", "BBBB-BBBB", "CCCC-CCCC"):
            assert refused(partial(it.enter, typed)).code == "code-wrong"
        assert refused(it.enter).code == "too-many-tries"
        it.enter(address="203.0.113.9")


async def test_only_the_browser_with_the_cookie_confirms(provider: Scripted, ticks: Ticks) -> None:
    """No cookie, another's cookie, another login: refused; and "not me" is as well."""
    async with one(provider, ticks) as it:
        await it.begin()
        name, login = cookie_name(it.begun.login), it.begun.login
        confirm = it.logins.confirm
        assert await code_of(confirm(login, cookies={name: ""}, yes=True)) == "browser-mismatch"
        it.enter()
        for cookies in ({}, {name: b64url(bytes(32))}, {"other": it.cookies[name]}):
            assert await code_of(confirm(login, cookies=cookies, yes=True)) == "browser-mismatch"
            assert await code_of(confirm(login, cookies=cookies, yes=False)) == "browser-mismatch"
        assert await code_of(confirm("unknown", cookies=it.cookies, yes=True)) == "browser-mismatch"
        assert it.state() == "pending"


async def test_an_answer_in_another_browser(provider: Scripted, ticks: Ticks) -> None:
    """Somebody else was sent on to the provider and logged in there: their code is never exchanged, and the login is over."""
    async with one(provider, ticks) as it:
        answer = provider.authorize(await it.to_provider())
        assert await code_of(it.back(answer, cookies={})) == "browser-mismatch"
        assert provider.forms == []
        assert refused(it.state).code == "login-failed"
        assert "browser-mismatch" in refused(it.state).message
        assert await code_of(it.back(answer)) == "state-unknown"
        assert refused(it.claim).code == "login-failed"


async def test_a_state_works_once(provider: Scripted, ticks: Ticks) -> None:
    """Not twice, not for another login, not if invented, and not after a newer one was made."""
    async with one(provider, ticks) as it:
        old = await it.to_provider()
        new = await it.confirm()
        assert await code_of(it.back(provider.authorize(old))) == "state-unknown"
        assert await code_of(it.back(provider.authorize(new, state="A" * 43))) == "state-unknown"
        answer = provider.authorize(new)
        await it.back(answer)
        assert await code_of(it.back(answer)) == "state-unknown"
        assert it.state() == "ready"
        assert len(provider.forms) == 1


async def test_two_logins_in_one_browser(provider: Scripted, ticks: Ticks) -> None:
    """Each has its own cookie; an answer for one does nothing for the other, whose codes and nonces are others."""
    async with logins_for(provider_for(provider), ticks=ticks) as logins:
        first, second = Try(logins), Try(logins)
        second.cookies = first.cookies
        one_url, other_url = await first.to_provider(), await second.to_provider()
        await second.back(provider.authorize(other_url))
        assert first.state() == "confirmed"
        # The code that was issued for the second login's nonce, brought back with the first one's state.
        swapped = provider.authorize(other_url, state=parse_qs(urlsplit(one_url).query)["state"][0])
        assert await code_of(first.back(swapped)) == "key-not-bound"
        assert "key-not-bound" in refused(first.state).message


async def test_not_me(provider: Scripted, ticks: Ticks) -> None:
    """The login is over for everybody, whatever the provider may still say."""
    async with one(provider, ticks) as it:
        url = await it.to_provider()
        assert await it.logins.confirm(it.begun.login, cookies=it.cookies, yes=False) is None
        denied = refused(it.state)
        assert (denied.code, "not-me" in denied.message) == ("login-denied", True)
        assert await code_of(it.back(provider.authorize(url))) == "state-unknown"
        assert await code_of(it.confirm()) == "login-denied"
        assert refused(it.claim).code == "login-denied"


async def test_a_finished_login_is_finished(provider: Scripted, ticks: Ticks) -> None:
    """Going back in the browser and confirming again changes nothing."""
    async with one(provider, ticks) as it:
        await it.back(provider.authorize(await it.to_provider()))
        assert await code_of(it.confirm()) == "login-over"
        assert it.state() == "ready"


# --- who answered -------------------------------------------------------------------------------------------------------------


async def test_the_provider_must_name_itself_if_it_said_so(provider: Scripted, ticks: Ticks) -> None:
    """RFC 9207: another name, or none where one was announced, is somebody else's answer; its code goes nowhere."""
    for change in ({"iss": "https://evil.example"}, {"iss": None}, {"iss": provider.issuer + "/"}):
        async with one(provider, ticks) as it:
            answer = provider.authorize(await it.to_provider(), **change)
            assert await code_of(it.back(answer)) == "issuer-mismatch"
            assert "issuer-mismatch" in refused(it.state).message
    provider.names_itself = False
    async with one(provider, ticks) as it:
        answer = provider.authorize(await it.to_provider(), iss="https://evil.example")
        assert await code_of(it.back(answer)) == "issuer-mismatch"
    assert provider.forms == []
    async with one(provider, ticks) as it:
        assert (await it.back(provider.authorize(await it.to_provider()))).subject == "alice"


async def test_providers_that_could_be_mixed_up(ticks: Ticks) -> None:
    """Of several, one that does not name itself needs an address of its own; its answers count there and nowhere else."""
    with scripted_provider() as honest, scripted_provider() as other:
        honest.names_itself = False
        async with logins_for(provider_for(honest), provider_for(other, id="other"), ticks=ticks) as logins:
            mixed = Try(logins)
            with pytest.raises(Refused) as caught:
                await mixed.begin(issuer="campus")
            assert caught.value.code == "issuer-mix-up"
            assert "https://signer.example/login/callback/campus" in (caught.value.hint or "")
            await mixed.begin(issuer="other")
        own = provider_for(honest, own_callback=True)
        async with logins_for(own, provider_for(other, id="other"), ticks=ticks) as logins:
            for place in (None, "other"):
                it = Try(logins)
                url = await it.to_provider(issuer="campus")
                assert parse_qs(urlsplit(url).query)["redirect_uri"] == ["https://signer.example/login/callback/campus"]
                assert await code_of(it.back(honest.authorize(url), issuer=place)) == "issuer-mismatch"
            it = Try(logins)
            await it.back(honest.authorize(await it.to_provider(issuer="campus")), issuer="campus")
            # A hostile provider leads its user to the honest one, whose answer then comes with the hostile one's state.
            it = Try(logins)
            answer = honest.authorize(await it.to_provider(issuer="other"))
            assert await code_of(it.back(answer, issuer="campus")) == "issuer-mismatch"
            assert other.forms == []


@pytest.mark.parametrize(("claims", "code"), [
    ({"nonce": "of another login"}, "key-not-bound"),
    ({"nonce": None}, "key-not-bound"),
    ({"aud": "another-client"}, "wrong-audience"),
    ({"iss": "https://evil.example"}, "unknown-issuer"),
    ({"exp": 1}, "bad-claim"),
    ({"sub": ""}, "bad-claim"),
])  # fmt: skip
async def test_an_id_token_that_is_not_for_this(provider: Scripted, ticks: Ticks, claims: dict[str, object], code: str) -> None:
    """Of another client, login, issuer or time: the login fails with the reason."""
    provider.claims = claims
    async with one(provider, ticks) as it:
        answer = provider.authorize(await it.to_provider())
        assert await code_of(it.back(answer)) == code
        failed = refused(it.state)
        assert (failed.code, f"({code})" in failed.message) == ("login-failed", True)


# --- providers that let us down ---------------------------------------------------------------------------------------------


HUGE = b'{"id_token": "' + b"x" * 400_000 + b'"}'
SAID = b"secret-of-the-answer"
TROUBLES: dict[str, tuple[int, str, bytes, str, str]] = {
    "broken": (500, "application/json", b"{}", "provider-unavailable", "500"),
    "redirecting": (302, "application/json", b"{}", "provider-unavailable", "302"),
    "huge": (200, "application/json", HUGE, "provider-unavailable", "larger"),
    "a page": (200, "text/html", b"<html>" + SAID, "provider-answer", "JSON"),
    "not JSON": (200, "application/json", SAID, "provider-answer", "strict JSON"),
    "twice": (200, "application/json", b'{"id_token": "a", "id_token": "%s"}' % SAID, "provider-answer", "strict JSON"),
    "a list": (200, "application/json", b"[]", "provider-answer", "object"),
    "nothing": (200, "application/json", b"{}", "provider-answer", "no ID token"),
    "a number": (200, "application/json", b'{"id_token": "a.b.c", "access_token": 7}', "provider-answer", "no text"),
    "no token": (200, "application/json", b'{"id_token": "%s"}' % SAID, "proof-malformed", "three"),
    "refusing": (400, "application/json", b'{"error": "invalid_grant", "x": "%s"}' % SAID, "exchange-refused", "invalid_grant"),
    "markup": (400, "application/json", b'{"error": "<b>%s</b>"}' % SAID, "exchange-refused", "does not say why"),
    "no text": (401, "application/json", b'{"error": ["%s"]}' % SAID, "exchange-refused", "does not say why"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_token_endpoint_in_trouble(provider: Scripted, ticks: Ticks, trouble: str) -> None:
    """The login fails with a reason of ours; nothing of the provider's answer is repeated."""
    status, kind, body, code, words = TROUBLES[trouble]
    provider.token = lambda _it, _form: (status, kind, body)
    async with one(provider, ticks) as it:
        back = provider.authorize(await it.to_provider())
        with pytest.raises(CertauthError) as caught:
            await it.back(back)
        failed = refused(it.state)
        assert (caught.value.code, failed.code) == (code, "login-failed")
        assert words in caught.value.message
        assert caught.value.message in failed.message
        assert f"({code})" in failed.message
        assert "secret-of-the-answer" not in f"{failed} {caught.value} {caught.value.hint}"
        assert provider.fetches["/elsewhere"] == 0


async def test_a_slow_provider_holds_up_nobody_else(ticks: Ticks) -> None:
    """One provider does not answer at all: a login at another one goes through meanwhile, and the slow one's fails in time."""
    with scripted_provider() as slow, scripted_provider() as quick:

        def wait(_provider: Scripted, _form: dict[str, str]) -> tuple[int, str, bytes]:
            slow.stopping.wait(30)
            return 200, "application/json", b"{}"

        slow.token = wait
        providers = provider_for(slow), provider_for(quick, id="quick")
        async with logins_for(*providers, ticks=ticks) as logins:
            held, free = Try(logins), Try(logins)
            waiting = asyncio.create_task(held.back(slow.authorize(await held.to_provider(issuer="campus"))))
            while not slow.forms:  # noqa: ASYNC110 - what is waited for happens in the threads of the provider
                await asyncio.sleep(0.005)
            assert held.state() == "confirmed"
            assert await code_of(held.confirm()) == "login-over"
            await free.back(quick.authorize(await free.to_provider(issuer="quick")))
            assert free.state() == "ready"
            assert not waiting.done()
            with pytest.raises(UnavailableError, match="does not answer in time"):
                await waiting
            assert refused(held.state).code == "login-failed"


async def test_a_callback_that_is_cancelled(provider: Scripted, ticks: Ticks) -> None:
    """The server gives up on the request: the program is told, rather than left to wait."""
    provider.token = lambda it, form: (it.stopping.wait(30), (200, "application/json", b"{}"))[1]
    async with one(provider, ticks) as it:
        task = asyncio.create_task(it.back(provider.authorize(await it.to_provider())))
        while not provider.forms:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "(internal)" in refused(it.state).message


async def test_a_login_that_expires_while_the_provider_thinks(provider: Scripted, ticks: Ticks) -> None:
    """The result of a login that has expired is nobody's."""

    def late(running: Scripted, form: dict[str, str]) -> tuple[int, str, bytes]:
        ticks.now += 600
        return running.tokens(form)

    provider.token = late
    async with one(provider, ticks) as it:
        assert await code_of(it.back(provider.authorize(await it.to_provider()))) == "login-expired"
        assert refused(it.claim).code == "login-expired"


@pytest.mark.parametrize(("error", "code", "outcome"), [
    ("access_denied", "provider-denied", "login-denied"),
    ("server_error", "provider-refused", "login-failed"),
    ("<script>", "provider-refused", "login-failed"),
])  # fmt: skip
async def test_a_provider_that_says_no(provider: Scripted, ticks: Ticks, error: str, code: str, outcome: str) -> None:
    """What it says is not repeated to the program, except for an error code that looks like one."""
    async with one(provider, ticks) as it:
        answer = provider.authorize(await it.to_provider(), code=None, error=error, error_description="hostile%0Awords")
        assert await code_of(it.back(answer)) == code
        told = refused(it.state)
        assert (told.code, f"({code})" in told.message) == (outcome, True)
        assert ("server_error" in told.message) is (error == "server_error")
        assert "hostile" not in told.message
        assert "script" not in told.message


async def test_a_provider_that_is_down(provider: Scripted, ticks: Ticks) -> None:
    """Who would log in there is told before they are shown a code; it says when to come back."""
    down = Provider(issuer=Issuer(id="down", url="http://127.0.0.1:9", audience="x", allow_loopback_http=True))
    async with logins_for(down, provider_for(provider), ticks=ticks) as logins:
        with pytest.raises(UnavailableError) as caught:
            await Try(logins).begin(issuer="down")
        assert caught.value.code == "issuer-unavailable"
        assert caught.value.retry_after is not None
        assert logins.under_way == 0
        await Try(logins).begin(issuer="campus")


@pytest.mark.parametrize("missing", ["authorization_endpoint", "token_endpoint"])
async def test_a_provider_without_what_is_needed(provider: Scripted, ticks: Ticks, missing: str) -> None:
    """No endpoint, or one that is not https, is the same: there is no way to log in."""
    provider.discovery[missing] = "http://elsewhere.example/x"
    async with one(provider, ticks) as it:
        assert await code_of(it.begin()) == "issuer-unavailable"


async def test_codes_and_secrets_go_to_listed_hosts_only(provider: Scripted, ticks: Ticks) -> None:
    """A discovery document that sends the code elsewhere is not followed, unless the host is listed."""
    with scripted_provider() as elsewhere:
        elsewhere.token = lambda _it, form: provider.tokens(form)
        provider.discovery["token_endpoint"] = f"{elsewhere.issuer}/token"
        async with one(provider, ticks) as it:
            assert await code_of(it.back(provider.authorize(await it.to_provider()))) == "provider-answer"
            assert elsewhere.forms == []
        async with one(provider, ticks, hosts=frozenset({elsewhere.issuer.removeprefix("http://")})) as it:
            await it.back(provider.authorize(await it.to_provider()))


async def test_a_client_secret_that_cannot_be_used(provider: Scripted, ticks: Ticks, tmp_path: Path) -> None:
    """Missing, or readable by others: the login fails, and who logs in does not learn where the signer keeps it."""
    missing, readable = tmp_path / "where-it-is", tmp_path / "where-it-is-too"
    readable.write_text("a secret that is none")
    readable.chmod(0o644)
    for path in (missing, readable):
        async with one(provider, ticks, secret_file=path) as it:
            assert await code_of(it.back(provider.authorize(await it.to_provider()))) == "client-secret-unusable"
            assert "where-it-is" not in refused(it.state).message
    assert provider.forms == []


# --- userinfo ---------------------------------------------------------------------------------------------------------------


async def test_userinfo(provider: Scripted, ticks: Ticks) -> None:
    """Asked with the access token; what it says about the same person is added, and nothing of the ID token replaced."""
    told = {"sub": "alice", "email": "alice@lab.example", "email_verified": True, "groups": ["a"], "acr": "mfa", "iss": "x"}
    provider.userinfo = lambda: (200, "application/json", json.dumps(told).encode())
    async with one(provider, ticks, userinfo=True) as it:
        who = await it.back(provider.authorize(await it.to_provider()))
        assert provider.authorizations[-1] == "Bearer opaque"
        assert (who.email, who.claims["groups"], who.acr, who.issuer) == ("alice@lab.example", ["a"], None, provider.issuer)


async def test_verified_flag_and_address_come_from_one_document(provider: Scripted, ticks: Ticks) -> None:
    """The ID token's flag does not verify userinfo's address."""
    provider.claims = {"email_verified": True}
    provider.userinfo = lambda: (200, "application/json", b'{"sub": "alice", "email": "root@lab.example"}')
    async with one(provider, ticks, userinfo=True) as it:
        assert (await it.back(provider.authorize(await it.to_provider()))).email is None


@pytest.mark.parametrize(("answer", "code"), [
    ((200, "application/json", b'{"sub": "mallory"}'), "userinfo-mismatch"),
    ((200, "application/json", b'{}'), "userinfo-mismatch"),
    ((200, "application/jwt", b"a.b.c"), "provider-answer"),
    ((500, "application/json", b"{}"), "provider-unavailable"),
])  # fmt: skip
async def test_userinfo_that_cannot_be_used(provider: Scripted, ticks: Ticks, answer: Any, code: str) -> None:
    """About somebody else, of another form, or not there: the login fails rather than go on with less than was configured."""
    provider.userinfo = lambda: answer
    async with one(provider, ticks, userinfo=True) as it:
        assert await code_of(it.back(provider.authorize(await it.to_provider()))) == code


@pytest.mark.parametrize("access_token", [None, "two\nlines"])
async def test_userinfo_without_a_usable_access_token(provider: Scripted, ticks: Ticks, access_token: str | None) -> None:
    """No access token, or one that would write a header of its own."""

    def tokens(running: Scripted, form: dict[str, str]) -> tuple[int, str, bytes]:
        members = json.loads(running.tokens(form)[2]) | {"access_token": access_token}
        return 200, "application/json", json.dumps(members).encode()

    provider.token = tokens
    async with one(provider, ticks, userinfo=True) as it:
        assert await code_of(it.back(provider.authorize(await it.to_provider()))) == "provider-answer"
        assert provider.fetches["/userinfo"] == 0


async def test_userinfo_without_an_endpoint(provider: Scripted, ticks: Ticks) -> None:
    """The provider has none: configured all the same, the login fails."""
    provider.discovery["userinfo_endpoint"] = None
    async with one(provider, ticks, userinfo=True) as it:
        assert await code_of(it.back(provider.authorize(await it.to_provider()))) == "provider-answer"


# --- what it is worth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("issuer", "same_address", "cli", "browser", "assurance"), [
    (3, False, CLI, BROWSER, 2),
    (1, False, CLI, CLI, 1),
    (3, True, CLI, CLI, 2),
    (3, True, CLI, BROWSER, 1),
    (3, True, None, BROWSER, 1),
    (3, True, CLI, None, 1),
    (3, True, None, None, 1),
    (3, True, "2001:db8::1", "2001:db8::2", 2),
])  # fmt: skip
async def test_assurance(
    provider: Scripted, ticks: Ticks, issuer: int, same_address: bool, cli: str | None, browser: str | None, assurance: int
) -> None:
    """Never more than 2, and 1 from elsewhere where that matters; an address that is not known is elsewhere."""
    async with one(provider, ticks, issuer={"assurance": issuer}, same_address=same_address) as it:
        url = await it.to_provider(address=cli)
        assert (await it.back(provider.authorize(url), address=browser)).assurance == assurance


# --- bounds -----------------------------------------------------------------------------------------------------------------


async def test_time_is_up(provider: Scripted, ticks: Ticks) -> None:
    """After ten minutes nothing of a login works; its end can be asked for a while, then it is forgotten."""
    async with one(provider, ticks) as it:
        url = await it.to_provider()
        ticks.now += 599.9
        assert it.state() == "confirmed"
        ticks.now += 0.1
        assert refused(it.state).code == "login-expired"
        assert refused(it.enter).code == "code-wrong"
        assert await code_of(it.confirm()) == "login-expired"
        assert await code_of(it.back(provider.authorize(url))) == "state-unknown"
        assert it.logins.under_way == 0
        ticks.now += 300
        assert refused(it.state).code == "login-unknown"
        assert not it.logins._register._by_id


async def test_how_many_there_can_be(provider: Scripted, ticks: Ticks) -> None:
    """Full is full: nobody is pushed out, an address cannot take all places, and places come back with time."""
    limits = LoginLimits(total=5, per_address=3)
    async with logins_for(provider_for(provider), ticks=ticks, limits=limits) as logins:
        mine = [await Try(logins).begin() for _ in range(3)]
        with pytest.raises(UnavailableError) as caught:
            await Try(logins).begin()
        assert (caught.value.code, caught.value.retry_after) == ("too-many-logins", 30)
        ticks.now += 1
        for number in (1, 2):
            await Try(logins).begin(address=f"2001:db8:{number}::1")
        with pytest.raises(UnavailableError) as caught:
            await Try(logins).begin(address="2001:db8:3::1")
        assert (caught.value.code, caught.value.retry_after) == ("logins-full", 30)
        await mine[0].back(provider.authorize(await mine[0].enter().confirm()))
        assert [each.state() for each in mine] == ["ready", "pending", "pending"]
        assert refused(lambda: mine[0].enter("BBBB-BBBB")).code == "code-wrong"
        with pytest.raises(UnavailableError):
            await Try(logins).begin(address="2001:db8:3::1")  # a finished login counts until its time is up
        ticks.now += 599
        await Try(logins).begin()
        assert logins.under_way == 3
        ticks.now += 2000
        assert logins.under_way == 0
        register = logins._register
        assert not any((register._by_id, register._by_code, register._by_state, register._living, register._per_network))


async def test_a_thousand_refused_beginnings_leave_nothing(provider: Scripted, ticks: Ticks) -> None:
    """What is refused is not remembered."""
    async with logins_for(provider_for(provider), ticks=ticks, limits=LoginLimits(total=1)) as logins:
        await Try(logins).begin()
        for number in range(1000):
            assert await code_of(Try(logins).begin(address=f"10.0.{number // 250}.{number % 250}")) == "logins-full"
        assert (len(logins._register._by_id), len(logins._register._per_network)) == (1, 1)


async def test_no_two_logins_share_a_code(provider: Scripted, ticks: Ticks) -> None:
    """Should chance make the same code twice, another one is made."""
    # 16 bytes are asked for as id, salt and code of the first login, then of the second, whose code comes out the same.
    sixteen = iter([None, None, bytes(16), None, None, bytes(16), None])

    def entropy(count: int) -> bytes:
        return (next(sixteen) if count == 16 else None) or secrets.token_bytes(count)

    async with logins_for(provider_for(provider), ticks=ticks, entropy=entropy) as logins:
        first, second = await Try(logins).begin(), await Try(logins).begin()
        assert list(sixteen) == []
        assert first.begun.user_code != second.begun.user_code


async def test_at_which_provider(provider: Scripted, ticks: Ticks) -> None:
    """The only one need not be named; of several one is; others are not led to."""
    async with one(provider, ticks) as it:
        assert await code_of(it.begin(issuer="unknown")) == "issuer-not-mediated"
        await it.begin(issuer="campus")
    with scripted_provider() as other:
        async with logins_for(provider_for(provider), provider_for(other, id="b"), ticks=ticks) as logins:
            with pytest.raises(RequestError) as caught:
                await Try(logins).begin()
            assert (caught.value.code, caught.value.hint) == ("issuer-needed", "one of: b, campus")
    async with logins_for(ticks=ticks) as logins:
        assert await code_of(Try(logins).begin()) == "issuer-needed"


async def test_the_login_goes_on_when_the_providers_document_cannot_be_had_for_a_moment(ticks: Ticks) -> None:
    """A provider that goes away between beginning and confirming: the person may press the button again."""
    with scripted_provider() as provider:
        source_ticks = Ticks()
        source = KeySource([IssuerSource(url=provider.issuer, allow_loopback_http=True)], ticks=source_ticks)
        logins = Logins(
            public_url="https://signer.example",
            providers=[provider_for(provider)],
            keys=source,
            clock=system_clock,
            ticks=ticks,
        )
        it = await Try(logins).begin()
        it.enter()
        source_ticks.now += 3 * 24 * 3600
        provider.discovery["issuer"] = "https://evil.example"
        assert await code_of(it.confirm()) == "issuer-unavailable"
        assert it.state() == "pending"
        del provider.discovery["issuer"]
        source_ticks.now += 60
        await it.back(provider.authorize(await it.confirm()))
        assert it.state() == "ready"
        await source.aclose()


# --- the provider's answer, as text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [
    "",
    "state=a",
    "state=&code=b",
    "state=a&code=",
    "code=b",
    "state=a&state=b&code=c",
    "state=a&code=b&code=c",
    "state=a&code=b&iss=x&iss=y",
    "state=a&code=%ff",
    "state=a&code=" + "b" * 9000,
    "&".join(["state=a", "code=b", *(f"p{number}=x" for number in range(30))]),
])  # fmt: skip
def test_answers_that_can_be_read_in_two_ways(query: str) -> None:
    """Missing, doubled, oversized or not UTF-8."""
    with pytest.raises(RequestError) as caught:
        Answer.read(query)
    assert caught.value.code == "callback-malformed"


def test_what_a_provider_says_is_cut_and_cleaned() -> None:
    """No line breaks, no bidirectional tricks, no more than 200 characters."""
    answer = Answer.read("state=a&error=x&session_state=1&session_state=2&error_description=" + "a%0A%E2%80%AEb" + "c" * 500)
    assert answer.description is not None
    assert answer.description.startswith("a  bccc")
    assert len(answer.description) <= 200
    assert Answer.read("state=a&error=x&error_description=%0A").description is None


def test_stages_are_told_as_the_specification_names_them() -> None:
    """The program hears of three."""
    assert {stage.for_program for stage in Stage} == {"pending", "confirmed", "ready", "denied", "failed"}
