"""Runs the ``[[test]]`` tables of a ``policy.toml``: made-up people, real certificates and tokens, the real decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from certauth.clock import Clock, system_clock
from certauth.names import TrustDomain
from certauth.tokens.verify import TrustedAttester
from policy.certificate import PeerVerifier
from policy.decision import Permit, decide
from policy.explain import Explanation, explain
from policy.request import CONNECT, OPERATIONS, AccessRequest, RequestKind
from policy.rules import Policy, PolicyTest
from policy.testing import Facility
from policy.token import TokenVerifier
from policy.trust import Trust

PERMIT = "permit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one test. ``got`` is ``permit`` or the code of the denial."""

    test: PolicyTest
    got: str
    explanation: Explanation

    @property
    def failure(self) -> str | None:
        """What is wrong, in a line; ``None`` if the document keeps its promise."""
        return None if self.got == self.test.expect else f"{self.test.name}: expected {self.test.expect}, got {self.got}"


def rehearse(policy: Policy, *, clock: Clock = system_clock) -> tuple[Outcome, ...]:
    """Decide every test of the document. Nothing is read, written or sent.

    Each trust domain that a test names gets a facility of its own, made for the occasion: what is tested are the rules.
    """
    domains = {test.principal.domain for test in policy.tests if test.principal is not None}
    facilities = {domain: Facility(str(domain), clock=clock) for domain in domains}
    vouching = {domain: Facility(domain, clock=clock) for test in policy.tests for domain, _ in map(_member, test.members)}
    trust = _trust(facilities.values(), [facility.attester() for facility in vouching.values()])
    return tuple(_outcome(test, policy, facilities, vouching, trust, clock) for test in policy.tests)


def _member(name: str) -> tuple[str, str]:
    """``nsls.example:run7`` as who vouches, and for what."""
    domain, _, group = name.partition(":")
    return domain, group


def _trust(facilities: Iterable[Facility], attesters: Iterable[TrustedAttester]) -> Trust:
    first, *others = [*facilities] or [Facility()]
    return first.trust(*others, attesters=attesters)


def _outcome(
    test: PolicyTest,
    policy: Policy,
    facilities: dict[TrustDomain, Facility],
    vouching: dict[str, Facility],
    trust: Trust,
    clock: Clock,
) -> Outcome:
    now, state = clock(), trust.state
    peer, token = None, None
    if test.principal is not None:
        facility = facilities[test.principal.domain]
        holder = facility.peer(test.principal.id, kind=test.principal.kind, assurance=test.assurance)
        peer = PeerVerifier(trust).verify(holder.chain_der, now=now, state=state)
        if test.rights is not None:
            text = facility.token(
                holder,
                policy.service,
                rights=[f"{operation} {path}" for operation, path in test.rights],
                groups=test.groups,
                roles=test.roles,
                projects=test.projects,
                assurance=test.assurance,
            )
            for domain in dict.fromkeys(domain for domain, _ in map(_member, test.members)):
                text = vouching[domain].vouch(text, *(group for by, group in map(_member, test.members) if by == domain))
            token = TokenVerifier(trust).verify(text, now=now, state=state)
    request = AccessRequest(
        kind=test.kind,
        method=test.method,
        path=test.path,
        operation=CONNECT if test.kind is RequestKind.WEBSOCKET else OPERATIONS[test.method],
        client_address="127.0.0.1",
        uid=None,
        authorization=(),
        biscuit=(),
        subprotocols=(),
    )
    decision = decide(request=request, policy=policy, state=state, peer=peer, token=token, now=now)
    got = PERMIT if isinstance(decision, Permit) else decision.code
    return Outcome(test=test, got=got, explanation=explain(decision, request))
