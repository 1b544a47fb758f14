"""How a denial is said: an RFC 9457 problem document with a stable code, and the challenge that goes with a 401.

The body says what the caller can act on: the code, a sentence, a hint, and the request id under which the owner of the service
finds everything else (``certauth policy explain``). It never repeats a credential, and nothing of what a *policy* would have
needed to hear: that would explain the locks to whoever tries the doors.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from certauth.errors import (
    CertauthError,
    ChainError,
    ProofError,
    RequestError,
    RevokedError,
    StoreError,
    TokenError,
    UnavailableError,
)

if TYPE_CHECKING:  # whoever says an error needs no engine of tokens
    from policy.decision import Deny

_NOT_QUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
"""What ``error_description`` may not hold (RFC 6750 §3)."""
_TOKEN_CODES = ("token-", "lint-")
_RETRY_SECONDS = 5
_DETAIL = 512

_STATUS: dict[type[CertauthError], int] = {
    RequestError: 400,
    ChainError: 401,
    ProofError: 401,
    TokenError: 401,
    RevokedError: 401,
    StoreError: 503,
    UnavailableError: 503,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What the client is told."""

    status: int
    code: str
    detail: str
    request_id: str
    hint: str | None = None
    retry_after: int | None = None
    """Seconds; a 429 or 503 without it gets a default."""
    members: tuple[tuple[str, int], ...] = ()
    """Further members (RFC 9457 §3.2)."""


def problem_of(deny: Deny, request_id: str, retry_after: int | None) -> Problem:
    """A denial as the client is told of it."""
    return Problem(
        status=deny.status,
        code=deny.code,
        detail="; ".join(deny.reasons)[:_DETAIL],
        request_id=request_id,
        hint=deny.hint,
        retry_after=retry_after,
        members=deny.members,
    )


def status_of(error: CertauthError) -> int:
    """The status that says whose move it is: 400 ask differently, 401 present another credential, 503 come back later."""
    if error.code == "method-unknown":
        return 501  # RFC 9110 §15.6.2
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def problem_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    """Header fields of the response, apart from its length: media type, no caching, request id, challenge, time to wait."""
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        (b"x-request-id", problem.request_id.encode("ascii")),
    ]
    if problem.status == 401:
        headers.append((b"www-authenticate", challenge(problem).encode("ascii")))
    if problem.status in (429, 503):  # RFC 6585 §4, RFC 9110 §15.6.4
        headers.append((b"retry-after", str(problem.retry_after or _RETRY_SECONDS).encode("ascii")))
    return headers


def problem_body(problem: Problem) -> bytes:
    """The problem document (RFC 9457 §3). ``type`` is absent, which means about:blank; ``code`` is what programs compare."""
    members: dict[str, object] = {
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": problem.request_id,
    }
    if problem.hint is not None:
        members["hint"] = problem.hint
    members |= dict(problem.members)
    return json.dumps(members).encode("ascii")


def challenge(problem: Problem) -> str:
    """``WWW-Authenticate`` of a 401 (RFC 6750 §3). No error code if no token was shown, as the RFC asks."""
    if not problem.code.startswith(_TOKEN_CODES) or problem.code == "token-required":
        return 'Bearer realm="certauth"'
    description = _NOT_QUOTABLE.sub("", problem.detail)
    return f'Bearer realm="certauth", error="invalid_token", error_description="{description}"'


def close_code(status: int) -> int:
    """The WebSocket close code for a status: 4401, 4403 …, and 1013 "try again later" (RFC 6455 §7.4, IANA) for a 503."""
    return 1013 if status == 503 else 4000 + status
