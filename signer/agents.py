"""Agents: somebody's long-running work, enrolled under them with a key of its own and a part of their rights.

An agent is ``spiffe://<trust domain>/agent/<id of its owner>.<name>``. It proves itself with its own key (RFC 7523), renews its
own certificates and asks for its own tokens, so its owner need not be there and shares no credential with it. What it may do is
what it was given *and* its owner may do now (``signer.standing``); once it is stopped, or its owner disabled, it gets nothing
more, and what it has is withdrawn.

A name is used once: whatever the log says of it is about one agent, and a stopped one cannot come back under its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock, rfc3339
from certauth.encoding import canonical_json
from certauth.enrolment import Address, EnrolledRight
from certauth.errors import StoreError
from certauth.identity import jwk_thumbprint
from certauth.issuance import Refusal
from certauth.profiles import BACKDATE
from certauth.revocation import RevocationKind
from signer import entries
from signer.agents_schema import AgentBody, StopBody
from signer.agents_terms import Wish, agent_principal, decide_agent, lives
from signer.ending import ending
from signer.ledger import Submission
from signer.recording import Issued, Recorder
from signer.rows import Change, ClientKeyRow, EnrolledPrincipal, EnrolmentRow
from signer.settings import Limits
from signer.standing import Standing
from signer.store import Store

MAX_LISTED = 200
"""Agents a list names at most, the living ones first."""
MAX_ENDED: Final = 1000
"""Agents whose end every door still has to know of, for one owner: stopping is never refused, so making the next one is."""

_TOO_MANY_ENDED = Refusal(
    "too-many-agents",
    f"you have stopped {MAX_ENDED} agents within a month",
    "let an agent go on from one piece of work to the next, or let it end by itself",
)


class Agents:
    """Makes, lists and stops agents. ``_making`` is held while one is made, so that the limit holds for parallel requests."""

    def __init__(self, *, limits: Limits, store: Store, recorder: Recorder, standing: Standing, clock: Clock) -> None:
        self._limits = limits
        self._store = store
        self._recorder = recorder
        self._standing = standing
        self._clock = clock
        self._making = asyncio.Lock()

    async def create(self, body: AgentBody, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        """Enrol an agent of ``peer`` with its key; it then obtains its certificate by itself.

        Raises ``RequestError``, ``Refused``, ``RevokedError``, ``UnavailableError`` or ``StoreError``; nobody is enrolled then.
        """
        wish = Wish.read(body, owner=peer.principal)
        async with self._making:
            return await self._create(wish, body, peer=peer, address=address, request_id=request_id)

    async def _create(
        self, wish: Wish, body: AgentBody, *, peer: VerifiedPeer, address: Address | None, request_id: str
    ) -> Issued:
        now = self._clock()
        owner, terms = self._standing.enrolment(peer.principal), self._standing.terms(peer)
        current = self._store.certificate(peer.fingerprint)
        decision = decide_agent(
            wish,
            peer=peer,
            owner=owner,
            held=() if owner is None else self._standing.rights(owner, terms),
            most=terms.max_lifetime,
            login_at=None if current is None else current.row.session_at,
            siblings=sum(
                lives(one.enrolment, now)
                for one in self._store.owned_by(peer.principal)
                if one.enrolment.principal != wish.principal  # a repetition of this very request, or a name that is taken
            ),
            limits=self._limits,
            address=address,
            now=now,
        )
        ended = self._store.living_revocations([RevocationKind.PRINCIPAL], by=str(peer.principal), now=int(now.timestamp()))
        if not isinstance(decision, Refusal) and ended >= MAX_ENDED:
            decision = _TOO_MANY_ENDED
        if isinstance(decision, Refusal):
            raise await self._recorder.refused(decision, operation="agent-create", peer=peer)
        enrolment, clamp = decision
        by = str(peer.principal)
        response: dict[str, object] = {
            "principal": str(enrolment.principal),
            "owner": by,
            "rights": _triples(enrolment.rights),
            "networks": [str(network) for network in enrolment.networks],
            "expires_at": None if enrolment.expires_at is None else rfc3339(enrolment.expires_at),
            "clamped": entries.clamped(clamp),
        }
        row = EnrolmentRow(enrolment=enrolment, display="", by=by, at=now, change=Change.NEW)
        kid = jwk_thumbprint(wish.jwk) or ""
        jwk = canonical_json(wish.jwk | {"kid": kid}).decode()
        key = ClientKeyRow(principal=enrolment.principal, kid=kid, jwk=jwk, by=by, at=now)
        submission = Submission(
            request_id=request_id,
            digest=entries.digest("agent-create", by, body.model_dump_json(exclude={"request_id"})),
            event=record.EnrolmentChanged(
                action="agent-create",
                principal=enrolment.principal,
                by=by,
                why="the owner asked for it",
                commitments=(self._recorder.commit("terms", canonical_json(response).decode()),),
            ),
            rows=(row, key),
            response=canonical_json(response),
            grantee=peer.principal,
            holder=peer,
        )
        try:
            return await self._recorder.issue(submission, response, request_id=request_id)
        except StoreError as error:
            if error.code != "store-conflict":
                raise
            taken = Refusal("agent-exists", f"there is or was an agent {wish.principal}", "choose another name")
            raise await self._recorder.refused(taken, operation="agent-create", peer=peer) from error

    def list(self, peer: VerifiedPeer) -> dict[str, object]:
        """The agents of ``peer``; raises ``StoreError``. Who has none, an agent for example, sees none."""
        now = self._clock()
        owned = sorted(
            self._store.owned_by(peer.principal),
            key=lambda one: (not lives(one.enrolment, now), -one.enrolled_at.timestamp(), one.enrolment.principal),
        )
        limits = {"agents": self._limits.agents, "lifetime": int(self._limits.agent_lifetime.total_seconds())}
        return {
            "agents": [self._facts(one, now) for one in owned[:MAX_LISTED]],
            "more": owned[MAX_LISTED:] != [],
            "limits": limits,
        }

    def _facts(self, one: EnrolledPrincipal, now: datetime) -> dict[str, object]:
        agent, owner = one.enrolment, one.enrolment.owner
        newest = self._store.newest_certificate(agent.principal)
        return {
            "name": agent.principal.id.removeprefix(f"{owner.id}." if owner else ""),
            "principal": str(agent.principal),
            "state": "stopped" if agent.disabled else "active" if lives(agent, now) else "ended",
            "rights": _triples(agent.rights),
            "networks": [str(network) for network in agent.networks],
            "created_at": rfc3339(one.enrolled_at),
            "expires_at": None if agent.expires_at is None else rfc3339(agent.expires_at),
            "stopped_at": None if one.disabled_at is None else rfc3339(one.disabled_at),
            "renewed_at": None if newest is None else rfc3339(newest.row.not_before + BACKDATE),
            "certificate": None if newest is None else newest.row.fingerprint,
            "not_after": None if newest is None else rfc3339(newest.row.not_after),
        }

    async def stop(self, name: str, body: StopBody, *, peer: VerifiedPeer, request_id: str) -> Issued | None:
        """End an agent of ``peer``: it is disabled and everything it has is withdrawn, in one entry.

        ``None`` if it was stopped before. Raises ``RequestError`` (``bad-name``), ``Refused`` (``agent-unknown``, also for an
        agent of somebody else), ``RevokedError``, ``UnavailableError`` or ``StoreError``.
        """
        agent = self._store.enrolled_principal(agent_principal(peer.principal, name))
        if agent is None or agent.enrolment.owner != peer.principal:
            raise await self._recorder.refused(_UNKNOWN, operation="agent-stop", peer=peer)
        if agent.enrolment.disabled:
            return None
        principal, by, now = agent.enrolment.principal, str(peer.principal), self._clock()
        response: dict[str, object] = {"principal": str(principal), "state": "stopped"}
        submission = Submission(
            request_id=request_id,
            digest=entries.digest("agent-stop", by, str(principal)),
            event=record.EnrolmentChanged(action="agent-stop", principal=principal, by=by, why=body.reason, commitments=()),
            rows=ending(self._store, agent, reason=body.reason, by=by, at=now),
            response=canonical_json(response),
            grantee=peer.principal,
            holder=peer,
        )
        return await self._recorder.issue(submission, response, request_id=request_id)


_UNKNOWN = Refusal("agent-unknown", "you have no agent of this name", "certauth agent list")


def _triples(rights: Sequence[EnrolledRight]) -> list[dict[str, str]]:
    return [{"service": right.service, "operation": right.operation, "path": right.path} for right in rights]
