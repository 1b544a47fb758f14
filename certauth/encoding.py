"""Bytes and text with exactly one spelling: strict base64url and restricted canonical JSON.

Both exist so that equal things have equal bytes: what is hashed or signed can be compared, cached and refused by its bytes.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence

_NOT_CANONICAL = "canonical JSON holds only null, booleans, strings, integers below 2^53, lists and objects with ASCII keys"
_MAX_INT = 2**53

_CANONICAL = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]


def b64url(data: bytes) -> str:
    """``data`` as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_b64url(text: str) -> bytes:
    """The bytes of canonical, unpadded base64url; ``ValueError`` for any other spelling of them."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise ValueError("not base64url") from error
    # The decoder skips characters it does not know, so this also refuses other alphabets, padding and line breaks.
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def b64(data: bytes) -> str:
    """``data`` as standard, padded base64 (RFC 4648 §4), as C2SP notes write it."""
    return base64.b64encode(data).decode("ascii")


def from_b64(text: str) -> bytes:
    """The bytes of standard, padded base64; ``ValueError`` for any spelling ``b64`` would not have chosen."""
    data = base64.b64decode(text, validate=True)
    if b64(data) != text:
        raise ValueError("not canonical base64")
    return data


def canonical_json(value: Mapping[str, object] | Sequence[object]) -> bytes:
    """``value`` as RFC 8785 bytes, restricted to values on which every implementation agrees.

    Floats, integers from 2^53, non-ASCII keys and foreign types raise ``TypeError``: they are where canonical JSON libraries
    differ, and a log whose bytes depend on the library proves nothing.
    """
    _check(value)
    return _CANONICAL.encode(value).encode()


def _check(value: object) -> None:
    # In the order of how often each occurs, abstract types last: every log entry and decision passes through here.
    if isinstance(value, str):
        value.encode()  # a lone surrogate raises UnicodeEncodeError, a ValueError
    elif isinstance(value, int):
        if not -_MAX_INT < value < _MAX_INT:
            raise TypeError(_NOT_CANONICAL)
    elif isinstance(value, dict | Mapping):
        for key, member in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise TypeError(_NOT_CANONICAL)
            _check(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _check(member)
    elif value is not None:
        raise TypeError(_NOT_CANONICAL)


def strict_json(data: bytes) -> object:
    """Parse I-JSON (RFC 7493): no duplicate members, NaN, infinity, BOM, lone surrogates, or bytes that are not UTF-8.

    Raises ``ValueError`` (and only it) for anything else than one JSON value.
    """
    try:
        value: object = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is text that nobody can write down
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number too large")
    return number


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
