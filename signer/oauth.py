"""What the OAuth endpoints are asked, strictly read: token (RFC 6749 §4.4, RFC 8693), introspection and revocation requests.

The client is whoever holds the certificate of the connection (RFC 8705 §2.1); a ``client_id`` may name it, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl

from certauth.errors import CertauthError, Refused, RequestError
from certauth.names import Principal
from certauth.requests import Right
from certauth.tokens.jwt_form import is_scope

CLIENT_CREDENTIALS: Final = "client_credentials"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type (RFC 8693 §3)
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"

Form = Literal["biscuit", "jwt"]

_MAX_FIELDS: Final = 32
_KNOWN: Final = frozenset(
    {"grant_type", "audience", "scope", "requested_token_type", "subject_token", "subject_token_type", "client_id", "lifetime"}
    | {"actor_token", "actor_token_type", "resource"}
    | {"token", "token_type_hint", "reason"}
)
# RFC 6749 §5.2, RFC 8693 §2.2.2; what is none of these is invalid_request.
_ERRORS: Final[Mapping[str, str]] = {
    "unsupported-grant-type": "unsupported_grant_type",
    "right-not-held": "invalid_scope",
    "bad-right": "invalid_scope",
    "audience-unknown": "invalid_target",
    "resource-unknown": "invalid_target",
    "jwt-not-offered": "invalid_target",
    "not-enrolled": "invalid_client",
    "principal-disabled": "invalid_client",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequestForm:
    """A request to the token endpoint. ``subject_token`` is there for an exchange only."""

    audience: str
    rights: tuple[Right, ...] | None
    lifetime: int | None
    form: Form
    subject_token: str | None = field(repr=False)


def read_form(body: bytes, *, client: Principal) -> dict[str, str]:
    """The members of ``application/x-www-form-urlencoded`` text, each once (RFC 6749 §3.2).

    Raises ``RequestError`` (``form-malformed``, ``client-mismatch``). Unknown members are ignored, as RFC 6749 §3.2 wants.
    """
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError as error:
        raise _malformed("the body is not a form", "send application/x-www-form-urlencoded") from error
    members = [(name, value) for name, value in pairs if name in _KNOWN and value]
    names = [name for name, _ in members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _malformed(f"{', '.join(twice)} is given more than once", "give each parameter once")
    form = dict(members)
    if form.get("client_id", str(client)) != str(client):
        raise RequestError(
            "client-mismatch",
            "client_id names another client than the certificate",
            hint="leave client_id out, or give the principal of your certificate",
        )
    return form


def read_token_request(form: Mapping[str, str]) -> TokenRequestForm:
    """What is asked of the token endpoint; ``RequestError`` (``unsupported-grant-type``, ``form-malformed``, ``bad-right``)."""
    grant = form.get("grant_type")
    if grant not in {CLIENT_CREDENTIALS, EXCHANGE}:
        raise RequestError(
            "unsupported-grant-type",
            "this endpoint knows client_credentials and token-exchange",
            hint=f"grant_type={CLIENT_CREDENTIALS}, or grant_type={EXCHANGE} with a subject_token",
        )
    subject = form.get("subject_token")
    if (grant == EXCHANGE) != (subject is not None):
        raise _malformed("a subject_token belongs to a token exchange", "send it with grant_type token-exchange, and only then")
    if subject is not None and form.get("subject_token_type") != ACCESS_TOKEN:
        raise _malformed("only an access token of this facility can be exchanged", f"subject_token_type={ACCESS_TOKEN}")
    wanted = form.get("requested_token_type", ACCESS_TOKEN)
    if wanted not in {ACCESS_TOKEN, JWT}:
        raise _malformed("this type of token is not made here", f"requested_token_type={ACCESS_TOKEN} or {JWT}")
    if "audience" not in form:
        raise _malformed("the service that the token is for is missing", "audience=NAME")
    if "actor_token" in form or "actor_token_type" in form:
        raise _malformed("an actor_token is not supported", "leave it out: whoever acts is the holder of the certificate")
    if form.get("resource", form["audience"]) != form["audience"]:
        raise RequestError(
            "resource-unknown",
            "resource names something else than audience, and a token is for one service",
            hint="leave resource out, and name the service in audience",
        )
    lifetime = form.get("lifetime", "")
    if lifetime and not (lifetime.isdecimal() and lifetime.isascii() and len(lifetime) <= 9):
        raise _malformed("lifetime is not a number of seconds", "lifetime=3600")
    return TokenRequestForm(
        audience=form["audience"],
        rights=_rights(form["scope"].split(" ")) if "scope" in form else None,
        lifetime=int(lifetime) if lifetime else None,
        form="jwt" if wanted == JWT else "biscuit",
        subject_token=subject,
    )


def error_of(error: CertauthError, *, exchange: bool = False) -> dict[str, object]:
    """An error as RFC 6749 §5.2 spells it, with our code and hint beside. Another refusal is ``unauthorized_client``.

    In an exchange, a subject token that is no good or not wanted is an ``invalid_request`` (RFC 8693 §2.2.2), whatever is
    wrong with whom it is about: the client itself was authenticated.
    """
    fallback = "unauthorized_client" if isinstance(error, Refused) and not exchange else "invalid_request"
    name = _ERRORS.get(error.code, fallback)
    body: dict[str, object] = {
        "error": "invalid_request" if exchange and name == "invalid_client" else name,
        "error_description": error.message,
        "code": error.code,
    }
    return body | {"hint": error.hint} if error.hint else body


def scope_text(rights: Iterable[tuple[str, str, str]]) -> str:
    """Rights as scopes of ours, ``operation:/path``, a trailing slash meaning everything below.

    A right that would not stay one scope is left out: what a holder wrote behind a space would be read as another.
    """
    return " ".join(filter(is_scope, (f"{operation}:{path}" for _, operation, path in rights)))


def _rights(scopes: list[str]) -> tuple[Right, ...]:
    rights = []
    for scope in filter(None, scopes):
        operation, colon, path = scope.partition(":")
        if not colon:
            raise RequestError("bad-right", "a scope is operation:/path", hint="scope=read:/data/run7/")
        rights.append(Right.make(operation, path))
    return tuple(rights)


def _malformed(message: str, hint: str) -> RequestError:
    return RequestError("form-malformed", message, hint=hint)
