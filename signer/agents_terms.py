"""What an agent is enrolled for: decided from what its owner may do now, what they wish, and the signer's limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network

from certauth.bundles import VerifiedPeer
from certauth.clock import in_words, whole_seconds
from certauth.enrolment import Address, EnrolledRight, Enrolment, Login
from certauth.errors import RequestError
from certauth.identity.binding import jwk_of
from certauth.issuance import Clamp, Refusal, suspended
from certauth.names import Kind, Principal, label
from certauth.profiles import MIN_LIFETIME
from certauth.requests import Right, parse_csr, path_covers
from signer.agents_schema import AgentBody, AgentRight
from signer.settings import Limits

RECENT = timedelta(hours=1)
"""How long after a login agents can be made."""
_EVERYWHERE = "*"
_MAX_RIGHTS = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""No dot: so that ``<owner>.<name>`` has one reading, whatever dots the owner's id has."""

Network = IPv4Network | IPv6Network


def agent_principal(owner: Principal, name: str) -> Principal:
    """The agent ``name`` of ``owner``; ``RequestError`` (``bad-name``)."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            "bad-name", f"{name[:80]!r} cannot be the name of an agent", hint="use a-z, 0-9, _ and -, at most 32 characters"
        )
    return Principal.make(owner.domain, Kind.AGENT, f"{owner.id}.{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants for an agent. It can only narrow what they may do themselves."""

    principal: Principal
    jwk: dict[str, object]
    rights: tuple[EnrolledRight, ...] | None
    """``None``: everything ``at`` these services."""
    at: frozenset[str]
    networks: tuple[Network, ...]
    lifetime: timedelta

    @classmethod
    def read(cls, body: AgentBody, *, owner: Principal) -> Wish:
        """Raises ``RequestError``: ``bad-name``, ``bad-path``, ``agent-networks``, and what ``parse_csr`` does."""
        request = parse_csr(body.csr)
        return cls(
            principal=agent_principal(owner, body.name),
            jwk=jwk_of(request.public_key) or {},
            rights=None if body.rights is None else tuple(_right(right) for right in body.rights),
            at=frozenset(one if one == _EVERYWHERE else label(one, "a service") for one in body.everything_at or ()),
            networks=tuple(_network(text) for text in body.networks),
            lifetime=timedelta(seconds=body.lifetime),
        )


def decide_agent(
    wish: Wish,
    *,
    peer: VerifiedPeer,
    owner: Enrolment | None,
    held: Sequence[EnrolledRight],
    most: timedelta | None,
    login_at: datetime | None,
    siblings: int,
    limits: Limits,
    address: Address | None,
    now: datetime,
) -> tuple[Enrolment, Clamp | None] | Refusal:
    """Decide what the agent is enrolled for. Pure.

    ``owner`` is the enrolment of ``peer`` now, ``held`` everything they may do, ``most`` the cap of the login they came with,
    ``login_at`` when that was (``None``: unknown), ``siblings`` the number of their other living agents. Refusals:
    ``agent-not-allowed``, ``not-enrolled``, ``principal-disabled``, ``enrolment-ended``, ``address-not-allowed``,
    ``login-not-recent``, ``too-many-agents``, ``right-not-held``, ``too-many-rights``, ``network-not-held``,
    ``lifetime-invalid``, ``lifetime-exhausted``.
    """
    # 1. Somebody who may have one more.
    if peer.principal.kind is not Kind.USER:  # an agent that made agents would outlive every limit set for it
        return Refusal("agent-not-allowed", f"a {peer.principal.kind} cannot have agents", "ask the person whose work it is")
    if owner is None or owner.principal != peer.principal:
        return Refusal(
            "not-enrolled", f"{peer.principal} is not enrolled here", "ask the facility's administrator to enrol you"
        )
    if (refusal := _none_for(owner, siblings=siblings, limits=limits, address=address, now=now)) is not None:
        return refusal
    # Whoever stole a certificate that is hours old cannot make a visit of hours one of weeks.
    if login_at is None or now - login_at > RECENT:
        return Refusal(
            "login-not-recent",
            f"agents are made within {in_words(RECENT)} of a login, and yours is longer ago",
            "certauth login --force, then at once again",
        )
    # 2. Rights: each within one that is held. What the owner gets later is not the agent's.
    rights = _rights(wish, held)
    if isinstance(rights, Refusal):
        return rights
    # 3. Where from: never from where its owner may not ask.
    if owner.networks and not all(any(_within(one, network) for network in owner.networks) for one in wish.networks):
        return Refusal("network-not-held", "you may not ask from these networks yourself", "name parts of your own networks")
    # 4. Time: as long as was asked for, and never longer.
    start = whole_seconds(now)
    caps = [(limits.agent_lifetime, "the signer's settings")]
    if owner.expires_at is not None:
        caps.append((owner.expires_at - start, "the end of your enrolment"))
    cap, by = min(caps)
    if wish.lifetime < MIN_LIFETIME:
        return Refusal("lifetime-invalid", "an agent lives at least 1 min", "ask for more")
    granted = timedelta(seconds=min(wish.lifetime, cap) // timedelta(seconds=1))
    if granted < MIN_LIFETIME:
        return Refusal("lifetime-exhausted", f"no life of an agent is left within {by}", "have your enrolment prolonged")
    clamp = None
    if wish.lifetime > cap:
        clamp = Clamp(what="life of the agent", requested=wish.lifetime, granted=granted, by=by)
    enrolment = Enrolment(
        principal=wish.principal,
        logins=(Login(str(wish.principal), str(wish.principal)),),  # what it signs itself (RFC 7523)
        rights=rights,
        # Nobody is more certain of an agent than of the login that made it.
        assurance=min(peer.assurance, owner.assurance),
        max_lifetime=min((cap for cap in (owner.max_lifetime, most) if cap is not None), default=None),
        owner=owner.principal,
        expires_at=start + granted,
        networks=wish.networks or owner.networks,
    )
    return enrolment, clamp


def _none_for(owner: Enrolment, *, siblings: int, limits: Limits, address: Address | None, now: datetime) -> Refusal | None:
    """Why this person gets no agent at all just now, if so."""
    if (refusal := suspended(owner, address, now)) is not None:
        return refusal
    if siblings >= limits.agents:
        return Refusal(
            "too-many-agents",
            f"you have {siblings} agents, and at most {limits.agents} may live at a time",
            "stop one: certauth agent list, certauth agent stop",
        )
    return None


def lives(agent: Enrolment, now: datetime) -> bool:
    """Whether an agent gets anything at all now, as far as it alone is concerned."""
    return not agent.disabled and (agent.expires_at is None or now < agent.expires_at)


def _rights(wish: Wish, held: Sequence[EnrolledRight]) -> tuple[EnrolledRight, ...] | Refusal:
    if wish.rights is None:
        found = tuple(right for right in held if _EVERYWHERE in wish.at or right.service in wish.at)
        missing = sorted(wish.at - {right.service for right in found} - ({_EVERYWHERE} if found else set()))
        if missing:
            return Refusal("right-not-held", f"you hold no right at {missing[0]!r}", "compare the name of the service")
        if len(found) > _MAX_RIGHTS:
            return Refusal("too-many-rights", f"you hold more than {_MAX_RIGHTS} rights", "name those that the work needs")
        return found
    for right in wish.rights:
        if not any(_covers(other, right) for other in held):
            return Refusal(
                "right-not-held",
                f"you may not {right.operation} {right.path} at {right.service}",
                "an agent is given what you hold yourself; 'certauth token mint' shows that",
            )
    return tuple(dict.fromkeys(wish.rights))


def _covers(held: EnrolledRight, wish: EnrolledRight) -> bool:
    return (held.service, held.operation) == (wish.service, wish.operation) and path_covers(held.path, wish.path)


def _right(body: AgentRight) -> EnrolledRight:
    right = Right.make(body.operation, body.path)
    return EnrolledRight(label(body.service, "a service"), right.operation, right.path)


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise RequestError(
            "agent-networks", f"{text[:80]!r} is not a network", hint="write 192.0.2.0/24 or 2001:db8::/32, without host bits"
        ) from error


def _within(inner: Network, outer: Network) -> bool:
    match inner, outer:
        case (IPv4Network(), IPv4Network()) | (IPv6Network(), IPv6Network()):
            return inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version, as just matched
        case _:
            return False
