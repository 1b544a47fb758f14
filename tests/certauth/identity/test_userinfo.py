"""Userinfo adds to what a token proved; it changes nothing of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certauth.identity import with_userinfo
from tests.certauth.identity.kit import ID_TOKEN, LOGINS, T, id_token, refusal, signed

SUB = "248289761001"
TRUSTED = replace(LOGINS, email_verified="trusted")


def test_claims_of_the_person_are_added() -> None:
    """Groups, name and a verified address come along; the token's own claims stay."""
    identity = id_token(signed(ID_TOKEN, groups=["a"]))
    answer = {"sub": SUB, "name": "Alice", "groups": ["admin"], "email": "a@b.example", "email_verified": True, "org": "als"}
    richer = with_userinfo(identity, answer, issuer=LOGINS)
    assert (richer.name, richer.email) == ("Alice", "a@b.example")
    assert (richer.claims["groups"], richer.claims["org"]) == (["a"], "als")
    assert replace(richer, name=None, email=None, claims=identity.claims) == identity


@pytest.mark.parametrize("sub", ["another", "", None, 248289761001, [SUB], SUB + " "])
def test_an_answer_about_somebody_else(sub: object) -> None:
    """Nothing of it is used (OpenID Connect Core §5.3.2)."""
    identity = id_token(signed(ID_TOKEN))
    assert refusal(lambda: with_userinfo(identity, {"sub": sub, "groups": ["admin"]}, issuer=LOGINS)) == "userinfo-mismatch"
    assert refusal(lambda: with_userinfo(identity, {"groups": ["admin"]}, issuer=LOGINS)) == "userinfo-mismatch"


def test_userinfo_says_nothing_about_the_login() -> None:
    """Strength, time, audience and binding are what the token says, also where it says nothing."""
    identity = id_token(signed(ID_TOKEN, amr=..., auth_time=...))
    answer = {"sub": SUB, "acr": "mfa", "amr": ["otp"], "auth_time": T, "cnf": {}, "aud": "x", "client_id": "x", "scope": "x"}
    richer = with_userinfo(identity, answer, issuer=LOGINS)
    assert (richer.acr, richer.amr, richer.auth_time) == (None, (), None)
    assert richer.claims == identity.claims


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        pytest.param({"email_verified": True}, {"email": "root@lab.example"}, id="the token's word, userinfo's address"),
        pytest.param({"email": "root@lab.example"}, {"email_verified": True}, id="userinfo's word, the token's address"),
        pytest.param(
            {"email": "root@lab.example", "email_verified": False},
            {"email": "me@free.example", "email_verified": True},
            id="the token is against it",
        ),
        pytest.param({}, {"email": "root@lab.example"}, id="nobody's word"),
        pytest.param({}, {"email": "root@lab.example", "email_verified": False}, id="userinfo is against it"),
    ],
)
def test_an_address_and_its_verification_come_from_one_document(token: dict[str, object], answer: dict[str, object]) -> None:
    """The address of one document with the flag of the other is nobody's statement (Keycloak CVE-2026-14781)."""
    identity = id_token(signed(ID_TOKEN, **token))
    assert with_userinfo(identity, {"sub": SUB, **answer}, issuer=LOGINS).email is None


def test_a_trusted_issuer_may_leave_the_flag_out() -> None:
    """As in a token."""
    identity = id_token(signed(ID_TOKEN), by=TRUSTED)
    assert with_userinfo(identity, {"sub": SUB, "email": "a@b.example"}, issuer=TRUSTED).email == "a@b.example"
