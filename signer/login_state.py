"""One login that is under way: what is known of it, what a browser is shown, and what ended it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

from certauth.errors import Refused, RequestError
from certauth.identity import Issuer, VerifiedIdentity
from signer.discovery import Discovery
from signer.login_provider import Provider

AGAIN: Final = "begin again with 'certauth login'"
MAX_QUERY: Final = 8192
"""Characters of a provider's answer in the address; codes of real providers have up to 2000."""
MAX_DESCRIPTION: Final = 200
_MAX_FIELDS: Final = 20
_KNOWN: Final = ("state", "code", "iss", "error", "error_description")


class Stage(StrEnum):
    """How far a login is. The last three are final."""

    PENDING = "pending"
    """Nobody has typed its code."""
    OPENED = "opened"
    """One browser has, and shows the confirmation page; it is that browser's from now on."""
    CONFIRMED = "confirmed"
    """Somebody there said "this is me"; the browser is at the provider."""
    PROVING = "proving"
    """The provider has answered; its code is exchanged and its ID token verified."""
    READY = "ready"
    DENIED = "denied"
    FAILED = "failed"

    @property
    def for_program(self) -> str:
        """``pending``, ``confirmed`` or what it came to: more is nobody's business but the browser's."""
        return {Stage.OPENED: "pending", Stage.PROVING: "confirmed"}.get(self, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimits:
    """How long and how many; times in seconds. ``total`` and ``per_address`` count every login begun within ``lifetime``.

    ``remembered`` is how long after its end the outcome of a login can still be asked for.
    """

    lifetime: float = 600
    interval: float = 2
    remembered: float = 300
    total: int = 2048
    per_address: int = 128


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Login:
    """A login. Secrets are kept as SHA-256; ``repr`` shows nothing, and ``expires_at``, ``next_poll`` are monotonic seconds.

    ``link`` is the principal to whom it is to be linked; without one it is for a certificate.
    """

    id: str
    provider: Provider
    spki: bytes
    salt: bytes
    host: str
    address: str | None
    secret_digest: bytes
    code: str
    expires_at: float
    next_poll: float
    link: str | None = None
    stage: Stage = Stage.PENDING
    browser_digest: bytes | None = None
    state_digest: bytes | None = None
    verifier: str = ""
    discovery: Discovery | None = None
    identity: VerifiedIdentity | None = None
    reason: str = ""
    sentence: str = ""

    def is_of_browser(self, cookie: str) -> bool:
        """Whether ``cookie`` is the one given to the browser in which the code was typed; constant time."""
        return self.browser_digest is not None and hmac.compare_digest(digest(cookie), self.browser_digest)

    def check_going_on(self, *, at: float) -> None:
        """Raise ``Refused`` (``login-denied``, ``login-failed``, ``login-expired``) once it cannot lead to a certificate."""
        if self.stage is Stage.DENIED:
            raise Refused("login-denied", f"the login was refused: {self.sentence} ({self.reason})", hint=AGAIN)
        if self.stage is Stage.FAILED:
            raise Refused("login-failed", f"the login failed: {self.sentence} ({self.reason})", hint=AGAIN)
        if at >= self.expires_at:
            raise Refused("login-expired", "the login was not finished in time", hint=AGAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the program that began a login is told. The user types the code; the page's address does not contain it."""

    login: str
    user_code: str = field(repr=False)
    verification_uri: str
    expires_in: int
    interval: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a login stands for the program that began it: ``pending``, ``confirmed`` or ``ready``."""

    state: str
    interval: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What a person decides about: the machine as it calls itself, the address it really has, its key, and where they log in.

    ``cookie`` binds the browser to the login, for ``seconds``; it is ``None`` if the browser has it already. ``link`` is the
    principal to whom the login is to be linked, instead of leading to a certificate.
    """

    login: str
    seconds: int
    cookie: str | None = field(repr=False)
    host: str
    address: str | None
    fingerprint: str
    issuer: Issuer
    link: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The provider's answer as the browser brought it (RFC 6749 §4.1.2, RFC 9207 §2); nothing of it is verified."""

    state: str = field(repr=False)
    code: str | None = field(repr=False)
    iss: str | None
    error: str | None
    description: str | None = field(repr=False)

    @classmethod
    def read(cls, query: str) -> Answer:
        """Raise ``RequestError`` (``callback-malformed``) unless every parameter is there at most once and readable."""
        try:
            pairs = parse_qsl(query[: MAX_QUERY + 1], keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        except ValueError as error:
            raise _malformed("it cannot be read") from error
        given = [(name, value) for name, value in pairs if name in _KNOWN]
        values = dict(given)
        if len(query) > MAX_QUERY or len(values) != len(given):
            raise _malformed("it is too long, or says something twice")
        if not values.get("state") or not (values.get("code") or values.get("error")):
            raise _malformed("it has no state, or neither code nor error")
        return cls(
            state=values["state"],
            code=values.get("code"),
            iss=values.get("iss"),
            error=values.get("error"),
            description=printable(values.get("error_description", "")) or None,
        )


def digest(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def printable(text: str, *, longest: int = MAX_DESCRIPTION) -> str:
    """``text`` without what could reorder or hide parts of a line, cut to ``longest`` characters."""
    return "".join(character if character.isprintable() else " " for character in text[:longest]).strip()


def _malformed(why: str) -> RequestError:
    return RequestError("callback-malformed", f"the provider's answer cannot be used: {why}", hint=AGAIN)
