"""Claims, read with their types: a claim of another type than its specification gives it is refused, never converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from certauth.errors import ProofError

LONGEST_SUBJECT: Final = 255  # OpenID Connect Core §2

_LAST_SECOND: Final = 253402300799  # 9999-12-31T23:59:59Z; later ones overflow datetime
_MAX_TEXTS: Final = 32
_ASK: Final = "ask those who run the provider to change what its tokens hold"


def seconds(claims: Mapping[str, object], name: str) -> float:
    """A NumericDate (RFC 7519 §2); no text, no boolean, nothing before 1970 or after 9999."""
    value = claims.get(name)
    if value is None:
        raise missing(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LAST_SECOND:
        raise ProofError("bad-claim", f"the proof's {name} is not a time", hint=_ASK)
    return value


def printable(claims: Mapping[str, object], name: str, *, longest: int) -> str:
    """A text of 1 to ``longest`` printable characters: it goes into logs and certificates."""
    value = claims.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise ProofError("bad-claim", f"the proof's {name} is not 1 to {longest} printable characters", hint=_ASK)
    return value


def texts(claims: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A list of at most 32 printable texts."""
    value = claims.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, list) or len(value) > _MAX_TEXTS or not all(_is_line(item) for item in value):
        raise ProofError("bad-claim", f"the proof's {name} is not a short list of printable texts", hint=_ASK)
    return tuple(value)


def audiences(claims: Mapping[str, object]) -> frozenset[str]:
    """Whom the token is for: a text or a list of them (RFC 7519 §4.1.3)."""
    value = claims.get("aud")
    return frozenset({value}) if isinstance(value, str) else frozenset(texts(claims, "aud"))


def display(claims: Mapping[str, object], name: str, *, longest: int) -> str | None:
    """A text for people; one that could confuse them is left out, not refused."""
    value = claims.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable() else None


def missing(name: str) -> ProofError:
    """The refusal of a proof that lacks a claim."""
    return ProofError("missing-claim", f"the proof has no {name}", hint=_ASK)


def _is_line(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 2048 and value.isprintable()
