"""The keys of one identity provider, out of its JWKS (RFC 7517), reduced to those that may verify a signature.

Key sets are never merged: a ``kid`` means something only within its issuer. What cannot be used is left out with the reason
kept, so that one odd key does not take a provider down, and an admin can still see why a token finds no key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

from certauth.encoding import from_b64url, strict_json
from certauth.errors import ProofError, UnavailableError
from certauth.identity import roca
from certauth.keys import PublicKey
from certauth.small_order import is_small_order

MAX_JWKS: Final = 1024 * 1024
MAX_KEYS: Final = 64
MAX_KID: Final = 200

# PyJWT's algorithm objects are the signature primitive; HMAC and "none" are never taken out of the box.
_PRIMITIVES: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {
        name: primitive
        for name, primitive in get_default_algorithms().items()
        if name in {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
    }
)
ALGORITHMS: Final = frozenset(_PRIMITIVES)

_RSA_ALGORITHMS: Final = frozenset(name for name in ALGORITHMS if name[:2] in {"RS", "PS"})
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int, str]]] = {
    "P-256": (ec.SECP256R1(), 32, "ES256"),
    "P-384": (ec.SECP384R1(), 48, "ES384"),
    "P-521": (ec.SECP521R1(), 66, "ES512"),
}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def normal_algorithm(name: str) -> str:
    """``Ed25519`` (RFC 9864) and ``EdDSA`` (RFC 8037) are one algorithm here; any other name is its own."""
    return "EdDSA" if name == "Ed25519" else name


class _Unusable(Exception):
    """Why a key is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key and the JWS algorithms it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    public_key: PublicKey

    def verify(self, signing_input: bytes, signature: bytes, *, alg: str) -> None:
        """Raise ``ProofError``: ``alg-not-allowed`` if the key is not for ``alg``, ``bad-signature`` if it does not verify."""
        if alg not in self.algorithms:
            raise ProofError(
                "alg-not-allowed",
                f"the provider's key is not for {alg}",
                hint="get a new token; if it stays, the issuer publishes a wrong key",
            )
        if not _PRIMITIVES[alg].verify(signing_input, self.public_key, signature):
            raise ProofError(
                "bad-signature",
                "the signature of the proof does not verify",
                hint="send the token as its issuer made it; if it was not changed, get a new one",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable keys of one provider. ``ignored`` says which others it published and why they verify nothing."""

    by_kid: Mapping[str, VerificationKey]
    without_kid: tuple[VerificationKey, ...]
    ignored: tuple[str, ...]

    @classmethod
    def parse(cls, jwks: bytes) -> KeySet:
        """Read a JWKS document; raise ``UnavailableError`` (``issuer-unavailable``) if it is none or far too large.

        1. At most 1 MiB and 64 keys, strict JSON.
        2. A ``kid`` that occurs twice verifies nothing: which key was meant is the attacker's choice.
        3. Each key is read by ``_read_key``; the unusable are left out with the reason.
        """
        keys = _documents(jwks)
        uses = Counter(kid for document in keys if isinstance(kid := document.get("kid"), str))
        by_kid: dict[str, VerificationKey] = {}
        without_kid: list[VerificationKey] = []
        ignored: list[str] = []
        for document in keys:
            try:
                key = _read_key(document, uses)
            except _Unusable as reason:
                ignored.append(f"{str(document.get('kid'))[:MAX_KID]!a}: {reason}")
                continue
            if key.kid is None:
                without_kid.append(key)
            else:
                by_kid[key.kid] = key
        return cls(by_kid=MappingProxyType(by_kid), without_kid=tuple(without_kid), ignored=tuple(ignored))

    def find(self, kid: str | None) -> VerificationKey:
        """The key called ``kid``; for ``None`` the only key there is. ``ProofError`` (``unknown-key``) if there is none."""
        if kid is not None:
            key = self.by_kid.get(kid)
        else:
            every = (*self.by_kid.values(), *self.without_kid)
            key = every[0] if len(every) == 1 else None
        if key is None:
            raise ProofError(
                "unknown-key",
                "the provider publishes no usable key with the id that the proof names",
                hint="get a new token: its issuer may have changed its keys",
            )
        return key

    def __len__(self) -> int:
        return len(self.by_kid) + len(self.without_kid)


def _documents(jwks: bytes) -> list[dict[str, object]]:
    if len(jwks) > MAX_JWKS:
        raise _unavailable(f"is larger than {MAX_JWKS} bytes")
    try:
        document = strict_json(jwks)
    except ValueError as error:
        raise _unavailable("is not strict JSON") from error
    match document:
        case {"keys": list(keys)} if len(keys) <= MAX_KEYS and all(isinstance(key, dict) for key in keys):
            return keys
        case _:
            raise _unavailable(f"is not an object with up to {MAX_KEYS} keys")


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        "issuer-unavailable", f"the provider's key set {reason}", hint="try again later; tell those who run the provider"
    )


def _read_key(document: dict[str, object], uses: Mapping[str, int]) -> VerificationKey:
    """Read one JWK, or raise ``_Unusable``: for signatures, public, of a sound kind and size, its ``kid`` unambiguous."""
    kid = document.get("kid")
    if kid is not None and not (isinstance(kid, str) and is_key_id(kid)):
        raise _Unusable("its id is not 1 to 200 printable characters")
    if isinstance(kid, str) and uses[kid] > 1:
        raise _Unusable("several keys have this id")
    if document.get("use", "sig") != "sig":
        raise _Unusable("it is not for signatures")
    operations = document.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("it is not for verifying")
    if published := sorted(_PRIVATE_MEMBERS & document.keys()):
        raise _Unusable(f"ALARM: it is published with its secret members {', '.join(published)}")
    read = _READERS.get(_text(document, "kty"))
    if read is None:
        raise _Unusable("its type is not RSA, EC or OKP")
    try:
        public_key, fitting = read(document)
    except ValueError as error:
        raise _Unusable("its numbers are no valid key") from error
    if (alg := document.get("alg")) is not None:
        fitting &= {normal_algorithm(alg)} if isinstance(alg, str) else frozenset()
    if not fitting:
        raise _Unusable("its algorithm does not fit its type")
    return VerificationKey(kid=kid, algorithms=fitting, public_key=public_key)


def is_key_id(kid: str) -> bool:
    """Whether ``kid`` is 1 to 200 printable characters."""
    return 0 < len(kid) <= MAX_KID and kid.isprintable()


def _read_rsa(document: Mapping[str, object]) -> tuple[PublicKey, frozenset[str]]:
    """2048 to 8192 bits; 2^16 < e < 2^256 (FIPS 186-5 §A.1.1); not of the broken library of CVE-2017-15361.

    A key with no ``alg`` serves PKCS#1 v1.5 and PSS alike.
    """
    modulus, exponent = _number(document, "n"), _number(document, "e")
    if not 2048 <= modulus.bit_length() <= 8192 or not 2**16 < exponent < 2**256:
        raise _Unusable("RSA keys must have 2048 to 8192 bits and an exponent of at least 65537")
    if roca.is_vulnerable(modulus):
        raise _Unusable("ALARM: its private half can be computed (ROCA, CVE-2017-15361)")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS


def _read_ec(document: Mapping[str, object]) -> tuple[PublicKey, frozenset[str]]:
    """A point on P-256, P-384 or P-521, its coordinates at full length (RFC 7518 §6.2.1.2)."""
    try:
        curve, size, algorithm = _CURVES[_text(document, "crv")]
    except KeyError as error:
        raise _Unusable("its curve is not P-256, P-384 or P-521") from error
    x, y = from_b64url(_text(document, "x")), from_b64url(_text(document, "y"))
    if len(x) != size or len(y) != size:
        raise _Unusable("its coordinates do not have the length of the curve")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
    return numbers.public_key(), frozenset({algorithm})


def _read_okp(document: Mapping[str, object]) -> tuple[PublicKey, frozenset[str]]:
    """Ed25519 (RFC 8037), and not one of the eight points for which anybody can sign."""
    if document.get("crv") != "Ed25519":
        raise _Unusable("its curve is not Ed25519")
    encoded = from_b64url(_text(document, "x"))
    public_key = ed25519.Ed25519PublicKey.from_public_bytes(encoded)
    if is_small_order(encoded):
        raise _Unusable("ALARM: anybody can sign for it (a point of small order)")
    return public_key, frozenset({"EdDSA"})


_READERS: Final[Mapping[str, Callable[[Mapping[str, object]], tuple[PublicKey, frozenset[str]]]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
}


def _text(document: Mapping[str, object], member: str) -> str:
    value = document.get(member)
    if not isinstance(value, str):
        raise _Unusable(f"member {member} is missing")
    return value


def _number(document: Mapping[str, object], member: str) -> int:
    return int.from_bytes(from_b64url(_text(document, member)))
