"""What the tests of proofs share: a provider's key, a key to bind to, a thief's key, and the issuer's entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from certauth import keys
from certauth.errors import ProofError
from certauth.identity import (
    Binding,
    BoundKey,
    Issuer,
    KeySet,
    ProofKind,
    VerifiedIdentity,
    read_proof,
    verify_access_token,
    verify_id_token,
    verify_workload,
)
from certauth.keys import Algorithm, generate
from tests.simulator.hostile_provider import ProviderKey, jwks, without_ellipsis

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
T = int(NOW.timestamp())
URL = "https://idp.example"
SIGNER = "https://signer.example:8443"
SALT = bytes(range(16))
MINE, STOLEN_BY = (keys.spki(generate(Algorithm.P256).public_key) for _ in range(2))
KEY = BoundKey(signer_id=SIGNER, spki=MINE)
THIEF = BoundKey(signer_id=SIGNER, spki=STOLEN_BY)
SALTED = BoundKey(signer_id=SIGNER, spki=MINE, salt=SALT)
PUBLIC: Mapping[str, object] = {"iss": URL, "sub": "248289761001", "iat": T - 5, "exp": T + 600}

ID_TOKEN: Mapping[str, object] = {**PUBLIC, "aud": "signer", "nonce": SALTED.nonce(), "auth_time": T - 10, "amr": ["pwd"]}
ACCESS_TOKEN: Mapping[str, object] = {
    **PUBLIC,
    "aud": "https://signer.example",
    "client_id": "signer",
    "jti": "at-1",
    "scope": "openid certificates",
    "cnf": {"jkt": KEY.thumbprint()},
}
WORKLOAD: Mapping[str, object] = {**PUBLIC, "sub": "system:serviceaccount:beamline:reader", "aud": [KEY.audience()]}

provider_key = cache(ProviderKey)


def signed(claims: Mapping[str, object], *, typ: object = "JWT", **changes: object) -> str:
    """These claims with changes, genuinely signed by the provider, with this ``typ``; ``...`` leaves one out."""
    key = provider_key("ES256")
    return key.sign(without_ellipsis({**claims, **changes}), key.header(typ=typ))


def keyset() -> KeySet:
    """The provider's keys."""
    return KeySet.parse(jwks(provider_key("ES256")))


def issuer(*kinds: ProofKind, bindings: set[Binding], **changes: Any) -> Issuer:
    """The provider as a facility believes it."""
    needs = {"access_token_audience": "https://signer.example"} if ProofKind.ACCESS_TOKEN in kinds else {}
    settings = {"id": "lab", "url": URL, "audience": "signer", **needs, **changes}
    return Issuer(kinds=frozenset(kinds), bindings=frozenset(bindings), **settings)


LOGINS = issuer(ProofKind.ID_TOKEN, bindings={Binding.NONCE, Binding.CNF})
CALLS = issuer(ProofKind.ACCESS_TOKEN, bindings={Binding.DPOP})
JOBS = issuer(ProofKind.WORKLOAD, bindings={Binding.AUDIENCE})

Check = Callable[..., VerifiedIdentity]


def id_token(token: str, *, by: Issuer = LOGINS, key: BoundKey = SALTED, now: datetime = NOW) -> VerifiedIdentity:
    """Verify as an ID token."""
    return verify_id_token(read_proof(token), issuer=by, keys=keyset(), key=key, now=now)


def access_token(token: str, *, by: Issuer = CALLS, key: BoundKey = KEY, now: datetime = NOW) -> VerifiedIdentity:
    """Verify as an access token."""
    return verify_access_token(read_proof(token), issuer=by, keys=keyset(), key=key, now=now)


def workload(token: str, *, by: Issuer = JOBS, key: BoundKey = KEY, now: datetime = NOW) -> VerifiedIdentity:
    """Verify as the token of a workload."""
    return verify_workload(read_proof(token), issuer=by, keys=keyset(), key=key, now=now)


def refusal(check: Callable[[], object]) -> str:
    """The code with which it is refused; a refusal says what to do."""
    with pytest.raises(ProofError) as caught:
        check()
    assert caught.value.hint
    return caught.value.code


def later(seconds: float) -> datetime:
    """So many seconds after now."""
    return NOW + timedelta(seconds=seconds)
