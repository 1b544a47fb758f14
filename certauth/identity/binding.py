"""What ties an identity proof to one key: something that its issuer signs and that nobody else's key can explain.

    nonce    = b64url(SHA-256("certauth/v1 nonce" 00 signer_id 00 SPKI 00 salt))
    audience = signer_id "/#" b64url(SHA-256("certauth/v1 audience" 00 signer_id 00 SPKI))
    cnf      = the key itself, or its thumbprint (RFC 7638), as RFC 7800 and RFC 9449 §6 write it

The tag keeps values made for other programs out. ``signer_id`` stops the signer of one facility from presenting a user's token
at another. The SPKI is the key of the certification request, whose self-signature proves possession. The salt keeps the
provider from recognising a key. Only the salt has a fixed length and only it comes last, so no two inputs share a preimage.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certauth import keys
from certauth.encoding import b64url, canonical_json
from certauth.errors import ProofError, UsageError

SALT_BYTES = 16

_NONCE_TAG: Final = b"certauth/v1 nonce"
_AUDIENCE_TAG: Final = b"certauth/v1 audience"
_PORTS: Final = {"https": 443, "http": 80}
# What a thumbprint is made of (RFC 7638 §3.2, RFC 8037 §2), and how the curves are called there.
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundKey:
    """The key that a proof must be bound to, at which signer, and the salt if the login was made with a nonce.

    ``signer_id`` is the signer's public URL in any spelling that ``signer_id_of`` understands; ``spki`` is DER.
    """

    signer_id: str
    spki: bytes
    salt: bytes | None = field(default=None, repr=False)

    def nonce(self) -> str:
        """The nonce of a login for this key; raises as ``nonce_for``, also when there is no salt."""
        return nonce_for(signer_id=self.signer_id, spki=self.spki, salt=self.salt or b"")

    def audience(self) -> str:
        """The audience that a workload asks for; raises as ``audience_for``."""
        return audience_for(signer_id=self.signer_id, spki=self.spki)

    def thumbprint(self) -> str:
        """The key's JWK thumbprint (RFC 7638) with SHA-256: 43 characters.

        ``ProofError`` (``key-not-bound``) for a kind of key that has none here.
        """
        try:
            public = load_der_public_key(self.spki)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise not_bound() from error
        thumbprint = jwk_thumbprint(jwk_of(public))
        if thumbprint is None:
            raise not_bound()
        return thumbprint

    def is_confirmed_by(self, claims: Mapping[str, object]) -> bool:
        """Whether the proof's ``cnf`` (RFC 7800) names this key: ``False`` if there is none.

        ``ProofError`` (``key-not-bound``) for a ``cnf`` that names another key, or none that can be compared: an issuer that
        binds a token to a key never wants it used with another.
        """
        if "cnf" not in claims:
            return False
        cnf = claims["cnf"]
        if not isinstance(cnf, dict) or not cnf.keys() & {"jkt", "jwk"}:
            raise not_bound()
        ours = self.thumbprint()
        named = [cnf["jkt"]] if "jkt" in cnf else []
        if "jwk" in cnf:
            named.append(jwk_thumbprint(cnf["jwk"]))
        if not all(same(one, ours) for one in named):
            raise not_bound()
        return True


def nonce_for(*, signer_id: str, spki: bytes, salt: bytes) -> str:
    """The nonce that binds a login to the key ``spki`` (DER SubjectPublicKeyInfo) at one signer: 43 characters.

    ``signer_id`` is the signer's public URL; it is brought into the form of ``signer_id_of``. Raises ``ProofError``
    (``key-not-bound``) unless the salt is 16 bytes, ``UsageError`` (``bad-signer-url``) as ``signer_id_of`` does.
    """
    if len(salt) != SALT_BYTES:
        raise ProofError(
            "key-not-bound",
            f"the salt of the login is {len(salt)} bytes, not {SALT_BYTES}",
            hint="send the salt from which the nonce of the login was made",
        )
    return b64url(hashlib.sha256(b"\x00".join((_NONCE_TAG, signer_id_of(signer_id).encode(), spki, salt))).digest())


def audience_for(*, signer_id: str, spki: bytes) -> str:
    """The audience that binds the token of a machine to the key ``spki`` (DER SubjectPublicKeyInfo) at one signer.

    Raises ``UsageError`` (``bad-signer-url``) as ``signer_id_of`` does.
    """
    signer = signer_id_of(signer_id)
    return audience_prefix(signer) + b64url(hashlib.sha256(b"\x00".join((_AUDIENCE_TAG, signer.encode(), spki))).digest())


def audience_prefix(signer_id: str) -> str:
    """What every audience for a key at this signer begins with."""
    return f"{signer_id_of(signer_id)}/#"


def signer_id_of(url: str) -> str:
    """``scheme://host:port`` of a signer's public URL, lower case, the port always written, so both sides hash the same text.

    Raises ``UsageError`` (``bad-signer-url``) for anything that is not an http(s) origin in printable ASCII: a path, query,
    fragment or user name would otherwise be lost without a word.
    """
    try:
        parts = urlsplit(url)
        usual = _PORTS[parts.scheme]
        port = usual if parts.port is None else parts.port
    except (ValueError, KeyError) as error:
        raise _bad_url(url) from error
    host = parts.hostname or ""
    unexpected = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc
    if unexpected or not host or not (url.isascii() and url.isprintable()) or " " in url:
        raise _bad_url(url)
    return f"{parts.scheme}://[{host}]:{port}" if ":" in host else f"{parts.scheme}://{host}:{port}"


def jwk_thumbprint(jwk: object) -> str | None:
    """The thumbprint (RFC 7638) of a public JWK; ``None`` for what is no RSA, EC or OKP public key.

    It is made of the members as they are written: another spelling of a key has another thumbprint, and matches nothing.
    """
    if not isinstance(jwk, dict) or "d" in jwk:
        return None
    kty = jwk.get("kty")
    members = _THUMBPRINT_MEMBERS.get(kty) if isinstance(kty, str) else None
    if members is None or not all(isinstance(value := jwk.get(name), str) and value.isascii() for name in members):
        return None
    return b64url(hashlib.sha256(canonical_json({name: jwk[name] for name in members})).digest())


def short_fingerprint(spki: bytes) -> str:
    """What a person compares on two screens: the first 16 hex digits of SHA-256 over the SPKI, ``ab12 cd34 ef56 7890``."""
    digits = hashlib.sha256(spki).hexdigest()
    return " ".join(digits[start : start + 4] for start in range(0, 16, 4))


def same(claimed: object, expected: str) -> bool:
    """Whether ``claimed`` is the non-empty text ``expected``, compared in constant time."""
    if not isinstance(claimed, str) or not claimed:
        return False
    return hmac.compare_digest(claimed.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def not_bound() -> ProofError:
    """The refusal of a proof that was made for another key, or for none."""
    return ProofError(
        "key-not-bound",
        "the proof is not bound to the key of this request",
        hint="prove it with the key that the certificate is for; a token made elsewhere cannot be used",
    )


def jwk_of(public: object) -> dict[str, object] | None:
    """A public key as a JWK (RFC 7517, RFC 8037); ``None`` for a kind that has no form here."""
    match public:
        case ed25519.Ed25519PublicKey():
            return {"kty": "OKP", "crv": "Ed25519", "x": b64url(keys.raw(public))}
        case ec.EllipticCurvePublicKey() if public.curve.name in _CURVES:
            numbers, size = public.public_numbers(), (public.key_size + 7) // 8
            x, y = numbers.x.to_bytes(size), numbers.y.to_bytes(size)
            return {"kty": "EC", "crv": _CURVES[public.curve.name], "x": b64url(x), "y": b64url(y)}
        case rsa.RSAPublicKey():
            exponent, modulus = public.public_numbers().e, public.public_numbers().n
            return {"kty": "RSA", "e": b64url(_shortest(exponent)), "n": b64url(_shortest(modulus))}
        case _:
            return None


def _shortest(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _bad_url(url: str) -> UsageError:
    return UsageError("bad-signer-url", f"{url[:120]!r} is not the URL of a signer", hint="https://signer.example:8443")
