"""What verifying an identity proof costs, beside the library that supplies its signature primitive.

``verify_id_token`` with every check of ``certauth.identity`` (keys parsed beforehand, as the key source keeps them) runs
interleaved with a bare ``jwt.decode`` of the same token, key object, audience and issuer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import jwt

from certauth.identity import BoundKey, Issuer, KeySet, read_proof, verify_id_token
from tests.simulator.hostile_provider import ProviderKey, jwks

_RUNS = 11
_CALLS = 400
_RATIO_BAR = 0.5  # at least half as many proofs per second as bare PyJWT (design §11)
_CPU_BAR = 500.0  # microseconds: at least 2000 proofs a second on one core


def measurements() -> Iterator[dict[str, object]]:
    """For ES256 and RS256: verified proofs per second as a share of bare PyJWT's, and CPU time of one."""
    for alg in ("ES256", "RS256"):
        ours, bare = _contestants(alg)
        ratios, costs = [], []
        for _ in range(_RUNS):
            mine, theirs = _cpu_seconds(ours), _cpu_seconds(bare)
            ratios.append(theirs / mine)
            costs.append(mine / _CALLS * 1e6)
        ratio, cost = statistics.median(ratios), statistics.median(costs)
        name, versus = f"proof-{alg.lower()}", f"bare PyJWT {jwt.__version__} decode, same run"
        yield _result(f"{name}-rate", ratio, "x", _RATIO_BAR, holds=ratio >= _RATIO_BAR, versus=versus)
        yield _result(f"{name}-cpu", cost, "us", _CPU_BAR, holds=cost <= _CPU_BAR, versus="2000 proofs per second and core")


def _contestants(alg: str) -> tuple[Callable[[], object], Callable[[], object]]:
    now = datetime.now(UTC)
    t = int(now.timestamp())
    bound = BoundKey(signer_id="https://signer.example", spki=b"key", salt=bytes(16))
    claims = {
        "iss": "https://idp.example/realms/lab",
        "sub": "f:5c2f1b2e-7a52-4d0e-8a63-0c8a1f5f2b11:alice",
        "aud": "signer-lab",
        "iat": t,
        "exp": t + 600,
        "auth_time": t,
        "nonce": bound.nonce(),
        "acr": "https://refeds.org/profile/mfa",
        "amr": ["pwd", "otp"],
        "name": "Alice Liddell",
        "email": "alice@lab.example",
        "email_verified": True,
        "groups": [f"beamline-{number}" for number in range(12)],
    }
    key = ProviderKey(alg)
    token, keys, public = key.sign(claims), KeySet.parse(jwks(key)), key.private.public_key()
    issuer = Issuer(id="lab", url="https://idp.example/realms/lab", audience="signer-lab")

    def ours() -> object:
        return verify_id_token(read_proof(token), issuer=issuer, keys=keys, key=bound, now=now)

    def bare() -> object:
        return jwt.decode(token, public, algorithms=["RS256", "ES256"], audience=issuer.audience, issuer=issuer.url)

    return ours, bare


def _cpu_seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    for _ in range(_CALLS):
        call()
    return time.process_time() - begin


def _result(name: str, value: float, unit: str, bar: float, *, holds: bool, versus: str) -> dict[str, object]:
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds, "runs": _RUNS, "versus": versus}
