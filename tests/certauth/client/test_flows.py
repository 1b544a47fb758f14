"""Which way of logging in is chosen where."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from certauth.client import flows
from certauth.client.attempt import Method, Situation, Wishes
from certauth.client.browser import Browser
from certauth.client.login import here
from certauth.client.metadata import LoginIssuer, Metadata
from certauth.errors import UsageError
from certauth.names import TrustDomain
from tests.certauth.client.conftest import LogIn
from tests.simulator.hostile_signer import HostileSigner

EVERYTHING = ("code", "mediated", "device")
DESK = Situation(window=True)
SSH = Situation(remote=True)
CONSOLE = Situation()
JOB = Situation(
    terminal=False, environment={"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "y"}
)
CRON = Situation(terminal=False)


def issuer(*offered: str, name: str = "campus", kinds: tuple[str, ...] = ("id_token",)) -> LoginIssuer:
    """An issuer that offers these flows."""
    return LoginIssuer(
        id=name, url=f"https://{name}.example", client_id="c", scopes=(), flows=frozenset(offered), kinds=frozenset(kinds)
    )


def metadata(*issuers: LoginIssuer) -> Metadata:
    """A signer with these issuers."""
    return Metadata(
        signer="https://signer.example",
        domain=TrustDomain.parse("als.example"),
        certificates="https://signer.example/c",
        tokens="https://signer.example/t",
        issuers=issuers,
    )


@pytest.mark.parametrize(
    ("situation", "offered", "browser", "method"),
    [
        (DESK, EVERYTHING, Browser(), Method.BROWSER),
        (DESK, ("mediated",), Browser(), Method.MEDIATED),
        (DESK, EVERYTHING, Browser(enabled=False), Method.MEDIATED),
        (SSH, EVERYTHING, Browser(), Method.MEDIATED),
        (SSH, ("code", "device"), Browser(), Method.DEVICE),
        (SSH, ("code",), Browser(), Method.BROWSER),
        (SSH, EVERYTHING, Browser(command="firefox"), Method.BROWSER),
        (SSH, EVERYTHING, Browser(port=4000), Method.BROWSER),
        (CONSOLE, EVERYTHING, Browser(), Method.MEDIATED),
        (CONSOLE, ("code",), Browser(enabled=False), Method.BROWSER),
        (CRON, EVERYTHING, Browser(), Method.MEDIATED),
        (JOB, EVERYTHING, Browser(), Method.MEDIATED),  # this signer believes no platform
    ],
)
def test_the_situation_decides(situation: Situation, offered: tuple[str, ...], browser: Browser, method: Method):
    """A window, an SSH session, a machine without display: each gets the best of what is offered."""
    assert flows.choose(metadata(issuer(*offered)), Wishes(browser=browser), situation) is method


def test_a_platform_vouches_where_nobody_sits(monkeypatch: pytest.MonkeyPatch):
    """In CI the job itself logs in; somebody at a terminal of the same machine is asked to log in."""
    both = metadata(issuer(*EVERYTHING), issuer(name="ci", kinds=("workload",)))
    assert flows.choose(both, Wishes(), JOB) is Method.WORKLOAD
    assert flows.choose(both, Wishes(), Situation(environment=JOB.environment, terminal=True)) is Method.MEDIATED
    assert flows.choose(both, Wishes(), CRON) is Method.MEDIATED
    assert flows.choose(both, Wishes(method=Method.BROWSER), JOB) is Method.BROWSER


def test_what_was_named_is_done_or_refused():
    """A way that is not offered is not replaced by another; the hint names those that are."""
    only = metadata(issuer("mediated"))
    assert flows.choose(only, Wishes(method=Method.DEVICE), DESK) is Method.DEVICE
    for method in (Method.DEVICE, Method.PASTE, Method.BROWSER):
        with pytest.raises(UsageError) as caught:
            flows.issuer_for(only, None, method)
        assert (caught.value.code, caught.value.hint) == ("flow-not-offered", "it offers: --mediated")
    with pytest.raises(UsageError) as nothing:
        flows.choose(metadata(issuer()), Wishes(), DESK)
    assert nothing.value.code == "flow-not-offered"
    assert "--workload" in str(nothing.value.hint)


def test_of_several_issuers_the_one_that_offers_it_is_meant():
    """Only where several could be meant does the user have to choose."""
    some = metadata(issuer("code"), issuer("code", "device", name="orcid"), issuer(name="ci", kinds=("workload",)))
    assert flows.issuer_for(some, None, Method.DEVICE).id == "orcid"
    with pytest.raises(UsageError) as caught:
        flows.choose(some, Wishes(), DESK)
    assert (caught.value.code, caught.value.hint) == ("several-issuers", "add --issuer, one of: campus, orcid")
    assert flows.choose(some, Wishes(issuer="orcid"), SSH) is Method.DEVICE


def test_a_browser_that_was_asked_for_is_opened(signer: HostileSigner, log_me_in: LogIn, monkeypatch: pytest.MonkeyPatch):
    """--browser opens one although none seems to work here; without it none is."""
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    log_me_in(method=Method.BROWSER, browser=Browser(timeout=10))
    assert len(opened) == 1
    log_me_in(browser=Browser(timeout=10))
    assert len(opened) == 1


@pytest.mark.parametrize(("bindings", "salted"), [(["nonce"], True), (["none"], False), (["nonce", "none"], True)])
def test_a_nonce_is_explained_only_to_who_asks(signer: HostileSigner, log_me_in: LogIn, bindings: list[str], salted: bool):
    """The salt goes along where the facility binds by nonce."""
    signer.offers = {"bindings": bindings}
    log_me_in()
    assert ("salt" in signer.proofs[0]) is salted


def test_the_situation_of_this_process(monkeypatch: pytest.MonkeyPatch):
    """SSH and the absence of a terminal are seen; the host is called something."""
    monkeypatch.setenv("SSH_TTY", "/dev/pts/1")
    monkeypatch.setattr(sys, "stdin", None)
    found = here()
    assert (found.remote, found.window, found.terminal) == (True, False, False)
    assert 0 < len(found.host) <= 64
    assert found.host.isprintable()


def test_an_approval_that_is_pending_is_said(signer: HostileSigner, log_me_in: LogIn):
    """What the facility's admins still have to do reaches the user with its hint; so does a missing invitation."""
    from certauth.errors import Refused
    from tests.simulator.hostile_signer import problem

    for code in ("approval-pending", "invite-required"):
        answer: Any = problem(403, code, "not yet", hint="ask", retry_after=3600)
        signer.lies["/v1/certificates"] = lambda _, answer=answer: answer
        with pytest.raises(Refused) as caught:
            log_me_in()
        assert (caught.value.code, caught.value.hint, caught.value.retry_after) == (code, "ask", 3600)


def test_the_trust_domain_that_was_named_is_checked(signer: HostileSigner, log_me_in: LogIn):
    """A signer of another facility than the user named gets no proof."""
    from certauth.errors import AnswerError

    assert log_me_in(domain=TrustDomain.parse("hostile.example"))
    with pytest.raises(AnswerError) as caught:
        log_me_in(domain=TrustDomain.parse("als.example"))
    assert caught.value.code == "wrong-signer"
    assert len(signer.proofs) == 1
