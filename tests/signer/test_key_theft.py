"""Stolen keys at the signer itself, and JWTs over a change of keys: independent libraries verify, thieves get nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
import structlog.testing
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet as JoserfcKeys

from certauth.clock import whole_seconds
from certauth.keys import SoftwareKey, load_private
from certauth.tokens import Narrowing, Right, TokenSpec, attenuate, from_text, mint, to_text
from signer import authority, key_ring, minting, withdrawals
from signer.oauth import ACCESS_TOKEN, EXCHANGE, JWT
from tests.signer.kit import DOMAIN, Identity, Site, facility, run_cli


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A facility that serves, makes JWTs for one service, and looks for changes at every request."""
    monkeypatch.setattr(key_ring, "_RECHECK", 0.0)
    monkeypatch.setattr(withdrawals, "_RECHECK", timedelta(0))
    with facility(tmp_path) as made:
        text = made.settings_file.read_text()
        made.settings_file.write_text(f'jwt_services = ["data"]\n{text}')
        made.enroll("alice", "data:read,write:/alice/")
        made.enroll("mallory", "data:read:/mallory/")
        with made.serving():
            yield made


def key(site: Site, *arguments: str) -> dict[str, Any]:
    """``certauth signer key …``."""
    return run_cli(
        "key", *arguments, *(() if arguments == ("list",) else ("--reason", "stolen")), "--settings", site.settings_file
    )


def active(site: Site, use: str) -> str:
    """The id of the key that signs."""
    return next(str(one["kid"]) for one in key(site, "list")["keys"] if (one["use"], one["state"]) == (use, "active"))


def stolen(site: Site, use: str = "token") -> SoftwareKey:
    """A copy of a private key, as a thief has it who found file and passphrase."""
    passphrase = authority.read_passphrase(site.settings, {})
    found = sorted((site.directory / "keys").glob(f"{use}*.pem"))
    return load_private(found[-1], passphrase=passphrase)


def forged(site: Site, key_of_facility: SoftwareKey, holder: Identity, *, user: str, jti: str = "f0" * 16) -> str:
    """What a thief makes of a stolen key: a token of ``user`` for the thief's own certificate."""
    now = whole_seconds(site.clock())
    spec = TokenSpec(
        issuer=f"spiffe://{DOMAIN}",
        jti=jti,
        user=f"spiffe://{DOMAIN}/user/{user}",
        issued_at=now,
        not_before=now,
        expires_at=now + timedelta(hours=8),
        audience=("data",),
        rights=(Right("data", "write", "/alice/"),),
        assurance=2,
        peer_fingerprint=holder.fingerprint,
    )
    return to_text(mint(spec, key_of_facility))


def post(site: Site, who: Identity | None, path: str, **form: str) -> tuple[int, Any]:
    """What a form leads to."""
    with site.client(who) as client:
        answer = client.post(path, data=form)
    return answer.status_code, answer.json()


def jwt(site: Site, who: Identity) -> str:
    """A token in JWT form."""
    form = {"grant_type": "client_credentials", "audience": "data", "requested_token_type": JWT}
    status, answer = post(site, who, "/token", **form)
    assert status == 200, answer
    return str(answer["access_token"])


def exchanged(site: Site, who: Identity, subject: str, form: str) -> tuple[int, Any]:
    """What a token is exchanged for."""
    wanted = {"grant_type": EXCHANGE, "audience": "data", "requested_token_type": form, "subject_token_type": ACCESS_TOKEN}
    return post(site, who, "/token", subject_token=subject, **wanted)


def live(site: Site, who: Identity, text: str) -> bool:
    """Whether introspection calls the token active."""
    status, answer = post(site, who, "/introspect", token=text)
    assert status == 200
    return bool(answer["active"])


def jwks(site: Site) -> dict[str, Any]:
    """The published JWK set."""
    with site.client() as client:
        return dict(client.get("/.well-known/jwks.json").json())


def verified(site: Site, text: str) -> bool:
    """Whether two independent libraries verify it with what is published now; they must agree."""
    published = jwks(site)
    try:
        joserfc_jwt.decode(text, JoserfcKeys.import_key_set(published), algorithms=["ES256"])
        theirs = True
    except (JoseError, ValueError):
        theirs = False
    kid = pyjwt.get_unverified_header(text)["kid"]
    keys = [one for one in pyjwt.PyJWKSet.from_dict(published).keys if one.key_id == kid]
    for one in keys:
        pyjwt.decode(text, one, algorithms=["ES256"], audience="data", issuer=site.url)
    assert theirs is bool(keys)
    return theirs


def test_libraries_verify_jwts_over_a_change_of_keys(site: Site) -> None:
    """Old and new ones, from before the change until the old key is retired, with nothing but the published set."""
    alice = site.log_in("alice")
    old = jwt(site, alice)
    key(site, "prepare", "jwt")
    assert [one["kid"] == active(site, "jwt") for one in jwks(site)["keys"]] == [True, False]
    assert verified(site, old)
    former = active(site, "jwt")
    key(site, "activate", "jwt", "--now")
    new = jwt(site, alice)
    assert pyjwt.get_unverified_header(new)["kid"] == active(site, "jwt") != former
    assert all(verified(site, text) and live(site, alice, text) for text in (old, new))
    key(site, "retire", former, "--force")
    assert [(verified(site, text), live(site, alice, text)) for text in (old, new)] == [(False, False), (True, True)]


@pytest.mark.parametrize("state", ["active", "retired"])
def test_a_tainted_jwt_key_is_gone_at_once(site: Site, state: str) -> None:
    """It leaves the set, what it signed is inactive, and another signs."""
    alice, stolen_kid = site.log_in("alice"), active(site, "jwt")
    old = jwt(site, alice)
    assert live(site, alice, old)
    if state == "retired":
        key(site, "prepare", "jwt")
        key(site, "activate", "jwt", "--now")
    key(site, "taint", stolen_kid)
    assert stolen_kid not in [one["kid"] for one in jwks(site)["keys"]]
    new = jwt(site, alice)
    assert [(verified(site, text), live(site, alice, text)) for text in (old, new)] == [(False, False), (True, True)]


def test_a_tainted_key_at_introspection_and_exchange(site: Site) -> None:
    """Its biscuits are inactive and are exchanged for nothing; those of its successor are and do."""
    alice = site.log_in("alice")
    old = post(site, alice, "/token", grant_type="client_credentials", audience="data")[1]["access_token"]
    assert live(site, alice, old)
    assert exchanged(site, alice, old, JWT)[0] == 200
    key(site, "taint", active(site, "token"))
    assert not live(site, alice, old)
    status, answer = exchanged(site, alice, old, JWT)
    assert (status, answer["code"]) == (400, "not-exchangeable")
    new = post(site, alice, "/token", grant_type="client_credentials", audience="data")[1]["access_token"]
    assert live(site, alice, new)
    assert exchanged(site, alice, new, JWT)[0] == 200


def test_what_was_exchanged_ends_with_the_stolen_key(site: Site) -> None:
    """A JWT that was made from a biscuit ends with the key of the biscuit, even if that was honest."""
    alice = site.log_in("alice")
    biscuit = post(site, alice, "/token", grant_type="client_credentials", audience="data")[1]["access_token"]
    status, answer = exchanged(site, alice, biscuit, JWT)
    assert status == 200
    honest = jwt(site, alice)
    assert live(site, alice, answer["access_token"])
    key(site, "taint", active(site, "token"))
    assert not live(site, alice, answer["access_token"])
    assert verified(site, honest), "the key for JWTs was not stolen"
    assert live(site, alice, honest)


def test_what_a_stolen_key_makes_is_no_token_of_ours(site: Site) -> None:
    """Nobody has noticed the theft: a forgery verifies, but the log has no record of it, whosever id it borrows."""
    mallory, alice = site.log_in("mallory"), site.log_in("alice")
    thief = stolen(site)
    genuine = post(site, mallory, "/token", grant_type="client_credentials", audience="data")[1]
    in_jwt_form = exchanged(site, mallory, genuine["access_token"], JWT)[1]
    forgeries = [
        (mallory, forged(site, thief, mallory, user="alice")),
        (alice, forged(site, thief, alice, user="alice")),
        (mallory, forged(site, thief, mallory, user="mallory", jti=genuine["jti"])),
        (mallory, forged(site, thief, mallory, user="mallory", jti=in_jwt_form["jti"])),
    ]
    for holder, forgery in forgeries:
        with structlog.testing.capture_logs() as logged:
            assert not live(site, holder, forgery)
            status, answer = exchanged(site, holder, forgery, JWT)
        assert (status, answer["error"], answer["code"]) == (400, "invalid_request", "not-exchangeable")
        digest = hashlib.sha256(from_text(forgery)).hexdigest()
        warnings = [entry for entry in logged if entry["event"] == "token.unknown"]
        assert [entry["token"] for entry in warnings] == [digest, digest]
        assert forgery not in repr(logged)
    narrowed = attenuate(genuine["access_token"], Narrowing(operations=("read",)))
    for text in (genuine["access_token"], narrowed):
        assert live(site, mallory, text)
        assert exchanged(site, mallory, text, JWT)[0] == 200


def test_a_forged_biscuit_is_not_exchanged_for_a_genuine_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be signed by the next key and outlive the stolen one; so nothing hangs on the record of the log alone."""
    monkeypatch.setattr(minting, "was_minted", lambda *_: True)
    mallory, alice = site.log_in("mallory"), site.log_in("alice")
    thief = stolen(site)
    key(site, "prepare", "token")
    key(site, "activate", "token", "--now")  # the stolen key still verifies, and another one signs
    status, answer = exchanged(site, mallory, forged(site, thief, mallory, user="alice"), ACCESS_TOKEN)
    assert (status, answer["code"]) == (400, "not-exchangeable")
    own = forged(site, thief, alice, user="alice")
    assert exchanged(site, alice, own, ACCESS_TOKEN)[0] == 200
