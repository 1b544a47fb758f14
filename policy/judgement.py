"""What the steps up to the decision came to for one request, and how that is written down."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from certauth.errors import CertauthError
from policy.body import Body
from policy.decision import Decision, Deny
from policy.decision_log import MAX_TEXT, DecisionRecord
from policy.peer import PresentedPeer
from policy.problem import status_of
from policy.remembered import Remembered
from policy.request import AccessRequest, ReadHeaders, Scope, client_of

logger = logging.getLogger("policy")

FAILED = Deny(code="internal-error", reasons=("this door failed; nothing was permitted",), status=500)


@dataclass(slots=True, kw_only=True)
class Judgement:
    """What steps 1 to 5 came to. A request that could not be read is a Deny without a ``request``."""

    decision: Decision
    generation: int
    request: AccessRequest | None = None
    presented: PresentedPeer | None = None
    retry_after: int | None = None
    body: Body | None = None
    """If it had to be read before the decision."""
    uses: tuple[str, ...] | None = None
    """What was counted."""
    known: Remembered | None = None
    """The permit of an equal request, if this is one."""


@contextlib.contextmanager
def denying(judgement: Judgement) -> Iterator[None]:
    """Whatever is raised within becomes a denial; only what ends the request itself passes."""
    try:
        yield
    except CertauthError as error:
        denial = refused(error, generation=judgement.generation)
        judgement.decision, judgement.retry_after = denial.decision, denial.retry_after
    except Exception:
        logger.exception("a request could not be decided; it is denied")
        judgement.decision = FAILED


def refused(error: CertauthError, *, generation: int) -> Judgement:
    """The denial that an error is."""
    deny = Deny(code=error.code, reasons=(error.message,), status=status_of(error), hint=error.hint)
    return Judgement(decision=deny, generation=generation, retry_after=error.retry_after)


def record_of(
    scope: Scope, headers: ReadHeaders, judgement: Judgement, request_id: str, at: datetime, *, ended: Deny | None, policy: str
) -> DecisionRecord:
    """What is written down of a request: its decision, or with ``ended`` why a permitted one did not run to its end."""
    known = judgement.known
    if known is not None and known.record is not None and ended is None:
        return known.record.again(at=at, request=request_id, stripped=headers.stripped or None)
    request = judgement.request
    route, peer, token = judgement.decision.route, judgement.decision.peer, judgement.decision.token
    decision = judgement.decision if ended is None else ended
    denied = decision if isinstance(decision, Deny) else None
    record = DecisionRecord(
        event="decision" if ended is None else "ended",
        at=at,
        outcome="permit" if denied is None else "deny",
        code="permitted" if denied is None else denied.code,
        request=request_id,
        kind=scope["type"],
        method=scope.get("method"),
        path=scope.get("path", "")[: MAX_TEXT + 1],  # waiting records must not hold more than will be written
        operation=None if request is None else route.operation_of(request) if route is not None else request.operation,
        address=client_of(scope)[0] if request is None else request.client_address,
        uid=None if request is None else request.uid,
        status=None if denied is None else denied.status,
        route=None if route is None else route.name,
        held=None if denied is None else denied.held,
        reasons=None if denied is None else denied.reasons,
        hint=None if denied is None else denied.hint,
        principal=None if peer is None else str(peer.principal),
        certificate=None if peer is None else peer.fingerprint,
        user=None if token is None else str(token.user),
        token=None if token is None else token.jti,
        token_key=None if token is None else token.kid,
        blocks=None if token is None else token.block_ids,
        delegated=None if token is None else token.delegated_to or None,
        vouched=None if token is None else tuple(map(str, token.members)) or None,
        uses=judgement.uses,
        policy=policy,
        trust=judgement.generation,
        stripped=headers.stripped or None,
    )
    if known is not None and ended is None:
        known.record = record
    return record
