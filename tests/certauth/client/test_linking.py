"""Linking a second login, from the user's side: what is sent, and what of a lying signer is not believed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from certauth.audit import record
from certauth.client import linking
from certauth.client.attempt import Method, Situation, Wishes
from certauth.client.browser import Browser
from certauth.client.linking import Linked, link_login
from certauth.client.profile import Home
from certauth.client.waiting import Screen
from certauth.clock import system_clock
from certauth.encoding import from_b64url
from certauth.errors import AnswerError, CertauthError, LogError, LoginRequired, Refused, UsageError
from certauth.identity.binding import BoundKey
from certauth.keys import Algorithm, generate, spki
from certauth.names import Principal
from certauth.requests import parse_csr
from signer.linking import RECENT, LinkBody
from signer.login_api import BeginBody
from signer.schemas import parse
from tests.certauth.client.conftest import LogIn, browse
from tests.simulator.hostile_signer import HostileSigner, problem


def answer(signer: HostileSigner, **changes: Any) -> dict[str, Any]:
    """What an honest signer says of a link, with changes to what it recorded."""
    event: dict[str, Any] = {"action": "link", "by": signer.subject_uri, "why": "w", "commitments": ()}
    event |= {"principal": Principal.parse(signer.subject_uri)} | changes
    receipt = signer.receipt(record.EnrolmentChanged(**event)).to_dict()
    return {"principal": signer.subject_uri, "issuer": f"{signer.url}/idp", "receipt": receipt}


@pytest.fixture
def links(signer: HostileSigner) -> HostileSigner:
    """A signer at which logins can be linked."""
    signer.lies["/.well-known/certauth"] = lambda said: said | {"endpoints": said["endpoints"] | {"links": "/v1/links"}}
    signer.lies["/v1/links"] = lambda _: answer(signer)
    return signer


def link(home: Home, *, later: timedelta = timedelta(0), situation: Situation | None = None, **wishes: Any) -> Linked:
    """Link, with a browser that goes on by itself."""
    wishes.setdefault("browser", Browser(enabled=False, timeout=60))
    return link_login(
        home.active(),
        Wishes(**wishes),
        clock=lambda: system_clock() + later,
        screen=Screen(tell=browse),
        situation=situation or Situation(),
    )


def stored(home: Home) -> dict[str, bytes]:
    """Every file of the home."""
    return {str(path): path.read_bytes() for path in home.directory.rglob("*") if path.is_file()}


def test_the_proof_is_for_the_certificate_that_is_there(links: HostileSigner, home: Home, log_me_in: LogIn):
    """Sent over a connection that shows the certificate, bound to its key, in a body that the signer reads; nothing changes."""
    held = log_me_in().credential
    before = stored(home)
    done = link(home)
    assert (done.issuer, done.credential.fingerprint) == ("campus", held.fingerprint)
    assert stored(home) == before
    number = next(i for i, (_, path, _, _) in enumerate(links.seen) if path == "/v1/links")
    assert links.peers[number] == held.fingerprint
    body = links.seen[number][3]
    assert parse(LinkBody, body).request_id
    sent = json.loads(body)
    assert parse_csr(sent["csr"]).spki == spki(held.key.public_key)
    nonce = BoundKey(signer_id=links.url, spki=spki(held.key.public_key), salt=from_b64url(sent["proof"]["salt"])).nonce()
    asked = [path for _, path, _, _ in links.seen if path.startswith("/idp/authorize")]
    assert f"nonce={nonce}" in asked[-1]
    assert len(asked) == 2


def test_the_signers_pages_are_told_whose_login_it_becomes(links: HostileSigner, home: Home, log_me_in: LogIn):
    """So that whoever types the code reads it; a login for a certificate says nothing of the kind."""
    log_me_in()
    links.offers = {"flows": ["mediated"]}
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        links.finish_logins()

    wishes = Wishes(method=Method.MEDIATED, browser=Browser(enabled=False, timeout=60))
    done = link_login(home.active(), wishes, clock=system_clock, screen=Screen(tell=tell), situation=Situation())
    assert done.issuer == "campus"
    begun = next(json.loads(body) for _, path, _, body in links.seen if path == "/v1/logins")
    assert begun["link"] == links.subject_uri
    assert f"link  {links.subject_uri}" in said[0]
    assert parse(BeginBody, json.dumps(begun).encode()).link == links.subject_uri


def test_a_lost_answer_is_asked_for_again_with_the_same_request(links: HostileSigner, home: Home, log_me_in: LogIn):
    """One request id, one proof."""
    log_me_in()
    answers = [problem(503, "busy", "later", retry_after=0), answer(links)]
    links.lies["/v1/links"] = lambda _: answers.pop(0)
    assert link(home).issuer == "campus"
    first, second = (body for _, path, _, body in links.seen if path == "/v1/links")
    assert first == second


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"principal": Principal.parse("spiffe://hostile.example/user/mallory")}, "wrong-receipt"),
        ({"by": "admin root"}, "wrong-receipt"),
        ({"action": "unlink"}, "wrong-receipt"),
    ],
)
def test_what_the_receipt_does_not_prove_is_not_believed(
    links: HostileSigner, home: Home, log_me_in: LogIn, changes: dict[str, Any], code: str
):
    """A signer that linked the login to somebody else, or recorded something else."""
    log_me_in()
    links.lies["/v1/links"] = lambda _: answer(links, **changes)
    with pytest.raises(AnswerError) as caught:
        link(home)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


def test_an_answer_about_somebody_else_is_not_believed(links: HostileSigner, home: Home, log_me_in: LogIn):
    """Neither another principal, nor a receipt of another log, nor none, nor that of a certificate."""
    log_me_in()
    lies: list[tuple[dict[str, Any], type[CertauthError]]] = [
        ({"principal": "spiffe://hostile.example/user/mallory"}, AnswerError),
        ({"receipt": None}, LogError),
    ]
    other = record.EnrolmentChanged(
        action="link", principal=Principal.parse(links.subject_uri), by=links.subject_uri, why="w", commitments=()
    )
    lies.append(({"receipt": links.receipt(other, key=generate(Algorithm.ED25519)).to_dict()}, LogError))
    revoked = record.CredentialRevoked(credential="jti", value="0" * 16, reason="r", by="b")
    lies.append(({"receipt": links.receipt(revoked).to_dict()}, AnswerError))
    for lie, kind in lies:
        links.lies["/v1/links"] = lambda _, lie=lie: answer(links) | lie
        with pytest.raises(kind):
            link(home)


def test_nobody_is_sent_to_a_provider_in_vain(links: HostileSigner, home: Home, log_me_in: LogIn):
    """No certificate, one that has run out, or one from a login that is too long ago: said before a browser opens."""
    log_me_in()
    links.seen.clear()
    for later, code in ((RECENT + timedelta(minutes=2), "login-not-recent"), (timedelta(days=1), "certificate-expired")):
        with pytest.raises(LoginRequired) as caught:
            link(home, later=later)
        assert caught.value.code == code
        assert str(caught.value.hint).startswith(f"certauth login {links.url}")
    home.active().forget()
    with pytest.raises(LoginRequired) as caught:
        link(home)
    assert caught.value.code == "not-logged-in"
    assert links.seen == []
    assert linking.RECENT == RECENT


def test_the_signer_says_that_the_login_is_too_long_ago(links: HostileSigner, home: Home, log_me_in: LogIn):
    """A renewed certificate is younger than its login: what the signer finds out is a matter of logging in as well."""
    log_me_in()
    links.lies["/v1/links"] = lambda _: problem(403, "login-not-recent", "too long ago")
    with pytest.raises(LoginRequired) as caught:
        link(home)
    assert "--force" in str(caught.value.hint)
    links.lies["/v1/links"] = lambda _: problem(403, "login-taken", "somebody else's", hint="ask")
    with pytest.raises(Refused) as refused:
        link(home)
    assert (refused.value.code, refused.value.hint) == ("login-taken", "ask")


def test_a_machine_has_no_logins(links: HostileSigner, home: Home, log_me_in: LogIn):
    """Neither somebody who is none, nor the proof of one."""
    log_me_in()
    for method in (Method.KEY, Method.CODE, Method.WORKLOAD):
        with pytest.raises(UsageError) as caught:
            link(home, method=method)
        assert (caught.value.code, bool(caught.value.hint)) == ("not-a-person", True)
    links.subject_uri = "spiffe://hostile.example/agent/alice.job"
    log_me_in()
    with pytest.raises(UsageError) as caught:
        link(home)
    assert (caught.value.code, bool(caught.value.hint)) == ("not-a-person", True)


def test_in_a_job_it_is_still_a_persons_login(links: HostileSigner, home: Home, log_me_in: LogIn):
    """Where a platform would vouch for the job, linking asks the person all the same."""
    log_me_in()
    links.offers = {"kinds": ["id_token", "workload"]}
    job = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{links.url}/actions/token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
    assert link(home, situation=Situation(environment=job, terminal=False)).issuer == "campus"
    assert not [path for _, path, _, _ in links.seen if path.startswith("/actions")]


def test_a_signer_without_linking(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """Said before anybody logs in anywhere."""
    log_me_in()
    signer.seen.clear()
    with pytest.raises(UsageError) as caught:
        link(home)
    assert caught.value.code == "flow-not-offered"
    assert not [path for _, path, _, _ in signer.seen if path.startswith("/idp")]
