"""The decision about one request: the engine evaluates rights and checks; we say in words which of them did not hold.

What one holder asks of one service is put together once (policies and the facts that recur) and merged into a fresh builder
for each request, for a builder that fails once is dead. All of it is made from values, never from text. Time and path are not
kept in it: two time facts would let a check pass that fits the stale one.

The engine's word depends on the token and on those facts and on nothing else: the same question is answered from memory. Time
is part of the question: if every check of the token is one of ours, the interval between two moments that its windows name,
for within it every comparison comes out the same; else the second. What else is looked at on every request, revocation above
all, is not its business.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Any, NoReturn, assert_never

from biscuit_auth import AuthorizationError, Fact

from certauth.errors import UnavailableError
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
    halves,
)
from certauth.tokens.datalog import Check
from certauth.tokens.engine import MAX_FACTS, MAX_ITERATIONS, MAX_TIME, Builder, Guard, is_limit
from certauth.tokens.meaning import Address, HandOver, Request, Stated, holds, is_within, plain_address, words
from certauth.tokens.verify import VerifiedToken


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """One condition that did not hold: which block demanded it, a stable code, and a sentence."""

    block: int
    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """The token allows the request."""

    def __bool__(self) -> NoReturn:
        raise TypeError("match on Allowed and NotAllowed")


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """It does not, for these reasons; there is at least one."""

    failed: tuple[FailedCheck, ...]

    def __bool__(self) -> NoReturn:
        raise TypeError("match on Allowed and NotAllowed")


_POLICIES = """
    allow if tree($below), right({s}, {o}, $below), path($p), $p.starts_with($below);
    allow if path($p), right({s}, {o}, $p);
"""
"""Where neither holds, the engine denies."""


def _limits() -> Any:
    limits = Builder().limits()
    limits.max_time, limits.max_facts, limits.max_iterations = MAX_TIME, MAX_FACTS, MAX_ITERATIONS
    return limits


_LIMITS = _limits()
_REMEMBERED_PATH = 512
"""Characters of a path up to which a decision is remembered, so that nobody fills the memory."""
_EVALUATING = Guard("token-unusable", "the token cannot be evaluated")


def evaluate(
    verified: VerifiedToken,
    *,
    now: datetime,
    service: str,
    operation: str,
    path: str,
    peer_fingerprint: str,
    client_address: str | None,
    project: str | None = None,
    uses: Mapping[str, int] | None = None,
    body_sha256: str | None = None,
) -> Allowed | NotAllowed:
    """Whether ``verified`` allows ``operation`` on ``path`` of ``service``, now, in the hands of ``peer_fingerprint``.

    ``path`` is canonical, ``now`` aware, ``client_address`` an IP address or ``None`` (then no network narrowing holds).
    ``uses`` says for each counter of ``verified.limits`` how often it was used before, and ``body_sha256`` is the digest of the
    request's body in hex; where nothing is counted or no body is read, no narrowing of that kind holds.
    Raises ``UnavailableError`` (``decision-limit``) if the engine ran into its limits, which says nothing about the request.
    """
    counts = () if uses is None else tuple([(nonce, uses[nonce]) for nonce in verified.limits if nonce in uses])
    ask = _engine_allows if len(path) <= _REMEMBERED_PATH else _engine_allows.__wrapped__
    allowed = ask(
        verified,
        _as_good_as(int(now.timestamp()), _moments(verified)),
        service,
        operation,
        path,
        peer_fingerprint,
        client_address,
        project,
        counts,
        body_sha256,
    )
    if allowed:
        return Allowed()
    request = Request(
        now=now,
        service=service,
        operation=operation,
        path=path,
        peer_fingerprint=peer_fingerprint,
        client_address=_address(client_address),
        project=project,
        uses=uses,
        body_sha256=body_sha256,
    )
    return NotAllowed(_explain(verified, request))


@lru_cache(maxsize=1024)  # what is asked is all there is to the answer: it comes out the same again
def _engine_allows(
    verified: VerifiedToken,
    seconds: int,
    service: str,
    operation: str,
    path: str,
    peer_fingerprint: str,
    client_address: str | None,
    project: str | None,
    uses: tuple[tuple[str, int], ...],
    body_sha256: str | None,
) -> bool:
    """The engine's word. What it raises is not remembered."""
    builder = Builder()
    builder.merge(_asking(verified, service, operation, peer_fingerprint, client_address, project))
    builder.set_limits(_LIMITS)  # merging does not bring limits along
    builder.add_fact(_time_fact(seconds))
    builder.add_fact(Fact("path({v})", {"v": path}))  # not kept: paths are many, and as long as the client likes
    for below in {right.path for right in verified.rights if right.path.endswith("/") and path.startswith(right.path)}:
        builder.add_fact(_fact("tree({v})", below))
    for nonce, count in uses:
        builder.add_fact(Fact("uses({v}, {n})", {"v": nonce, "n": count}))
    if body_sha256 is not None:
        builder.add_fact(Fact("body_sha256({v})", {"v": body_sha256}))
    with _EVALUATING:
        try:
            builder.build(verified.biscuit).authorize()
        except AuthorizationError as error:
            if is_limit(error):
                raise UnavailableError("decision-limit", "the decision took too long", retry_after=1) from None
            return False
    return True


@lru_cache(maxsize=1024)
def _asking(
    verified: VerifiedToken,
    service: str,
    operation: str,
    peer_fingerprint: str,
    client_address: str | None,
    project: str | None,
) -> Any:
    """What does not change from request to request of one holder: a builder that is merged into others, and never built."""
    builder = Builder()
    builder.merge(_policies(service, operation))
    builder.add_fact(_fact("service({v})", service))
    builder.add_fact(_fact("operation({v})", operation))
    builder.add_fact(_fact("peer_cert({v})", peer_fingerprint))
    builder.add_fact(_uid_fact(verified.issuer, verified.user))
    if (address := _address(client_address)) is not None:
        builder.add_fact(_address_fact(address))
    if verified.hand_overs:
        builder.add_fact(_fact("holder({v})", verified.holder))
    if project is not None:
        builder.add_fact(_fact("for_project({v})", project))
    return builder


@lru_cache(maxsize=256)
def _policies(service: str, operation: str) -> Any:
    return Builder(_POLICIES, {"s": service, "o": operation})


def _as_good_as(seconds: int, moments: tuple[int, ...] | None) -> int:
    """The last of these ``moments`` up to ``seconds``: no check of the token tells the two apart."""
    if moments is None:
        return seconds
    passed = bisect_right(moments, seconds)
    return moments[passed - 1] if passed else moments[0] - 1


@lru_cache(maxsize=4096)
def _moments(verified: VerifiedToken) -> tuple[int, ...] | None:
    """Every time that a check of the token names, in order; ``None`` if only the engine understands one of its checks."""
    named: set[int] = set()
    for block in verified.blocks:
        for check in block.checks:
            if isinstance(check, Check):
                return None
            if isinstance(check, Window):
                named |= {check.not_before or 0, check.before}
    return tuple(sorted(named))


@lru_cache(maxsize=8192)
def _fact(form: str, value: str) -> Fact:
    """``form`` is one of the literals above; the value goes in as a parameter, so nothing in it can become Datalog."""
    return Fact(form, {"v": value})


@lru_cache(maxsize=64)
def _time_fact(seconds: int) -> Fact:
    return Fact("time({v})", {"v": datetime.fromtimestamp(seconds, UTC)})


@lru_cache(maxsize=4096)
def _uid_fact(issuer: str, user: str) -> Fact:
    return Fact("uid({i}, {u})", {"i": issuer, "u": user})


@lru_cache(maxsize=4096)
def _address_fact(address: Address) -> Fact:
    if isinstance(address, IPv4Address):
        return Fact("client_ip4({v})", {"v": int(address)})
    high, low = halves(int(address))
    return Fact("client_ip6({h}, {l})", {"h": high, "l": low})


@lru_cache(maxsize=4096)
def _address(text: str | None) -> Address | None:
    try:
        return None if text is None else plain_address(ip_address(text))
    except ValueError:
        return None  # a UNIX socket's peer, say: it is in no network


def _explain(verified: VerifiedToken, request: Request) -> tuple[FailedCheck, ...]:
    """Which conditions do not hold, from our own structures: the engine's text repeats what holders wrote."""
    stated = Stated(
        tuple([HandOver(handed.key, handed.depth, handed.to.fingerprint) for handed in verified.hand_overs]),
        tuple([Voucher(group, said.key) for said in verified.attestations for group in said.groups]),
    )
    failed: list[FailedCheck] = []
    unread: list[FailedCheck] = []
    for number, block in enumerate(verified.blocks):
        for condition in block.checks:
            if isinstance(condition, Check):
                unread.append(FailedCheck(number, "token-check", f"{_whose(number)} holds a check of another program's making"))
            elif not holds(condition, request, stated):
                failed.append(_failed(number, condition, request))
    if not any(
        right.service == request.service and right.operation == request.operation and is_within(request.path, right.path)
        for right in verified.rights
    ):
        failed.append(FailedCheck(0, "right-not-held", f"no right to {request.operation} {request.path} at {request.service}"))
    return tuple(failed or unread or [FailedCheck(0, "token-check", "the engine refused the token")])


def _whose(block: int) -> str:
    return "the token" if block == 0 else f"the token's narrowing {block}"


def _failed(block: int, condition: Condition, request: Request) -> FailedCheck:
    whose, demand = _whose(block), words(condition)
    match condition:
        case Window(not_before, _):
            early = not_before is not None and int(request.now.timestamp()) < not_before
            return FailedCheck(block, "token-not-yet-valid" if early else "token-expired", f"{whose} is valid {demand}")
        case Services():
            return FailedCheck(block, "token-audience", f"{whose} works {demand}, this is {request.service}")
        case Operations():
            return FailedCheck(block, "token-operation", f"{whose} serves {demand}, not to {request.operation}")
        case Projects():
            return FailedCheck(block, "token-project", f"{whose} serves {demand}")
        case Peer():
            return FailedCheck(block, "token-binding", f"{whose} works {demand}, this is {request.peer_fingerprint[:16]}…")
        case Paths():
            return FailedCheck(block, "token-path", f"{whose} covers {demand}, not {request.path}")
        case Networks():
            return FailedCheck(block, "token-network", f"{whose} works {demand}, this is {request.client_address or 'none'}")
        case Uses() if request.uses is None:
            return FailedCheck(block, "uses-not-supported", f"{whose} works {demand}, and nothing is counted here")
        case Uses():
            return FailedCheck(block, "token-used-up", f"{whose} works {demand}")
        case BodyDigest():
            return FailedCheck(block, "token-body", f"{whose} works {demand}, this is {(request.body_sha256 or 'none')[:16]}")
        case Members():
            return FailedCheck(block, "token-member", f"{whose} works {demand}")
        case _:
            assert_never(condition)
