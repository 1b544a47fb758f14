"""Names made of claims: ``user/{sub|hash}``, ``/home/{claim:/uid}/``, ``{email|local:lab.example}``.

What a claim puts into a name is one segment of it: letters, digits and ``. _ @ + -``, not beginning with a dot or a sign, no
two dots in a row. It cannot climb, add a segment, or end the name early; anything else in the claim refuses the login.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from certauth.errors import ConfigError
from certauth.identity.mapping.claims import Claims, Pointer, Unmappable

MAX_TEMPLATE: Final = 256
MAX_FIELDS: Final = 8
MAX_DISPLAY: Final = 200

SEGMENT: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
_PIECES = re.compile(r"(\{[^{}]*\})")
_FIELD = re.compile(r"\{(?:(sub|email)|claim:(/[^{}|]*))(?:\|(?:(hash)|local:([a-z0-9.-]{1,253})))?\}")


class Use(StrEnum):
    """What a template makes, and so what a claim may put into it."""

    NAME = "a name"
    DISPLAY = "a text for people"


@dataclass(frozen=True, slots=True)
class Field:
    """One pair of braces: a claim, and what is made of it."""

    claim: Pointer
    hashed: bool
    domain: str | None

    def value(self, claims: Claims, use: Use) -> str:
        """Its text for this login; raises ``Unmappable`` if the claim cannot be part of such a text."""
        value = claims.one(self.claim)
        if self.hashed:
            return pseudonym(claims.identity.issuer, *(() if self.claim.text == "/sub" else (self.claim.text,)), value)
        if self.domain is not None:
            value, at, domain = value.rpartition("@")
            if not at or domain != self.domain:
                raise Unmappable(f"{self.claim} is not within {self.domain}", "make a rule for the other domain, or use a hash")
        if use is Use.DISPLAY:
            if not value.isprintable() or len(value) > MAX_DISPLAY:
                raise Unmappable(f"{self.claim} cannot be shown to people", "leave display out of the rule")
        elif not SEGMENT.fullmatch(value):
            raise Unmappable(
                f"{self.claim} cannot be part of a name: it is not letters, digits and . _ @ + - alone",
                f"write {{claim:{self.claim}|hash}}, or use a claim with plain names",
            )
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """Text with claims in braces; ``{{`` and ``}}`` do not exist."""

    text: str
    use: Use
    parts: tuple[str | Field, ...]

    @classmethod
    def parse(cls, text: str, use: Use = Use.NAME) -> Template:
        """Raise ``ConfigError`` (``rule-invalid``) for a template that could not be filled."""
        parts = tuple(_part(piece) for piece in _PIECES.split(text) if piece)
        fields = sum(isinstance(part, Field) for part in parts)
        if not 0 < len(text) <= MAX_TEMPLATE or not text.isprintable() or fields > MAX_FIELDS:
            raise ConfigError(
                "rule-invalid",
                f"{text[:80]!r} is not a template",
                hint=f"1 to {MAX_TEMPLATE} printable characters with at most {MAX_FIELDS} claims",
            )
        return cls(text, use, parts)

    @property
    def example(self) -> str:
        """The text with ``x`` for each claim: whatever holds of it holds of the text with any segment in their place."""
        return "".join("x" if isinstance(part, Field) else part for part in self.parts)

    def meets(self, other: Template) -> bool:
        """Whether the two, filled for people of two issuers, could make the same text."""
        if self._is_pseudonym and other._is_pseudonym:
            return False  # the issuer is part of what is hashed
        if self._is_fixed and other._is_fixed:
            return self.text == other.text
        return (not other._is_fixed and self._stem.startswith(other._stem)) or (
            not self._is_fixed and other._stem.startswith(self._stem)
        )

    @property
    def _stem(self) -> str:
        """What stands before the first claim."""
        return self.parts[0] if isinstance(self.parts[0], str) else ""

    @property
    def _is_fixed(self) -> bool:
        return not any(isinstance(part, Field) for part in self.parts)

    @property
    def _is_pseudonym(self) -> bool:
        """Whether it is a text and one hash, nothing behind it."""
        last = self.parts[-1]
        return isinstance(last, Field) and last.hashed and sum(isinstance(part, Field) for part in self.parts) == 1

    def fill(self, claims: Claims) -> str:
        """The text for this login; raises ``Unmappable``."""
        return "".join(part.value(claims, self.use) if isinstance(part, Field) else part for part in self.parts)


def pseudonym(issuer: str, *parts: str) -> str:
    """24 lower-case letters and digits that stand for somebody of ``issuer`` and for nobody else: 120 bits of SHA-256."""
    digest = hashlib.sha256("\x00".join((issuer, *parts)).encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest[:15]).decode("ascii").lower()


def _part(piece: str) -> str | Field:
    if "{" not in piece and "}" not in piece:
        return piece
    match = _FIELD.fullmatch(piece)
    if match is None:
        raise ConfigError(
            "rule-invalid",
            f"{piece[:80]!r} does not name a claim",
            hint="write {sub}, {email} or {claim:/name}, perhaps with |hash or |local:lab.example before the brace",
        )
    name, pointer, hashed, domain = match.groups()
    return Field(Pointer.parse(pointer or f"/{name}"), hashed is not None, domain)
