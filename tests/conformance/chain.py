"""A second verifier of a token's signatures, in plain Python from the Biscuit specification, to set against the engine's.

It takes the codec's reading of the bytes and nothing of its code for signing, knows both versions of the signed payload, both
algorithms and the seal; so where it agrees with the engine, codec and engine see the same links.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from certauth.tokens.codec import SignedBlock, Token
from certauth.tokens.datalog import KeyRef

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
VERSION_1 = b"\0\0VERSION\0" + (1).to_bytes(4, "little") + b"\0PAYLOAD\0"


def malleated(signature: bytes) -> bytes:
    """The other valid form of a P-256 signature."""
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, ORDER - s)


def verifies(token: Token, root: KeyRef) -> bool:
    """Whether every link, third-party signature and the proof of ``token`` verify, beginning with ``root``."""
    try:
        _verify(token, root)
    except (InvalidSignature, ValueError):
        return False
    return True


def _verify(token: Token, root: KeyRef) -> None:
    signer, previous = root, b""
    for number, link in enumerate(token.blocks):
        _check(signer, link.signature, _payload(link, previous if number else None))
        if link.external is not None:
            if link.version != 1:
                raise ValueError("an older third-party signature, which fits into any token")
            payload = b"\0EXTERNAL" + VERSION_1 + link.content + b"\0PREVSIG\0" + previous
            _check(link.external.key, link.external.signature, payload)
        signer, previous = link.next_key, link.signature
    if token.sealed:
        _check(signer, token.proof, _old_payload(token.blocks[-1]) + previous)
    elif _public_of(signer.algorithm, token.proof) != signer.key:
        raise ValueError("the secret is not that of the last key")


def _payload(link: SignedBlock, previous: bytes | None) -> bytes:
    external = b"" if link.external is None else link.external.signature
    match link.version:
        case 0:
            return _old_payload(link) if not external else link.content + external + _numbered(link.next_key)
        case 1:
            key = b"\0ALGORITHM\0" + link.next_key.algorithm.to_bytes(4, "little") + b"\0NEXTKEY\0" + link.next_key.key
            before = b"" if previous is None else b"\0PREVSIG\0" + previous
            vouched = b"" if not external else b"\0EXTERNALSIG\0" + external
            return b"\0BLOCK" + VERSION_1 + link.content + key + before + vouched
        case _:
            raise ValueError("an unknown version")


def _old_payload(link: SignedBlock) -> bytes:
    return link.content + _numbered(link.next_key)


def _numbered(key: KeyRef) -> bytes:
    return key.algorithm.to_bytes(4, "little") + key.key


def _check(signer: KeyRef, signature: bytes, payload: bytes) -> None:
    if signer.algorithm == 0:
        ed25519.Ed25519PublicKey.from_public_bytes(signer.key).verify(signature, payload)
    else:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), signer.key)
        public.verify(signature, payload, ec.ECDSA(SHA256()))


def _public_of(algorithm: int, secret: bytes) -> bytes:
    if algorithm == 0:
        return ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    numbers = ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1()).public_key().public_numbers()
    return bytes((2 + numbers.y % 2,)) + numbers.x.to_bytes(32)
