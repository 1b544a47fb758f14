"""A door without a server: real certificates and tokens, verified and decided as the middleware does it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from certauth.errors import ChainError, RevokedError, TokenError
from policy.certificate import PeerVerifier
from policy.decision import Decision, Deny, PeerOutcome, Permit, TokenOutcome, decide
from policy.decision_log import DecisionLog, DecisionRecord
from policy.request import CONNECT, OPERATIONS, AccessRequest, RequestKind
from policy.rules import Policy, RecordMode
from policy.testing import Peer
from policy.token import TokenVerifier, find_token
from policy.trust import Trust

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)

RULES = b"""
version = 1
service = "data"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/me"
access = "certificate"
[[route]]
path = "/me"
methods = ["PUT"]
access = "certificate"
[[route]]
path = "/files/"
methods = ["GET", "PUT", "DELETE"]
access = "token"
[[route]]
path = "/api/files/"
access = "token"
strip_prefix = "/api"
[[route]]
path = "/live"
websocket = true
access = "token"
[[route]]
path = "/beamline"
access = "token"
operation = "read"
[route.require]
assurance = 2
groups_any = ["staff", "operators"]
roles_any = ["scientist"]
projects_any = ["p1"]
principals = ["spiffe://als.example/user/*"]
"""


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **units: float) -> None:
        self.now += timedelta(**units)


def request(
    what: str,
    *,
    token: str | None = None,
    address: str | None = "192.0.2.7",
    authorization: Sequence[bytes] = (),
    biscuit: Sequence[bytes] = (),
    subprotocols: Sequence[str] = (),
) -> AccessRequest:
    """``"GET /files/x"`` or ``"WEBSOCKET /live"`` as the door reads it."""
    method, _, path = what.partition(" ")
    websocket = method == "WEBSOCKET"
    shown = (f"Bearer {token}".encode(),) if token is not None else ()
    return AccessRequest(
        kind=RequestKind.WEBSOCKET if websocket else RequestKind.HTTP,
        method="GET" if websocket else method,
        path=path,
        operation=CONNECT if websocket else OPERATIONS[method],
        client_address=address,
        uid=None,
        authorization=(*shown, *authorization),
        biscuit=tuple(biscuit),
        subprotocols=tuple(subprotocols),
    )


class Door:
    """Rules, trust and the two verifiers, which remember from one request to the next."""

    def __init__(self, trust: Trust, clock: HandClock, rules: bytes = RULES) -> None:
        self.trust, self.clock = trust, clock
        self.policy = Policy.parse(rules)
        self.peers, self.tokens = PeerVerifier(trust), TokenVerifier(trust)

    def ask(
        self,
        what: str,
        peer: Peer | None = None,
        token: str | None = None,
        *,
        address: str = "192.0.2.7",
        counts: bool = False,
        body_sha256: str | None = None,
    ) -> Decision:
        """The decision about a request of ``peer`` with ``token``, now."""
        asked, now, state = request(what, token=token, address=address), self.clock(), self.trust.state
        found: PeerOutcome = None
        shown: TokenOutcome = None
        if peer is not None:
            try:
                found = self.peers.verify(peer.chain_der, now=now, state=state)
            except (ChainError, RevokedError) as error:
                found = error
        text = find_token(asked)
        if text is not None:
            try:
                shown = self.tokens.verify(text, now=now, state=state)
            except (TokenError, RevokedError) as error:
                shown = error
        return decide(
            request=asked,
            policy=self.policy,
            state=state,
            peer=found,
            token=shown,
            now=now,
            counts=counts,
            body_sha256=body_sha256,
        )

    def code(self, what: str, peer: Peer | None = None, token: str | None = None, **given: Any) -> str:
        """``permit``, or the code of the denial."""
        decision = self.ask(what, peer, token, **given)
        return "permit" if isinstance(decision, Permit) else decision.code


def denied(decision: Decision) -> Deny:
    """The denial, for tests that look into one."""
    assert isinstance(decision, Deny), "expected a denial"
    return decision


def record(directory: Path, *records: DecisionRecord) -> Path:
    """A decision file as a door writes it."""
    log = DecisionLog(directory / "decisions.jsonl", mode=RecordMode.STRICT, clock=HandClock(), program="test")
    log.start()

    async def write() -> None:
        for each in records:
            await log.record(each)

    asyncio.run(write())
    log.close()
    return directory / "decisions-0.jsonl"


def decision(request_id: str, *, code: str = "permitted", reasons: tuple[str, ...] | None = None) -> DecisionRecord:
    """A record of a decision about ``GET /files/x``."""
    return DecisionRecord(
        event="decision",
        at=START,
        outcome="permit" if code == "permitted" else "deny",
        code=code,
        request=request_id,
        method="GET",
        path="/files/x",
        route="route 3 (/files/)",
        reasons=reasons,
        principal="spiffe://als.example/user/alice",
    )
