"""From the event loop to the ledger: what one turn of the loop has produced goes over together.

The ledger commits whatever waits when its last batch is on the disk. Under load the loop is busy, so submissions handed over
one by one would be committed one or two at a time, each batch at its fixed cost. Within one turn of the loop, though, every
request that is ready is worked on; handing those over back to back makes one batch of them and costs a single client nothing.
"""

from __future__ import annotations

import asyncio

from signer.ledger import Committed, Ledger, Submission


class Handoff:
    """Belongs to one event loop. ``_turn`` is the end of the present turn, while somebody waits for it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn: asyncio.Future[None] | None = None

    async def record(self, submission: Submission) -> Committed:
        """Wait until the submission is durable; raises what ``Ledger.submit`` and its future raise."""
        if self._turn is None:
            loop = asyncio.get_running_loop()
            self._turn = loop.create_future()
            loop.call_soon(self._end_turn, self._turn)
        await asyncio.shield(self._turn)  # one client that goes away must not end the turn of the others
        return await asyncio.wrap_future(self._ledger.submit(submission))

    def _end_turn(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        turn.set_result(None)
