"""One login under way: what the user wished, where they are, and what every way of logging in has at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from certauth.client.browser import Browser
from certauth.client.http import Client
from certauth.client.metadata import LoginIssuer, Metadata
from certauth.client.waiting import Screen, Stopwatch
from certauth.clock import Clock
from certauth.encoding import b64url
from certauth.identity.binding import BoundKey
from certauth.keys import SoftwareKey
from certauth.names import Principal, TrustDomain

SECRETS = Path("/var/run/secrets")


class Method(StrEnum):
    """A way of proving who one is."""

    BROWSER = "browser"
    MEDIATED = "mediated"
    DEVICE = "device"
    PASTE = "paste"
    TOKEN = "token"  # noqa: S105  the name of a method
    WORKLOAD = "workload"
    CODE = "code"
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user asked for. ``method`` is ``None`` for the one that suits the situation.

    ``ca`` are further roots for TLS; ``domain`` is the trust domain that the signer must be of. Secrets come from files or
    standard input and are in no ``repr``: ``token`` (a proof that already exists), ``code`` (one-time enrolment code),
    ``invite``. ``key`` and ``principal`` are those of an enrolled service or agent.
    """

    issuer: str | None = None
    lifetime: timedelta | None = None
    ca: bytes | None = None
    browser: Browser = field(default_factory=Browser)
    allow_example_keys: bool = False
    method: Method | None = None
    domain: TrustDomain | None = None
    token: str | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)
    invite: str | None = field(default=None, repr=False)
    key: SoftwareKey | None = None
    principal: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where this runs: the environment, whether a person is at the terminal, whether a window opens, who sits elsewhere.

    ``secrets`` is where Kubernetes puts the credentials of a pod; ``host`` is what this machine calls itself.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    terminal: bool = True
    window: bool = False
    remote: bool = False
    host: str = "unknown"
    secrets: Path = SECRETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a way of logging in works with. ``bound`` is the key as proofs are bound to it.

    ``link`` is whose login it is to become, if it is not for a certificate.
    """

    metadata: Metadata
    wishes: Wishes
    situation: Situation
    key: SoftwareKey
    csr: str
    bound: BoundKey
    salt: bytes
    signer: Client
    others: Callable[[], Client]
    clock: Clock
    screen: Screen
    stopwatch: Stopwatch
    link: Principal | None = None

    def id_token(self, token: str, issuer: LoginIssuer) -> Proven:
        """The proof that an ID token of ``issuer`` is; its nonce is explained only to a signer that asks for it."""
        proof = {"type": "id_token", "token": token}
        return Proven(proof=proof | ({"salt": b64url(self.salt)} if "nonce" in issuer.bindings else {}), issuer=issuer.id)


def access_token(token: str, issuer: LoginIssuer) -> dict[str, object]:
    """The proof that an access token is. One that is no JWT does not say whose it is, so that is said beside it."""
    proof: dict[str, object] = {"type": "access_token", "token": token}
    return proof if token.count(".") == 2 else proof | {"issuer": issuer.id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What the signer is sent as ``proof``, and the id of the issuer it came from, empty if there is none."""

    proof: Mapping[str, object] = field(repr=False)
    issuer: str
