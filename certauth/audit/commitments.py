"""Commitments: a salted hash that goes into the log, in place of personal data that stay outside (as SD-JWT does, RFC 9901)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from certauth.encoding import Json, b64url, canonical_json, from_b64url, strict_json
from certauth.errors import LogError

SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Commitment:
    """A salted hash that goes into the log, and the disclosure that stays outside. Its ``repr`` shows the hash only."""

    digest: str
    disclosure: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What a disclosure says, once it is known to be the one committed to."""

    name: str
    value: object = field(repr=False)


def commit(name: str, value: Json, *, salt: bytes) -> Commitment:
    """Commit to ``value`` under ``name``; ``salt`` is 16 fresh random bytes, without which guesses could be confirmed."""
    if len(salt) != SALT_BYTES:
        raise LogError(
            "bad-salt", f"a commitment needs {SALT_BYTES} bytes of salt", hint="give it bytes from secrets.token_bytes"
        )
    try:
        disclosure = b64url(canonical_json([b64url(salt), name, value]))
    except (TypeError, ValueError) as error:
        raise LogError(
            "record-malformed", f"the value of {name[:40]!r} has no canonical form", hint="take the entry as the log holds it"
        ) from error
    return Commitment(_digest(disclosure), disclosure)


def open_commitment(digest: str, disclosure: str) -> Disclosed:
    """What was committed to by ``digest``; raise ``LogError`` (``commitment-mismatch``) for any other disclosure."""
    if not disclosure.isascii() or _digest(disclosure) != digest:
        raise LogError(
            "commitment-mismatch",
            "the disclosure is not the one the log commits to",
            hint="take the disclosure as the facility gave it; it may belong to another entry",
        )
    try:
        members = strict_json(from_b64url(disclosure))
    except ValueError as error:
        raise LogError(
            "commitment-mismatch",
            "the disclosure is not JSON in base64url",
            hint="take the disclosure as the facility gave it; it may belong to another entry",
        ) from error
    match members:
        case [str(), str(name), value]:
            return Disclosed(name, value)
        case _:
            raise LogError(
                "commitment-mismatch",
                "the disclosure is not salt, name and value",
                hint="take the disclosure as the facility gave it; it may belong to another entry",
            )


def _digest(disclosure: str) -> str:
    return b64url(hashlib.sha256(disclosure.encode()).digest())
