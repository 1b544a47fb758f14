"""Signing the links of a token's chain: authority, attenuation, third party, seal (Biscuit specification, "Cryptography").

Payload version 1 throughout: it is domain-separated and covers the previous signature, and later blocks of other
implementations inherit it. The root key is a callback, so it may live in hardware; appending needs no root key at all. Each
link names a fresh Ed25519 key, whose private half is the token's proof and the right to append.

Every function returns a new token; none verifies the one it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.errors import KeyMaterialError, TokenError
from certauth.keys import Algorithm, PublicKey, SigningKey, key_id, raw
from certauth.tokens.block_writer import encode_block
from certauth.tokens.blocks import Block, decode_block
from certauth.tokens.codec import MAX_BLOCKS, MAX_BYTES, WHOLE, External, SignedBlock, Token, read_external, write_external
from certauth.tokens.datalog import ED25519 as ED25519
from certauth.tokens.datalog import P256, KeyRef, Tables
from certauth.tokens.low_s import low_s
from certauth.tokens.wire import nested, split

PAYLOAD_VERSION = 1
THIRD_PARTY_DATALOG = 5
"""Third-party blocks have their own symbol table only from Datalog version 3.2 on."""

_ED25519_SIGNATURE = 64

Entropy = Callable[[int], bytes]
"""Returns so many random bytes; ``os.urandom`` outside of tests."""


def key_ref(public: PublicKey) -> KeyRef:
    """The key as tokens carry it; ``KeyMaterialError`` (``bad-key``) for one that cannot sign blocks (RSA, P-384)."""
    match public:
        case ed25519.Ed25519PublicKey():
            return KeyRef(ED25519, raw(public))
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return KeyRef(P256, public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
        case _:
            raise KeyMaterialError(
                "bad-key", "only Ed25519 and P-256 keys can sign parts of a token", hint="make a P-256 key and certificate"
            )


def public_key(ref: KeyRef) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
    """The key behind ``ref``; ``ValueError`` if its bytes are no point of the curve."""
    if ref.algorithm == ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(ref.key)
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ref.key)


def mint_chain(block: Block, key: SigningKey, *, entropy: Entropy) -> Token:
    """A token of one block, signed by ``key``, which must be Ed25519; its root key id is the key's id."""
    if key.algorithm is not Algorithm.ED25519:
        # An ECDSA signature has a second valid form, so its hash could not name the token in a revocation list.
        raise KeyMaterialError("bad-key", "tokens are minted with an Ed25519 key", hint="give the facility's token key")
    content, written = _written(block, Tables())
    next_key, secret = _fresh(entropy)
    signature = signed(key, _payload(content, next_key, previous=None, external=None))
    link = SignedBlock(content, next_key, signature, None, PAYLOAD_VERSION)
    return Token(root_key_id=int(key_id(key.public_key), 16), blocks=(link,), contents=(written,), sealed=False, proof=secret)


def append(token: Token, block: Block, *, entropy: Entropy) -> Token:
    """``token`` with one more first-party block; ``TokenError`` (``token-sealed``) if nothing can be appended."""
    tables = Tables()
    for link, earlier in zip(token.blocks, token.contents, strict=True):
        if link.external is None:
            tables.add(earlier.symbols)
            tables.add_keys(earlier.keys)
    content, written = _written(block, tables)
    return _link(token, content, None, written, entropy=entropy)


def third_party_request(token: Token) -> bytes:
    """What a third party needs to sign a block for this token and no other: its last signature."""
    return nested(0x1A, token.blocks[-1].signature)


def third_party_answer(request: bytes, block: Block, key: SigningKey) -> bytes:
    """``block`` signed by ``key`` for the token of ``request``; ``TokenError`` (``token-malformed``) for a bad request.

    ``KeyMaterialError`` (``bad-key``) for a key of another kind, or one whose signature does not verify.
    """
    try:
        ((tag, previous),) = split(request)
    except (ValueError, IndexError) as error:
        raise _bad_message("request") from error
    if tag != 0x1A or len(previous) != _ED25519_SIGNATURE:
        # The chain is Ed25519. Taking any bytes would have the third party sign more of a stranger's than it means to.
        raise _bad_message("request")
    signer = key_ref(key.public_key)
    content = encode_block(block._replace(version=max(block.version, THIRD_PARTY_DATALOG)), Tables())
    signature = signed(key, _external_payload(content, previous))
    return nested(0x0A, content) + nested(0x12, write_external(External(signature, signer)))


def append_answer(token: Token, answer: bytes, *, entropy: Entropy) -> Token:
    """``token`` with a third party's block; ``TokenError`` (``token-malformed``, ``token-signature``) for a bad answer.

    Other implementations answer with either form of an ECDSA signature; it is appended in the one form.
    """
    if len(answer) > MAX_BYTES:
        raise _bad_message("answer")
    try:
        (first, content), (second, signed) = split(answer)
        external = read_external(signed)
        if external.key.algorithm == P256:
            external = external._replace(signature=low_s(external.signature))
        block = decode_block(content, Tables())
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise _bad_message("answer") from error
    if (first, second) != (0x0A, 0x12):
        raise _bad_message("answer")
    verify_external(external, content, token.blocks[-1].signature)
    return _link(token, content, external, block, entropy=entropy)


def verify_external(external: External, content: bytes, previous: bytes) -> None:
    """Raise ``TokenError`` (``token-signature``) unless ``external`` signs ``content`` after the signature ``previous``."""
    try:
        _verify(external.key, external.signature, _external_payload(content, previous))
    except (InvalidSignature, ValueError) as error:
        raise TokenError(
            "token-signature",
            "the third party's signature does not belong to this token",
            hint="append the answer to the token for which it was asked, as it was then",
        ) from error


def seal(token: Token) -> Token:
    """``token`` with its secret replaced by a signature: nothing can be appended any more."""
    last = token.blocks[-1]
    payload = last.content + last.next_key.algorithm.to_bytes(4, "little") + last.next_key.key + last.signature
    return replace(token, sealed=True, proof=_secret(token).sign(payload))


def link_ids(token: Token) -> tuple[str, ...]:
    """The revocation id of each block: the first 16 bytes, in hex, of SHA-256 over a signature that cannot be varied.

    For a first-party block that is its own signature, Ed25519. A third party's block can be appended to the same parent again
    with a fresh key, which gives it a new signature; so its id is that of the external signature, of which the codec reads and
    writes one form only.
    """
    return tuple([sha256((link.external or link).signature).hexdigest()[:32] for link in token.blocks])


def signed(key: SigningKey, payload: bytes) -> bytes:
    """``key``'s signature over ``payload``, in its one form; ``KeyMaterialError`` (``bad-key``) if it does not verify.

    The key may be a callback into hardware. What a wrong key or a faulty device signs must not be released: no door would take
    it, and faulty signatures of the same data can reveal the key.
    """
    signer, signature = key_ref(key.public_key), key.sign(payload)
    try:
        if signer.algorithm == P256:
            signature = low_s(signature)
        _verify(signer, signature, payload)
    except (InvalidSignature, ValueError) as error:
        raise KeyMaterialError(
            "bad-key",
            "the key's signature does not verify with its public key",
            hint="check that key and public key belong together, and the device that holds it",
        ) from error
    return signature


def _verify(signer: KeyRef, signature: bytes, payload: bytes) -> None:
    """Raise ``InvalidSignature``, or ``ValueError`` for a key that is no point of its curve."""
    match public_key(signer):
        case ed25519.Ed25519PublicKey() as key:
            key.verify(signature, payload)
        case key:
            key.verify(signature, payload, ec.ECDSA(SHA256()))


def _written(block: Block, tables: Tables) -> tuple[bytes, Block]:
    """The bytes of ``block``, and the block as it will be read: with the symbols and keys it adds, for later ones to use."""
    known, known_keys = len(tables.symbols()), len(tables.keys)
    content = encode_block(block, tables)
    return content, block._replace(symbols=tables.symbols()[known:], keys=tuple(tables.keys[known_keys:]))


def _link(token: Token, content: bytes, external: External | None, block: Block, *, entropy: Entropy) -> Token:
    key = _secret(token)
    if len(token.blocks) >= MAX_BLOCKS:
        raise TokenError("too-many-blocks", f"the token has {MAX_BLOCKS} blocks already", hint="derive from an earlier token")
    next_key, secret = _fresh(entropy)
    signature = key.sign(_payload(content, next_key, previous=token.blocks[-1].signature, external=external))
    link = SignedBlock(content, next_key, signature, external, PAYLOAD_VERSION)
    return replace(token, blocks=(*token.blocks, link), contents=(*token.contents, block), proof=secret)


def _fresh(entropy: Entropy) -> tuple[KeyRef, bytes]:
    secret = entropy(32)
    return key_ref(ed25519.Ed25519PrivateKey.from_private_bytes(secret).public_key()), secret


def _secret(token: Token) -> ed25519.Ed25519PrivateKey:
    if token.sealed:
        raise TokenError("token-sealed", "the token is sealed and cannot be narrowed further", hint="ask for another one")
    if token.blocks[-1].next_key.algorithm != ED25519 or len(token.proof) != 32:
        raise TokenError("token-malformed", "the token's last key is not Ed25519", hint=WHOLE)
    return ed25519.Ed25519PrivateKey.from_private_bytes(token.proof)


def _payload(content: bytes, next_key: KeyRef, *, previous: bytes | None, external: External | None) -> bytes:
    return b"".join(
        (
            b"\0BLOCK\0\0VERSION\0",
            PAYLOAD_VERSION.to_bytes(4, "little"),
            b"\0PAYLOAD\0",
            content,
            b"\0ALGORITHM\0",
            next_key.algorithm.to_bytes(4, "little"),
            b"\0NEXTKEY\0",
            next_key.key,
            b"" if previous is None else b"\0PREVSIG\0" + previous,
            b"" if external is None else b"\0EXTERNALSIG\0" + external.signature,
        )
    )


def _external_payload(content: bytes, previous: bytes) -> bytes:
    version = PAYLOAD_VERSION.to_bytes(4, "little")
    return b"\0EXTERNAL\0\0VERSION\0" + version + b"\0PAYLOAD\0" + content + b"\0PREVSIG\0" + previous


def _bad_message(what: str) -> TokenError:
    return TokenError("token-malformed", f"this is not a third-party block {what}, or it was damaged", hint=WHOLE)
