"""Keys: which kinds are allowed, how they are named, kept and refused.

X.509, tokens, log and feed are signed by different keys (NIST SP 800-57 §5.2); the type says only what a key can do, the
place it is loaded from says what it is for. A key in this module never shows itself: ``repr`` is its id.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Protocol, assert_never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certauth.errors import KeyMaterialError
from certauth.example_keys import EXAMPLE_KEYS
from certauth.files import PRIVATE, read_private, write_atomic

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class Algorithm(StrEnum):
    """The kinds of key we make. Chains are P-256: the path validator refuses Ed25519, and P-256 is the faster one."""

    ED25519 = "Ed25519"
    P256 = "P-256"
    P384 = "P-384"


class SigningKey(Protocol):
    """Something that can sign: a file today, a hardware module behind the same three members."""

    @property
    def algorithm(self) -> Algorithm: ...

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, data: bytes) -> bytes:
        """Ed25519, or ECDSA with the curve's hash (DER signature), over ``data``."""
        ...


class SoftwareKey:
    """A private key held in memory."""

    __slots__ = ("_private", "algorithm", "public_key")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.public_key: PublicKey = private.public_key()
        self.algorithm = algorithm_of(self.public_key)

    def sign(self, data: bytes) -> bytes:
        match self._private:
            case ed25519.Ed25519PrivateKey() as key:
                return key.sign(data)
            case key:
                return key.sign(data, ec.ECDSA(hash_for(self.algorithm)))

    @property
    def private_key(self) -> PrivateKey:
        """The key itself, for libraries that must hold it (TLS, the X.509 builder)."""
        return self._private

    def __repr__(self) -> str:
        return f"<SoftwareKey {self.algorithm} {key_id(self.public_key)}>"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("private keys are not pickled")


def generate(algorithm: Algorithm) -> SoftwareKey:
    """A new key from the operating system's randomness."""
    match algorithm:
        case Algorithm.ED25519:
            return SoftwareKey(ed25519.Ed25519PrivateKey.generate())
        case Algorithm.P256:
            return SoftwareKey(ec.generate_private_key(ec.SECP256R1()))
        case Algorithm.P384:
            return SoftwareKey(ec.generate_private_key(ec.SECP384R1()))
        case _:
            assert_never(algorithm)


def algorithm_of(public: object) -> Algorithm:
    """The algorithm of a public key we may sign with; ``KeyMaterialError`` (``bad-key``) for any other."""
    match public:
        case ed25519.Ed25519PublicKey():
            return Algorithm.ED25519
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return Algorithm.P256
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return Algorithm.P384
        case _:
            raise KeyMaterialError(
                "bad-key", "the key is not Ed25519, P-256 or P-384", hint="use a key of the kind that is named"
            )


def hash_for(algorithm: Algorithm) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with an ECDSA curve (FIPS 186-5 §6.1.1)."""
    return hashes.SHA384() if algorithm is Algorithm.P384 else hashes.SHA256()


def spki(public: PublicKey) -> bytes:
    """The key as DER SubjectPublicKeyInfo (RFC 5280 §4.1)."""
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def raw(public: ed25519.Ed25519PublicKey) -> bytes:
    """The 32 bytes of an Ed25519 public key."""
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def key_id(public: PublicKey) -> str:
    """Eight hex digits that name a key: the first 4 bytes of SHA-256 over an Ed25519 key's raw bytes, else over its SPKI."""
    material = raw(public) if isinstance(public, ed25519.Ed25519PublicKey) else spki(public)
    return hashlib.sha256(material).hexdigest()[:8]


def fingerprint(public: PublicKey) -> str:
    """SHA-256 of the SPKI, in hex."""
    return hashlib.sha256(spki(public)).hexdigest()


def refuse_example(public: PublicKey, *, allow_example_keys: bool) -> None:
    """Raise ``KeyMaterialError`` (``example-key``) for a key whose private half is published in ``keys-example/``."""
    if not allow_example_keys and fingerprint(public) in EXAMPLE_KEYS:
        raise KeyMaterialError(
            "example-key",
            f"key {key_id(public)} is a published example: everybody has its private half",
            hint="make your own with 'certauth signer init'; --insecure-example-keys is for trying things out",
        )


def save_private(path: Path, key: SoftwareKey, *, passphrase: bytes | None) -> None:
    """Write the key as PKCS#8 PEM, mode 0600, atomically, encrypted if a passphrase is given (RFC 5958, RFC 8018)."""
    if passphrase == b"":  # a variable that was not set must not become a key that is not protected
        raise KeyMaterialError("empty-passphrase", "an empty passphrase protects nothing", hint="give one, or none at all")
    protection = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    pem = key.private_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    write_atomic(path, pem, mode=PRIVATE)


def load_private(path: Path, *, passphrase: bytes | None, allow_example_keys: bool = False) -> SoftwareKey:
    """Read a PKCS#8 PEM key; raise ``KeyMaterialError`` if it is open to others, of a forbidden kind, or an example."""
    pem = read_private(path)
    encrypted = b"ENCRYPTED" in pem
    if encrypted and passphrase is None:
        raise KeyMaterialError("key-locked", f"{path} needs a passphrase", hint="give its passphrase")
    try:
        private = serialization.load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The library's message may quote the input; ours must not.
        raise KeyMaterialError(
            "bad-key",
            f"{path} is not a private key we can read with this passphrase",
            hint="compare the passphrase, and whether the file is a private key in PEM",
        ) from error
    if not isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise KeyMaterialError(
            "bad-key", f"{path} is not an Ed25519, P-256 or P-384 key", hint="use a key of the kind that is named"
        )
    key = SoftwareKey(private)
    refuse_example(key.public_key, allow_example_keys=allow_example_keys)
    return key


def check_tls_key(path: Path, *, passphrase: bytes | None, allow_example_keys: bool) -> None:
    """Check a TLS private-key file (PEM: EC, Ed25519 or RSA) before OpenSSL loads it, which looks at neither mode nor origin.

    Raises ``KeyMaterialError`` as ``load_private`` does, for a file open to others, a missing passphrase, an example key.
    """
    pem = read_private(path)
    encrypted = b"ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise KeyMaterialError("key-locked", f"{path} needs a passphrase", hint="give its passphrase")
    try:
        private = serialization.load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The library's message may quote the input; ours must not.
        raise KeyMaterialError(
            "bad-key",
            f"{path} is not a private key we can read with this passphrase",
            hint="compare the passphrase, and whether the file is a private key in PEM",
        ) from error
    public = private.public_key()
    if not isinstance(public, PublicKey):
        raise KeyMaterialError(
            "bad-key", f"{path} is not an EC, Ed25519 or RSA key", hint="use a key of the kind that is named"
        )
    refuse_example(public, allow_example_keys=allow_example_keys)
