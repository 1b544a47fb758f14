"""What crosses the wire: request bodies, strictly parsed. Nothing here is trusted beyond its shape."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certauth.encoding import strict_json
from certauth.errors import RequestError

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_LIFETIME_MAX = 10_000 * 366 * 86_400  # what arithmetic with dates can hold; everything below is clamped and said

RequestId = Annotated[str, Field(pattern=rf"^{_REQUEST_ID.pattern}$")]
Seconds = Annotated[int, Field(strict=True, gt=0, le=_LIFETIME_MAX)]


Body = TypeVar("Body", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Token = Annotated[str, Field(repr=False, max_length=16_384)]
Secret = Annotated[str, Field(repr=False, min_length=16, max_length=128)]


class IdTokenProof(_Body):
    """An OIDC ID token bound to the key of the certification request, by a nonce made with ``salt`` or by its ``cnf``."""

    type: Literal["id_token"]
    token: Token
    salt: Annotated[str, Field(min_length=22, max_length=22)] | None = None


class AccessTokenProof(_Body):
    """An OAuth access token: a JWT (RFC 9068) bound by ``cnf``, or an opaque one that its issuer explains (RFC 7662)."""

    type: Literal["access_token"]
    token: Token
    issuer: Annotated[str, Field(max_length=64)] | None = None


class WorkloadProof(_Body):
    """The token of a CI job or Kubernetes pod, made for an audience that names the key."""

    type: Literal["workload"]
    token: Token


class AssertionProof(_Body):
    """A service's or agent's own assertion, signed with an enrolled key (RFC 7523)."""

    type: Literal["client_assertion"]
    token: Token


class CodeProof(_Body):
    """The one-time enrolment code of a service, host or agent."""

    type: Literal["code"]
    code: Secret


class LoginProof(_Body):
    """A login that was begun here for this key and finished in a browser."""

    type: Literal["login"]
    login: Annotated[str, Field(max_length=64)]
    secret: Secret


Proof = Annotated[
    IdTokenProof | AccessTokenProof | WorkloadProof | AssertionProof | CodeProof | LoginProof, Field(discriminator="type")
]


class _Lifetime(_Body):
    lifetime: Seconds | None = None
    request_id: RequestId | None = None

    @property
    def wanted_lifetime(self) -> timedelta | None:
        return None if self.lifetime is None else timedelta(seconds=self.lifetime)


class CertificateBody(_Lifetime):
    """``POST /v1/certificates``."""

    csr: Annotated[str, Field(max_length=32_768)]
    proof: Proof
    invite: Annotated[str | None, Field(repr=False, min_length=16, max_length=128)] = None


class RenewalBody(_Lifetime):
    """``POST /v1/renewals``."""

    csr: Annotated[str, Field(max_length=32_768)]


class RightBody(_Body):
    """One operation on one path (exact) or subtree (trailing slash)."""

    operation: Annotated[str, Field(max_length=64)]
    path: Annotated[str, Field(max_length=512)]


class TokenBody(_Lifetime):
    """``POST /v1/tokens``."""

    audience: Annotated[str, Field(max_length=64)]
    rights: Annotated[tuple[RightBody, ...], Field(max_length=32)] | None = None
    delegations: Annotated[int, Field(strict=True, ge=0, le=4)] = 1
    """How often in a row the token may be handed over."""


class RevocationBody(_Body):
    """``POST /v1/revocations``."""

    kind: Literal["certificate", "jti", "block", "principal", "kid"]
    value: Annotated[str, Field(min_length=1, max_length=256)]
    reason: Annotated[str, Field(min_length=1, max_length=200)]
    token: Annotated[str | None, Field(repr=False, max_length=16_384)] = None
    """For ``block``: the token that has the block, from whoever holds it or made it."""
    request_id: RequestId | None = None


def parse(kind: type[Body], data: bytes) -> Body:
    """``data`` as ``kind``; ``RequestError`` (``body-malformed``) naming the members at fault, never their values."""
    try:
        return kind.model_validate(strict_json(data))
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, detail["loc"])) or "the body" for detail in error.errors()}))
        raise RequestError(
            "body-malformed",
            f"the request does not fit: {where[:200]}",
            hint="compare it with the reference of the HTTP interface",
        ) from None
    except ValueError as error:
        raise RequestError(
            "body-malformed", "the request is not strict JSON", hint="compare it with the reference of the HTTP interface"
        ) from error
