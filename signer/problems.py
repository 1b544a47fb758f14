"""From an error to its answer: HTTP status by kind of error, with the exceptions named, in the form every door uses."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from certauth.errors import CertauthError, Refused
from policy import problem as problems
from policy.problem import Problem

STATUS: Mapping[str, int] = {
    "body-too-large": 413,
    "csr-too-large": 413,
    "proof-too-large": 413,
    "proof-malformed": 400,
    "revocation-invalid": 400,
    "body-too-slow": 408,
    "not-found": 404,
    "login-unknown": 404,
    "login-pending": 409,
    "replayed": 409,
    "request-id-used": 409,
    "rate-limited": 429,
    "slow-down": 429,
    "too-many-logins": 429,
    "too-many-tries": 429,
}
"""Codes whose status is not that of their kind."""

_FORBIDDEN = 403


def status_of(error: CertauthError) -> int:
    """The HTTP status of an error; one of no kind a client could cause is our own fault, hence 500."""
    if error.code in STATUS:
        return STATUS[error.code]
    return _FORBIDDEN if isinstance(error, Refused) else problems.status_of(error)


def answer(error: CertauthError, *, request_id: str) -> Response:
    """The problem document of an error (RFC 9457): stable code, sentence, hint, and how long to wait."""
    problem = Problem(
        status=status_of(error),
        code=error.code,
        detail=error.message,
        request_id=request_id,
        hint=error.hint,
        retry_after=error.retry_after,
    )
    response = Response(problems.problem_body(problem), status_code=problem.status)
    response.raw_headers.extend(problems.problem_headers(problem))
    return response
