"""ID tokens: what ties one to a key, and what an unbound one may be. The other checks are in ``test_proof``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from certauth import keys
from certauth.identity import Binding, BoundKey, Issuer, ProofKind
from certauth.identity.binding import jwk_thumbprint
from certauth.keys import Algorithm, generate
from tests.certauth.identity.kit import (
    ID_TOKEN,
    KEY,
    LOGINS,
    NOW,
    SALT,
    SALTED,
    SIGNER,
    STOLEN_BY,
    THIEF,
    T,
    id_token,
    issuer,
    refusal,
    signed,
)
from tests.simulator.hostile_provider import ProviderKey

MY_KEY = ProviderKey("ES256", None)  # with a JWK, for cnf.jwk
MY_SPKI = keys.spki(MY_KEY.private.public_key())
CNF_KEY = BoundKey(signer_id=SIGNER, spki=MY_SPKI)
JKT = CNF_KEY.thumbprint()
NAMED = {**ID_TOKEN, "nonce": ..., "cnf": {"jkt": JKT}}


def unbound(**changes: object) -> Issuer:
    """The provider, also believed without any binding."""
    bindings = {Binding.NONCE, Binding.CNF, Binding.NONE}
    return issuer(ProofKind.ID_TOKEN, bindings=bindings, **{"assurance": 1, **changes})


# --- nonce ----------------------------------------------------------------------------------------------------------


def test_a_login_with_our_nonce_is_bound() -> None:
    """With the salt of the login, the nonce is what binds."""
    identity = id_token(signed(ID_TOKEN))
    assert (identity.kind, identity.binding, identity.assurance) == (ProofKind.ID_TOKEN, Binding.NONCE, 2)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(replace(SALTED, spki=STOLEN_BY), id="the thief's key"),
        pytest.param(replace(SALTED, salt=SALT[::-1]), id="another salt"),
        pytest.param(replace(SALTED, salt=SALT + b"x"), id="a longer salt"),
        pytest.param(replace(SALTED, salt=b""), id="an empty salt"),
        pytest.param(replace(SALTED, signer_id="https://signer.partner.example:8443"), id="another facility's signer"),
        pytest.param(KEY, id="no salt"),
        pytest.param(THIEF, id="the thief's key, no salt"),
    ],
)
def test_a_stolen_login_is_worth_nothing_to_another_key(key: BoundKey) -> None:
    """Whatever differs from the login - key, salt, signer - the token is refused."""
    assert refusal(lambda: id_token(signed(ID_TOKEN), key=key)) == "key-not-bound"


# --- cnf ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", ["JWT", ..., "dpop+id_token", "application/dpop+id_token", "DPoP+ID_Token"])
@pytest.mark.parametrize("cnf", [{"jkt": JKT}, {"jwk": MY_KEY.jwk}, {"jwk": MY_KEY.jwk, "jkt": JKT}, {"jkt": JKT, "x": 1}])
def test_a_login_that_names_our_key_is_bound(typ: object, cnf: dict[str, object]) -> None:
    """``cnf`` with the key or its thumbprint binds without a nonce (OpenID Connect Key Binding)."""
    assert id_token(signed(NAMED, typ=typ, cnf=cnf), key=CNF_KEY).binding is Binding.CNF


@pytest.mark.parametrize(
    "cnf",
    [
        pytest.param({"jkt": THIEF.thumbprint()}, id="the thief's thumbprint"),
        pytest.param({"jwk": ProviderKey("ES256").jwk}, id="another key"),
        pytest.param({"jkt": JKT, "jwk": ProviderKey("ES256").jwk}, id="our thumbprint, another key"),
        pytest.param({"jkt": THIEF.thumbprint(), "jwk": MY_KEY.jwk}, id="our key, another thumbprint"),
        pytest.param({"jkt": ""}, id="an empty thumbprint"),
        pytest.param({"jkt": None}, id="a null thumbprint"),
        pytest.param({"jkt": [JKT]}, id="a list of thumbprints"),
        pytest.param({"jkt": JKT[:-1]}, id="a shorter thumbprint"),
        pytest.param({"jkt": JKT + "="}, id="a padded thumbprint"),
        pytest.param({"jkt": "é" * 43}, id="a thumbprint beyond ASCII"),
        pytest.param({"jwk": None}, id="a null key"),
        pytest.param({"jwk": {**MY_KEY.jwk, "d": "AA"}}, id="our key with a secret member"),
        pytest.param({"jwk": {**MY_KEY.jwk, "kty": "oct"}}, id="a key of no kind"),
        pytest.param({"jwk": {**MY_KEY.jwk, "x": 5}}, id="a coordinate that is a number"),
        pytest.param({"kid": "key-1"}, id="a key id, which names nothing"),
        pytest.param({"x5t#S256": JKT}, id="a certificate's thumbprint"),
        pytest.param({}, id="nothing"),
        pytest.param(None, id="null"),
        pytest.param(JKT, id="a text"),
        pytest.param([JKT], id="a list"),
    ],
)
def test_a_cnf_that_does_not_name_our_key(cnf: object) -> None:
    """A ``cnf`` for another key is refused: alone, beside a nonce that matches, and where unbound logins are accepted."""
    assert refusal(lambda: id_token(signed(NAMED, cnf=cnf), key=CNF_KEY)) == "key-not-bound"
    salted = replace(CNF_KEY, salt=SALT)
    nonce = salted.nonce()
    assert id_token(signed(NAMED, nonce=nonce), key=salted).binding is Binding.NONCE
    assert refusal(lambda: id_token(signed(NAMED, nonce=nonce, cnf=cnf), key=salted)) == "key-not-bound"
    assert refusal(lambda: id_token(signed(NAMED, cnf=cnf), key=CNF_KEY, by=unbound())) == "key-not-bound"


def test_a_wrong_nonce_is_refused_even_beside_a_cnf_that_matches() -> None:
    """Every tie that is claimed must hold."""
    assert refusal(lambda: id_token(signed(NAMED, nonce="x"), key=replace(CNF_KEY, salt=SALT))) == "key-not-bound"


def test_a_key_bound_token_without_a_key() -> None:
    """``dpop+id_token`` promises a ``cnf``; without one it is refused, whatever its nonce."""
    assert refusal(lambda: id_token(signed(ID_TOKEN, typ="dpop+id_token"))) == "key-not-bound"


def test_only_the_bindings_of_the_issuer_count() -> None:
    """A ``cnf`` where only nonces bind, and a nonce where only ``cnf`` binds: refused."""
    only_nonce = issuer(ProofKind.ID_TOKEN, bindings={Binding.NONCE})
    only_cnf = issuer(ProofKind.ID_TOKEN, bindings={Binding.CNF})
    assert refusal(lambda: id_token(signed(NAMED), key=CNF_KEY, by=only_nonce)) == "key-not-bound"
    assert id_token(signed(NAMED), key=CNF_KEY, by=only_cnf).binding is Binding.CNF
    assert refusal(lambda: id_token(signed(ID_TOKEN), by=only_cnf)) == "key-not-bound"


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_kind_of_key_that_we_make_has_a_thumbprint(algorithm: Algorithm) -> None:
    """The thumbprint of a key and of its JWK are the same, whatever its kind."""
    key = BoundKey(signer_id=SIGNER, spki=keys.spki(generate(algorithm).public_key))
    assert id_token(signed(NAMED, cnf={"jkt": key.thumbprint()}), key=key).binding is Binding.CNF


# --- unbound --------------------------------------------------------------------------------------------------------

BARE = {**ID_TOKEN, "nonce": ...}


def test_an_unbound_login_needs_the_setting_and_is_worth_little() -> None:
    """Without any binding: refused by default; where allowed, an assurance of 1 at most."""
    assert refusal(lambda: id_token(signed(BARE), key=KEY)) == "key-not-bound"
    identity = id_token(signed(BARE), key=KEY, by=unbound())
    assert (identity.binding, identity.assurance) == (Binding.NONE, 1)
    assert id_token(signed(BARE), key=KEY, by=unbound(assurance=0)).assurance == 0


def test_the_assurance_of_an_unbound_login_is_capped_whatever_the_issuer_says() -> None:
    """A second line: were an entry with a higher assurance ever made, the cap still holds."""
    entry = unbound()
    object.__setattr__(entry, "assurance", 3)
    assert id_token(signed(BARE), key=KEY, by=entry).assurance == 1
    assert id_token(signed(ID_TOKEN), by=entry).assurance == 3


def test_a_bound_login_cannot_be_used_as_an_unbound_one() -> None:
    """Where both are accepted, a token made with a nonce needs its salt: leaving the salt out gains a thief nothing."""
    assert refusal(lambda: id_token(signed(ID_TOKEN), key=THIEF, by=unbound())) == "key-not-bound"
    assert refusal(lambda: id_token(signed(ID_TOKEN), key=replace(THIEF, salt=SALT), by=unbound())) == "key-not-bound"
    assert id_token(signed(ID_TOKEN), by=unbound()).binding is Binding.NONCE


def test_a_nonce_that_matches_where_only_unbound_logins_are_accepted() -> None:
    """An issuer believed without binding only: a login with our nonce is accepted, as an unbound one."""
    entry = issuer(ProofKind.ID_TOKEN, bindings={Binding.NONE}, assurance=1)
    assert id_token(signed(ID_TOKEN), by=entry).binding is Binding.NONE


@pytest.mark.parametrize(
    "marks",
    [
        {"client_id": "signer"},
        {"scp": ["openid"]},
        {"scope": "openid profile"},
        {"kubernetes.io": {"namespace": "beamline"}},
        {"repository": "lab/analysis", "job_workflow_ref": "x"},
        {"project_path": "lab/analysis"},
    ],
)
def test_an_unbound_login_must_look_like_nothing_else(marks: dict[str, object]) -> None:
    """An access token or job token with our client id as its audience, and no ``typ``, is no login (idpyoidc, GitLab)."""
    assert refusal(lambda: id_token(signed(BARE, typ=..., **marks), key=KEY, by=unbound())) == "wrong-type"


def test_a_bound_login_may_carry_such_marks() -> None:
    """The same claims do no harm beside our nonce: nothing but a login carries one."""
    assert id_token(signed(ID_TOKEN, client_id="signer", scope=["openid"])).binding is Binding.NONCE


# --- the rest -------------------------------------------------------------------------------------------------------


def test_an_issuer_that_may_not_sign_logins() -> None:
    """Where only access tokens are accepted, an ID token is not."""
    entry = issuer(ProofKind.ACCESS_TOKEN, bindings={Binding.DPOP})
    assert refusal(lambda: id_token(signed(ID_TOKEN), by=entry)) == "kind-not-allowed"


def test_a_mediated_login_is_worth_less() -> None:
    """A login led by the signer has an assurance of 2 at most, and says that it was."""
    identity = id_token(signed(ID_TOKEN), by=replace(LOGINS, assurance=3))
    assert (identity.assurance, identity.mediated) == (3, False)
    mediated = identity.as_mediated()
    assert (mediated.assurance, mediated.mediated) == (2, True)
    assert id_token(signed(BARE), key=KEY, by=unbound()).as_mediated().assurance == 1


@pytest.mark.parametrize(
    ("verified", "setting", "counts"),
    [
        (True, "required", True),
        (..., "required", False),
        (False, "required", False),
        ("true", "required", False),
        (True, "trusted", True),
        (..., "trusted", True),
        (False, "trusted", False),
        (None, "trusted", False),
        ("true", "trusted", False),
        (1, "trusted", False),
    ],
)
def test_whose_word_an_address_is(verified: object, setting: Literal["required", "trusted"], counts: bool) -> None:
    """``email`` counts with ``email_verified: true``; without a word about it only where trusted; never against it."""
    entry = replace(LOGINS, email_verified=setting)
    identity = id_token(signed(ID_TOKEN, email="alice@lab.example", email_verified=verified), by=entry)
    assert identity.email == ("alice@lab.example" if counts else None)


def test_claims_are_the_token_s_and_cannot_be_changed() -> None:
    """What the mapping reads is what was signed; it is not part of what a log would show."""
    identity = id_token(signed(ID_TOKEN, groups=["beamline-7"]))
    assert identity.claims == {**ID_TOKEN, "groups": ["beamline-7"]}
    with pytest.raises(TypeError):
        identity.claims["groups"] = []  # type: ignore[index]
    assert "beamline-7" not in repr(identity)
    assert len({identity, identity.as_mediated()}) == 2


def test_a_thumbprint_is_that_of_the_specification() -> None:
    """RFC 7638 §3.1, its own example."""
    jwk = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert jwk_thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_nothing_passes_after_its_time() -> None:
    """The window of a key-bound login is the same as any other's."""
    token = signed(NAMED, iat=T - 600, exp=T - 59)
    assert id_token(token, key=CNF_KEY).binding is Binding.CNF
    assert refusal(lambda: id_token(signed(NAMED, iat=T - 600, exp=T - 60), key=CNF_KEY)) == "proof-expired"
    assert id_token(token, key=CNF_KEY).expires_at < NOW
