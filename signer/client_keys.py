"""The public keys of machines, as an administrator hands them in: PEM or JWK, reduced to the one form that is stored."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from certauth import keys
from certauth.encoding import Json, canonical_json, strict_json
from certauth.errors import KeyMaterialError
from certauth.identity import KeySet, VerificationKey, jwk_thumbprint
from certauth.identity.binding import jwk_of

MAX_KEY_FILE = 16_384
MAX_KEYS = 8
"""Keys a machine may have: the present one, the next one, and a few more machines behind the same name."""
_HINT = "a P-256, P-384, Ed25519 or RSA public key of 2048 bits and more, as PEM (-----BEGIN PUBLIC KEY-----) or JWK"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A key for client assertions (RFC 7523): its RFC 7638 thumbprint, which assertions name as ``kid``, and its JWK."""

    kid: str
    jwk: str


def read_client_key(data: bytes, *, allow_example_keys: bool = False) -> ClientKey:
    """Raise ``KeyMaterialError`` (``bad-key``, ``private-key``, ``example-key``) for anything but one sound public key."""
    if len(data) > MAX_KEY_FILE:
        raise _bad("the file is too large for a key")
    if b"PRIVATE KEY" in data:
        raise _private()
    document = _from_jwk(data) if data.lstrip().startswith(b"{") else _from_pem(data)
    if "d" in document or document.get("kty") == "oct":
        raise _private()
    kid = jwk_thumbprint(document)
    if kid is None:
        raise _bad("its type is not RSA, EC or OKP")
    # Only what makes the key is stored, under its own name: an id or a use that somebody wrote next to it means nothing here.
    stored: dict[str, Json] = {name: _plain(document[name]) for name in ("crv", "e", "kty", "n", "x", "y") if name in document}
    stored |= {"kid": kid}
    key = _usable(stored, kid)
    keys.refuse_example(key.public_key, allow_example_keys=allow_example_keys)
    return ClientKey(kid=kid, jwk=canonical_json(stored).decode())


def _usable(stored: dict[str, Json], kid: str) -> VerificationKey:
    """The key as the verifier will find it; so what is stored is what verifies."""
    found = KeySet.parse(canonical_json({"keys": [stored]}))
    if kid not in found.by_kid:
        raise _bad("; ".join(found.ignored))
    return found.by_kid[kid]


def _from_jwk(data: bytes) -> dict[str, object]:
    try:
        document = strict_json(data)
    except ValueError as error:
        raise _bad("it is not strict JSON") from error
    if not isinstance(document, dict):
        raise _bad("it is not a JSON object")
    return document


def _from_pem(data: bytes) -> dict[str, object]:
    try:
        document = jwk_of(serialization.load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad("it is neither PEM nor JWK") from error
    if document is None:
        raise _bad("its type is not RSA, EC or OKP")
    return document


def _plain(value: object) -> Json:
    if not isinstance(value, str):
        raise _bad("a member is not text")
    return value


def _bad(why: str) -> KeyMaterialError:
    return KeyMaterialError("bad-key", f"the key cannot be used: {why}", hint=f"give {_HINT}")


def _private() -> KeyMaterialError:
    return KeyMaterialError(
        "private-key",
        "this is a private key, which belongs on its own machine alone",
        hint="give the public half, and consider this key known: openssl pkey -in KEY -pubout",
    )
