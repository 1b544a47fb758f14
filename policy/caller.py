"""Who the app is told is calling: a typed identity, in the places where Starlette and FastAPI look for one.

The app gets names and attributes, never the credential they were proved with: an app that logs its headers must not thereby
collect tokens, and one with a login of its own would refuse a bearer header it did not issue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.authentication import AuthCredentials, BaseUser

from certauth.bundles import VerifiedPeer
from certauth.names import Principal
from policy.decision import Permit
from policy.request import AccessRequest, Headers, ReadHeaders, Scope
from policy.token import SUBPROTOCOL

STATE = "certauth"
"""``request.state.certauth``, which is ``scope["state"]["certauth"]``, is a ``Caller``."""


_NOBODY: dict[str, Any] = dict.fromkeys(("principal", "certificate", "user", "expires_at", "peer")) | {
    "assurance": 0,
    **dict.fromkeys(("groups", "roles", "projects", "members", "handed_over"), ()),
}


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


def members_of(permit: Permit, request: AccessRequest) -> dict[str, Any]:
    """What the caller is made of that a permit was given to, but for the id of the request."""
    peer, token = permit.peer, permit.token
    members: dict[str, Any] = dict(_NOBODY, operation=permit.route.operation_of(request), path=request.path)
    if peer is not None:
        members.update(
            principal=peer.principal,
            certificate=peer.fingerprint,
            assurance=peer.assurance,
            expires_at=peer.not_after,
            peer=peer,
        )
    if peer is not None and token is not None:
        members.update(
            user=token.user,
            assurance=min(peer.assurance, token.assurance),
            groups=token.groups,
            roles=token.roles,
            projects=token.projects,
            members=tuple([str(member) for member in token.members]),
            handed_over=token.chain if token.hand_overs else (),
            expires_at=min(peer.not_after, token.expires_at),
        )
    return members


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
