from __future__ import annotations

from pathlib import Path

import pytest

from certauth.errors import ConfigError
from policy.documents import MAX_DOCUMENT
from policy.request import CONNECT, OPERATIONS, AccessRequest, RequestKind
from policy.rules import Access, Policy, RecordMode

HEAD = 'version = 1\nservice = "data"\n'


def parse(text: str) -> Policy:
    """A policy of the given routes."""
    return Policy.parse((HEAD + text).encode())


def one(path: str, rest: str = "") -> Policy:
    """A policy of one token route."""
    return parse(f'[[route]]\npath = "{path}"\naccess = "token"\n{rest}\n')


def ask(path: str, method: str = "GET") -> AccessRequest:
    """A request as the door reads it."""
    websocket = method == "WEBSOCKET"
    return AccessRequest(
        kind=RequestKind.WEBSOCKET if websocket else RequestKind.HTTP,
        method="GET" if websocket else method,
        path=path,
        operation=CONNECT if websocket else OPERATIONS[method],
        client_address="127.0.0.1",
        uid=None,
        authorization=(),
        biscuit=(),
        subprotocols=(),
    )


def refused(text: str) -> ConfigError:
    """The error with which a document is refused."""
    with pytest.raises(ConfigError) as caught:
        Policy.parse(text.encode())
    return caught.value


@pytest.mark.parametrize(
    ("pattern", "path", "taken"),
    [
        ("/", "/", True),
        ("/", "/x", False),
        ("/livez", "/livez", True),
        ("/livez", "/livez/", False),
        ("/livez", "/livez2", False),
        ("/livez", "/LIVEZ", False),
        ("/files/", "/files/", True),
        ("/files/", "/files/a/b", True),
        ("/files/", "/files", False),
        ("/files/", "/files2", False),
        ("/files/", "/files2/x", False),
        ("/files/", "/x/files/", False),
        ("/runs/{run}/raw", "/runs/7/raw", True),
        ("/runs/{run}/raw", "/runs//raw", False),
        ("/runs/{run}/raw", "/runs/7/8/raw", False),
        ("/runs/{run}/", "/runs/7/raw/x", True),
        ("/runs/{run}/", "/runs/7", False),
        ("/{any}", "/x", True),
        ("/{any}", "/x/y", False),
        ("/a.b+c", "/a.b+c", True),
        ("/a.b+c", "/aXb+c", False),
        ("/*", "/", True),
        ("/*", "/a/b\nc", True),
    ],
)
def test_a_pattern_takes_whole_segments_and_nothing_beside_them(pattern: str, path: str, taken: bool) -> None:
    """A pattern takes exactly the paths its form names: no neighbour that merely begins the same, no other case."""
    route = one(pattern).match(ask(path))
    assert (route is not None) is taken


def test_the_first_route_that_takes_a_request_decides() -> None:
    """Order in the document is order of decision, and a request that no route takes has none."""
    policy = parse(
        '[[route]]\npath = "/files/public/"\naccess = "public"\n[[route]]\npath = "/files/"\naccess = "token"\n'
        'methods = ["GET", "PUT"]\n'
    )
    open_, closed = policy.routes
    assert policy.match(ask("/files/public/x")) is open_
    assert policy.match(ask("/files/private/x")) is closed
    assert policy.match(ask("/files/public/x", "PUT")) is closed
    assert policy.match(ask("/other")) is None
    assert closed.name == "route 2 (/files/)"
    assert closed.access is Access.TOKEN


def test_a_route_takes_only_the_methods_it_names_and_get_if_it_names_none() -> None:
    """Nobody opens a method by forgetting to close it; HEAD is decided as the GET it stands for."""
    policy = one("/x")
    assert policy.match(ask("/x"))
    assert policy.match(ask("/x", "HEAD"))
    for method in ("PUT", "POST", "PATCH", "DELETE", "OPTIONS"):
        assert policy.match(ask("/x", method)) is None
    writes = one("/x", 'methods = ["PUT"]')
    assert writes.match(ask("/x", "PUT"))
    assert writes.match(ask("/x")) is None
    assert writes.match(ask("/x", "HEAD")) is None


def test_websockets_and_http_have_routes_of_their_own() -> None:
    """A websocket does not slip through a route written for GET, nor the other way round."""
    http, socket = one("/live"), one("/live", "websocket = true")
    assert http.match(ask("/live", "WEBSOCKET")) is None
    assert socket.match(ask("/live")) is None
    route = socket.match(ask("/live", "WEBSOCKET"))
    assert route is not None
    assert route.operation_of(ask("/live", "WEBSOCKET")) == CONNECT


def test_operation_and_resource_come_from_the_route_if_it_says_so() -> None:
    """The operation defaults to what the method means, the resource to the canonical path."""
    plain = one("/api/files/", 'methods = ["POST"]').routes[0]
    assert plain.operation_of(ask("/api/files/x", "POST")) == "write"
    assert plain.resource("/api/files/x") == "/api/files/x"
    mapped = one("/api/files/", 'methods = ["POST"]\noperation = "search"\nstrip_prefix = "/api"').routes[0]
    assert mapped.operation_of(ask("/api/files/x", "POST")) == "search"
    assert mapped.resource("/api/files/x") == "/files/x"


@pytest.mark.parametrize(
    ("pattern", "principal", "admitted"),
    [
        ("spiffe://als.example/user/alice", "spiffe://als.example/user/alice", True),
        ("spiffe://als.example/user/alice", "spiffe://als.example/user/alice2", False),
        ("spiffe://als.example/user/alice", "spiffe://nsls.example/user/alice", False),
        ("spiffe://als.example/user/*", "spiffe://als.example/user/bob", True),
        ("spiffe://als.example/user/*", "spiffe://als.example/service/bob", False),
        ("spiffe://als.example/*", "spiffe://als.example/service/bob", True),
        ("spiffe://als.example/*", "spiffe://als.example.evil/user/bob", False),
    ],
)
def test_principals_are_compared_whole_or_by_whole_segments(pattern: str, principal: str, admitted: bool) -> None:
    """A route's principals admit whom they name, and no domain that merely begins the same."""
    route = one("/x", f'require = {{principals = ["{pattern}"]}}').routes[0]
    assert route.require.admits(principal) is admitted


def test_without_principals_everybody_is_admitted_by_that_requirement() -> None:
    """An absent requirement demands nothing."""
    assert one("/x").routes[0].require.admits("spiffe://als.example/user/anybody")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('colour = "red"\n', "colour"),
        ('[[route]]\npath = "/"\naccess = "public"\nacess = "token"\n', "route[1].acess"),
        ('[[route]]\npath = "/"\naccess = "token"\n[route.require]\ngroup_any = ["x"]\n', "route[1].require.group_any"),
        ('[record]\nmod = "off"\n[[route]]\npath = "/"\naccess = "public"\n', "record.mod"),
        ('[[route]]\npath = "/"\naccess = "public"\n[[test]]\nrequest = "GET /"\nexpects = "permit"\n', "test[1].expects"),
    ],
)
def test_an_unknown_key_is_refused_by_its_name(text: str, named: str) -> None:
    """A misspelt key stops the program and is named with its place; it is never skipped."""
    error = refused(HEAD + text)
    assert error.code == "unknown-key"
    assert named in error.message


_ROUTE = '[[route]]\npath = "/"\naccess = "public"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2\n" + 'service = "data"\n' + _ROUTE,
        'version = 1\nservice = "Data Service"\n' + _ROUTE,
        HEAD,
        HEAD + "route = []\n",
        HEAD + '[record]\nmode = "sometimes"\n' + _ROUTE,
        HEAD + '[[route]]\npath = "/"\naccess = "open"\n',
        HEAD + '[[route]]\npath = "/"\n',
        HEAD + '[[route]]\npath = "files"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a//b"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a/../b"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a/."\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a/*"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a{b}"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/{}"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a%20b"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a?b"\naccess = "token"\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nmethods = []\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nmethods = ["get"]\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nmethods = ["HEAD"]\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nmethods = ["GET"]\nwebsocket = true\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nwebsocket = "yes"\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\noperation = "Read All"\n',
        HEAD + '[[route]]\npath = "/a/b"\naccess = "token"\nstrip_prefix = "/a/"\n',
        HEAD + '[[route]]\npath = "/a/b"\naccess = "token"\nstrip_prefix = "a"\n',
        HEAD + '[[route]]\npath = "/a/b"\naccess = "token"\nstrip_prefix = "/b"\n',
        HEAD + '[[route]]\npath = "/ab"\naccess = "token"\nstrip_prefix = "/a"\n',
        HEAD + '[[route]]\npath = "/{a}/b"\naccess = "token"\nstrip_prefix = "/{a}"\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "public"\nrequire = {assurance = 1}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "certificate"\nrequire = {groups_any = ["x"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "certificate"\nrequire = {roles_any = ["x"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "certificate"\nrequire = {projects_any = ["x"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {assurance = 4}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {assurance = "2"}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {principals = ["alice"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {principals = ["*"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {principals = ["https://als.example/*"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {principals = ["spiffe://als.example/people/*"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {principals = ["spiffe://ALS/*"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\nrequire = {principals = ["spiffe://als.example/user/a*"]}\n',
        HEAD + '[[route]]\npath = "/a"\naccess = "token"\n[[route]]\npath = "/a"\naccess = "public"\n',
        HEAD + '[[route]]\npath = "/{a}"\naccess = "token"\n[[route]]\npath = "/{b}"\naccess = "public"\n',
        HEAD + _ROUTE + '[[test]]\nrequest = "get /"\nexpect = "permit"\n',
        HEAD + _ROUTE + '[[test]]\nrequest = "GET x"\nexpect = "permit"\n',
        HEAD + _ROUTE + '[[test]]\nrequest = "GET /"\nas = "alice"\nexpect = "permit"\n',
        HEAD + _ROUTE + '[[test]]\nrequest = "GET /"\nrights = ["read /"]\nexpect = "permit"\n',
        HEAD + _ROUTE + '[[test]]\nrequest = "GET /"\nas = "spiffe://a.b/user/a"\nrights = ["read"]\nexpect = "permit"\n',
        HEAD + "= 3",
    ],
)
def test_a_document_that_is_not_in_the_format_is_refused(text: str) -> None:
    """Everything outside the format is one ``policy-invalid`` with a sentence, before any request is decided with it."""
    error = refused(text)
    assert error.code == "policy-invalid"
    assert error.message.startswith("policy.toml")


def test_different_methods_or_kinds_of_one_path_are_no_conflict() -> None:
    """Only a route that could never decide is refused as unreachable."""
    policy = parse(
        '[[route]]\npath = "/a"\naccess = "public"\n[[route]]\npath = "/a"\naccess = "token"\nmethods = ["PUT"]\n'
        '[[route]]\npath = "/a"\naccess = "token"\nwebsocket = true\n'
    )
    assert len(policy.routes) == 3


def test_the_tests_of_a_document_are_read_in_its_own_words() -> None:
    """A test names a request, somebody, and an outcome."""
    policy = parse(
        _ROUTE + '[[test]]\nrequest = "WEBSOCKET /live"\nas = "spiffe://als.example/agent/job"\nassurance = 1\n'
        'rights = ["connect /live"]\ngroups = ["g"]\nroles = ["r"]\nprojects = ["p"]\nexpect = "no-route"\n'
        '[[test]]\nrequest = "HEAD /"\nexpect = "permit"\n'
    )
    socket, nobody = policy.tests
    assert (socket.kind, socket.method, socket.path) == (RequestKind.WEBSOCKET, "GET", "/live")
    assert socket.rights == (("connect", "/live"),)
    assert (socket.groups, socket.roles, socket.projects) == (("g",), ("r",), ("p",))
    assert socket.name == "test 1 (WEBSOCKET /live as spiffe://als.example/agent/job)"
    assert nobody.principal is None
    assert nobody.rights is None
    assert nobody.name == "test 2 (HEAD / as nobody)"


def test_a_file_is_read_with_its_record_path_beside_it(tmp_path: Path) -> None:
    """A relative record path belongs to the document, unless the caller says otherwise; the digest names the bytes."""
    text = HEAD + '[record]\nmode = "strict"\npath = "log"\n' + _ROUTE
    file = tmp_path / "policy.toml"
    file.write_text(text)
    policy = Policy.load(str(file))
    assert policy.record_mode is RecordMode.STRICT
    assert policy.record_path == tmp_path / "log"
    assert Policy.load(file, base=Path("/var/lib")).record_path == Path("/var/lib/log")
    file.write_text(text + "# changed\n")
    assert Policy.load(file).digest != policy.digest


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, too large and not UTF-8 files are refused with their name."""
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml") as caught:
        Policy.load(missing)
    assert caught.value.code == "unreadable"
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (MAX_DOCUMENT + 1))
    with pytest.raises(ConfigError, match="larger than") as caught:
        Policy.load(large)
    assert caught.value.code == "unreadable"
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        Policy.load(binary)
    assert caught.value.code == "policy-invalid"


def test_members_are_named_with_their_facility() -> None:
    """A group of another facility is written with that facility's domain; its name may be any that a group can have."""
    policy = one("/x", '[route.require]\nmembers_any = ["nsls.example:run7", "nsls.example:Beamline 7: früh"]')
    assert policy.routes[0].require.members_any == {"nsls.example:run7", "nsls.example:Beamline 7: früh"}
    for name in ("run7", ":run7", "nsls.example:", "NSLS:run7", "nsls.example:a\\n", "nsls example:run7"):
        error = refused(HEAD + f'[[route]]\npath = "/x"\naccess = "token"\nrequire = {{members_any = ["{name}"]}}')
        assert (error.code, "members_any" in error.message) == ("policy-invalid", True)
    error = refused(HEAD + '[[route]]\npath = "/x"\naccess = "certificate"\nrequire = {members_any = ["nsls.example:run7"]}')
    assert error.code == "policy-invalid"


def test_tests_can_have_members() -> None:
    """They are in a token, so there has to be one, and named like those of a route."""
    route = '[[route]]\npath = "/x"\naccess = "token"\n[[test]]\nrequest = "GET /x"\nexpect = "permit"\n'
    holder = 'as = "spiffe://als.example/user/alice"\n'
    members = 'members = ["nsls.example:run7"]\n'
    assert parse(route + holder + 'rights = ["read /x"]\n' + members).tests[0].members == ("nsls.example:run7",)
    assert refused(HEAD + route + holder + members).code == "policy-invalid"
    assert refused(HEAD + route + holder + 'rights = ["read /x"]\nmembers = ["run7"]').code == "policy-invalid"


def test_where_uses_are_counted_and_how_much_is_read(tmp_path: Path) -> None:
    """A file beside the document, none unless it says so; bodies of up to a mebibyte, or what it says."""
    plain = Policy.parse((HEAD + '[[route]]\npath = "/x"\naccess = "token"').encode(), base=tmp_path)
    assert (plain.uses_path, plain.max_body) == (None, 1024 * 1024)
    text = HEAD + '[uses]\npath = "uses.sqlite"\n[body]\nmax_bytes = 5\n[[route]]\npath = "/x"\naccess = "token"'
    made = Policy.parse(text.encode(), base=tmp_path)
    assert (made.uses_path, made.max_body) == (tmp_path / "uses.sqlite", 5)
    for wrong in ("max_bytes = -1", "max_bytes = 67108865", "max_bytes = true"):
        assert refused(text.replace("max_bytes = 5", wrong)).code == "policy-invalid"
    assert refused(text.replace('path = "uses.sqlite"', "")).code == "policy-invalid"
