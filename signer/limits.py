"""Bounds on what one client can make the service do: body size and requests per address."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from starlette.requests import Request

from certauth.errors import RequestError, UnavailableError

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive; ours fit into one packet or a few."""
_MAX_ADDRESSES: Final = 10_000


async def read_body(request: Request, *, limit: int) -> bytes:
    """The request's body; ``RequestError`` (``body-too-large``) as soon as it exceeds ``limit`` bytes,
    announced or not; ``body-too-slow`` if it takes longer than ``BODY_SECONDS``.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise RequestError(
            "body-too-slow",
            f"the request took longer than {BODY_SECONDS:.0f} s to arrive",
            hint="send it again over a better connection",
        ) from error
    return bytes(body)


def _too_large(limit: int) -> RequestError:
    return RequestError("body-too-large", f"the request is larger than {limit} bytes", hint="send less")


class RateLimiter:
    """A token bucket per address; bounded memory, the longest unseen address is forgotten first.

    State: ``_buckets`` maps address to (tokens left, time of last use); touched by the event loop only.
    """

    def __init__(self, *, per_minute: int) -> None:
        self._burst = float(per_minute)
        self._rate = per_minute / 60
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, address: str, *, at: float) -> None:
        """Take one request from ``address``'s bucket at monotonic time ``at``; raise ``rate-limited`` when it is empty."""
        left, last = self._buckets.pop(address, (self._burst, at))
        left = min(self._burst, left + (at - last) * self._rate)
        if left < 1:
            self._buckets[address] = (left, at)
            raise UnavailableError(
                "rate-limited", "too many requests from this address", retry_after=1, hint="wait as long as Retry-After says"
            )
        self._buckets[address] = (left - 1, at)
        if len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
