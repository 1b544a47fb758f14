"""The door: request -> certificate -> token -> decision -> record, around any ASGI app.

    app = PolicyMiddleware(app, policy="policy.toml", trust="trust.toml")

Every http and websocket scope goes through the same steps, in this order, and each has a module of its own:

    1 request      ``policy.request``        what is asked, in one spelling
    2 peer         ``policy.peer``           what the transport says of the other end
    3 certificate  ``policy.certificate``    the presented chain, verified against its own domain's bundle, now
    4 token        ``policy.token``          the presented token, verified, now
    5 decision     ``policy.decision``       Permit or Deny, by ``policy.toml``; no route means Deny
    6 record       ``policy.decision_log``   written down before the app is called

The app is called in one place, after a Permit and its record. Whatever else happens, an error of ours included, is a denial.
Bodies are not touched: they stream through as if nobody were there. The exception is a token made for one body; that, and the
counting of a token with a number of uses, comes before the record (``policy.stateful``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from certauth.clock import Clock, system_clock
from certauth.errors import ChainError, RevokedError, StoreError, TokenError
from policy.asgi import App, Incoming, Lifespan, Outgoing, Receive, Send, cut_off, deny_request
from policy.body import BodyReader
from policy.caller import members_of, scope_for_app
from policy.certificate import PeerVerifier
from policy.counting import UseCounter
from policy.cutoff import CutOffs, Running
from policy.decision import Decision, Deny, PeerOutcome, Permit, TokenOutcome, decide
from policy.decision_log import DecisionLog, DecisionRecord
from policy.judgement import FAILED, Judgement, denying, record_of, refused
from policy.peer import PresentedPeer, read_peer
from policy.problem import Problem, problem_of
from policy.remaining import GuardedCaller, Remaining
from policy.remembered import Permits, Remembered, key_of
from policy.request import AccessRequest, ReadHeaders, RequestKind, Scope, read_headers, read_request, uuid7
from policy.rules import Policy
from policy.stateful import Uses, is_settled, settle
from policy.tls import FailedHandshake
from policy.token import TokenVerifier, find_token
from policy.trust import Trust, TrustState

logger = logging.getLogger("policy")

RECHECK_SECONDS = 2.0
"""How often a request that is still open is decided again."""
_CRASHED = Deny(code="app-crashed", reasons=("the app raised an exception",), status=500)


class PolicyMiddleware:
    """Guards an ASGI app: see the module's text for the steps."""

    def __init__(
        self,
        app: App,
        *,
        policy: Policy | Path | str,
        trust: Trust | Path | str,
        decisions: DecisionLog | None = None,
        uses: UseCounter | None = None,
        clock: Clock = system_clock,
        forward_credentials: bool = False,
        recheck_seconds: float = RECHECK_SECONDS,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Read the documents; nothing runs before the app's lifespan begins, or its first request where there is none.

        ``decisions`` and ``uses`` replace the log and the counters that ``policy.toml`` describes. ``forward_credentials`` lets
        the app see the token, for apps that pass it on. Raises ``ConfigError``.
        """
        self._app = app
        self._policy = policy if isinstance(policy, Policy) else Policy.load(policy)
        self._trust = trust if isinstance(trust, Trust) else Trust.load(trust, clock=clock)
        self._peers, self._tokens = PeerVerifier(self._trust), TokenVerifier(self._trust)
        self._permits = Permits(self._peers)
        self._log = decisions or DecisionLog(
            self._policy.record_path,
            mode=self._policy.record_mode,
            clock=clock,
            program=f"certauth policy {self._policy.service}",
        )
        counter = uses or _counter_of(self._policy)
        self._uses = None if counter is None else Uses(counter)
        self._bodies = BodyReader(self._policy.max_body)
        self._clock, self._entropy, self._forward_credentials = clock, entropy, forward_credentials
        self._cut_offs = CutOffs(clock=clock, every=recheck_seconds, decide_again=self._decide_again)
        self._starting = threading.Lock()
        self._started = False

    @property
    def log(self) -> DecisionLog:
        """The decision log, for health checks and metrics."""
        return self._log

    @property
    def trust(self) -> Trust:
        """The trust in force, e.g. for the roots a server verifies handshakes against."""
        return self._trust

    def start(self) -> None:
        """Open the counters and the decision log, and begin refreshing trust. Idempotent. Raises ``StoreError``."""
        with self._starting:
            if not self._started:
                if self._uses is not None:
                    self._uses.start()
                self._log.start()
                self._trust.start()
                self._started = True

    def stop(self) -> None:
        """End refreshing, write what is waiting, close the log. Idempotent; waits for the disk."""
        with self._starting:
            if self._started:
                self._started = False
                self._trust.stop()
                self._log.close()
                if self._uses is not None:
                    self._uses.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # a plain def would be taken for ASGI 2
        match scope["type"]:
            case "http" | "websocket":
                await self._guard(scope, receive, send)
            case "lifespan":
                await Lifespan(self._app, start=self.start, stop=self.stop)(scope, receive, send)
            case unknown:
                raise ValueError(f"scope type {unknown!r} is not guarded, so it does not reach the app")

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = self._clock()
        headers = read_headers(scope["headers"])
        request_id = headers.request_id or uuid7(milliseconds=int(now.timestamp() * 1000), entropy=self._entropy(10))
        judgement = self._judge(scope, headers, now)
        if not is_settled(judgement.decision):
            await self._settle(judgement, headers, receive)
        body = judgement.body
        try:
            try:
                # Step 6. In strict mode this returns when the record is on the disk.
                await self._log.record(self._record(scope, headers, judgement, request_id, now))
            except StoreError as error:
                judgement = refused(error, generation=judgement.generation)
            match judgement.decision:
                case Permit() as permit:
                    receive = receive if body is None else body.replay(receive)
                    await self._admit(scope, receive, send, headers, judgement, permit, request_id)
                case Deny() as deny:
                    problem = problem_of(deny, request_id, judgement.retry_after)
                    await deny_request(scope, send, problem)
                case other:
                    assert_never(other)
        finally:
            if body is not None:
                body.release()

    def _judge(self, scope: Scope, headers: ReadHeaders, now: datetime) -> Judgement:
        """Steps 1 to 5. Never raises: an error is a denial too."""
        judgement = Judgement(decision=FAILED, generation=0)
        with denying(judgement):
            if not self._started:
                self.start()
            state = self._trust.state
            judgement.generation = state.generation
            if (known := self._permits.find(key := key_of(scope, headers), state, now)) is not None:
                judgement.request, judgement.presented, judgement.decision = known.request, known.presented, known.permit
                judgement.known = known
                return judgement
            judgement.request = request = read_request(scope, headers)  # 1
            judgement.presented = presented = read_peer(scope)  # 2
            judgement.decision = decision = self._decide(request, presented, state, now)  # 3, 4, 5
            if isinstance(decision, Permit):
                self._permits.keep(key, Remembered(decision, request, presented, state, now))
        return judgement

    async def _settle(self, judgement: Judgement, headers: ReadHeaders, receive: Receive) -> None:
        """Have done with a permit what its token asks for besides. Never raises: an error is a denial too."""
        permit, request, presented = judgement.decision, judgement.request, judgement.presented
        if not isinstance(permit, Permit) or request is None or presented is None:
            raise RuntimeError("a permit without a request")
        judgement.decision = FAILED

        def decide_again(body_sha256: str) -> Decision:
            state = self._trust.state
            judgement.generation = state.generation
            return self._decide(request, presented, state, self._clock(), body_sha256=body_sha256)

        with denying(judgement):
            settled = await settle(
                permit,
                headers=headers.passed,
                receive=receive,
                bodies=self._bodies,
                uses=self._uses,
                decide_again=decide_again,
                clock=self._clock,
            )
            judgement.decision, judgement.body, judgement.uses = settled.decision, settled.body, settled.uses

    def _decide(
        self,
        request: AccessRequest,
        presented: PresentedPeer,
        state: TrustState,
        now: datetime,
        *,
        body_sha256: str | None = None,
        begun: bool = False,
    ) -> Decision:
        """Steps 3 to 5. As long as the body is not known, it is taken to be the one that the token asks for."""
        peer: PeerOutcome = None
        token: TokenOutcome = None
        if presented.chain_der:
            try:
                peer = self._peers.verify(presented.chain_der, now=now, state=state)  # 3
            except (ChainError, RevokedError) as error:
                peer = error
        text = find_token(request)
        if text is not None:
            try:
                token = self._tokens.verify(text, now=now, state=state)  # 4
                if token.body_sha256 and body_sha256 is None and request.kind is RequestKind.HTTP:
                    body_sha256 = min(token.body_sha256)  # of several none will do
            except (TokenError, RevokedError) as error:
                token = error
        return decide(  # 5
            request=request,
            policy=self._policy,
            state=state,
            peer=peer,
            token=token,
            now=now,
            counts=self._uses is not None,
            body_sha256=body_sha256,
            begun=begun,
        )

    def _decide_again(self, running: Running, now: datetime) -> Decision:
        return self._decide(running.request, running.presented, self._trust.state, now, begun=True)

    async def _admit(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: ReadHeaders,
        judgement: Judgement,
        permit: Permit,
        request_id: str,
    ) -> None:
        """Call the app. The only place that does."""
        request, presented, task = judgement.request, judgement.presented, asyncio.current_task()
        if request is None or presented is None or task is None:
            raise RuntimeError("a permit without a request")
        remaining = Remaining(permit, clock=self._clock)
        caller = GuardedCaller(**_members(judgement, permit, request), request_id=request_id, remaining=remaining)
        inner = scope_for_app(scope, headers, caller, hide_token=permit.token is not None and not self._forward_credentials)
        refusal = partial(self._app_refusal, remaining, scope, headers, judgement, request_id)
        outgoing = Outgoing(send, request_id=request_id, scope=scope, refusal=refusal)
        running: Running | None = None
        if caller.expires_at is not None:

            async def close(ended: Deny) -> None:
                await self._record_end(self._record(scope, headers, judgement, request_id, self._clock(), ended=ended))
                await cut_off(scope, send, problem_of(ended, request_id, None), started=outgoing.started)

            now = task.get_loop().time()
            running = Running(
                task=task, request=request, presented=presented, until=caller.expires_at, checked=now, close=close
            )
            self._cut_offs.add(running)
            outgoing.running, outgoing.over = running, partial(self._cut_offs.remove, running)
            receive = Incoming(receive, running=running)
        try:
            await self._app(inner, receive, outgoing)
            await outgoing.refused()
        except asyncio.CancelledError:
            if running is None or running.ended is None:
                raise  # the server gave up on the request; that is not ours to answer
        except Exception:
            # An app without a framework lets the exception of require_remaining come here.
            if not await outgoing.refused() and (running is None or running.ended is None):
                await self._record_end(self._record(scope, headers, judgement, request_id, self._clock(), ended=_CRASHED))
                raise
        finally:
            outgoing.over()
        if running is not None and running.closing is not None:
            for _ in range(running.cancelled):
                task.uncancel()
            await running.closing

    async def _app_refusal(
        self, remaining: Remaining, scope: Scope, headers: ReadHeaders, judgement: Judgement, request_id: str
    ) -> Problem | None:
        """What is said in the app's place, once it found that the request cannot be done in time. Recorded before, and once."""
        denied, remaining.denied = remaining.denied, None
        if denied is None:
            return None
        await self._record_end(self._record(scope, headers, judgement, request_id, self._clock(), ended=denied))
        return problem_of(denied, request_id, None)

    async def _record_end(self, record: DecisionRecord) -> None:
        """Record how a permitted request ended; if that fails, it has ended all the same."""
        with contextlib.suppress(StoreError):
            await self._log.record(record)

    def note_failed_handshake(self, failure: FailedHandshake) -> None:
        """Record a client whom TLS refused before there was a request; give this to ``policy.server``."""
        self._log.note(
            DecisionRecord(
                event="handshake",
                at=self._clock(),
                outcome="deny",
                code="handshake-failed",
                address=failure.address,
                reasons=(failure.reason,),
            )
        )

    def _record(
        self,
        scope: Scope,
        headers: ReadHeaders,
        judgement: Judgement,
        request_id: str,
        at: datetime,
        *,
        ended: Deny | None = None,
    ) -> DecisionRecord:
        """What is written down of a request: its decision, or with ``ended`` why a permitted one did not run to its end."""
        return record_of(scope, headers, judgement, request_id, at, ended=ended, policy=self._policy.digest)


def _members(judgement: Judgement, permit: Permit, request: AccessRequest) -> dict[str, Any]:
    known = judgement.known
    if known is None:
        return members_of(permit, request)
    if known.members is None:
        known.members = members_of(permit, request)
    return known.members


def _counter_of(policy: Policy) -> UseCounter | None:
    if policy.uses_path is None:
        return None
    from policy.uses import UseFile  # a door that counts nothing needs no database

    return UseFile(policy.uses_path)
