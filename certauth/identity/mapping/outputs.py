"""What a rule makes of a login it takes: everything an enrolment can hold, and no more than the login is worth.

Every output is made or the login is refused with the output and the claim that could not be read. A rule can lower the
assurance of a login; what its proof and its issuer are worth (``VerifiedIdentity.assurance``) is a ceiling for every rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final, NoReturn, TypeVar

from certauth.clock import in_words
from certauth.errors import CertauthError, ConfigError
from certauth.identity.mapping.claims import ClaimMissing, Claims, Pointer, Unmappable
from certauth.identity.mapping.globs import host_pattern
from certauth.identity.mapping.memberships import EntitlementSource, FixedName, NameSource, distinct
from certauth.identity.mapping.rights import MAX_RIGHTS, MappedRight, RightSource
from certauth.identity.mapping.templates import Template
from certauth.names import Kind, Principal

MAX_SOURCES: Final = 64
MAX_HOSTS: Final = 64
MAX_LEVELS: Final = 64
LIFETIMES: Final = (timedelta(seconds=60), timedelta(days=31))

_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Accounts that every machine has (base-passwd, systemd, common services): no login becomes one of them, whatever a claim says.
RESERVED_USERNAMES: Final = frozenset(
    {
        "root", "toor", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data",
        "backup", "list", "irc", "gnats", "nobody", "nogroup", "operator", "adm", "wheel", "sudo", "admin", "administrator",
        "shutdown", "halt", "ftp", "sshd", "ssh", "dbus", "messagebus", "polkitd", "rpc", "rpcuser", "ntp", "chrony", "tss",
        "systemd-network", "systemd-resolve", "systemd-timesync", "systemd-coredump", "systemd-oom", "slurm", "munge",
        "postgres", "mysql", "apache", "nginx", "docker", "git", "ubuntu", "debian",
    }
)  # fmt: skip

T = TypeVar("T")


class _Decision:
    """A decision is matched on its type; tested for truth, a refusal would admit."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("match on the type of a decision; its truth means nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission(_Decision):
    """Who this login becomes. ``None`` and empty: the enrolment, or the login itself, decides."""

    rule: str
    subject: str | None = None
    """``user/<id>`` or ``agent/<id>`` within the facility's own domain."""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    rights: tuple[MappedRight, ...] = ()
    assurance: int | None = None
    """At most that of the identity."""
    max_lifetime: timedelta | None = None
    hosts: tuple[str, ...] = ()
    """Patterns for ``host_matches``."""
    local_username: str | None = None
    display: str | None = None


@dataclass(frozen=True, slots=True)
class NotAdmitted(_Decision):
    """No: which rule, which claim, and what to do. Holds no value of a claim.

    ``rule`` is the one that turned the login away; ``None``: no rule takes it.
    """

    reason: str
    hint: str
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssuranceTable:
    """The level of a claim's values, the highest of those in the table; ``otherwise`` if none is, or the claim is missing."""

    claim: Pointer
    levels: Mapping[str, int]
    otherwise: int | None = None

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for levels that do not exist."""
        object.__setattr__(self, "levels", MappingProxyType(dict(self.levels)))
        for level in (*self.levels.values(), *(() if self.otherwise is None else (self.otherwise,))):
            check_level(level)
        if not 0 < len(self.levels) <= MAX_LEVELS:
            raise ConfigError("rule-invalid", f"its table has {len(self.levels)} entries", hint=f"1 to {MAX_LEVELS}")

    def level(self, claims: Claims) -> int:
        """The level of this login; raises ``Unmappable``."""
        try:
            found = [self.levels[text] for text in claims.texts(self.claim) if text in self.levels]
        except ClaimMissing:
            if self.otherwise is None:
                raise
            found = []
        if not found and self.otherwise is None:
            raise Unmappable(f"no value of {self.claim} is in the table", "add otherwise = 1 to give the rest a level")
        return max(found, default=self.otherwise or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The right-hand side of a rule."""

    subject: Template | None = None
    groups: tuple[NameSource, ...] = ()
    roles: tuple[NameSource, ...] = ()
    projects: tuple[NameSource, ...] = ()
    entitlements: tuple[EntitlementSource, ...] = ()
    rights: tuple[RightSource, ...] = ()
    assurance: int | AssuranceTable | None = None
    max_lifetime: timedelta | None = None
    hosts: tuple[str, ...] = ()
    local_username: Template | None = None
    display: Template | None = None

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for what could never be an admission."""
        if self.subject is not None and not _is_subject(self.subject.example):
            raise ConfigError(
                "rule-invalid",
                f"subject: {self.subject.text[:80]!r} is not a user or an agent",
                hint="user/{sub|hash}, or agent/ and a name of letters, digits and . _ @ + -",
            )
        if isinstance(self.assurance, int):
            check_level(self.assurance)
        if self.max_lifetime is not None and not LIFETIMES[0] <= self.max_lifetime <= LIFETIMES[1]:
            raise ConfigError(
                "rule-invalid",
                f"max_lifetime: {in_words(self.max_lifetime)} is not a lifetime",
                hint=f"from {in_words(LIFETIMES[0])} to {in_words(LIFETIMES[1])}",
            )
        sources = (self.groups, self.roles, self.projects, self.entitlements, self.rights)
        if any(len(each) > MAX_SOURCES for each in sources) or len(self.hosts) > MAX_HOSTS:
            raise ConfigError("rule-invalid", "one of its lists is too long", hint=f"at most {MAX_SOURCES} entries")
        for pattern in self.hosts:
            host_pattern(pattern)

    def admission(self, rule: str, claims: Claims, *, most: int) -> Admission:
        """The admission by ``rule``, with at most ``most`` names of each sort; raises ``Unmappable`` that names the output."""
        pairs = _made("entitlements", lambda: [source.groups_and_roles(claims) for source in self.entitlements])
        groups = [*_names(self.groups, claims, "groups"), *(name for pair in pairs for name in pair[0])]
        roles = [*_names(self.roles, claims, "roles"), *(name for pair in pairs for name in pair[1])]
        return Admission(
            rule=rule,
            subject=_made("subject", lambda: _subject(self.subject, claims)),
            groups=_made("groups", lambda: distinct(groups, most, "groups")),
            roles=_made("roles", lambda: distinct(roles, most, "roles")),
            projects=_made("projects", lambda: distinct(_names(self.projects, claims, "projects"), most, "projects")),
            rights=_made("rights", lambda: _rights(self.rights, claims)),
            assurance=_made("assurance", lambda: _assurance(self.assurance, claims)),
            max_lifetime=self.max_lifetime,
            hosts=self.hosts,
            local_username=_made("local_username", lambda: _local(self.local_username, claims)),
            display=_made("display", lambda: None if self.display is None else self.display.fill(claims)),
        )


def check_level(level: int) -> None:
    """Raise ``ConfigError`` (``rule-invalid``) unless ``level`` is an assurance."""
    if isinstance(level, bool) or not 0 <= level <= 3:
        raise ConfigError(
            "rule-invalid", f"assurance: {level} is no level", hint="0, 1, 2 or 3; what the login is worth is the ceiling"
        )


def _made(what: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except Unmappable as error:
        raise Unmappable(f"{what}: {error.why}", error.hint) from error


def _names(sources: Iterable[NameSource], claims: Claims, what: str) -> list[str]:
    return _made(
        what,
        lambda: [
            name for source in sources for name in ((source.name,) if isinstance(source, FixedName) else source.names(claims))
        ],
    )


def _subject(template: Template | None, claims: Claims) -> str | None:
    if template is None:
        return None
    subject = template.fill(claims)
    if not _is_subject(subject):
        raise Unmappable("what its claims make is not a name", "use a hash: user/{sub|hash}")
    return subject


def _is_subject(text: str) -> bool:
    """Whether ``text`` is a user or an agent of a facility, as ``certauth.names`` writes them."""
    try:
        return Principal.parse(f"spiffe://facility/{text}").kind in {Kind.USER, Kind.AGENT}
    except CertauthError:
        return False


def _local(template: Template | None, claims: Claims) -> str | None:
    if template is None:
        return None
    name = template.fill(claims)
    if not _LOGIN.fullmatch(name) or name in RESERVED_USERNAMES:
        raise Unmappable("what its claims make is no account of a person", "lower case, letters and digits, no system account")
    return name


def _rights(sources: Iterable[RightSource], claims: Claims) -> tuple[MappedRight, ...]:
    rights = tuple(dict.fromkeys(right for source in sources for right in source.rights(claims)))
    if len(rights) > MAX_RIGHTS:
        raise Unmappable(f"{len(rights)} rights are more than {MAX_RIGHTS}", "give fewer rights on larger subtrees")
    return rights


def _assurance(assurance: int | AssuranceTable | None, claims: Claims) -> int | None:
    if assurance is None:
        return None
    level = assurance.level(claims) if isinstance(assurance, AssuranceTable) else assurance
    return min(level, claims.identity.assurance)
