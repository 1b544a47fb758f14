"""Signer-mediated login, and what a signer may not do with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from certauth.client.attempt import Method, Situation
from certauth.client.browser import Browser
from certauth.client.http import ANSWER_LIMIT
from certauth.errors import AnswerError, CertauthError, Refused, UnavailableError, UsageError
from certauth.identity.binding import short_fingerprint
from certauth.requests import parse_csr
from tests.certauth.client.conftest import HandWatch, LogIn
from tests.simulator.hostile_signer import HostileSigner, Raw, problem

LOGINS = "/v1/logins"


@pytest.fixture
def medium(signer: HostileSigner, log_me_in: LogIn, hand: HandWatch) -> Callable[..., Any]:
    """Log in at a signer that offers it, by hand; the user finishes after 7 seconds unless told otherwise."""
    signer.offers = {"flows": ["code", "mediated"]}

    def log(**wishes: Any) -> Any:
        hand.at.setdefault(7, signer.finish_logins)
        wishes = {"method": Method.MEDIATED, "by_hand": True, "browser": Browser(enabled=False, timeout=60)} | wishes
        return log_me_in(**wishes)

    return log


def polls(signer: HostileSigner) -> list[dict[str, Any]]:
    """What was asked of the state of logins."""
    return [json.loads(body) for _, path, _, body in signer.seen if path.startswith(f"{LOGINS}/")]


def test_a_login_that_the_user_finishes_elsewhere(signer: HostileSigner, medium: Callable[..., Any], hand: HandWatch):
    """The user reads page, code, host and key; the signer learns the hash of a secret first and the secret only later."""
    said: list[str] = []
    ticks: list[str] = []
    situation = Situation(host="login7.als.example")
    done = medium(tell=said.append, tick=ticks.append, situation=situation, invite="the-invitation")
    begun = next(json.loads(body) for _, path, _, body in signer.seen if path == LOGINS)
    (login,) = signer.logins
    assert set(begun) == {"csr", "issuer", "host", "secret_sha256", "invite"}
    assert (begun["issuer"], begun["host"], begun["invite"]) == ("campus", "login7.als.example", "the-invitation")
    spki = parse_csr(begun["csr"]).spki
    assert spki == done.peer.spki
    for text in (f"{signer.url}/login", signer.logins[login]["user_code"], "login7.als.example", short_fingerprint(spki)):
        assert text in said[0]
    secrets = {poll["secret"] for poll in polls(signer)}
    assert {hashlib.sha256(secret.encode()).hexdigest() for secret in secrets} == {begun["secret_sha256"]}
    assert signer.proofs == [{"type": "login", "login": login, "secret": secrets.pop()}]
    body = next(json.loads(body) for _, path, _, body in signer.seen if path == "/v1/certificates")
    assert (body["csr"], body["invite"]) == (begun["csr"], "the-invitation")
    assert done.profile.signer().issuer == "campus"
    assert 7 <= hand.seconds < 9
    assert len(polls(signer)) == 7
    assert ticks[0].startswith("waiting for you to finish in the browser, 0 s")


def test_neither_secret_nor_request_is_said(signer: HostileSigner, medium: Callable[..., Any]):
    """What the user reads holds the code, and nothing with which the login could be taken over."""
    said: list[str] = []
    medium(tell=said.append)
    assert polls(signer)[0]["secret"] not in "".join(said)
    assert not re.search(r"[A-Za-z0-9_-]{43}", "".join(said))


def test_the_secret_is_another_one_each_time(signer: HostileSigner, medium: Callable[..., Any]):
    """Nothing of an earlier login helps with the next."""
    medium()
    first = polls(signer)[0]["secret"]
    medium()
    assert polls(signer)[-1]["secret"] != first


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"verification_uri": "https://evil.example/login"}, "wrong-signer"),
        ({"verification_uri": "http://127.0.0.1/login"}, "wrong-signer"),
        ({"verification_uri": "javascript:alert(1)"}, "wrong-signer"),
        ({"verification_uri": None}, "bad-answer"),
        ({"login": "../certificates"}, "bad-answer"),
        ({"login": "x" * 300}, "bad-answer"),
        ({"user_code": "AB\x1b[2J"}, "bad-answer"),
        ({"user_code": "no code at all"}, "bad-answer"),
        ({"interval": 0}, "bad-answer"),
        ({"interval": "often"}, "bad-answer"),
        ({"interval": True}, "bad-answer"),
        ({"expires_in": -1}, "bad-answer"),
        ({"expires_in": None}, "bad-answer"),
    ],
)
def test_a_login_begun_wrongly_is_shown_to_nobody(
    signer: HostileSigner, medium: Callable[..., Any], change: dict[str, Any], code: str
):
    """A page elsewhere, an id that climbs, a code that steers terminals, no rhythm: refused before the user reads a word."""
    signer.lies[LOGINS] = lambda answer: answer | change
    said: list[str] = []
    with pytest.raises(AnswerError) as caught:
        medium(tell=said.append)
    assert caught.value.code == code
    assert said == []
    assert polls(signer) == []


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (problem(403, "login-denied", "the user said no", hint="ask them"), Refused, "login-denied"),
        (problem(404, "login-unknown", "never heard of it"), Refused, "login-unknown"),
        (problem(410, "login-expired", "too late"), Refused, "login-expired"),
        ({"state": "perhaps"}, AnswerError, "bad-answer"),
        ({"state": 7}, AnswerError, "bad-answer"),
        ({"state": "pending", "interval": 0}, AnswerError, "bad-answer"),
        (Raw(pieces=(b"x" * ANSWER_LIMIT,), repeat=3), AnswerError, "answer-too-large"),
        (Raw(status=302, headers={"location": "https://127.0.0.1:1/"}), AnswerError, "redirected"),
    ],
)
def test_a_login_that_ends_badly(
    signer: HostileSigner,
    medium: Callable[..., Any],
    home: Any,
    answer: Any,
    kind: type[CertauthError],
    code: str,
):
    """A denial keeps its code, nonsense is refused; nothing is stored."""
    signer.begin_login = lambda body: {  # type: ignore[method-assign]  # so that the path of the lie is known
        "login": "known", "user_code": "AB-CD", "verification_uri": f"{signer.url}/login", "expires_in": 60, "interval": 1,
    }  # fmt: skip
    signer.lies[f"{LOGINS}/known"] = lambda _: answer
    with pytest.raises(kind) as caught:
        medium()
    assert caught.value.code == code
    assert home.profiles() == []
    assert not list(home.directory.rglob("key.pem"))


def test_asked_too_often_or_without_network_it_goes_on(signer: HostileSigner, medium: Callable[..., Any], hand: HandWatch):
    """429 with Retry-After slows down, a broken connection does not end a login that goes on at the signer."""
    trouble = [problem(429, "too-many", "slower", retry_after=4), Raw(hang_up="before"), problem(503, "busy", "later")]

    def begin(body: Any) -> Any:
        answer = HostileSigner.begin_login(signer, body)
        signer.lies[f"{LOGINS}/{answer['login']}"] = lambda state: trouble.pop(0) if trouble else state
        return answer

    signer.begin_login = begin  # type: ignore[method-assign]  # likewise
    medium(browser=Browser(enabled=False, timeout=600))
    assert trouble == []
    assert hand.seconds >= 1 + 4 + 8


def test_the_signers_rhythm_is_kept(signer: HostileSigner, medium: Callable[..., Any], hand: HandWatch):
    """An interval in an answer counts from then on."""

    def begin(body: Any) -> Any:
        answer = HostileSigner.begin_login(signer, body)
        signer.lies[f"{LOGINS}/{answer['login']}"] = lambda state: state | {"interval": 5}
        return answer

    signer.begin_login = begin  # type: ignore[method-assign]  # likewise
    hand.at[11] = signer.finish_logins
    hand.at[7] = lambda: None
    medium()
    assert len(polls(signer)) == 3  # after 1, 6 and 11 seconds


def test_nobody_finishes(signer: HostileSigner, medium: Callable[..., Any], hand: HandWatch):
    """The wait ends with the user's patience or with the code, whichever is first."""
    hand.at[7] = lambda: None
    with pytest.raises(UnavailableError) as caught:
        medium()
    assert (caught.value.code, hand.seconds) == ("login-timeout", 60)
    hand.at[7] = lambda: None
    signer.lies[LOGINS] = lambda answer: answer | {"expires_in": 10}
    with pytest.raises(UnavailableError):
        medium()
    assert hand.seconds == 70


def test_a_browser_command_is_told_the_page_and_watched(signer: HostileSigner, log_me_in: LogIn):
    """A headless browser finishes it at once; one that crashes ends the wait."""
    import sys

    signer.offers = {"flows": ["mediated"]}
    visit = f"{sys.executable} -m tests.simulator.hostile_signer"
    assert log_me_in(method=Method.MEDIATED, browser=Browser(command=visit, timeout=60)).credential
    with pytest.raises(Refused) as caught:
        log_me_in(method=Method.MEDIATED, browser=Browser(command=f'{sys.executable} -c "raise SystemExit(3)"', timeout=60))
    assert caught.value.code == "browser-failed"


def test_a_signer_without_the_endpoint(signer: HostileSigner, medium: Callable[..., Any]):
    """An issuer that is said to offer it, at a signer that has no place for it, offers nothing."""
    signer.lies["/.well-known/certauth"] = lambda answer: (
        answer | {"endpoints": {name: url for name, url in answer["endpoints"].items() if name != "logins"}}
    )
    with pytest.raises(UsageError) as caught:
        medium()
    assert caught.value.code == "flow-not-offered"
