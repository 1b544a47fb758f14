"""The vocabulary of profile ``fac/1``: what a token states, how it may be narrowed, and which names only a door may speak.

Everything is typed and validated here, once; from here on values travel as Datalog terms, never as text. Times are aware;
tokens hold whole seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import NamedTuple, TypeVar

from certauth.errors import CertauthError, UsageError
from certauth.keys import PublicKey
from certauth.names import MAX_NAME, Principal, is_name
from certauth.tokens.blocks import Block
from certauth.tokens.conditions import (
    BodyDigest,
    Condition,
    Members,
    Network,
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
from certauth.tokens.datalog import Date, Predicate, Term
from certauth.tokens.signing import Entropy, key_ref

Value = TypeVar("Value")

PROFILE = 1
"""The version of the profile, as the fact ``version(1)``."""

AMBIENT = frozenset(
    {
        "time", "service", "operation", "path", "tree", "peer_cert", "holder", "client_ip4", "client_ip6", "for_project",
        "uses", "body_sha256", "uid", "root_issuer",
    }
)  # fmt: skip
"""What only the enforcement point says about a request. A token that states any of it lies, and is refused."""

SINGLE: dict[str, tuple[type, ...]] = {
    "version": (int,), "issuer": (str,), "jti": (str,), "user": (str,), "iat": (Date,), "exp": (Date,), "assurance": (int,),
}  # fmt: skip
"""Facts that an authority block states exactly once, and the types of their terms."""

PLURAL: dict[str, tuple[type, ...]] = {"group": (str,), "role": (str,), "project": (str,), "right": (str, str, str)}
"""Facts it may state any number of times, and the types of their terms."""

DELEGATE, MEMBER = "delegate", "member"
"""The facts third parties speak: a holder's key names another certificate, an attester's key vouches for a group."""

MAX_ALTERNATIVES = 16
MAX_DEPTH = 4
"""How often a token can be handed over at most."""
MAX_USES = 1_000_000_000
MAX_DATE = 253402300799
"""The end of the year 9999, in POSIX seconds."""
_NONCE_BYTES = 8
MAX_PATH = 512

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NONCE = re.compile(r"[0-9a-f]{16,64}")
_JTI = re.compile(r"[0-9a-f]{16,64}")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,63}")
_ISSUER = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]{1,240}")


class Right(NamedTuple):
    """May do ``operation`` at ``service`` on ``path``: exactly there, or everywhere below it if it ends in ``/``."""

    service: str
    operation: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpec:
    """What a token shall state. ``UsageError`` (``bad-token``) names the first member that cannot be in one.

    ``delegate_key`` is the holder's, who can hand the token over with it: once, or along a chain of ``delegation_depth``
    holders. Without a key, or with a depth of 0, nobody can.
    """

    issuer: str
    jti: str
    user: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    audience: tuple[str, ...]
    rights: tuple[Right, ...]
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    assurance: int = 0
    peer_fingerprint: str
    delegate_key: PublicKey | None = None
    delegation_depth: int = 1

    def __post_init__(self) -> None:
        wrong = (
            (not is_issuer(self.issuer), "issuer"),
            (not is_jti(self.jti), "jti"),
            (not is_principal(self.user), "user"),
            (not _are_aware(self.issued_at, self.not_before, self.expires_at), "time without its zone"),
            (not self._is_ordered(), "expires_at"),
            (not _are_labels(self.audience), "audience"),
            (not all(map(is_right, self.rights)), "rights"),
            (not all(map(_are_names, (self.groups, self.roles, self.projects))), "groups, roles or projects"),
            (not 0 <= self.assurance <= 3, "assurance"),
            (not is_fingerprint(self.peer_fingerprint), "peer_fingerprint"),
            (not 0 <= self.delegation_depth <= MAX_DEPTH, "delegation_depth"),
        )
        for is_wrong, what in wrong:
            if is_wrong:
                raise UsageError("bad-token", f"a token cannot have this {what}", hint=_TOKEN_HINTS[what])

    def _is_ordered(self) -> bool:
        times = [_seconds(moment) for moment in (self.not_before, self.issued_at, self.expires_at)]
        return 0 <= times[0] <= times[1] < times[2]

    def block(self) -> Block:
        """The authority block of such a token."""
        facts: list[tuple[str, tuple[Term, ...]]] = [
            ("version", (PROFILE,)),
            ("issuer", (self.issuer,)),
            ("jti", (self.jti,)),
            ("user", (self.user,)),
            ("iat", (_date(self.issued_at),)),
            ("exp", (_date(self.expires_at),)),
            ("assurance", (self.assurance,)),
            *(("group", (name,)) for name in dict.fromkeys(self.groups)),
            *(("role", (name,)) for name in dict.fromkeys(self.roles)),
            *(("project", (name,)) for name in dict.fromkeys(self.projects)),
            *(("right", tuple(right)) for right in dict.fromkeys(self.rights)),
        ]
        window = Window(_seconds(self.not_before), _seconds(self.expires_at))
        peer = held_by(self.peer_fingerprint, self.delegate_key, self.delegation_depth)
        checks = (window, Services(_distinct(self.audience)), peer)
        return Block(datalog_version(checks), tuple(Predicate(name, terms) for name, terms in facts), checks)


def held_by(fingerprint: str, key: PublicKey | None, depth: int) -> Peer:
    """The condition that a token is in the hands of this certificate, or handed over by this key up to ``depth`` times."""
    return Peer(fingerprint) if key is None or depth == 0 else Peer(fingerprint, key_ref(key), depth)


class MemberOf(NamedTuple):
    """A group of another facility, and the key with which that facility vouches for its members (Ed25519 or P-256)."""

    group: str
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """How a token is narrowed: whatever is given must hold *besides* all that held before.

    ``paths`` end in ``/`` for a subtree; ``networks`` are CIDR text. ``max_uses`` counts the requests at doors that share a
    counter. ``body_sha256`` is in hex. ``members`` asks that one of these keys has vouched for its group, within the token.
    ``UsageError`` (``bad-narrowing``) names what is wrong. One text where several are wanted is wrong too: Python would take it
    for its letters, and allow what nobody meant.
    """

    operations: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    services: tuple[str, ...] | None = None
    peer_fingerprint: str | None = None
    networks: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None
    max_uses: int | None = None
    body_sha256: str | None = None
    members: tuple[MemberOf, ...] | None = None

    def __post_init__(self) -> None:
        wrong = (
            (self.operations is not None and not _are_labels(self.operations), "operations"),
            (self.paths is not None and not _are(self.paths, is_path), "paths"),
            (self.expires_at is not None and not _are_aware(self.expires_at), "expires_at"),
            (self.services is not None and not _are_labels(self.services), "services"),
            (self.peer_fingerprint is not None and not is_fingerprint(self.peer_fingerprint), "peer_fingerprint"),
            (self.networks is not None and not _are(self.networks, _is_network), "networks"),
            (self.projects is not None and not _are(self.projects, is_name), "projects"),
            (self.max_uses is not None and not 1 <= self.max_uses <= MAX_USES, "max_uses"),
            (self.body_sha256 is not None and not is_fingerprint(self.body_sha256), "body_sha256"),
            (self.members is not None and not _are(self.members, _is_member), "members"),
        )
        for is_wrong, what in wrong:
            if is_wrong:
                raise UsageError("bad-narrowing", f"a token cannot be narrowed to these {what}", hint=_HINTS[what])

    def conditions(self, *, entropy: Entropy = os.urandom) -> tuple[Condition, ...]:
        """The conditions it adds, in a fixed order; none if nothing was given.

        ``entropy`` names the counter of ``max_uses``: a narrowing made twice is counted twice. ``KeyMaterialError``
        (``bad-key``) for a member's key that cannot sign blocks.
        """
        networks: tuple[Network, ...] = tuple(ip_network(text) for text in _distinct(self.networks or ()))
        wanted: tuple[Condition | None, ...] = (
            Window(None, _seconds(self.expires_at)) if self.expires_at is not None else None,
            Services(_distinct(self.services)) if self.services is not None else None,
            Operations(_distinct(self.operations)) if self.operations is not None else None,
            Paths(_distinct(self.paths)) if self.paths is not None else None,
            Projects(_distinct(self.projects)) if self.projects is not None else None,
            Peer(self.peer_fingerprint) if self.peer_fingerprint is not None else None,
            Networks(networks) if self.networks is not None else None,
            BodyDigest(self.body_sha256) if self.body_sha256 is not None else None,
            self._vouchers(),
            Uses(entropy(_NONCE_BYTES).hex(), self.max_uses) if self.max_uses is not None else None,
        )
        return tuple(condition for condition in wanted if condition is not None)

    def _vouchers(self) -> Members | None:
        if self.members is None:
            return None
        return Members(tuple(dict.fromkeys(Voucher(group, key_ref(key)) for group, key in self.members)))


_SEVERAL = f"1 to {MAX_ALTERNATIVES} in a tuple, also one alone, "
_LABELS = "of ASCII letters, digits and . _ : - each, at most 64"
_HINTS = {
    "operations": f"{_SEVERAL}{_LABELS}: ('read',)",
    "services": f"{_SEVERAL}{_LABELS}: ('files',)",
    "projects": f"{_SEVERAL}of 1 to {MAX_NAME} printable characters each: ('p-17',)",
    "expires_at": "an end with its time zone",
    "paths": f"{_SEVERAL}absolute, without //, . or .. segments; a trailing / means everything below: ('/data/',)",
    "networks": f"{_SEVERAL}in CIDR, with no bits set beyond the prefix: ('10.1.0.0/16', '2001:db8::/32')",
    "peer_fingerprint": "the SHA-256 of the certificate, 64 lower-case hex digits",
    "max_uses": "at least one use",
    "body_sha256": "the SHA-256 of the body, 64 lower-case hex digits",
    "members": f"1 to {MAX_ALTERNATIVES} groups, each with its key, of which one is enough: (MemberOf('run7', key),)",
}
_TOKEN_HINTS = {
    "issuer": "the URI of the trust domain: spiffe://als.example",
    "jti": "16 to 64 lower-case hex digits, new for each token",
    "user": "the name of a principal: spiffe://als.example/user/alice",
    "time without its zone": "aware moments: datetime(2026, 1, 1, tzinfo=UTC)",
    "expires_at": "not_before, issued_at and expires_at in this order, after 1970, and an end that is later than the rest",
    "audience": f"{_SEVERAL}{_LABELS}: ('files',)",
    "rights": "a tuple of Right(service, operation, path), the path absolute and without //, . or .. segments",
    "groups, roles or projects": f"tuples of texts of 1 to {MAX_NAME} printable characters",
    "assurance": "0 to 3",
    "peer_fingerprint": "the SHA-256 of the certificate, 64 lower-case hex digits",
    "delegation_depth": f"0 to {MAX_DEPTH}",
}


def datalog_version(conditions: tuple[Condition, ...]) -> int:
    """The lowest version of Datalog that can say ``conditions``: 3, or 4 for what needs scopes or bit masks."""
    newer = any(
        isinstance(condition, Networks | Members) or (isinstance(condition, Peer) and condition.delegate_key is not None)
        for condition in conditions
    )
    return 4 if newer else 3


def is_fingerprint(text: str) -> bool:
    """Whether ``text`` is a SHA-256 in lower-case hex."""
    return bool(_FINGERPRINT.fullmatch(text))


def is_principal(text: str) -> bool:
    """Whether ``text`` is the name of a principal."""
    try:
        Principal.parse(text)
    except CertauthError:
        return False
    return True


def is_label(text: str) -> bool:
    """Whether ``text`` can be the name of a service or an operation."""
    return bool(_LABEL.fullmatch(text))


def is_text(value: object) -> bool:
    """Whether ``value`` is one text, where several values are wanted."""
    return isinstance(value, str)


def is_path(text: str) -> bool:
    """Whether ``text`` is an absolute path in canonical form: nothing in it climbs, repeats a slash or is not printable."""
    if not text.startswith("/") or len(text) > MAX_PATH or not text.isprintable():
        return False
    segments = text[1:].split("/")
    return not any(segment in (".", "..") for segment in segments) and "" not in segments[:-1]


def is_right(right: tuple[str, str, str]) -> bool:
    """Whether all three members of ``right`` are what they should be."""
    if is_text(right) or len(right) != 3:
        return False
    service, operation, path = right
    return is_label(service) and is_label(operation) and is_path(path)


def is_issuer(text: str) -> bool:
    """Whether ``text`` is a URI of printable ASCII."""
    return bool(_ISSUER.fullmatch(text))


def is_nonce(text: str) -> bool:
    """Whether ``text`` can name a counter: 16 to 64 lower-case hex digits."""
    return bool(_NONCE.fullmatch(text))


def is_jti(text: str) -> bool:
    """Whether ``text`` is 16 to 64 lower-case hex digits."""
    return bool(_JTI.fullmatch(text))


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _are(several: Sequence[Value], is_good: Callable[[Value], bool]) -> bool:
    return not is_text(several) and 0 < len(several) <= MAX_ALTERNATIVES and all(map(is_good, several))


def _are_labels(names: tuple[str, ...]) -> bool:
    return _are(names, is_label)


def _are_names(names: Sequence[str]) -> bool:
    return not is_text(names) and all(map(is_name, names))


def _is_member(member: object) -> bool:
    return isinstance(member, MemberOf) and is_name(member.group)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _are_aware(*moments: datetime) -> bool:
    return all(moment.tzinfo is not None for moment in moments)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _date(moment: datetime) -> Date:
    return Date(_seconds(moment))
