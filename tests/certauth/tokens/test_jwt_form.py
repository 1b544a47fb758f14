"""Tokens as JWTs: what the live service makes of them is in ``tests/signer/test_oauth.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certauth.errors import KeyMaterialError
from certauth.keys import Algorithm, generate
from certauth.tokens import Right, TokenSpec
from certauth.tokens.jwt_form import mint_jwt, scopes_of

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.mark.parametrize("algorithm", [Algorithm.ED25519, Algorithm.P384])
def test_only_a_p256_key_signs(algorithm: Algorithm) -> None:
    """ES256 is what every library verifies; another key would make a token that says ES256 and is not."""
    spec = TokenSpec(
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
    with pytest.raises(KeyMaterialError) as caught:
        mint_jwt(spec, generate(algorithm), kid="k", issuer="https://signer.example", client=spec.user)
    assert caught.value.code == "bad-key"


def test_a_right_to_everything_is_the_root_and_one_to_a_path_no_scope() -> None:
    """A scope reaches below its path, so only subtrees have one."""
    rights = (Right("data", "read", "/"), Right("data", "write", "/data/run7/"), Right("data", "delete", "/data/x"))
    assert scopes_of(rights) == ["read:/", "write:/data/run7"]
