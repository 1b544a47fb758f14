"""Delegation: handing a token to another certificate, which only the holder's certificate key can do.

A token is bound to a certificate. Its issuer may have added the holder's *public key* to that condition; a block signed by
that key can then name another certificate, and while the depth that the issuer allows is not used up, that one's key in turn.
So every hand-over is signed by the key of the certificate that had the token before, and whoever evaluates it can follow the
chain from the issuer's statement to the certificate at the other end. Who merely stole the token cannot hand it on, and who
received it can only if the giver said so.
"""

from __future__ import annotations

import os

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from certauth.errors import KeyMaterialError, TokenError, UsageError
from certauth.keys import SigningKey
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode, encode
from certauth.tokens.conditions import Peer, delegation
from certauth.tokens.lint import lint
from certauth.tokens.signing import (
    THIRD_PARTY_DATALOG,
    Entropy,
    append_answer,
    key_ref,
    third_party_answer,
    third_party_request,
)
from certauth.tokens.vocabulary import Narrowing, is_fingerprint

_ONLY = Narrowing()


def delegate(
    token: bytes,
    *,
    holder_key: SigningKey,
    to_certificate: x509.Certificate | str,
    narrowing: Narrowing = _ONLY,
    depth: int = 0,
    entropy: Entropy = os.urandom,
) -> bytes:
    """``token``, narrowed and in the hands of ``to_certificate`` from now on: a certificate, or its SHA-256 in hex.

    ``depth`` is how often it may be handed on from there. For that the certificate itself is needed: its key is named.

    Raises ``UsageError``: ``bad-narrowing`` for a fingerprint that is none, ``certificate-needed``. ``TokenError``:
    ``token-not-delegable`` if nobody was given the right to hand it over, or not that often; ``token-wrong-holder`` if
    ``holder_key`` is another key than the holder's. ``KeyMaterialError`` (``bad-key``) for a certificate whose key cannot sign
    parts of a token.
    """
    to = _new_holder(to_certificate, depth)
    parent = decode(token)
    holder = lint(parent).peer
    if holder.delegate_key is None:
        raise TokenError(
            "token-not-delegable", "the token cannot be handed over, or not once more", hint="ask its issuer for one"
        )
    if not 0 <= depth < holder.depth:
        raise TokenError(
            "token-not-delegable",
            f"the token can be handed over {holder.depth} more times, so its next holder cannot do so {depth} times",
            hint=f"a depth of 0 to {holder.depth - 1}; for more, ask its issuer",
        )
    if key_ref(holder_key.public_key) != holder.delegate_key:
        raise TokenError(
            "token-wrong-holder",
            "only the key of the certificate in whose hands it is can hand the token over",
            hint="ask whoever holds that key to delegate it to you",
        )
    checks = (to, *narrowing.conditions(entropy=entropy))
    block = Block(THIRD_PARTY_DATALOG, (delegation(holder.depth, to.fingerprint),), checks)
    answer = third_party_answer(third_party_request(parent), block, holder_key)
    data = encode(append_answer(parent, answer, entropy=entropy))
    lint(decode(data))
    return data


def _new_holder(certificate: x509.Certificate | str, depth: int) -> Peer:
    if isinstance(certificate, x509.Certificate):
        fingerprint = certificate.fingerprint(SHA256()).hex()
        match certificate.public_key():
            case _ if depth == 0:
                return Peer(fingerprint)
            case Ed25519PublicKey() | EllipticCurvePublicKey() as key:
                return Peer(fingerprint, key_ref(key), depth)
            case _:
                raise KeyMaterialError(
                    "bad-key",
                    "the key of that certificate is of a kind that cannot hand a token on",
                    hint="make a P-256 key and certificate",
                )
    if not is_fingerprint(certificate):
        raise UsageError(
            "bad-narrowing",
            "that is not the SHA-256 of a certificate in hex",
            hint="'certauth cert inspect' shows it as fingerprint",
        )
    if depth:
        raise UsageError(
            "certificate-needed",
            "to let the token be handed on from there, the certificate itself is needed: its key is named in the token",
            hint="give the certificate instead of its fingerprint",
        )
    return Peer(certificate)
