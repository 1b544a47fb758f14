"""Who the app is told is calling: a typed identity, in the places where Starlette and FastAPI look for one.

The app gets names and attributes, never the credential they were proved with: an app that logs its headers must not thereby
collect tokens, and one with a login of its own would refuse a bearer header it did not issue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from starlette.authentication import AuthCredentials, BaseUser

from certauth.bundles import VerifiedPeer
from certauth.names import Principal
from policy.decision import Permit
from policy.request import AccessRequest, Headers, ReadHeaders, Scope
from policy.token import SUBPROTOCOL

STATE = "certauth"
"""``request.state.certauth``, which is ``scope["state"]["certauth"]``, is a ``Caller``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller(BaseUser):
    """The caller of one permitted request. It is also ``request.user``."""

    request_id: str
    principal: Principal | None
    """Who holds the certificate; None on a public route, where nobody was asked."""
    certificate: str | None
    """Fingerprint of the certificate: hex SHA-256 of its DER."""
    user: str | None
    """Whose rights the token carries. Differs from ``principal`` if the token was delegated."""
    assurance: int
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    projects: tuple[str, ...]
    members: tuple[str, ...]
    """Groups of other facilities that these vouch for, as ``<domain>:<group>``."""
    handed_over: tuple[str, ...]
    """Fingerprints of the certificates the token was in the hands of, from the user's to the caller's; empty if it never was
    handed over."""
    operation: str
    path: str
    expires_at: datetime | None
    """When the first of certificate and token ends. The door ends the request then."""
    peer: VerifiedPeer | None = field(repr=False)
    """The verified certificate itself, for apps that issue or delegate."""

    @property
    def is_authenticated(self) -> bool:
        return self.principal is not None

    @property
    def display_name(self) -> str:
        return self.identity

    @property
    def identity(self) -> str:
        """On whose behalf: the token's user, else the certificate's principal, else the empty string."""
        return self.user or (str(self.principal) if self.principal is not None else "")

    @property
    def scopes(self) -> list[str]:
        """For Starlette's ``@requires``: ``authenticated``, ``group:…``, ``role:…``, ``project:…``, ``member:…``."""
        if self.principal is None:
            return []
        return [
            "authenticated",
            *(f"group:{name}" for name in self.groups),
            *(f"role:{name}" for name in self.roles),
            *(f"project:{name}" for name in self.projects),
            *(f"member:{name}" for name in self.members),
        ]


def caller_of(permit: Permit, request: AccessRequest, *, request_id: str) -> Caller:
    """The caller a permit was given to."""
    peer, token = permit.peer, permit.token
    ends = [peer.not_after] if peer is not None else []
    if token is not None:
        ends.append(token.expires_at)
    return Caller(
        request_id=request_id,
        principal=peer.principal if peer is not None else None,
        certificate=peer.fingerprint if peer is not None else None,
        user=str(token.user) if token is not None else None,
        assurance=min(item.assurance for item in (peer, token) if item is not None) if peer is not None else 0,
        groups=tuple(token.groups) if token is not None else (),
        roles=tuple(token.roles) if token is not None else (),
        projects=tuple(token.projects) if token is not None else (),
        members=tuple(map(str, token.members)) if token is not None else (),
        handed_over=token.chain if token is not None and token.hand_overs else (),
        operation=permit.route.operation_of(request),
        path=request.path,
        expires_at=min(ends, default=None),
        peer=peer,
    )


def scope_for_app(scope: Scope, headers: ReadHeaders, caller: Caller, *, hide_token: bool) -> Scope:
    """A copy of ``scope`` for the app: with the caller, without certificate headers and, if asked, without the token."""
    inner = dict(scope)
    inner["headers"] = _without_token(headers.passed) if hide_token else headers.passed
    if hide_token and scope.get("subprotocols"):
        inner["subprotocols"] = [name for name in scope["subprotocols"] if not name.startswith(SUBPROTOCOL)]
    inner["state"] = {**(scope.get("state") or {}), STATE: caller}
    inner["user"] = caller
    inner["auth"] = AuthCredentials(caller.scopes)
    return inner


def _without_token(headers: Headers) -> Headers:
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"biscuit" or (lower == b"authorization" and _is_bearer(value)):
            continue
        if lower == b"sec-websocket-protocol":
            offered = [item for item in value.split(b",") if not item.strip().startswith(SUBPROTOCOL.encode())]
            if not offered:
                continue
            value = b",".join(offered).strip()
        kept.append((name, value))
    return kept


def _is_bearer(value: bytes) -> bool:
    return value.strip().partition(b" ")[0].lower() == b"bearer"
