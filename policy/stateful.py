"""What a permit may still depend on: the body of the request, and how often its token was used.

Few tokens ask for either. For those, this comes between the decision and its record: first the body is read and the decision
taken anew with its digest, then the use is counted. So what is counted was right in everything else, and what was counted is
recorded before the app hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from certauth.clock import Clock
from certauth.errors import StoreError
from certauth.tokens.verify import VerifiedToken
from policy.asgi import Receive
from policy.body import Body, BodyReader, BodyRefused
from policy.counting import NotReserved, Reservation, Reserved, UseCounter
from policy.decision import FORBIDDEN, Decision, Deny, Permit
from policy.request import Headers

MAX_WAITING = 256
"""Requests waiting to be counted; beyond, the door says that it is busy."""


class Uses:
    """A counter as requests use it: in a thread of its own, for a disk is slow, and with a bounded number waiting."""

    def __init__(self, counter: UseCounter, *, waiting: int = MAX_WAITING) -> None:
        self._counter, self._room = counter, waiting
        self._thread: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Make ready to count; idempotent. Raises ``StoreError``."""
        if self._thread is None:
            self._counter.start()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="uses")

    def close(self) -> None:
        """Count what is waiting, and let go; idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()
            self._counter.close()

    async def reserve(self, token: VerifiedToken, *, now: datetime) -> Reservation:
        """Count one use of ``token``. Raises ``StoreError``: nothing is known to be counted then."""
        if self._thread is None or self._room <= 0:
            raise StoreError(
                "uses-unavailable", "uses of tokens cannot be counted at the moment", hint="try again soon", retry_after=1
            )
        # Ids are random; the domain keeps one facility from using up what another's token may.
        name, until = f"{token.domain}/{token.jti}", token.expires_at
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: self._counter.reserve(name, token.limits, until=until, now=now)
            )
        finally:
            self._room += 1


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a permit, and what goes with it."""

    decision: Decision
    body: Body | None = None
    uses: tuple[str, ...] | None = None
    """What was counted, for the record."""


def is_settled(decision: Decision) -> bool:
    """Whether a decision stands as it is. Most do."""
    if not isinstance(decision, Permit) or decision.token is None:
        return True
    return not decision.token.body_sha256 and not decision.token.limits


async def settle(
    permit: Permit,
    *,
    headers: Headers,
    receive: Receive,
    bodies: BodyReader,
    uses: Uses | None,
    decide_again: Callable[[str], Decision],
    clock: Clock,
) -> Settled:
    """Do what a permit still depends on, and say what becomes of it. ``decide_again`` takes the digest of the body.

    Raises ``StoreError`` if uses cannot be counted, and what ``decide_again`` raises: neither is a permit.
    """
    if permit.token is None or not permit.token.body_sha256:
        return await _counted(permit, uses, clock)
    body = await bodies.read(headers, receive)
    if isinstance(body, BodyRefused):
        return Settled(_denied(permit, body.code, body.reason, status=body.status, hint=body.hint))
    settled: Settled | None = None
    try:
        settled = await _counted(decide_again(body.sha256), uses, clock)
    finally:
        if settled is None or not isinstance(settled.decision, Permit):
            body.release()
    return replace(settled, body=body)


async def _counted(decision: Decision, uses: Uses | None, clock: Clock) -> Settled:
    """What becomes of a decision once the use of the token is counted; of a denial nothing is."""
    if not isinstance(decision, Permit) or decision.token is None or not decision.token.limits:
        return Settled(decision)
    token = decision.token
    if uses is None:
        return Settled(_denied(decision, "uses-not-supported", "nothing is counted here", status=FORBIDDEN))
    match await uses.reserve(token, now=clock()):
        case Reserved(counts):
            said = tuple(f"{nonce}: {count} of {token.limits[nonce]}" for nonce, count in counts.items())
            return Settled(decision, uses=said)
        case NotReserved(code, reason):
            return Settled(_denied(decision, code, reason, status=FORBIDDEN))
        case other:
            assert_never(other)


def _denied(permit: Permit, code: str, reason: str, *, status: int, hint: str | None = None) -> Deny:
    return Deny(
        code=code,
        reasons=(reason,),
        status=status,
        hint=hint,
        held=permit.held,
        route=permit.route,
        peer=permit.peer,
        token=permit.token,
    )
