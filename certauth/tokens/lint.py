"""The structural lint: what a token may contain, decided before any Datalog runs.

Whoever holds a token can append blocks to it offline, and the Datalog engine looks at its time limit only between rounds: a
few hundred hostile bytes would keep a process busy for minutes. So a token is admitted only if it *cannot* be expensive:
blocks after the first hold checks and nothing else, each of a bounded number of predicates and plain operators, and the
number of fact combinations that all checks together can look at is bounded. The rules, in the order they are tried, are the
numbered ones of ``docs/specification/token-format.md``.

Nothing here verifies a signature. Every refusal is a ``TokenError`` whose code begins with ``lint-`` and names the rule.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from certauth.errors import TokenError
from certauth.names import is_name
from certauth.tokens.authority import Authority, fact_counts, read_authority
from certauth.tokens.blocks import Block
from certauth.tokens.codec import SignedBlock, Token
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
    Window,
    delegation,
)
from certauth.tokens.datalog import (
    QUERY_HEAD,
    Binary,
    Check,
    CheckKind,
    Date,
    Foreign,
    KeyRef,
    Op,
    Predicate,
    Query,
    Term,
    TermSet,
    Unary,
    Variable,
)
from certauth.tokens.signing import ED25519, PAYLOAD_VERSION, THIRD_PARTY_DATALOG
from certauth.tokens.vocabulary import DELEGATE, MAX_DATE, MAX_USES, MEMBER, is_fingerprint, is_nonce

MIN_DATALOG, MAX_DATALOG = 3, 5
MAX_CHECKS = 32
MAX_QUERIES = 16
MAX_PREDICATES = 4
MAX_TERMS = 4
MAX_EXPRESSIONS = 4
MAX_OPS = 16
MAX_SET = 64
MAX_STRING = 512
MAX_JOIN = 4096
MAX_COUNTERS = 8
MAX_VOUCHED = 16

_OPERATORS = frozenset(
    {
        Unary.NEGATE, Unary.PARENS, Unary.LENGTH, Binary.LESS_THAN, Binary.GREATER_THAN, Binary.LESS_OR_EQUAL,
        Binary.GREATER_OR_EQUAL, Binary.EQUAL, Binary.NOT_EQUAL, Binary.CONTAINS, Binary.PREFIX, Binary.SUFFIX, Binary.AND,
        Binary.OR, Binary.BITWISE_AND,
    }
)  # fmt: skip
_HARMLESS = frozenset({str, Variable, int})


class HandedOver(NamedTuple):
    """A block in which a holder's key handed the token over, when it could be handed over ``depth`` times."""

    block: int
    key: KeyRef
    depth: int
    to: Peer


class Attestation(NamedTuple):
    """A block in which another facility's key vouches for groups, until just before ``before`` in POSIX seconds."""

    block: int
    key: KeyRef
    groups: tuple[str, ...]
    before: int


class Linted(NamedTuple):
    """What a token that follows the profile says, by whom. Whether they may is for :mod:`~certauth.tokens.verify`."""

    authority: Authority
    hand_overs: tuple[HandedOver, ...]
    """In order, each by the key that the one before named."""
    attestations: tuple[Attestation, ...]

    @property
    def peer(self) -> Peer:
        """In whose hands it works, and which key could hand it on."""
        return self.hand_overs[-1].to if self.hand_overs else self.authority.peer


def lint(token: Token) -> Linted:
    """Raise ``TokenError`` (``lint-…``) unless ``token`` follows profile ``fac/1``; return what it says."""
    authority = read_authority(token.contents[0])
    linted = Linted(authority, (), ())
    foreign: list[tuple[int, Check]] = []
    work = counters = 0
    for number, (link, block) in enumerate(zip(token.blocks, token.contents, strict=True)):
        _link(number, link)
        _common(number, block)
        # The one condition of the block that may let a key hand the token over.
        opening = None if number else authority.peer
        if link.external is not None:
            linted, opening = _third_party(number, link.external.key, block, linted)
        elif number and block.facts:
            raise _refuse("lint-fact", number, "states facts; only the issuer may")
        if block.keys:
            _keys(number, block, opening)
        for check in block.checks:
            if isinstance(check, Check):
                foreign.append((number, check))
            else:
                work += _condition(number, check, opening)
                counters += isinstance(check, Uses)
    if counters > MAX_COUNTERS:
        raise _refuse("lint-check", "its checks", f"count uses with more than {MAX_COUNTERS} counters")
    if foreign:
        counts = fact_counts(token.contents[0]) | {"uses": counters or 1}
        work += sum([_check(number, check, counts) for number, check in foreign])
    if work > MAX_JOIN:
        raise _refuse("lint-join", "its checks", "look at too many combinations of facts")
    return linted


def _refuse(code: str, where: int | str, what: str) -> TokenError:
    place = f"block {where}" if isinstance(where, int) else where
    return TokenError(
        code,
        f"the token is refused unread: {place} {what}",
        hint="narrow with 'certauth token attenuate', which keeps to the rules",
    )


def _link(number: int, link: SignedBlock) -> None:
    if link.version != PAYLOAD_VERSION:
        raise _refuse("lint-version", number, f"is not signed with payload version {PAYLOAD_VERSION}")
    if link.next_key.algorithm != ED25519:
        raise _refuse("lint-key", number, "hands over to a key that is not Ed25519")


def _common(number: int, block: Block) -> None:
    if not MIN_DATALOG <= block.version <= MAX_DATALOG:
        raise _refuse("lint-version", number, "is of a Datalog version outside 3 to 5")
    if block.rules:
        raise _refuse("lint-rule", number, "holds rules")
    if block.scopes or block.context is not None:
        raise _refuse("lint-scope", number, "sets a scope or a context for itself")
    if len(block.checks) > MAX_CHECKS:
        raise _refuse("lint-check", number, f"holds more than {MAX_CHECKS} checks")
    text = "".join(block.symbols)
    if not text.isprintable():
        # Names end up on terminals and in logs; what cannot be printed has no business there.
        raise _refuse("lint-string", number, "holds a character that cannot be printed")
    if len(text) > MAX_STRING and max(map(len, block.symbols)) > MAX_STRING:
        raise _refuse("lint-string", number, f"holds a string of more than {MAX_STRING} characters")


def _third_party(number: int, key: KeyRef, block: Block, before: Linted) -> tuple[Linted, Peer | None]:
    """Check a block that ``key`` signed besides, by the role that ``before`` gives it; return what is said with it.

    The key that can hand the token over at this point says to whom. Any other is an attester's, and vouches for groups; of
    those, a door knows by name (:mod:`~certauth.tokens.verify`).
    """
    if block.version != THIRD_PARTY_DATALOG:
        raise _refuse("lint-version", number, "is a third party's and not of Datalog version 5")
    if key == before.peer.delegate_key:
        handed = _hand_over(number, key, block, before.peer.depth)
        return before._replace(hand_overs=(*before.hand_overs, handed)), handed.to
    return before._replace(attestations=(*before.attestations, _attestation(number, key, block))), None


def _hand_over(number: int, key: KeyRef, block: Block, depth: int) -> HandedOver:
    """The holder's key may say one thing: to whom. Handing over means giving away, so the same block binds the token to it."""
    match block.checks:
        case (Peer() as to, *_) if is_fingerprint(to.fingerprint):
            if block.facts != (delegation(depth, to.fingerprint),):
                raise _refuse("lint-third-party", number, f"may state one fact, {DELEGATE}, and states others")
            # Depths fall along the chain: what was stated before can then never meet what is demanded after.
            if to.delegate_key is not None and to.depth >= depth:
                raise _refuse("lint-third-party", number, "lets the token be handed on more often than it may")
            return HandedOver(number, key, depth, to)
        case _:
            raise _refuse("lint-third-party", number, "delegates without binding the token to the new holder")


def _attestation(number: int, key: KeyRef, block: Block) -> Attestation:
    groups: list[str] = []
    for fact in block.facts:
        match fact:
            case Predicate("member", (str(group),)) if is_name(group):
                groups.append(group)
            case _:
                raise _refuse("lint-third-party", number, f"is by a key that may state {MEMBER} only, and states others")
    match block.checks:
        case (Window(None, before),) if 1 <= len(groups) <= MAX_VOUCHED:
            return Attestation(number, key, tuple(groups), before)
        case _:
            raise _refuse("lint-third-party", number, f"does not vouch for 1 to {MAX_VOUCHED} groups until a given time")


def _keys(number: int, block: Block, opening: Peer | None) -> None:
    """A block names the keys that its own conditions demand something of, and no others."""
    used = {opening.delegate_key} if opening is not None else set()
    for condition in block.checks:
        if isinstance(condition, Members):
            used.update(key for _, key in condition.vouchers)
    if not used.issuperset(block.keys):
        raise _refuse("lint-key", number, "names a key that it has no use for")


def _condition(number: int, condition: Condition, opening: Peer | None) -> int:
    """Check one of our own conditions, whose form needs no checking, and return its number of alternatives."""
    match condition:
        case Window(not_before, before):
            if max(not_before or 0, before) > MAX_DATE:
                raise _refuse("lint-term", number, "holds a date beyond the year 9999")
            return 1
        case Peer(_, key):
            if key is not None and condition != opening:
                raise _refuse("lint-scope", number, "lets a key hand the token over that has no say in it")
            return 1
        case Services(names) | Operations(names) | Projects(names):
            if len(names) > MAX_SET:
                raise _refuse("lint-set", number, f"holds a set of more than {MAX_SET} values")
            return 1
        case Uses(nonce, limit):
            if not is_nonce(nonce) or not 1 <= limit <= MAX_USES:
                raise _refuse("lint-check", number, "counts uses in a way that no door can")
            return 1
        case BodyDigest():
            return 1
        case Paths(alternatives) | Networks(alternatives) | Members(alternatives):
            if len(alternatives) > MAX_QUERIES:
                raise _refuse("lint-check", number, f"holds a check of more than {MAX_QUERIES} alternatives")
            return len(alternatives)
        case _:
            assert_never(condition)


def _check(number: int, check: Check, counts: dict[str, int]) -> int:
    if check.kind is CheckKind.REJECT:
        # `reject if` holds when facts are missing: it would turn an enforcement point's omission into a permission.
        raise _refuse("lint-check", number, "holds a 'reject if'")
    if not 1 <= len(check.queries) <= MAX_QUERIES:
        raise _refuse("lint-check", number, f"holds a check with no alternative or more than {MAX_QUERIES}")
    return sum([_query(number, query, counts) for query in check.queries])


def _query(number: int, query: Query, counts: dict[str, int]) -> int:
    """Check one alternative and return how many combinations of facts it can look at."""
    if query.head != QUERY_HEAD:
        raise _refuse("lint-query", number, "holds a check that derives something")
    if number and query.scopes:
        raise _refuse("lint-scope", number, "widens the scope of a check")
    if len(query.body) > MAX_PREDICATES or len(query.expressions) > MAX_EXPRESSIONS:
        raise _refuse("lint-query", number, f"holds a check of more than {MAX_PREDICATES} predicates or expressions")
    combinations = 1
    for name, terms in query.body:
        combinations *= counts.get(name, 1)
        if len(terms) > MAX_TERMS:
            raise _refuse("lint-query", number, f"holds a predicate of more than {MAX_TERMS} terms")
        for term in terms:
            if type(term) not in _HARMLESS:
                _plain(number, term)
    for ops in query.expressions:
        if len(ops) > MAX_OPS:
            raise _refuse("lint-operator", number, f"holds an expression of more than {MAX_OPS} steps")
        for op in ops:
            if type(op) not in _HARMLESS and op not in _OPERATORS:
                _operand(number, op)
    return combinations


def _operand(number: int, op: Op) -> None:
    """Check a step of an expression that is not a plain operator or an everyday value."""
    match op:
        case TermSet(items):
            if len(items) > MAX_SET:
                raise _refuse("lint-set", number, f"holds a set of more than {MAX_SET} values")
            for item in items:
                _plain(number, item)
        case Foreign("closure", _):
            raise _refuse("lint-closure", number, "holds a closure")
        case Foreign("extern", _):
            raise _refuse("lint-extern", number, "calls a foreign function")
        case Binary.REGEX:
            raise _refuse("lint-regex", number, "holds a regular expression")
        case Unary() | Binary():
            raise _refuse("lint-operator", number, "holds an operator that the profile has no use for")
        case _:
            _plain(number, op)


def _plain(number: int, term: Term) -> None:
    match term:
        case bool() | bytes() | TermSet() | Foreign():
            raise _refuse("lint-term", number, "holds a kind of value that the profile has no use for")
        case Date(seconds) if seconds > MAX_DATE:
            raise _refuse("lint-term", number, "holds a date beyond the year 9999")
        case _:
            return
