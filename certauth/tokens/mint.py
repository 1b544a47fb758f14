"""Minting: from what the issuer decided to a signed token."""

from __future__ import annotations

import os

from certauth.keys import SigningKey
from certauth.tokens.codec import decode, encode
from certauth.tokens.lint import lint
from certauth.tokens.signing import Entropy, mint_chain
from certauth.tokens.vocabulary import TokenSpec


def mint(spec: TokenSpec, key: SigningKey, *, entropy: Entropy = os.urandom) -> bytes:
    """The token that states ``spec``, signed by ``key`` (Ed25519), whose id it carries.

    It has passed the same lint as at every door, so a token that would be refused there (say ``token-too-large`` for too many
    rights) is refused here, as ``TokenError``. ``KeyMaterialError`` (``bad-key``) for another kind of key.
    """
    data = encode(mint_chain(spec.block(), key, entropy=entropy))
    lint(decode(data))
    return data
