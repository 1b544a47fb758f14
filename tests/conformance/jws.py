"""``python -m tests.conformance.jws DIRECTORY``: Project Wycheproof's JWS and JWK vectors, through the code that reads proofs.

The directory is ``testvectors_v1`` of a copy of https://github.com/C2SP/wycheproof. Prints every vector that is invalid and
accepted, and how many of the valid ones verify; ends with 1 if any invalid one does, or if none of the valid ones does. Valid
ones that do not verify are such as no identity provider's proof may look like: shared secrets, unknown algorithms, no payload.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from certauth.errors import ProofError
from certauth.identity import KeySet
from certauth.identity.read import read_jws
from tests.simulator.hostile_provider import jwks

FILES = ("json_web_signature_test.json", "json_web_key_test.json")


class Vector(NamedTuple):
    """One vector: keys as a provider would publish them, a token, and what is to be thought of it."""

    name: str
    keys: list[dict[str, Any]]
    token: str
    valid: bool


def vectors(directory: Path) -> Iterator[Vector]:
    """Every vector of both files."""
    for file in FILES:
        for group in json.loads((directory / file).read_text(encoding="utf-8"))["testGroups"]:
            key = group.get("public", group["private"])
            keys = key.get("keys", [key])
            for test in group["tests"]:
                yield Vector(f"{file} {test['tcId']}", keys, str(test["jws"]), test["result"] == "valid")


def verifies(vector: Vector) -> bool:
    """Whether the token verifies under one of the keys. Only refusals are expected; anything else ends the run."""
    try:
        jws, _ = read_jws(vector.token)
        KeySet.parse(jwks(*vector.keys)).find(jws.kid).verify(jws.signing_input, jws.signature, alg=jws.alg)
    except ProofError:
        return False
    return True


def main(directory: Path) -> int:
    """0 if no invalid vector is accepted and some valid ones are."""
    every = list(vectors(directory))
    accepted = [vector for vector in every if verifies(vector)]
    wrong = [vector.name for vector in accepted if not vector.valid]
    for name in wrong:
        print(f"{name}: invalid, and accepted")
    valid, invalid = (sum(vector.valid is kind for vector in every) for kind in (True, False))
    print(f"{invalid} invalid vectors, {len(wrong)} accepted; {valid} valid, {len(accepted) - len(wrong)} verify")
    return int(bool(wrong) or len(accepted) == len(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
