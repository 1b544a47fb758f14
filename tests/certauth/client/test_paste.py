"""Paste-back: what the user brings is checked like what a browser would have brought."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from certauth.client.attempt import Method
from certauth.client.browser import Browser
from certauth.encoding import from_b64url
from certauth.errors import AnswerError, CertauthError, Refused, UsageError
from certauth.identity import nonce_for
from tests.certauth.client.conftest import LogIn
from tests.simulator.hostile_signer import HostileSigner


class Person:
    """Reads the address, logs in somewhere, and pastes what ``bring`` makes of the good answer."""

    def __init__(self, signer: HostileSigner, *bring: Callable[[str, dict[str, str]], str]) -> None:
        self.signer = signer
        self.bring = list(bring)
        self.said: list[str] = []
        self.query: dict[str, str] = {}

    def tell(self, text: str) -> None:
        self.said.append(text)
        if found := re.search(r"https://\S+/idp/authorize\?(\S+)", text):
            self.query = {name: values[0] for name, values in parse_qs(found[1]).items()}

    def ask(self, question: str) -> str:
        if not self.bring:
            return ""
        good = {"code": "the-code", "state": self.query["state"], "iss": f"{self.signer.url}/idp"}
        return self.bring.pop(0)(self.query["redirect_uri"], good)


def good(redirect: str, answer: dict[str, str]) -> str:
    """The address as the browser shows it, copied with a space too many."""
    return f" {redirect}?{urlencode(answer)} \n"


def run(log_me_in: LogIn, person: Person, **browser: Any) -> Any:
    """Log in by pasting."""
    return log_me_in(method=Method.PASTE, tell=person.tell, ask=person.ask, browser=Browser(timeout=10, **browser))


def test_a_login_by_pasting(signer: HostileSigner, log_me_in: LogIn):
    """Nobody listens at the redirect; the code in the pasted address is redeemed, and the token is bound to the key."""
    person = Person(signer, good)
    done = run(log_me_in, person)
    port = urlsplit(person.query["redirect_uri"]).port or 0
    assert 49152 <= port <= 65535
    assert person.query["redirect_uri"] in person.said[0]
    proof = signer.proofs[0]
    assert (proof["type"], proof["token"]) == ("id_token", "an.id.token")
    assert person.query["nonce"] == nonce_for(signer_id=signer.url, spki=done.peer.spki, salt=from_b64url(proof["salt"]))
    assert not any(path.startswith("/idp/authorize") for _, path, _, _ in signer.seen)


def test_a_fixed_port_is_kept(signer: HostileSigner, log_me_in: LogIn):
    """A provider that compares ports can be told one."""
    person = Person(signer, good)
    run(log_me_in, person, port=50123)
    assert person.query["redirect_uri"] == "http://127.0.0.1:50123/callback"


WRONG = {
    "another state": lambda redirect, answer: good(redirect, answer | {"state": "guess"}),
    "no state": lambda redirect, answer: f"{redirect}?code=evil",
    "two states": lambda redirect, answer: f"{redirect}?{urlencode(answer)}&state=x",
    "another host": lambda redirect, answer: good("https://evil.example/callback", answer),
    "another port": lambda redirect, answer: good("http://127.0.0.1:1/callback", answer),
    "another path": lambda redirect, answer: good(redirect + "/x", answer),
    "only the code": lambda redirect, answer: answer["code"],
    "no address": lambda redirect, answer: "http://[",
    "too much": lambda redirect, answer: good(redirect, answer) + "x" * 20_000,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_the_answer_is_not_taken(signer: HostileSigner, log_me_in: LogIn, wrong: str):
    """Somebody else's answer, or half of ours, redeems no code; the user may try again, three times, and is told."""
    person = Person(signer, WRONG[wrong], WRONG[wrong], good)
    assert run(log_me_in, person).credential
    assert sum("not the address of this login" in text for text in person.said) == 2
    person = Person(signer, *[WRONG[wrong]] * 3, good)
    with pytest.raises(UsageError) as caught:
        run(log_me_in, person)
    assert caught.value.code == "bad-paste"
    assert len(signer.proofs) == 1
    assert "the-code" not in "".join(person.said) + str(caught.value)


def test_no_input_at_all(signer: HostileSigner, log_me_in: LogIn):
    """A closed input ends it at once."""
    with pytest.raises(UsageError) as caught:
        run(log_me_in, Person(signer))
    assert caught.value.code == "bad-paste"


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [({"iss": "https://evil.example"}, AnswerError, "wrong-issuer"), ({"error": "access_denied"}, Refused, "login-refused")],
)
def test_an_answer_of_another_provider_or_a_refusal(
    signer: HostileSigner, log_me_in: LogIn, change: dict[str, str], kind: type[CertauthError], code: str
):
    """Mix-up and refusal are told apart from a wrong paste; no code is redeemed."""
    person = Person(signer, lambda redirect, answer: good(redirect, answer | change))
    with pytest.raises(kind) as caught:
        run(log_me_in, person)
    assert caught.value.code == code
    assert not any(path == "/idp/token" for _, path, _, _ in signer.seen)
