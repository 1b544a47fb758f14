"""Bounds on what one client can make the service do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from certauth.errors import RequestError, UnavailableError
from signer import limits
from signer.limits import RateLimiter, read_body


def test_bucket_empties_and_refills() -> None:
    """An address may spend its burst, is then refused with a time to wait, and recovers with time."""
    limiter = RateLimiter(per_minute=60)
    for _ in range(60):
        limiter.spend("10.0.0.1", at=100.0)
    with pytest.raises(UnavailableError) as caught:
        limiter.spend("10.0.0.1", at=100.0)
    assert (caught.value.code, caught.value.retry_after) == ("rate-limited", 1)
    limiter.spend("10.0.0.2", at=100.0)  # another address is not affected
    limiter.spend("10.0.0.1", at=101.0)
    with pytest.raises(UnavailableError):
        limiter.spend("10.0.0.1", at=101.0)


def test_memory_is_bounded() -> None:
    """Any number of addresses leaves a bounded number of buckets, the newest among them."""
    limiter = RateLimiter(per_minute=1)
    for number in range(10_050):
        limiter.spend(f"address {number}", at=0.0)
    assert len(limiter._buckets) == 10_000
    with pytest.raises(UnavailableError):
        limiter.spend("address 10049", at=0.0)
    limiter.spend("address 0", at=0.0)  # forgotten, hence full again


def test_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a byte now and then does not hold a request for ever."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    request = Request({"type": "http", "headers": []}, trickle)
    with pytest.raises(RequestError) as caught:
        asyncio.run(read_body(request, limit=1000))
    assert caught.value.code == "body-too-slow"
