"""Tokens from the user's side: minting and revoking over mutual TLS, and the lies that must not be believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from certauth.audit import record
from certauth.client.tokens import Minted, Revocation, mint, revoke
from certauth.clock import system_clock
from certauth.errors import AnswerError, LogError, LoginRequired, Refused, TokenError
from certauth.keys import Algorithm, generate
from certauth.requests import Right
from certauth.tokens import attenuate, block_ids, from_text
from tests.simulator.hostile_signer import HostileSigner, Raw, problem

LogIn = Callable[..., Any]
TOKENS = "/v1/tokens"
REVOCATIONS = "/v1/revocations"


@pytest.fixture
def done(log_me_in: LogIn) -> Any:
    """A finished login."""
    return log_me_in()


def get(done: Any, **wishes: Any) -> Minted:
    """Mint a token for the service data."""
    given: dict[str, Any] = {"audience": "data", "rights": None, "lifetime": None, "delegations": 1, "name": "t", "ca": None}
    return mint(done.profile, **(given | wishes), clock=system_clock)


def test_a_token_is_minted_with_the_certificate_and_stored(signer: HostileSigner, done: Any):
    """The request shows the user's certificate; the token and its receipt are stored after they were checked."""
    minted = get(done, rights=(Right.make("read", "/data/"),), lifetime=timedelta(minutes=5))
    assert signer.peers[-1] == done.credential.fingerprint
    body = json.loads(signer.seen[-1][3])
    assert {name: body[name] for name in ("audience", "rights", "lifetime", "delegations")} == {
        "audience": "data",
        "rights": [{"operation": "read", "path": "/data/"}],
        "lifetime": 300,
        "delegations": 1,
    }
    assert minted.token.user == signer.subject_uri
    assert minted.token.peer_fingerprint == done.credential.fingerprint
    assert done.profile.token("t") == minted.path.read_text().strip()
    assert (done.profile.directory / "receipts" / f"token-{minted.token.jti}.json").exists()


def test_without_wishes_everything_is_asked_for(signer: HostileSigner, done: Any):
    """No rights named means all of them; the other members are left out."""
    minted = get(done, delegations=0)
    body = json.loads(signer.seen[-1][3])
    assert set(body) == {"audience", "delegations", "request_id"}
    assert body["delegations"] == 0
    assert not minted.token.delegable


def test_a_chain_of_delegations_is_asked_for(signer: HostileSigner, done: Any):
    """How many times it may be handed on is sent as it is."""
    get(done, delegations=3)
    body = json.loads(signer.seen[-1][3])
    assert body["delegations"] == 3


def test_each_attempt_has_its_own_id(signer: HostileSigner, done: Any):
    """A signer keeps no token to answer again, so a lost one is asked for under a new id."""
    lies = [Raw(hang_up="before")]
    signer.lies[TOKENS] = lambda answer: lies.pop() if lies else answer
    get(done)
    ids = [json.loads(body)["request_id"] for _, path, _, body in signer.seen if path == TOKENS]
    assert len(ids) == len(set(ids)) == 2


def test_a_cut_wish_is_reported(signer: HostileSigner, done: Any):
    """How a lifetime was cut reaches the user."""
    signer.lies[TOKENS] = lambda answer: answer | {"clamped": {"message": "cut"}}
    assert get(done).clamped == {"message": "cut"}


def test_an_expired_certificate_asks_nobody(signer: HostileSigner, done: Any):
    """Without a valid certificate no request leaves, and the login command is named."""
    before = len(signer.seen)

    def tomorrow() -> datetime:
        return datetime.now(UTC) + timedelta(hours=9)

    with pytest.raises(LoginRequired):
        mint(
            done.profile,
            audience="data",
            rights=None,
            lifetime=None,
            delegations=1,
            name="t",
            ca=None,
            clock=tomorrow,
        )
    with pytest.raises(LoginRequired):
        revoke(done.profile, Revocation.whole("ab" * 16), reason="x", ca=None, clock=tomorrow)
    assert len(signer.seen) == before


def own_leaf(done: Any) -> x509.Certificate:
    """The certificate of the login."""
    leaf = done.credential.leaf
    assert isinstance(leaf, x509.Certificate)
    return leaf


def test_what_a_signer_must_not_pass_off_as_our_token(signer: HostileSigner, done: Any):
    """Another user's token, one for another certificate, one of a foreign key, or of nothing at all, is not stored."""
    body = {"audience": "data", "delegations": 1, "request_id": "x"}
    other = signer.leaf(generate(Algorithm.P256).public_key)
    attacks: list[tuple[Any, type[Exception], str]] = [
        (signer.token(body, own_leaf(done), user="spiffe://hostile.example/user/bob"), AnswerError, "wrong-token"),
        (signer.token(body, other), AnswerError, "wrong-token"),
        (signer.token(body | {"audience": "other"}, own_leaf(done)), AnswerError, "wrong-token"),
        (signer.token(body, own_leaf(done), key=generate(Algorithm.ED25519)), TokenError, "token-unknown-key"),
        ({"token": "!"}, TokenError, "token-malformed"),
        ({"token": "x" * 20_000}, AnswerError, "bad-answer"),
        ({}, AnswerError, "bad-answer"),
    ]
    for answer, kind, code in attacks:
        signer.lies[TOKENS] = lambda _, answer=answer: answer
        with pytest.raises(kind) as caught:
            get(done)
        assert getattr(caught.value, "code", None) == code
    assert done.profile.token("t") is None


def test_a_receipt_for_another_token_is_refused(signer: HostileSigner, done: Any):
    """The receipt must record this very token, and must hold."""
    body = {"audience": "data", "delegations": 1, "request_id": "x"}
    honest = signer.token(body, own_leaf(done))
    second = signer.token(body, own_leaf(done))
    elsewhere = signer.token(body, signer.leaf(generate(Algorithm.P256).public_key))
    certificate = signer.receipt(signer.certificate_event(own_leaf(done), b"")).to_dict()
    attacks = [
        (honest | {"receipt": second["receipt"]}, "wrong-receipt"),
        (honest | {"receipt": elsewhere["receipt"]}, "wrong-receipt"),
        (honest | {"receipt": certificate}, "wrong-receipt"),
        (honest | {"receipt": {}}, "receipt-malformed"),
    ]
    for answer, code in attacks:
        signer.lies[TOKENS] = lambda _, answer=answer: answer
        with pytest.raises((AnswerError, LogError)) as caught:
            get(done)
        assert caught.value.code == code
    signer.lies[TOKENS] = lambda _: honest
    assert get(done).token.jti == honest["jti"]


def test_a_refusal_is_passed_on(signer: HostileSigner, done: Any):
    """A signer's no keeps its code; nothing is stored."""
    signer.lies[TOKENS] = lambda _: problem(403, "right-not-held", "not yours")
    with pytest.raises(Refused):
        get(done)
    assert done.profile.token_names() == []


def recorded(signer: HostileSigner, **changes: Any) -> None:
    """Let the signer record what it is asked to revoke, with ``changes`` to the record."""

    def answer(_: object) -> object:
        body = json.loads(signer.seen[-1][3])
        given = {"credential": body["kind"], "value": body["value"], "reason": body["reason"], "by": signer.subject_uri}
        return {"receipt": signer.receipt(record.CredentialRevoked(**(given | changes))).to_dict()}

    signer.lies[REVOCATIONS] = answer


def test_a_revocation_is_proved_by_its_receipt(signer: HostileSigner, done: Any):
    """What the signer recorded is compared with what was asked; a receipt for another value, or kind, revokes nothing."""
    minted = get(done)
    text = minted.path.read_text().strip()
    sub = attenuate(text, expires_in=timedelta(minutes=5))
    recorded(signer)
    done.profile.store_token("sub", sub)
    gone = revoke(done.profile, Revocation.only_this(sub), reason="lost", ca=None, clock=system_clock)
    body = json.loads(signer.seen[-1][3])
    assert (body["kind"], body["value"], body["token"]) == ("block", block_ids(from_text(sub))[1], sub)
    assert (gone.forgotten, done.profile.token_names()) == (("sub",), ["t"])
    for lie in ({"value": "cd" * 16}, {"credential": "block"}):
        recorded(signer, **lie)
        with pytest.raises(AnswerError) as caught:
            revoke(done.profile, Revocation.whole(minted.token.jti), reason="lost", ca=None, clock=system_clock)
        assert caught.value.code == "wrong-receipt"
    assert done.profile.token_names() == ["t"]
    recorded(signer)
    gone = revoke(done.profile, Revocation.whole(minted.token.jti), reason="lost", ca=None, clock=system_clock)
    assert (gone.forgotten, done.profile.token_names()) == (("t",), [])


def test_the_token_that_is_shown_is_not_in_a_repr(done: Any):
    """A revocation of a sub-token carries its text, which no log line should."""
    text = get(done).path.read_text().strip()
    assert text not in repr(Revocation.only_this(text))
