"""The Datalog of one block: typed structures, and their exact bytes in both directions (Biscuit specification, ``Block``).

The same structures serve for writing (:mod:`~certauth.tokens.conditions` builds them from typed values, so no text is ever
parsed and no string ever interpolated), for the lint, for explaining refusals and for ``inspect``.

Only what profile ``fac/1`` may contain is decoded in full. Anything newer (closures, foreign functions, null, arrays, maps)
becomes a :class:`Foreign` with its bytes, so that the lint can refuse it by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

DEFAULT_SYMBOLS = (
    "read", "write", "resource", "operation", "right", "time", "role", "owner", "tenant", "namespace", "user", "team",
    "service", "admin", "email", "group", "member", "ip_address", "client", "client_ip", "domain", "path", "version",
    "cluster", "node", "hostname", "nonce", "query",
)  # fmt: skip
"""Names every implementation knows; the first symbol of a token itself has index 1024."""

OFFSET = 1024

ED25519, P256 = 0, 1
"""The algorithms of public keys, numbered as on the wire."""


class KeyRef(NamedTuple):
    """A public key as tokens carry it: 32 bytes of Ed25519, or 33 bytes of compressed P-256."""

    algorithm: int
    key: bytes


class Variable(NamedTuple):
    """A variable of a query."""

    name: str


class Date(NamedTuple):
    """A point in time, in whole POSIX seconds."""

    seconds: int


class TermSet(NamedTuple):
    """A set of plain values; ``items`` are distinct."""

    items: tuple[Term, ...]


class Foreign(NamedTuple):
    """Something ``fac/1`` has no use for, by its kind (``closure``, ``extern``, ``term``), with its bytes."""

    kind: str
    wire: bytes


Term = str | int | bool | bytes | Variable | Date | TermSet | Foreign


class Unary(Enum):
    """Operators with one operand."""

    __hash__ = object.__hash__  # an Enum's own is a Python function, and the lint looks up many

    NEGATE = 0
    PARENS = 1
    LENGTH = 2
    TYPE_OF = 3


class Binary(Enum):
    """Operators with two operands, numbered as on the wire."""

    __hash__ = object.__hash__

    LESS_THAN = 0
    GREATER_THAN = 1
    LESS_OR_EQUAL = 2
    GREATER_OR_EQUAL = 3
    EQUAL = 4
    CONTAINS = 5
    PREFIX = 6
    SUFFIX = 7
    REGEX = 8
    ADD = 9
    SUB = 10
    MUL = 11
    DIV = 12
    AND = 13
    OR = 14
    INTERSECTION = 15
    UNION = 16
    BITWISE_AND = 17
    BITWISE_OR = 18
    BITWISE_XOR = 19
    NOT_EQUAL = 20
    HETEROGENEOUS_EQUAL = 21
    HETEROGENEOUS_NOT_EQUAL = 22
    LAZY_AND = 23
    LAZY_OR = 24
    ALL = 25
    ANY = 26
    GET = 27
    TRY_OR = 29


Op = Term | Unary | Binary
"""A step of an expression in postfix order: an operand, or an operator."""


class Predicate(NamedTuple):
    """A name and its terms: a fact, or one condition of a query."""

    name: str
    terms: tuple[Term, ...]


class Scope(Enum):
    """Whose facts a query may see besides the default."""

    AUTHORITY = 0
    PREVIOUS = 1


class Query(NamedTuple):
    """``body, expressions trusting scopes``; the head is what a rule derives and ``query()`` in a check."""

    head: Predicate
    body: tuple[Predicate, ...]
    expressions: tuple[tuple[Op, ...], ...]
    scopes: tuple[Scope | KeyRef, ...]


class CheckKind(Enum):
    """``check if``, ``check all``, ``reject if``."""

    ONE = 0
    ALL = 1
    REJECT = 2


class Check(NamedTuple):
    """Holds iff one of its queries does."""

    queries: tuple[Query, ...]
    kind: CheckKind = CheckKind.ONE


QUERY_HEAD = Predicate("query", ())

_DEFAULT_NAMES = dict(enumerate(DEFAULT_SYMBOLS))
_DEFAULT_NUMBERS = {name: number for number, name in _DEFAULT_NAMES.items()}


class Tables:
    """The symbols and keys known so far in a token; third-party blocks start from an empty one."""

    __slots__ = ("_numbers", "keys", "names")

    def __init__(self) -> None:
        self.names = _DEFAULT_NAMES.copy()
        self._numbers = _DEFAULT_NUMBERS.copy()
        self.keys: list[KeyRef] = []

    def add(self, names: Sequence[str]) -> None:
        """Append symbols; ``ValueError`` for one that is known, for then two indices would mean the same."""
        start = OFFSET + len(self.names) - len(DEFAULT_SYMBOLS)
        numbers = range(start, start + len(names))
        self.names.update(zip(numbers, names, strict=True))
        self._numbers.update(zip(names, numbers, strict=True))
        if len(self._numbers) != len(self.names):
            raise ValueError("a symbol is defined twice")

    def add_keys(self, keys: Iterable[KeyRef]) -> None:
        """Append keys; ``ValueError`` for one that is known."""
        for key in keys:
            if key in self.keys:
                raise ValueError("a key is defined twice")
            self.keys.append(key)

    def index(self, name: str) -> int:
        """The index of ``name``, which is appended if it is new."""
        if name not in self._numbers:
            self.add((name,))
        return self._numbers[name]

    def key_index(self, key: KeyRef) -> int:
        """The index of ``key``, which is appended if it is new."""
        if key not in self.keys:
            self.keys.append(key)
        return self.keys.index(key)

    def symbols(self) -> tuple[str, ...]:
        """The symbols beyond the default ones, in order."""
        return tuple(self.names.values())[len(DEFAULT_SYMBOLS) :]
