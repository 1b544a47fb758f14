"""What pages say of durations, addresses and providers; how they look is for the browser's tests."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certauth.identity import Issuer
from signer.login_pages import Facility, confirm_page, problem_page
from signer.login_state import Confirmation


def shown(*, issuer: Issuer | None = None, address: str | None = "192.0.2.1", link: str | None = None) -> Confirmation:
    """A login somebody is asked about."""
    return Confirmation(
        login="A",
        seconds=600,
        cookie=None,
        host="login1",
        address=address,
        fingerprint="ab12 cd34 ef56 7890",
        issuer=issuer or Issuer(id="campus", url="https://idp.example/realms/x", audience="signer"),
        link=link,
    )


def page(confirmation: Confirmation, *, browser: str | None = "192.0.2.1", lifetime: timedelta = timedelta(hours=8)) -> str:
    """The confirmation page."""
    facility = Facility(name="als.example", certificate_lifetime=lifetime)
    return confirm_page(facility, confirmation, form="F", browser_address=browser).html


@pytest.mark.parametrize(
    ("lifetime", "cap", "words"),
    [
        (timedelta(hours=24), None, "24 hours"),
        (timedelta(hours=24), timedelta(hours=1), "an hour"),
        (timedelta(hours=2), timedelta(hours=8), "2 hours"),
        (timedelta(minutes=90), None, "1 h 30 min"),
        (timedelta(minutes=20), None, "20 min"),
    ],
    ids=str,
)
def test_how_long_the_certificate_lasts(lifetime: timedelta, cap: timedelta | None, words: str) -> None:
    """The least of what facility and provider allow."""
    issuer = Issuer(id="campus", url="https://idp.example", audience="signer", max_certificate_lifetime=cap)
    assert f"for up to {words}." in page(shown(issuer=issuer), lifetime=lifetime)


@pytest.mark.parametrize(
    ("address", "browser", "words"),
    [
        ("192.0.2.1", "192.0.2.1", "<b>192.0.2.1</b> (the same address as this browser)"),
        ("192.0.2.1", "192.0.2.2", "<b>192.0.2.1</b> (this browser is at another address)"),
        (None, None, "<b>on the signer&#x27;s own machine</b> (this browser is at another address)"),
    ],
    ids=str,
)
def test_where_the_program_is(address: str | None, browser: str | None, words: str) -> None:
    """Two addresses that are not known are not the same one."""
    assert words in page(shown(address=address), browser=browser)


def test_the_key_and_the_provider() -> None:
    """The fingerprint is that of the terminal, the provider its host; the form may lead there and nowhere unsafe."""
    made = confirm_page(Facility(name="a", certificate_lifetime=timedelta(hours=1)), shown(), form="F", browser_address=None)
    assert "ab12 cd34 ef56 7890" in made.html
    assert "(idp.example)" in made.html
    assert "form-action 'self' https:;" in made.headers()["content-security-policy"]


def test_what_the_login_is_for() -> None:
    """To whom it is to be linked, or that a certificate comes of it: one of the two."""
    linking, logging_in = page(shown(link="spiffe://als.example/user/<alice>")), page(shown())
    assert "links this login to <b>spiffe://als.example/user/&lt;alice&gt;</b>" in linking
    assert "<code>certauth login --link</code>" in linking
    assert "a certificate of als.example in your name" not in linking
    assert "a certificate of als.example in your name" in logging_in
    assert "link" not in logging_in.partition("<body>")[2]


def test_a_problem_without_a_hint() -> None:
    """Nothing is said where there is nothing to say."""
    made = problem_page(code="x-y", sentence="it failed", hint=None, request_id="r")
    assert "What to do" not in made.html
    assert "It failed." in made.html
    assert made.headers()["content-security-policy"].count("form-action 'none'") == 1
