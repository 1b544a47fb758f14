"""Attestation: another facility vouches, in this very token, that its holder is in some group of that facility's.

    the holder               request_attestation(token)          -> a file for the other facility
    the other facility       attest(request, key=…, groups=…)    -> its answer
    the holder               append_attestation(token, answer)   -> the token, with the other facility's word in it

Nobody needs a network for it. The request is a sealed copy of the token: the other facility sees whose it is and can verify
it, but can neither add to it nor, without the holder's certificate, use it. The answer is signed over the token's last
signature, so it fits this token and no other. It ends, and the token it was appended to ends with it; the token as it was
before does not.

What an attestation is worth is decided where it is shown: a door believes the keys its owner named, each for the groups named
with it, and takes them for nothing but that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime

from certauth.encoding import b64url, from_b64url
from certauth.errors import TokenError, UsageError
from certauth.keys import SigningKey
from certauth.names import is_name
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BYTES, MAX_TEXT, WHOLE, decode, encode
from certauth.tokens.conditions import Window, membership
from certauth.tokens.lint import MAX_VOUCHED, lint
from certauth.tokens.signing import (
    THIRD_PARTY_DATALOG,
    Entropy,
    append_answer,
    seal,
    third_party_answer,
    third_party_request,
)

_REQUEST, _ANSWER = "certauth-request:", "certauth-answer:"
_TEXT = re.compile(r"[A-Za-z0-9_-]+")


def request_attestation(token: bytes) -> bytes:
    """What another facility needs to vouch for the holder of ``token``: a sealed copy of it, itself a token.

    Raises ``TokenError``: ``token-sealed`` if nothing can be appended to it, and the codes of the lint.
    """
    parent = decode(token)
    lint(parent)
    return encode(seal(parent))


def attest(request: bytes, *, key: SigningKey, groups: Sequence[str], expires_at: datetime) -> bytes:
    """The answer to ``request``: ``key`` vouches until ``expires_at`` that its holder is in ``groups``.

    Nothing about the holder is checked here: whoever has the key decides that, with
    :func:`~certauth.tokens.verify.verify` or :func:`~certauth.tokens.inspect.describe` of the request, which is a token.

    Raises ``UsageError`` (``bad-attestation``) for groups or an end that cannot be, ``TokenError`` for what is no request,
    ``KeyMaterialError`` (``bad-key``) for a key other than Ed25519 or P-256.
    """
    named = tuple(dict.fromkeys(groups))
    if isinstance(groups, str) or not 1 <= len(named) <= MAX_VOUCHED or not all(map(is_name, named)):
        raise UsageError(
            "bad-attestation",
            f"one vouches for a list of 1 to {MAX_VOUCHED} groups, each of 1 to 128 printable characters",
            hint="certauth token attest --group run7, or in Python groups=['run7']",
        )
    if expires_at.tzinfo is None or expires_at.timestamp() < 0:
        raise UsageError(
            "bad-attestation", "an attestation needs an end, with its time zone", hint="certauth token attest --for 1h"
        )
    token = decode(request)
    linted = lint(token)
    if not token.sealed:
        # Whoever got this could also have narrowed the token, or had it attested by others in the holder's name.
        raise TokenError(
            "token-not-sealed",
            "this is a token that can be added to, not a request",
            hint="its holder makes a request with 'certauth token request', and keeps the token",
        )
    if int(expires_at.timestamp()) <= linted.authority.not_before:
        raise UsageError("bad-attestation", "the attestation would end before the token begins", hint="give a later end")
    facts = tuple(membership(group) for group in named)
    block = Block(THIRD_PARTY_DATALOG, facts, (Window(None, int(expires_at.timestamp())),))
    return third_party_answer(third_party_request(token), block, key)


def append_attestation(token: bytes, answer: bytes, *, entropy: Entropy = os.urandom) -> bytes:
    """``token`` with the other facility's ``answer`` in it.

    Raises ``TokenError``: ``token-malformed`` for what is no answer, ``token-signature`` for an answer about another token,
    ``lint-third-party`` for one that says something else than to vouch, ``token-sealed``, ``too-many-blocks``.
    """
    parent = decode(token)
    before = lint(parent)
    data = encode(append_answer(parent, answer, entropy=entropy))
    if len(lint(decode(data)).attestations) == len(before.attestations):
        raise TokenError("lint-third-party", "the answer hands the token over instead of vouching for anything", hint=WHOLE)
    return data


def request_to_text(request: bytes) -> str:
    """A request as one line, for a file or a message."""
    return _REQUEST + b64url(request)


def request_from_text(text: str) -> bytes:
    """The bytes of a request's text, of bounded length; ``TokenError`` (``token-malformed``) for any other text."""
    return _from_text(text, _REQUEST, "a request for an attestation")


def answer_to_text(answer: bytes) -> str:
    """An answer as one line, for a file or a message."""
    return _ANSWER + b64url(answer)


def answer_from_text(text: str) -> bytes:
    """The bytes of an answer's text, of bounded length; ``TokenError`` (``token-malformed``) for any other text."""
    return _from_text(text, _ANSWER, "an answer to one")


def _from_text(text: str, prefix: str, what: str) -> bytes:
    body = text[: MAX_TEXT + 64].strip()
    found = body.removeprefix(prefix)
    if found == body or not _TEXT.fullmatch(found):
        raise TokenError("token-malformed", f"this is not {what}", hint=f"it is one line that begins with {prefix}")
    try:
        data = from_b64url(found)
    except ValueError as error:
        raise TokenError("token-malformed", f"this is not {what}, or it was damaged", hint=WHOLE) from error
    if len(data) > MAX_BYTES or len(text) > MAX_TEXT + 64:
        raise TokenError("token-too-large", f"{what} has at most {MAX_BYTES} bytes", hint=WHOLE)
    return data
