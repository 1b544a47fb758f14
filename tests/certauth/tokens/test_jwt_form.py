"""Tokens as JWTs: what the live service makes of them is in ``tests/signer/test_oauth.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certauth.errors import KeyMaterialError
from certauth.keys import Algorithm, PublicKey, generate
from certauth.tokens import Right, TokenSpec
from certauth.tokens.jwt_form import mint_jwt, scopes_of

NOW = datetime(2026, 5, 4, tzinfo=UTC)
SPEC = TokenSpec(
    issuer="spiffe://als.example",
    jti="0" * 32,
    user="spiffe://als.example/user/alice",
    issued_at=NOW,
    not_before=NOW,
    expires_at=NOW + timedelta(hours=1),
    audience=("data",),
    rights=(Right("data", "read", "/data/"),),
    peer_fingerprint="a" * 64,
)


@pytest.mark.parametrize("algorithm", [Algorithm.ED25519, Algorithm.P384])
def test_only_a_p256_key_signs(algorithm: Algorithm) -> None:
    """ES256 is what every library verifies; another key would make a token that says ES256 and is not."""
    with pytest.raises(KeyMaterialError) as caught:
        mint_jwt(SPEC, generate(algorithm), kid="k", issuer="https://signer.example", client=SPEC.user)
    assert caught.value.code == "bad-key"


class Faulty:
    """A device that signs something else, with a key that is good or with one that is not its own, or makes no signature."""

    algorithm = Algorithm.P256

    def __init__(self, fault: str) -> None:
        self._fault, self._key = fault, generate(Algorithm.P256)

    @property
    def public_key(self) -> PublicKey:
        return generate(Algorithm.P256).public_key if self._fault == "another key" else self._key.public_key

    def sign(self, message: bytes) -> bytes:
        return b"\x30\x00" if self._fault == "no signature" else self._key.sign(message + b"x" * (self._fault == "other bytes"))


@pytest.mark.parametrize("fault", ["other bytes", "another key", "no signature"])
def test_a_signature_that_does_not_verify_is_not_released(fault: str) -> None:
    """A faulty device must not be made to reveal its key, and no service would take the token."""
    with pytest.raises(KeyMaterialError) as caught:
        mint_jwt(SPEC, Faulty(fault), kid="k", issuer="https://signer.example", client=SPEC.user)
    assert caught.value.code == "bad-key"
    assert mint_jwt(SPEC, Faulty(""), kid="k", issuer="https://signer.example", client=SPEC.user)


def test_a_right_to_everything_is_the_root_and_one_to_a_path_no_scope() -> None:
    """A scope reaches below its path, so only subtrees have one."""
    rights = (Right("data", "read", "/"), Right("data", "write", "/data/run7/"), Right("data", "delete", "/data/x"))
    assert scopes_of(rights) == ["read:/", "write:/data/run7"]
