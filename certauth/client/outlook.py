"""What would happen to a token now: which of its conditions hold, which fail, and which only the request will tell.

A rehearsal, not a verdict: no signature is verified here, no revocation is looked at, and a service has rules of its own. It
can say for certain that a token would be refused, never that it would be accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from certauth.tokens.authority import Authority
from certauth.tokens.codec import decode, from_text
from certauth.tokens.conditions import (
    BodyDigest,
    Condition,
    Members,
    Networks,
    Operations,
    Paths,
    Peer,
    Projects,
    Services,
    Uses,
    Voucher,
    Window,
)
from certauth.tokens.datalog import Check
from certauth.tokens.lint import lint
from certauth.tokens.meaning import Address, HandOver, Request, Stated, holds, is_within, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known about a request: ``now`` always, of the rest what is given."""

    now: datetime
    peer: str | None = None
    service: str | None = None
    operation: str | None = None
    path: str | None = None
    address: Address | None = None
    project: str | None = None
    body_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that must hold, in words. ``holds`` is ``None`` if it depends on ``needs``, which was not given."""

    block: int
    says: str
    holds: bool | None
    needs: str | None = None


def outlook(unverified_token: str, situation: Situation) -> tuple[Finding, ...]:
    """Everything a service would ask of this token, in the order of its blocks, and at last whether a right covers the request.

    Raises ``TokenError`` for what is no token of profile ``fac/1``.
    """
    token = decode(from_text(unverified_token))
    authority, hand_overs, attestations = lint(token)
    stated = Stated(
        tuple(HandOver(handed.key, handed.depth, handed.to.fingerprint) for handed in hand_overs),
        tuple(Voucher(group, said.key) for said in attestations for group in said.groups),
    )
    found = [
        _unread(number) if isinstance(condition, Check) else _finding(number, condition, situation, stated)
        for number, block in enumerate(token.contents)
        for condition in block.checks
    ]
    return (*found, _right(authority, situation))


def _unread(number: int) -> Finding:
    return Finding(block=number, says="a check of another program's making", holds=None, needs="the service's own evaluation")


def _finding(number: int, condition: Condition, situation: Situation, stated: Stated) -> Finding:
    needs = next((name for name, value in _needs(condition, situation) if value is None), None)
    met = None if needs is not None else holds(condition, _request(situation), stated)
    return Finding(block=number, says=words(condition), holds=met, needs=needs)


def _needs(condition: Condition, situation: Situation) -> Iterator[tuple[str, object]]:
    """What the condition is about: how it is called, and what is known of it."""
    match condition:
        case Window() | Members():
            return
        case Services():
            yield "the service", situation.service
        case Operations():
            yield "the operation", situation.operation
        case Paths():
            yield "the path", situation.path
        case Projects():
            yield "the project", situation.project
        case Peer():
            yield "the certificate", situation.peer
        case Networks():
            yield "the client's address", situation.address
        case BodyDigest():
            yield "the body", situation.body_sha256
        case Uses():
            yield "the service's counter", None
        case _:
            assert_never(condition)


def _request(situation: Situation) -> Request:
    """The situation as a request; what is not known is not looked at (``_needs``)."""
    return Request(
        now=situation.now,
        service=situation.service or "",
        operation=situation.operation or "",
        path=situation.path or "",
        peer_fingerprint=situation.peer or "",
        client_address=situation.address,
        project=situation.project,
        body_sha256=situation.body_sha256,
    )


def _right(authority: Authority, situation: Situation) -> Finding:
    service, operation, path = situation.service, situation.operation, situation.path
    covering = [
        right
        for right in authority.rights
        if (service is None or right.service == service)
        and (operation is None or right.operation == operation)
        and (path is None or is_within(path, right.path))
    ]
    needs = next(
        (name for name, value in (("the service", service), ("the operation", operation), ("the path", path)) if value is None),
        None,
    )
    asked = " ".join(filter(None, (operation or "do something", path, None if service is None else f"at {service}")))
    # That no right covers what is known is certain; that one does, only when all is known.
    return Finding(
        block=0,
        says=f"a right to {asked}",
        holds=False if not covering else None if needs else True,
        needs=needs if covering else None,
    )
