"""Project Wycheproof's signature vectors, through the code that verifies proofs: nothing invalid is accepted."""

from __future__ import annotations

from collections import Counter

import pytest

from certauth.errors import ProofError
from tests.conformance.wycheproof import FILES, PACKAGE, Vector, directory, vectors

REFUSED_THOUGH_ACCEPTABLE = {"Missing NULL in the ASN encoding"}
"""RFC 8017 §9.2 (note 1) lets a verifier take it; ours does not."""


def accepts(vector: Vector, alg: str) -> bool:
    """Whether the signature verifies. Only refusals are expected; anything else fails the test."""
    if vector.key is None:
        return False
    try:
        vector.key.verify(vector.message, vector.signature, alg=alg)
    except ProofError:
        return False
    return True


@pytest.mark.parametrize("file", FILES)
def test_no_invalid_signature_verifies(file: str) -> None:
    """Invalid: none. Valid: all under keys we use. We use no RSA exponents below 65537 and no Ed25519 points of small order."""
    where = directory()
    if where is None:
        pytest.skip(f"PyPI's {PACKAGE} is not installed")
    every = list(vectors(where, file))
    assert [vector.number for vector in every if vector.result == "invalid" and accepts(vector, FILES[file])] == []
    usable = [vector for vector in every if vector.key is not None]
    assert [vector.number for vector in usable if vector.result == "valid" and not accepts(vector, FILES[file])] == []
    doubtful = {vector.comment for vector in usable if vector.result == "acceptable" and not accepts(vector, FILES[file])}
    assert doubtful <= REFUSED_THOUGH_ACCEPTABLE
    assert Counter(vector.result for vector in every)["invalid"] >= 45
    unused = [vector for vector in every if vector.key is None]
    assert len(unused) == {"rsa_signature_2048_sha256_test.json": 2, "ed25519_test.json": 8}.get(file, len(unused))
    assert len(unused) <= 8
