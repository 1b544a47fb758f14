"""What a check can say, as typed values: the vocabulary of profile ``fac/1``, in both directions.

``to_check`` builds the Datalog structures, ``from_check`` recognises them again, so a refusal can be explained and a token
described without reading any text that its holder wrote. What they mean is in :mod:`~certauth.tokens.meaning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, assert_never

from certauth.tokens.datalog import (
    QUERY_HEAD,
    Binary,
    Check,
    Date,
    KeyRef,
    Op,
    Predicate,
    Query,
    Scope,
    Term,
    TermSet,
    Variable,
)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Window:
    """Valid from ``not_before`` (if given) until just before ``before``, in POSIX seconds."""

    not_before: int | None
    before: int


@dataclass(frozen=True, slots=True)
class Services:
    """For these services."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operations:
    """For these operations."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Projects:
    """For requests that belong to these projects."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """In the hands of this certificate; if ``delegate_key`` is given, also of one that this key handed it over to.

    ``depth`` is how often it can be handed over from here, at least 1; without a key it says nothing. With a depth of 1 the
    key names who has it now. With more it says to whom it gave it, whose key says in the next block who has it then, and so on;
    the door follows that chain and states its end.
    """

    fingerprint: str
    delegate_key: KeyRef | None = None
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Paths:
    """For these paths: exactly, or below if they end in ``/``."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Networks:
    """From client addresses in these networks."""

    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Uses:
    """At most ``limit`` times, counted under ``nonce`` together with the token's id."""

    nonce: str
    limit: int


@dataclass(frozen=True, slots=True)
class BodyDigest:
    """For a request whose body has this SHA-256, in hex."""

    sha256: str


class Voucher(NamedTuple):
    """A group, and the key that must vouch for it."""

    group: str
    key: KeyRef


@dataclass(frozen=True, slots=True)
class Members:
    """If one of these keys has vouched, in this token, for the group that goes with it."""

    vouchers: tuple[Voucher, ...]


Condition = Window | Services | Operations | Projects | Peer | Paths | Networks | Uses | BodyDigest | Members


_DELEGATE = "delegate"
_MEMBER = "member"
_CERT = "peer_cert"
_HOLDER = "holder"
_BODY = "body_sha256"
_USES = "uses"
_NAMES: dict[str, type[Services | Operations | Projects]] = {
    "service": Services,
    "operation": Operations,
    "for_project": Projects,
}
_PREDICATES = {kind: name for name, kind in _NAMES.items()}
_NOW, _PATH, _IP, _HIGH, _LOW, _OTHER, _NEXT, _COUNT = (Variable(name) for name in ("t", "p", "i", "h", "l", "x", "y", "n"))


def to_check(condition: Condition) -> Check:
    """The check that holds iff ``condition`` does."""
    match condition:
        case Window():
            return _window(condition)
        case Services(names) | Operations(names) | Projects(names):
            return _one_of(_PREDICATES[type(condition)], names)
        case Peer():
            return _peer(condition)
        case Paths(names):
            return Check(tuple(_path_query(name) for name in names))
        case Networks(networks):
            return Check(tuple(_network_query(network) for network in networks))
        case Uses(nonce, limit):
            return _check(_query(_USES, nonce, _COUNT, limits=[(_COUNT, limit, Binary.LESS_THAN)]))
        case BodyDigest(sha256):
            return _check(_query(_BODY, sha256))
        case Members(vouchers):
            return Check(tuple(_query(_MEMBER, group)._replace(scopes=(key,)) for group, key in vouchers))
        case _:
            assert_never(condition)


def _window(window: Window) -> Check:
    limits: list[tuple[Op, ...]] = [(_NOW, Date(window.before), Binary.LESS_THAN)]
    if window.not_before is not None:
        limits.insert(0, (_NOW, Date(window.not_before), Binary.GREATER_OR_EQUAL))
    return _check(_query("time", _NOW, limits=limits))


def _one_of(predicate: str, names: tuple[str, ...]) -> Check:
    if len(names) == 1:
        return _check(_query(predicate, names[0]))
    return _check(_query(predicate, _OTHER, limits=[(TermSet(names), _OTHER, Binary.CONTAINS)]))


def _peer(peer: Peer) -> Check:
    bound = _query(_CERT, peer.fingerprint)
    if peer.delegate_key is None:
        return _check(bound)
    here = Predicate(_CERT, (_OTHER,))
    named: tuple[Predicate, ...] = (here, Predicate(_DELEGATE, (_OTHER,)))
    if peer.depth > 1:
        named = (here, Predicate(_HOLDER, (_OTHER,)), Predicate(_DELEGATE, (peer.depth, _NEXT)))
    return Check((bound, Query(QUERY_HEAD, named, (), (Scope.AUTHORITY, peer.delegate_key))))


def delegation(depth: int, to: str) -> Predicate:
    """The fact by which a key that ``Peer(…, key, depth)`` names hands a token over to the certificate ``to``.

    Depths only grow smaller along a chain, so no fact stated earlier, not even by the same key, meets a later condition.
    """
    return Predicate(_DELEGATE, (to,) if depth == 1 else (depth, to))


def membership(group: str) -> Predicate:
    """The fact by which an attester vouches for ``group``."""
    return Predicate(_MEMBER, (group,))


def _check(query: Query) -> Check:
    return Check((query,))


def _query(predicate: str, *terms: str | Variable, limits: list[tuple[Op, ...]] | None = None) -> Query:
    return Query(QUERY_HEAD, (Predicate(predicate, terms),), tuple(limits or ()), ())


def _path_query(name: str) -> Query:
    if name.endswith("/"):
        return _query("path", _PATH, limits=[(_PATH, name, Binary.PREFIX)])
    return _query("path", name)


def _network_query(network: Network) -> Query:
    if isinstance(network, IPv4Network):
        return _query("client_ip4", _IP, limits=[_masked(_IP, int(network.netmask), int(network.network_address))])
    mask, address = halves(int(network.netmask)), halves(int(network.network_address))
    limits = [_masked(_HIGH, mask[0], address[0]), _masked(_LOW, mask[1], address[1])]
    return _query("client_ip6", _HIGH, _LOW, limits=limits)


def _masked(variable: Variable, mask: int, wanted: int) -> tuple[Op, ...]:
    return (variable, mask, Binary.BITWISE_AND, wanted, Binary.EQUAL)


def halves(number: int) -> tuple[int, int]:
    """A 128-bit number as two signed 64-bit ones, for Datalog knows no larger integers."""
    high, low = divmod(number, 2**64)
    return _signed(high), _signed(low)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def from_check(check: Check) -> Condition | None:
    """The condition ``check`` was built from, or ``None`` if it says something else, or says it in another form."""
    condition = _recognise(check)
    # Rebuilding makes recognition exact: what differs in any detail from what we would write is not what we would write.
    return condition if condition is not None and to_check(condition) == check else None


def _recognise(check: Check) -> Condition | None:
    """What ``check`` would be if it is ours; only :func:`from_check` may believe it."""
    try:
        predicate = check.queries[0].body[0]
        expressions = check.queries[0].expressions
        match predicate.name:
            case "time":
                moments = [_seconds(ops[1]) for ops in expressions]
                return Window(moments[0] if len(moments) > 1 else None, moments[-1])
            case "peer_cert":
                return _peer_of(check, _text(predicate.terms[0]))
            case "path":
                return Paths(tuple([_path_of(query) for query in check.queries]))
            case "client_ip4" | "client_ip6":
                return Networks(tuple([_network_of(query) for query in check.queries]))
            case "service" | "operation" | "for_project" as name:
                return _NAMES[name](_names_of(predicate, expressions))
            case "uses":
                return Uses(_text(predicate.terms[0]), _integer(expressions[0][1]))
            case "body_sha256":
                return BodyDigest(_text(predicate.terms[0]))
            case "member":
                return Members(tuple([_voucher_of(query) for query in check.queries]))
            case _:
                return None
    except (IndexError, ValueError):
        return None


def _peer_of(check: Check, fingerprint: str) -> Peer:
    if len(check.queries) == 1:
        return Peer(fingerprint)
    named = check.queries[1]
    depth = 1 if len(named.body) < 3 else _integer(named.body[2].terms[0])
    return Peer(fingerprint, _key(named.scopes[1]), depth)


def _voucher_of(query: Query) -> Voucher:
    return Voucher(_text(query.body[0].terms[0]), _key(query.scopes[0]))


def _key(scope: Scope | KeyRef) -> KeyRef:
    if not isinstance(scope, KeyRef):
        raise ValueError("not a key")  # noqa: TRY004 - as below
    return scope


def _names_of(predicate: Predicate, expressions: tuple[tuple[Op, ...], ...]) -> tuple[str, ...]:
    if not expressions:
        return (_text(predicate.terms[0]),)
    match expressions[0][0]:
        case TermSet(items):
            return tuple([_text(item) for item in items])
        case _:
            raise ValueError("not a set")


def _path_of(query: Query) -> str:
    if not query.expressions:
        return _text(query.body[0].terms[0])
    match query.expressions[0][1]:
        case str(prefix):
            return prefix
        case _:
            raise ValueError("not a subtree")


def _network_of(query: Query) -> Network:
    masks = [_integer(ops[1]) % 2**64 for ops in query.expressions]
    wanted = [_integer(ops[3]) % 2**64 for ops in query.expressions]
    if len(masks) == 1:
        return IPv4Network((wanted[0], masks[0].bit_count()))
    return IPv6Network((wanted[0] << 64 | wanted[1], (masks[0] << 64 | masks[1]).bit_count()))


def _text(term: Term) -> str:
    if not isinstance(term, str):
        raise ValueError("not a string")  # noqa: TRY004 - a form we do not know, not a programming error
    return term


def _seconds(op: Op) -> int:
    match op:
        case Date(seconds):
            return seconds
        case _:
            raise ValueError("not a date")


def _integer(op: Op) -> int:
    match op:
        case int(number) if not isinstance(number, bool):
            return number
        case _:
            raise ValueError("not an integer")
