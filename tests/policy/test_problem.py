"""``policy.problem``: how a denial is said."""

from __future__ import annotations

import json

import pytest

from certauth.errors import (
    CertauthError,
    ChainError,
    RequestError,
    RevokedError,
    StoreError,
    TokenError,
    UnavailableError,
)
from policy.problem import Problem, challenge, close_code, problem_body, problem_headers, status_of


def problem(**changes: object) -> Problem:
    """A problem with one thing changed."""
    values = {"status": 401, "code": "token-expired", "detail": "the token ended", "request_id": "abcdefgh", **changes}
    return Problem(**values)  # type: ignore[arg-type]  # a test's shorthand


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("path-ambiguous", ""), 400),
        (RequestError("method-unknown", ""), 501),
        (ChainError("x", ""), 401),
        (TokenError("x", ""), 401),
        (RevokedError("x", ""), 401),
        (StoreError("x", ""), 503),
        (UnavailableError("x", ""), 503),
        (CertauthError("x", ""), 500),
    ],
)
def test_the_status_says_whose_move_it_is(error: CertauthError, status: int) -> None:
    """Ask differently, show something else, or come back later."""
    assert status_of(error) == status


def test_the_body_is_a_problem_document() -> None:
    """RFC 9457 members, our code, the request id; the hint only if there is one."""
    assert json.loads(problem_body(problem())) == {
        "title": "Unauthorized",
        "status": 401,
        "code": "token-expired",
        "detail": "the token ended",
        "request_id": "abcdefgh",
    }
    assert json.loads(problem_body(problem(hint="mint a new one")))["hint"] == "mint a new one"


def test_a_401_has_a_challenge() -> None:
    """RFC 9110 §15.5.2 demands one; RFC 6750 wants no error code where no token was shown."""
    headers = dict(problem_headers(problem()))
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"] == b"abcdefgh"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"www-authenticate"] == (
        b'Bearer realm="certauth", error="invalid_token", error_description="the token ended"'
    )
    for code in ("token-required", "certificate-expired"):
        assert challenge(problem(code=code)) == 'Bearer realm="certauth"'
    assert "invalid_token" in challenge(problem(code="lint-rule"))


def test_no_text_breaks_out_of_the_challenge() -> None:
    """Quotes, backslashes, line ends and non-ASCII text are dropped: header injection is not an error description."""
    said = challenge(problem(detail='a"b\\c\r\nset-cookie: x\u00e9'))
    assert said.endswith('error_description="abcset-cookie: x"')
    assert said.isascii()


def test_a_403_has_no_challenge_and_a_503_says_when_to_come_back() -> None:
    """Another credential does not help against a policy; waiting helps against a full disk."""
    assert b"www-authenticate" not in dict(problem_headers(problem(status=403, code="no-route")))
    assert dict(problem_headers(problem(status=503)))[b"retry-after"] == b"5"
    assert dict(problem_headers(problem(status=503, retry_after=9)))[b"retry-after"] == b"9"
    assert dict(problem_headers(problem(status=429, retry_after=9)))[b"retry-after"] == b"9"
    assert b"retry-after" not in dict(problem_headers(problem(status=409, retry_after=9)))


def test_websockets_close_with_the_status() -> None:
    """4401 and 4403 mean to a WebSocket client what 401 and 403 mean to others."""
    assert [close_code(status) for status in (400, 401, 403, 503)] == [4400, 4401, 4403, 1013]
