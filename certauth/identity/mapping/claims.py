"""Reading verified claims: one pointer, one of three answers - values, missing, or unreadable - and nothing in between.

A rule names a claim by JSON pointer (RFC 6901), so a key may hold any character: ``/kubernetes.io/pod``,
``/https:~1~1idp.example~1groups``. What a provider leaves out, sends as null, or sends empty says nothing and counts as
missing. What is there but cannot be what the rule expects (an object, too many values, a list that the provider left out for
its length) is unreadable; it is never cut, repaired or guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from certauth.errors import ConfigError

Scalar = str | int | float | bool

MAX_POINTER: Final = 256
MAX_DEPTH: Final = 8
MAX_VALUES: Final = 200
"""Values a rule reads from one claim unless it says otherwise; Entra leaves groups out above the same number."""
MAX_TEXT: Final = 4096
"""Characters of one value."""

_TOKEN = re.compile(r"(?:[^~]|~[01])*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,3}")
_SHOWN = 80


class Identity(Protocol):
    """What admission needs of a ``VerifiedIdentity``."""

    @property
    def issuer_id(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def assurance(self) -> int: ...
    @property
    def email(self) -> str | None:
        """Only when it was verified."""

    @property
    def kind(self) -> str: ...
    @property
    def binding(self) -> str: ...
    @property
    def claims(self) -> Mapping[str, object]: ...


class Unmappable(Exception):
    """Why this login cannot become what a rule says. Holds names of claims, never their values."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


class ClaimMissing(Unmappable):
    """The proof does not hold the claim, or holds it empty."""


class ClaimUnreadable(Unmappable):
    """The claim is there and cannot be read as the rule expects."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A JSON pointer (RFC 6901) into the claims."""

    text: str
    tokens: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pointer:
        """Raise ``ConfigError`` (``rule-invalid``) unless ``text`` is a pointer of 1 to 8 steps."""
        tokens = text.split("/")[1:]
        if not text.startswith("/") or not all(_TOKEN.fullmatch(token) for token in tokens):
            raise ConfigError(
                "rule-invalid",
                f"{text[:80]!r} is not a JSON pointer to a claim",
                hint="write /acr, or /realm_access/roles for a nested claim; a / within a name is ~1, a ~ is ~0",
            )
        if len(text) > MAX_POINTER or len(tokens) > MAX_DEPTH or not text.isprintable():
            raise ConfigError(
                "rule-invalid",
                f"{text[:80]!r} is too long for a claim's pointer",
                hint=f"at most {MAX_POINTER} printable characters and {MAX_DEPTH} steps",
            )
        return cls(text, tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens))

    def __str__(self) -> str:
        return self.text


class Claims:
    """The claims of one verified identity, as one rule may read them.

    ``/email`` is the verified address or missing, whatever the document says; ``/sub`` is the subject the verifier established.
    """

    def __init__(self, identity: Identity, *, max_values: int = MAX_VALUES) -> None:
        self.identity = identity
        self._claims = identity.claims
        self._max_values = max_values

    def find(self, pointer: Pointer) -> object:
        """The JSON value at ``pointer``; raises ``ClaimMissing``, or ``ClaimUnreadable`` if the provider put it elsewhere."""
        head, *rest = pointer.tokens
        self._refuse_overage(head, pointer)
        value: object = self._first(head, pointer)
        for token in rest:
            match value:
                case Mapping():
                    value = value.get(token)
                case list() | tuple() if _INDEX.fullmatch(token) and int(token) < len(value):
                    value = value[int(token)]
                case _:
                    value = None
        if value is None or (isinstance(value, str | list | tuple | Mapping) and not value):
            raise ClaimMissing(f"the proof has no {pointer}", f"ask the provider to send {pointer}, or log in with its scope")
        return value

    def values(self, pointer: Pointer) -> tuple[Scalar, ...]:
        """The value at ``pointer`` as a list: a text, number or boolean by itself is a list of one. Raises as ``find`` does."""
        found = self.find(pointer)
        values = tuple(found) if isinstance(found, list | tuple) else (found,)
        if len(values) > self._max_values:
            raise ClaimUnreadable(
                f"{pointer} has {len(values)} values, and at most {self._max_values} are read",
                "let the provider send fewer, e.g. only the groups assigned to this client, or raise max_values of the rule",
            )
        readable = [value for value in values if isinstance(value, str | int | float)]
        if len(readable) != len(values):
            raise ClaimUnreadable(f"{pointer} is no text, number or boolean, nor a list of these", "name a member within it")
        if any(isinstance(value, str) and len(value) > MAX_TEXT for value in readable):
            raise ClaimUnreadable(f"{pointer} has a value of more than {MAX_TEXT} characters", "let the provider send less")
        return tuple(readable)

    def texts(self, pointer: Pointer) -> tuple[str, ...]:
        """As ``values``, and each of them is text."""
        values = self.values(pointer)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise ClaimUnreadable(f"{pointer} holds something else than texts", "name a claim that holds texts")
        return texts

    def one(self, pointer: Pointer) -> str:
        """The only value at ``pointer``, a text or a whole number, as text. Raises as ``find`` does."""
        values = self.values(pointer)
        if len(values) != 1:
            raise ClaimUnreadable(f"{pointer} has {len(values)} values where one is needed", "name a claim with a single value")
        if isinstance(values[0], bool | float):
            raise ClaimUnreadable(f"{pointer} is neither text nor a whole number", "name a claim that holds a text")
        return str(values[0])

    def _first(self, head: str, pointer: Pointer) -> object:
        if head == "sub":
            return self.identity.subject
        if head == "email":
            if self.identity.email is None and self._claims.get("email"):
                raise ClaimMissing(
                    f"{pointer} is there, but the provider does not say that it verified it",
                    "let the provider send email_verified, or set email_verified for this issuer",
                )
            return self.identity.email
        return self._claims.get(head)

    def _refuse_overage(self, head: str, pointer: Pointer) -> None:
        """Distributed claims (OpenID Connect Core §5.6.2), and Entra's way of saying that there are too many groups."""
        elsewhere = self._claims.get("_claim_names")
        named = isinstance(elsewhere, Mapping | list | tuple) and head in elsewhere
        if named or (head == "groups" and self._claims.get("hasgroups") not in (None, False)):
            raise ClaimUnreadable(
                f"the provider left {pointer} out because it is too long, and says where else it is",
                "let the provider send fewer, e.g. only the groups assigned to this client, or roles of the application",
            )


def typed(value: Scalar) -> tuple[str, Scalar]:
    """``value`` so that it equals only values of its own JSON type: true is not 1, and 1 is not "1", but 1 is 1.0."""
    match value:
        case bool():
            return "boolean", value
        case int() | float():
            return "number", value
        case _:
            return "text", value


def shown(value: Scalar) -> str:
    """``value`` for people: JSON in printable ASCII, at most 80 characters."""
    text = json.dumps(value[:_SHOWN] if isinstance(value, str) else value).replace("\x7f", "\\u007f")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
