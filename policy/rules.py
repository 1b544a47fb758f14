"""``policy.toml``: which requests a service answers, and what each of them must show.

The format is ``docs/specification/policy-document.md``. Routes are tried in order and the first that matches decides; a
request that no route matches is denied. A path pattern is one of

    /livez              exactly this path (so ``/`` is the root alone)
    /files/             it and everything below: ``/files/x``, but neither ``/files`` nor ``/files2``
    /runs/{run}/raw     one whole segment for each pair of braces
    /*                  every path; the only place where a star has a meaning

and is compared with the canonical path of the request (``policy.request``), never with what the client wrote.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from certauth.clock import parse_duration
from certauth.errors import ConfigError, RequestError, UsageError
from certauth.names import Kind, Principal, TrustDomain, label
from policy.attesters import is_member
from policy.documents import Model, parse_document, read_document
from policy.request import AccessRequest, RequestKind

_PATTERN = re.compile(r"/\*|/(?:(?:[^/{}*]+|\{[a-z_]+\})/)*(?:[^/{}*]+|\{[a-z_]+\})?")
_FORBIDDEN = re.compile(r"//|/\.{1,2}(?:/|\Z)|[\x00-\x20\x7f\\%?#]")
_OPERATION = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_REQUEST = re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|WEBSOCKET) (/\S*)")
_RIGHT = re.compile(r"([a-z][a-z0-9_-]{0,63}) (/\S*)")

MAX_BODY = 1024 * 1024
"""Bytes of a body that is read whole, unless the document says otherwise."""

LONGEST = timedelta(hours=24)
"""No user's certificate lasts longer, so nobody could meet a route that asks for more."""

T = TypeVar("T")
Texts = Annotated[tuple[str, ...], Field(strict=False)]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Assurance = Annotated[int, Field(ge=0, le=3)]


class Access(StrEnum):
    """What a route asks for before its requirements are looked at."""

    PUBLIC = "public"
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - the name of a kind of access, not a credential


class RecordMode(StrEnum):
    """How decisions are written down: not at all, in the background, or before the request goes on."""

    OFF = "off"
    BUFFERED = "buffered"
    STRICT = "strict"


class _Require(Model):
    assurance: Assurance = 0
    groups_any: Texts = ()
    roles_any: Texts = ()
    projects_any: Texts = ()
    members_any: Texts = ()
    principals: Texts = ()


class _Route(Model):
    path: str
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] | None = None
    websocket: bool = False
    operation: str | None = None
    access: Annotated[Access, Field(strict=False)]
    strip_prefix: str = ""
    min_remaining: str | None = None
    require: _Require = _Require()


class _Test(Model):
    request: str
    principal: str | None = Field(default=None, alias="as")
    assurance: Assurance = 3
    rights: Texts | None = None
    groups: Texts = ()
    roles: Texts = ()
    projects: Texts = ()
    members: Texts = ()
    expect: str


class _Record(Model):
    mode: Annotated[RecordMode, Field(strict=False)] = RecordMode.BUFFERED
    path: str = "decisions.jsonl"


class _Uses(Model):
    path: str


class _Body(Model):
    max_bytes: Annotated[int, Field(ge=0, le=64 * 1024 * 1024)] = MAX_BODY


class _Document(Model):
    version: Literal[1]
    service: str
    record: _Record = _Record()
    uses: _Uses | None = None
    body: _Body = _Body()
    route: Annotated[tuple[_Route, ...], Field(strict=False, min_length=1)]
    test: Annotated[tuple[_Test, ...], Field(strict=False)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """``[route.require]``: every line that is given must hold. All but assurance and principals are in tokens only."""

    assurance: int
    groups_any: frozenset[str]
    roles_any: frozenset[str]
    projects_any: frozenset[str]
    members_any: frozenset[str]
    principals: tuple[str, ...]

    def admits(self, principal: str) -> bool:
        """Whether ``principals`` is absent or names this one; ``…/user/*`` ends on a segment boundary."""
        return not self.principals or any(
            principal.startswith(pattern[:-1]) if pattern.endswith("/*") else principal == pattern
            for pattern in self.principals
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``[[route]]``: a path pattern, the requests it takes, and what they must show."""

    number: int
    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    websocket: bool
    operation: str | None
    access: Access
    strip_prefix: str
    min_remaining: timedelta | None
    """How long the credentials of a request must last yet."""
    require: Requirement

    @property
    def name(self) -> str:
        """How records and explanations call the route: ``route 3 (/files/)``."""
        return f"route {self.number} ({self.path})"

    def matches(self, request: AccessRequest) -> bool:
        """Whether this route decides the request; a HEAD is decided as the GET it stands for (RFC 9110 §9.3.2)."""
        if self.websocket != (request.kind is RequestKind.WEBSOCKET):
            return False
        if not self.websocket and ("GET" if request.method == "HEAD" else request.method) not in self.methods:
            return False
        return self.pattern.fullmatch(request.path) is not None

    def resource(self, path: str) -> str:
        """The path that rights are compared with: the canonical path without ``strip_prefix``."""
        return path.removeprefix(self.strip_prefix)

    def operation_of(self, request: AccessRequest) -> str:
        """The operation that rights are compared with: the route's own, or what the method means."""
        return self.operation or request.operation


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    """``[[test]]``: a request by a made-up principal, and ``permit`` or the code with which it must be denied."""

    number: int
    kind: RequestKind
    method: str
    path: str
    principal: Principal | None
    assurance: int
    rights: tuple[tuple[str, str], ...] | None
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    projects: tuple[str, ...]
    members: tuple[str, ...]
    expect: str

    @property
    def name(self) -> str:
        """How the test is called in a report."""
        request = f"{'WEBSOCKET' if self.kind is RequestKind.WEBSOCKET else self.method} {self.path}"
        return f"test {self.number} ({request} as {self.principal or 'nobody'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A checked ``policy.toml``. ``digest`` names exactly these rules in the record of each decision."""

    service: str
    record_mode: RecordMode
    record_path: Path
    """``…/decisions.jsonl`` for files ``…/decisions-<slot>.jsonl``, one for each process (``policy.decision_log``)."""
    uses_path: Path | None
    """The file in which limited uses of tokens are counted; ``None`` if this service counts nothing."""
    max_body: int
    """Bytes of a body that is read whole, for a token made for one body."""
    routes: tuple[Route, ...]
    tests: tuple[PolicyTest, ...]
    digest: str

    @classmethod
    def load(cls, path: Path | str, *, base: Path | None = None) -> Policy:
        """Read and check a document. Its record path is relative to ``base``, by default the directory it is in.

        Raises ``ConfigError``.
        """
        path = Path(path)
        return cls.parse(read_document(path), where=str(path), base=path.parent if base is None else base)

    @classmethod
    def parse(cls, data: bytes, *, where: str = "policy.toml", base: Path = Path()) -> Policy:
        """Check a document's bytes; ``ConfigError`` ``unknown-key`` or ``policy-invalid``, naming the place."""
        document = parse_document(data, _Document, where=where, code="policy-invalid")
        policy = cls(
            service=_checked(f"{where}: service", label, document.service, "a service"),
            record_mode=document.record.mode,
            record_path=base / document.record.path,
            uses_path=None if document.uses is None else base / document.uses.path,
            max_body=document.body.max_bytes,
            routes=tuple(_route(route, number, where) for number, route in enumerate(document.route, 1)),
            tests=tuple(_test(test, number, where) for number, test in enumerate(document.test, 1)),
            digest=hashlib.sha256(data).hexdigest(),
        )
        _refuse_shadowed(policy.routes, where)
        return policy

    def match(self, request: AccessRequest) -> Route | None:
        """The first route that takes the request; ``None`` means denied."""
        return next((route for route in self.routes if route.matches(request)), None)


def _route(table: _Route, number: int, where: str) -> Route:
    place = f"{where}: route[{number}]"
    if not _PATTERN.fullmatch(table.path) or _FORBIDDEN.search(table.path):
        raise _invalid(f"{place}.path: {table.path!r} is not a path pattern", "use /exact, /prefix/, /with/{one}/segment or /*")
    if table.websocket and table.methods is not None:
        raise _invalid(f"{place}.methods: a websocket has no method", "leave methods out")
    if table.operation is not None and not _OPERATION.fullmatch(table.operation):
        raise _invalid(f"{place}.operation: {table.operation!r} is not an operation", "use a word such as read or write")
    if table.strip_prefix and not _strips(table.strip_prefix, table.path):
        raise _invalid(f"{place}.strip_prefix: {table.strip_prefix!r} does not begin the path {table.path!r}", "use /api, say")
    _check_access(table, place)
    return Route(
        number=number,
        path=table.path,
        pattern=_compile(table.path),
        methods=frozenset(table.methods or ("GET",)),
        websocket=table.websocket,
        operation=table.operation,
        access=table.access,
        strip_prefix=table.strip_prefix,
        min_remaining=_span(table.min_remaining, f"{place}.min_remaining"),
        require=Requirement(
            assurance=table.require.assurance,
            groups_any=frozenset(table.require.groups_any),
            roles_any=frozenset(table.require.roles_any),
            projects_any=frozenset(table.require.projects_any),
            members_any=frozenset(_members(table.require.members_any, f"{place}.require.members_any")),
            principals=tuple(_principal_pattern(pattern, place) for pattern in table.require.principals),
        ),
    )


def _check_access(table: _Route, place: str) -> None:
    """A requirement that can never be met, or that would silently not be looked at, is a mistake of the author."""
    require = table.require
    if table.access is Access.PUBLIC and (require != _Require() or table.min_remaining is not None):
        raise _invalid(f"{place}.require: a public route asks for nothing", 'use access = "certificate" or "token"')
    in_tokens = (*require.groups_any, *require.roles_any, *require.projects_any, *require.members_any)
    if table.access is not Access.TOKEN and in_tokens:
        raise _invalid(f"{place}.require: groups, roles, projects and members are in tokens", 'use access = "token"')


def _span(text: str | None, where: str) -> timedelta | None:
    if text is None:
        return None
    try:
        span = parse_duration(text)
    except UsageError as error:
        raise _invalid(f"{where}: {error.message}", error.hint or "write 30m or 2h") from error
    if span > LONGEST:
        raise _invalid(f"{where}: no credential lasts {text}", "at most 24h: longer work is an agent's")
    return span


def _members(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    for name in names:
        if not is_member(name):
            raise _invalid(f"{where}: {name!r} is not a group of another facility", "write nsls.example:run7")
    return names


def _strips(prefix: str, path: str) -> bool:
    """Whether ``prefix`` is literal, ends on a segment boundary, and leaves a path that begins with ``/``."""
    return prefix[0] == "/" and prefix[-1] != "/" and not set(prefix) & set("{}*") and path.startswith(prefix + "/")


def _compile(path: str) -> re.Pattern[str]:
    if path == "/*":
        return re.compile(r"/.*", re.DOTALL)
    expression = "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[a-z_]+\})", path))
    below = ".*" if path.endswith("/") and path != "/" else ""
    return re.compile(expression + below, re.DOTALL)


def _principal_pattern(pattern: str, place: str) -> str:
    """A principal, ``spiffe://<domain>/*`` or ``spiffe://<domain>/<kind>/*``; anything else would match nobody, or too many."""
    where = f"{place}.require.principals"
    if not pattern.endswith("/*"):
        return str(_checked(where, Principal.parse, pattern))
    scheme, _, rest = pattern.removesuffix("/*").partition("://")
    domain, slash, kind = rest.partition("/")
    if scheme != "spiffe" or (slash and kind not in set(Kind)):
        raise _invalid(
            f"{where}: {pattern!r} is not a principal", "spiffe://als.example/user/alice or spiffe://als.example/user/*"
        )
    _checked(where, TrustDomain.parse, domain)
    return pattern


def _test(table: _Test, number: int, where: str) -> PolicyTest:
    place = f"{where}: test[{number}]"
    request = _REQUEST.fullmatch(table.request)
    if request is None:
        raise _invalid(f"{place}.request: {table.request!r} is not a request", 'write "GET /path" or "WEBSOCKET /path"')
    rights = None if table.rights is None else tuple(_RIGHT.fullmatch(right) for right in table.rights)
    if rights is not None and not all(rights):
        raise _invalid(f"{place}.rights: a right is an operation and a path", 'write "read /files/"')
    if table.principal is None and rights is not None:
        raise _invalid(f"{place}.rights: nobody has no token", 'say who with as = "spiffe://…"')
    if table.members and rights is None:
        raise _invalid(f"{place}.members: others vouch for members in tokens", 'give it one with rights = ["read /files/"]')
    return PolicyTest(
        number=number,
        kind=RequestKind.WEBSOCKET if request[1] == "WEBSOCKET" else RequestKind.HTTP,
        method="GET" if request[1] == "WEBSOCKET" else request[1],
        path=request[2],
        principal=None if table.principal is None else _checked(f"{place}.as", Principal.parse, table.principal),
        assurance=table.assurance,
        rights=None if rights is None else tuple((right[1], right[2]) for right in rights if right),
        groups=table.groups,
        roles=table.roles,
        projects=table.projects,
        members=_members(table.members, f"{place}.members"),
        expect=table.expect,
    )


def _refuse_shadowed(routes: tuple[Route, ...], where: str) -> None:
    """Two routes of the same pattern and method: the second would never decide, whatever its author expects of it."""
    seen: dict[tuple[str, bool, str], Route] = {}
    for route in routes:
        for method in route.methods:
            earlier = seen.setdefault((route.pattern.pattern, route.websocket, method), route)
            if earlier is not route:
                raise _invalid(
                    f"{where}: {route.name} is never reached: {earlier.name} takes the same requests", "join the two"
                )


def _checked(where: str, parse: Callable[..., T], *arguments: str) -> T:
    try:
        return parse(*arguments)
    except RequestError as error:
        raise ConfigError("policy-invalid", f"{where}: {error.message}", hint=error.hint) from error


def _invalid(message: str, hint: str) -> ConfigError:
    return ConfigError("policy-invalid", message, hint=hint)
