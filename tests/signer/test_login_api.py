"""The login routes behind the real door and TLS: who may post what, what pages hold, and what nobody gets to see."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certauth.encoding import b64
from signer.jwks import IssuerSource
from signer.limits import RateLimiter
from signer.login_code import Guesses
from signer.login_forms import FORM_COOKIE, form_value
from signer.login_provider import Provider
from signer.login_state import LoginLimits
from tests.signer.login_kit import (
    QUICK,
    Configure,
    Forms,
    Person,
    Program,
    Scripted,
    Site,
    login_site,
    provider_for,
    scripted_provider,
)

HOSTILE = "</b><script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def running() -> Iterator[Scripted]:
    """A provider that does as it is told."""
    with scripted_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Scripted) -> Scripted:
    """The same, in order again."""
    running.claims, running.names_itself = {}, True
    running.forms.clear()
    return running


def at(provider: Scripted) -> Configure:
    """A signer that leads to this provider."""

    def configure(_url: str) -> tuple[list[Provider], list[IssuerSource]]:
        return [provider_for(provider)], [IssuerSource(url=provider.issuer, allow_loopback_http=True)]

    return configure


@pytest.fixture(scope="module")
def site(running: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running signer."""
    with login_site(tmp_path_factory.mktemp("site"), at(running), limits=QUICK) as made:
        yield made


def check_page(response: httpx2.Response) -> None:
    """What holds of every page."""
    policy = response.headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; form-action ('none'|'self'|'self' https: http://127\.0\.0\.1:\d+);"
        r" frame-ancestors 'none'; base-uri 'none'",
        policy,
    )
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert '<html lang="en">' in response.text
    assert "viewport" in response.text
    assert not re.search(
        r"<script|\son[a-z]+=|javascript:|<img|<link|https?://[^\"'<\s]*\.(js|css)", response.text, re.IGNORECASE
    )
    for match in re.finditer(r'<input type="text" id="([a-z]+)"', response.text):
        assert f'<label for="{match[1]}">' in response.text


# --- pages ------------------------------------------------------------------------------------------------------------------


def test_every_page(site: Site, provider: Scripted) -> None:
    """Form, wrong code, confirmation, redirect, end, and problems: the same strict headers, no script, nothing stored."""
    program, person = Program(site), Person(site)
    form = person.http.get("/login")
    check_page(form)
    wrong = person.type_code("BBBB-BBBB")
    assert wrong.status_code == 403
    assert 'role="alert"' in wrong.text
    check_page(wrong)
    shown = person.type_code(program.code)
    check_page(shown)
    for fact in ("login1.cluster.example", "127.0.0.1", "the same address as this browser", "campus", "24 hours", "Not me"):
        assert fact in shown.text
    sent = person.answer(shown, "yes")
    assert (sent.status_code, sent.headers["referrer-policy"], sent.headers["cache-control"]) == (
        303,
        "no-referrer",
        "no-store",
    )
    done = person.come_back(provider.authorize(sent.headers["location"]))
    check_page(done)
    again = person.http.get("/login/callback?state=a&code=b")
    assert again.status_code == 403
    check_page(again)
    malformed = person.http.get("/login/callback?state=a")
    assert malformed.status_code == 400
    check_page(malformed)
    other = Program(site)
    denied = person.answer(person.type_code(other.code), "no")
    check_page(denied)
    assert other.state().json()["code"] == "login-denied"


def test_cookies(site: Site, provider: Scripted) -> None:
    """``__Host-``, Secure, HttpOnly; Strict for forms, Lax for the way back, gone at the end; the form's is kept."""
    program, person = Program(site), Person(site)
    first = person.http.get("/login").headers["set-cookie"]
    assert re.fullmatch(
        r"__Host-certauth-form=[A-Za-z0-9_-]{43}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=3600", first
    )
    assert person.http.get("/login").headers["set-cookie"] == first
    shown = person.type_code(program.code)
    name = f"__Host-certauth-{program.begun['login']}"
    (given,) = [value for value in shown.headers.get_list("set-cookie") if value.startswith(name)]
    found = re.fullmatch(rf"{name}=[A-Za-z0-9_-]{{43}}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=(\d+)", given)
    assert found is not None
    assert 1 <= int(found[1]) <= 600
    assert "set-cookie" not in person.type_code(program.code).headers  # the same browser has it already
    done = person.come_back(provider.authorize(person.answer(shown, "yes").headers["location"]))
    assert done.headers["set-cookie"] == f"{name}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"


def test_the_code_is_nowhere_but_in_the_terminal(site: Site, provider: Scripted) -> None:
    """Not in the address to open, not filled in from an address, not on the way to the provider, not on a page."""
    program, person = Program(site), Person(site)
    assert program.begun["verification_uri"] == f"{site.url}/login"
    for spelling in (program.code, program.code.replace("-", "")):
        for name in ("code", "user_code"):
            page = person.http.get(f"/login?{name}={spelling}")
            assert spelling not in page.text
            assert Forms(page.text).fields["code"] == ""
    shown = person.type_code(program.code)
    url = person.answer(shown, "yes").headers["location"]
    done = person.come_back(provider.authorize(url))
    for text in (shown.text, url, done.text):
        assert program.code not in text
        assert program.code.replace("-", "") not in text


def test_hostile_names_are_shown_as_they_are(site: Site, provider: Scripted) -> None:
    """A host, a person and a provider's words full of markup are text, on every page that shows them."""
    program, person = Program(site, host=HOSTILE), Person(site)
    provider.claims = {"name": HOSTILE}
    shown = person.type_code(program.code)
    done = person.come_back(provider.authorize(person.answer(shown, "yes").headers["location"]))
    program = Program(site)
    url = person.to_provider(program.code)
    failed = person.come_back(provider.authorize(url, code=None, error="server_error", error_description=HOSTILE))
    for page in (shown, done, failed):
        check_page(page)
        assert HOSTILE in Forms(page.text).text
        assert HOSTILE not in page.text
        assert HOSTILE in unescape(page.text)


def test_words_of_a_provider_are_repeated_to_its_own_browser_only(site: Site, provider: Scripted) -> None:
    """An address that anybody can write makes no page of ours say what they like."""
    planted = "Call 555-0100 now"
    visitor = Person(site)
    address = {"state": "A" * 43, "error": "access_denied", "error_description": planted}
    assert planted not in visitor.come_back(address).text
    program, person = Program(site), Person(site)
    answer = provider.authorize(person.to_provider(program.code), code=None, error="access_denied", error_description=planted)
    assert planted not in visitor.come_back(answer).text  # it is the other person's answer


@pytest.mark.parametrize("host", ["", "x" * 65, "a\nb", "a\u202eb", "a\x00b", "a\u200bb"])
def test_hosts_that_would_deceive_the_eye(site: Site, host: str) -> None:
    """Line breaks, reversed and invisible characters are not shown differently: they are refused."""
    answer = Program(site, host=host).answer
    assert (answer.status_code, answer.json()["code"]) == (400, "body-malformed")
    assert "host" in answer.json()["detail"]


# --- foreign pages ---------------------------------------------------------------------------------------------------------


def forged(person: Person, program: Program, **headers: str) -> httpx2.Response:
    """The form for the code with everything right, and what is given instead."""
    form = Forms(person.http.get("/login").text)
    return person.http.post("/login", data={**form.fields, "code": program.code}, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_a_form_from_elsewhere(site: Site, headers: dict[str, str]) -> None:
    """The browser says that another origin sent it: the code is not looked at."""
    program, person = Program(site), Person(site)
    answer = forged(person, program, **headers)
    assert answer.status_code == 403
    assert "was not sent from this page" in answer.text
    assert forged(person, program, origin=site.url, **{"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_form_that_does_not_fit_the_cookie(site: Site) -> None:
    """No cookie, another browser's field, no field, a cookie of another length: not our page's form."""
    program, person, attacker = Program(site), Person(site), Person(site)
    foreign = Forms(attacker.http.get("/login").text).fields["form"]
    for field in (foreign, "", form_value("")):
        person.http.get("/login")
        answer = person.http.post("/login", data={"form": field, "code": program.code})
        assert (answer.status_code, "form-foreign" in answer.text) == (403, True)
        assert "Is this your computer" not in answer.text
    for cookie in ("", "short"):
        with site.client() as bare:
            headers = {"cookie": f"{FORM_COOKIE}={cookie}"}
            answer = bare.post("/login", data={"form": form_value(cookie), "code": program.code}, headers=headers)
            assert "form-foreign" in answer.text
    assert person.type_code(program.code).status_code == 200


def test_the_confirmation_is_guarded_the_same_way(site: Site) -> None:
    """Whoever has the login's cookie but not our form, or our form but not the cookie, confirms nothing."""
    program, person, attacker = Program(site), Person(site), Person(site)
    fields = Forms(person.type_code(program.code).text).fields
    theirs = {"form": Forms(attacker.http.get("/login").text).fields["form"], "login": program.begun["login"], "answer": "yes"}
    assert "browser-mismatch" in attacker.http.post("/login/confirm", data=theirs).text
    assert "form-foreign" in person.http.post("/login/confirm", data=theirs).text
    assert "form-malformed" in person.http.post("/login/confirm", data=fields).text  # neither button
    assert "form-malformed" in person.http.post("/login/confirm", data={**fields, "answer": "perhaps"}).text
    assert program.state().json()["state"] == "pending"
    assert person.http.post("/login/confirm", data={**fields, "answer": "yes"}).status_code == 303


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"form=a&form=b", "application/x-www-form-urlencoded", 400),
        (b"form=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"f%d=1" % number for number in range(20)), "application/x-www-form-urlencoded", 400),
        (b'{"form": "a"}', "application/json", 400),
        (b"form=a", "text/plain", 400),
        (b"form=" + b"a" * 5000, "application/x-www-form-urlencoded", 413),
    ],
    ids=["twice", "not UTF-8", "no text", "too many fields", "JSON", "plain", "long"],
)
def test_forms_that_are_none(site: Site, content: bytes, kind: str, status: int) -> None:
    """Two readings, other kinds, too much: refused before anything is looked up."""
    with site.client() as browser:
        answer = browser.post("/login", content=content, headers={"content-type": kind})
        assert answer.status_code == status
        check_page(answer)


# --- the program ----------------------------------------------------------------------------------------------------------


def test_what_begins_no_login(site: Site) -> None:
    """Bodies that do not fit, requests for keys that are not held, providers that are not led to."""
    der = bytearray(x509.load_pem_x509_csr(Program(site).csr.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = f"-----BEGIN CERTIFICATE REQUEST-----\n{b64(bytes(der))}\n-----END CERTIFICATE REQUEST-----\n"
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"secret_sha256": "A" * 64}, 400, "body-malformed"),
        ({"secret_sha256": "a" * 63}, 400, "body-malformed"),
        ({"surprise": 1}, 400, "body-malformed"),
        ({"host": 7}, 400, "body-malformed"),
        ({"invite": "short"}, 400, "body-malformed"),
        ({"link": "alice"}, 400, "body-malformed"),
        ({"link": "spiffe://als.example/agent/alice.job"}, 400, "body-malformed"),
        ({"link": f"spiffe://als.example/user/{'a' * 600}"}, 400, "body-malformed"),
        ({"csr": "no request"}, 400, "csr-malformed"),
        ({"csr": forged}, 400, "csr-signature"),
        ({"csr": "x" * 70_000}, 413, "body-too-large"),
        ({"issuer": "unknown"}, 400, "issuer-not-mediated"),
    ]
    for wish, status, code in cases:
        answer = Program(site, **wish).answer
        assert (answer.status_code, answer.json()["code"], answer.json()["status"]) == (status, code, status)
    assert Program(site, invite="an-invitation-of-somebody", issuer="campus").answer.status_code == 201


def test_the_page_says_to_whom_a_login_is_linked(site: Site) -> None:
    """As the program declared it; without a word of it, nothing can be linked with that login."""
    program = Program(site, link="spiffe://als.example/user/alice")
    assert program.answer.status_code == 201, program.answer.text
    assert "links this login to <b>spiffe://als.example/user/alice</b>" in Person(site).type_code(program.code).text
    assert "links this login" not in Person(site).type_code(Program(site).code).text


def test_answers_to_the_program(site: Site) -> None:
    """Statuses of the specification, in header and body alike; nothing stored on the way."""
    program = Program(site)
    assert (program.answer.status_code, program.answer.headers["cache-control"]) == (201, "no-store")
    assert set(program.begun) == {"login", "user_code", "verification_uri", "expires_in", "interval"}
    unknown = program.state(secret="x" * 43)
    assert (unknown.status_code, unknown.json()["code"], unknown.json()["status"]) == (404, "login-unknown", 404)
    state = program.state()
    assert state.json() == {"state": "pending", "interval": 1}
    assert program.claim() == {"code": "login-pending"}
    for body in (b"{}", b"[]", b'{"secret": 5}', b'{"secret": "aaaaaaaaaaaaaaaaaaaa", "more": 1}'):
        assert program._http.post(f"/v1/logins/{program.begun['login']}", content=body).status_code == 400
    big = program._http.post(f"/v1/logins/{program.begun['login']}", content=b'{"secret": "' + b"a" * 2000 + b'"}')
    assert big.status_code == 413


def test_being_told_to_wait(provider: Scripted, tmp_path: Path) -> None:
    """429 and 503 say for how long, to programs and to people."""
    limits, guesses = LoginLimits(interval=5, total=3, per_address=2), Guesses(burst=1)
    with login_site(tmp_path, at(provider), limits=limits, guesses=guesses) as site:
        program = Program(site)
        assert program.state().status_code == 200
        soon = program.state()
        assert (soon.status_code, soon.json()["code"], soon.json()["status"]) == (429, "slow-down", 429)
        assert 1 <= int(soon.headers["retry-after"]) <= 5
        Program(site)
        full = Program(site).answer
        assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (429, "too-many-logins", "30")
        person = Person(site)
        assert person.type_code("BBBB-BBBB").status_code == 403
        tries = person.type_code(program.code)
        assert (tries.status_code, "too-many-tries" in tries.text) == (429, True)
        assert 1 <= int(tries.headers["retry-after"]) <= 60
        check_page(tries)
    with login_site(tmp_path / "full", at(provider), limits=LoginLimits(total=0)) as site:
        full = Program(site).answer
        assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (503, "logins-full", "30")


def test_who_polls_with_the_secret_does_not_use_up_the_address(provider: Scripted, tmp_path: Path) -> None:
    """A hundred users share a machine's address: their asking is bounded for each login, a guesser's by address."""
    with login_site(tmp_path, at(provider), limits=QUICK, limiter=RateLimiter(per_minute=6)) as site:
        program = Program(site)
        for _ in range(20):
            assert program.state().status_code in (200, 429)
        assert [program.state(secret=secrets.token_urlsafe(32)).status_code for _ in range(8)][-1] == 429
        limited = Program(site).answer
        assert (limited.status_code, limited.json()["code"]) == (429, "rate-limited")
        assert "retry-after" in limited.headers
        page = Person(site).http.get("/login")
        assert page.status_code == 429
        check_page(page)
        assert program.state().status_code in (200, 429)
        assert site.counted["login-state", "done", ""] > 0
        assert site.counted["login-state", "refused", "rate-limited"] > 0


class Broken(RateLimiter):
    """A part of ours that fails."""

    def spend(self, address: str, *, at: float) -> None:
        raise RuntimeError("the insides: " + "hunter2")


def test_a_failure_of_ours(provider: Scripted, tmp_path: Path) -> None:
    """Nobody is logged in, the answer says so in its form, and shows nothing of the insides."""
    with login_site(tmp_path, at(provider), limiter=Broken(per_minute=1)) as site:
        answers = [Program(site).answer, Person(site).http.get("/login")]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert answers[0].json()["code"] == "internal"
        check_page(answers[1])
        for answer in answers:
            assert "hunter2" not in answer.text
            assert "retry-after" in answer.headers or answer is answers[1]
        assert site.counted["login", "failed", "internal"] == 1


# --- what is written down ----------------------------------------------------------------------------------------------------


def test_nothing_secret_is_written_down(provider: Scripted, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A login that succeeds and one that does not: no log holds code, secret, cookie, state, or the provider's code."""
    with login_site(tmp_path, at(provider), limits=QUICK) as site:
        program, person = Program(site), Person(site)
        answer = provider.authorize(person.to_provider(program.code))
        kept = [program.code, program.code.replace("-", ""), program.secret, answer["code"], answer["state"]]
        kept += [cookie.value for cookie in person.http.cookies.jar if cookie.value]
        person.come_back(answer)
        kept += [part for form in provider.forms for part in (form["code_verifier"], form["code"])]
        program.claim()
        failing, other = Program(site), Person(site)
        wrong = provider.authorize(other.to_provider(failing.code), error="access_denied", error_description="hunter2")
        other.come_back(wrong)
        other.come_back(wrong)
        failing.state()
        kept += [failing.code, failing.secret, wrong["code"], wrong["state"], "hunter2"]
    written = "".join(capfd.readouterr()) + site.decisions()
    assert "/login/callback" in written
    assert "login-callback" in written
    assert [text for text in kept if text in written] == []
    assert json.dumps(sorted(map(str, site.counted))).count("login-callback") >= 2
