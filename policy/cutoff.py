"""Requests outlive decisions: a WebSocket or a stream that was permitted in the morning is still open at night.

Each permitted request that showed a credential is looked at again: at once when the credential has ended, and every few seconds
in any case, for it may have been revoked. What would be denied now is cut off: the client is told, and the app is cancelled,
again and again if it goes on. One timer serves all requests of an event loop, runs only while there are any, and costs a short
request nothing but entering and leaving a set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakKeyDictionary

from certauth.clock import Clock
from certauth.errors import UnavailableError
from policy.decision import Decision, Deny
from policy.peer import PresentedPeer
from policy.request import AccessRequest

logger = logging.getLogger("policy.cutoff")

TICK_SECONDS = 0.5
AT_A_TIME = 256
"""Requests decided again in one go; the event loop gets to breathe in between."""


@dataclass(slots=True, eq=False, kw_only=True)
class Running:
    """A permitted request under way."""

    task: asyncio.Task[object]
    request: AccessRequest
    presented: PresentedPeer
    until: datetime
    checked: float
    """Loop time of the last decision."""
    close: Callable[[Deny], Coroutine[None, None, None]]
    """Records the end and tells the client; run at once, not when the app sees fit to return."""
    ended: Deny | None = None
    """Set when it is cut off, before its task is cancelled. From then on the app neither receives nor sends."""
    cancelled: int = 0
    """How often its task was cancelled."""
    closing: asyncio.Task[None] | None = None
    watch: _Watch | None = None


@dataclass(slots=True, eq=False)
class _Watch:
    """The running requests of one event loop."""

    loop: asyncio.AbstractEventLoop
    running: set[Running] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None


class CutOffs:
    """Ends requests whose permit no longer holds. Each method is called in the request's own loop."""

    def __init__(self, *, clock: Clock, every: float, decide_again: Callable[[Running, datetime], Decision]) -> None:
        """``decide_again`` may raise ``UnavailableError``: nothing is known then, and the request goes on until it is."""
        self._clock, self._every, self._decide_again = clock, every, decide_again
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
        self._latest: _Watch | None = None

    def add(self, running: Running) -> None:
        loop = running.task.get_loop()
        watch = self._latest
        if watch is None or watch.loop is not loop:
            watch = self._latest = self._watches.setdefault(loop, _Watch(loop))
        running.watch = watch
        watch.running.add(running)
        if watch.timer is None:
            watch.timer = loop.call_later(TICK_SECONDS, self._tick, watch)

    def remove(self, running: Running) -> None:
        """Forget a request that is over. Idempotent."""
        if running.watch is not None:
            running.watch.running.discard(running)
            running.watch = None

    def _tick(self, watch: _Watch) -> None:
        watch.timer = None
        now, moment = self._clock(), watch.loop.time()
        due = [
            running
            for running in watch.running
            if moment - running.checked >= self._every or (now >= running.until and running.ended is None)
        ]
        for running in due[:AT_A_TIME]:
            running.checked = moment
            if running.ended is None:
                running.ended = self._ended(running, now)
                if running.ended is None:
                    continue
                running.closing = watch.loop.create_task(running.close(running.ended))
            running.cancelled += 1
            running.task.cancel()
        if watch.running:
            watch.timer = watch.loop.call_later(TICK_SECONDS if len(due) <= AT_A_TIME else 0, self._tick, watch)

    def _ended(self, running: Running, now: datetime) -> Deny | None:
        try:
            decision = self._decide_again(running, now)
        except UnavailableError:
            return None
        except Exception:  # whatever went wrong, it is no permit
            logger.exception("a running request could not be decided again; it is ended")
            return Deny(code="internal-error", reasons=("the door failed",), status=500)
        return decision if isinstance(decision, Deny) else None
