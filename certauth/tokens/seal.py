"""Sealing: a token to which nothing can be appended any more, by anybody."""

from __future__ import annotations

from certauth.tokens.codec import decode, encode
from certauth.tokens.lint import lint
from certauth.tokens.signing import seal as seal_chain


def seal(token: bytes) -> bytes:
    """``token``, sealed: it says what it said, and can neither be narrowed nor handed over nor vouched for further.

    Raises ``TokenError``: ``token-sealed`` if it is sealed already, ``token-too-large``, and the codes of the lint.
    """
    parent = decode(token)
    lint(parent)
    data = encode(seal_chain(parent))
    decode(data)  # a seal is longer than what it replaces
    return data
