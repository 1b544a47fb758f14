"""``policy.request``: one reading of a request, or none."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import RequestError
from policy.request import (
    PEER_EXTENSION,
    RequestKind,
    canonical_path,
    client_of,
    read_headers,
    read_request,
    uuid7,
)

AMBIGUOUS = [
    ("", b""),
    ("*", b"*"),
    ("data", b"data"),
    ("http://evil/admin", b"http://evil/admin"),
    ("//admin", b"//admin"),
    ("/data//x", b"/data//x"),
    ("/data/../admin", b"/data/%2e%2e/admin"),
    ("/data/../admin", b"/data/../admin"),
    ("/..", b"/.."),
    ("/data/.", b"/data/."),
    ("/./data", b"/./data"),
    ("/data\\..\\admin", b"/data\\..\\admin"),
    ("/data\\admin", b"/data%5Cadmin"),
    ("/data/admin", b"/data%2Fadmin"),
    ("/data/admin", b"/data%2fadmin"),
    ("/data\x00", b"/data%00"),
    ("/data\n", b"/data%0A"),
    ("/data\x7f", b"/data%7F"),
    ("/data/\ufffd", b"/data/%ff"),
    ("/data/\ufffd", b"/data/%EF%BF%BD"),
    ("/data/\udcff", None),
    ("/data/%2e%2e/admin", b"/data/%252e%252e/admin"),
    ("/data/%2Fadmin", None),
    ("/data/x", b"/data/y"),
    ("/data/é", b"/data/%65"),
    ("/data/x", b"/data/\xff"),
]


@pytest.mark.parametrize(("path", "raw"), AMBIGUOUS)
def test_a_path_with_two_readings_is_refused(path: str, raw: bytes | None) -> None:
    """Each of these is one resource to a policy and another to some app."""
    with pytest.raises(RequestError) as caught:
        canonical_path(path, raw)
    assert caught.value.code == "path-ambiguous"


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/", b"/"),
        ("/data/", b"/data/"),
        ("/data/run-7.h5", b"/data/run-7.h5"),
        ("/data/a b", b"/data/a%20b"),
        ("/data/é", b"/data/%C3%A9"),
        ("/data/a", b"/data/%61"),
        ("/data/100%", b"/data/100%25"),
        ("/data/.hidden/...", b"/data/.hidden/..."),
        ("/data/x", None),
    ],
)
def test_a_plain_path_passes_unchanged(path: str, raw: bytes | None) -> None:
    """What the policy compares is byte for byte what the app routes on."""
    assert canonical_path(path, raw) == path


@given(st.text(max_size=40), st.binary(max_size=40) | st.none())
def test_whatever_passes_has_no_second_reading(path: str, raw: bytes | None) -> None:
    """No input makes anything but a canonical path come out, or any other error."""
    with contextlib.suppress(RequestError):
        passed = canonical_path(path, raw)
        assert passed == path
        assert passed.startswith("/")
        segments = passed[1:].split("/")
        assert not {".", ".."} & set(segments)
        assert "" not in segments[:-1]
        assert "\\" not in passed


def scope(**changes: object) -> dict[str, object]:
    """An http scope as uvicorn makes them."""
    return {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "raw_path": b"/x",
        "headers": [],
        "client": ("192.0.2.9", 40000),
        **changes,
    }


@pytest.mark.parametrize(
    ("method", "operation"),
    [
        ("GET", "read"),
        ("HEAD", "read"),
        ("OPTIONS", "read"),
        ("PUT", "write"),
        ("POST", "write"),
        ("PATCH", "write"),
        ("DELETE", "delete"),
    ],
)
def test_the_method_says_what_is_done(method: str, operation: str) -> None:
    """Each method stands for one operation."""
    request = read_request(scope(method=method), read_headers([]))
    assert (request.kind, request.method, request.operation) == (RequestKind.HTTP, method, operation)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "get", "PROPFIND", ""])
def test_an_unknown_method_is_refused(method: str) -> None:
    """A method whose effect is not known cannot be compared with a right."""
    with pytest.raises(RequestError) as caught:
        read_request(scope(method=method), read_headers([]))
    assert caught.value.code == "method-unknown"


def test_a_websocket_connects() -> None:
    """A WebSocket has an operation of its own; what it offers is read."""
    request = read_request(scope(type="websocket", subprotocols=["chat"]), read_headers([]))
    assert (request.kind, request.method, request.operation) == (RequestKind.WEBSOCKET, "GET", "connect")
    assert request.subprotocols == ("chat",)


def test_the_transport_says_who_the_client_is() -> None:
    """The address comes from the connection, not from what a proxy header made of ``scope["client"]``."""
    peer = {"chain_der": (), "address": ("203.0.113.5", 1), "uid": None}
    assert client_of(scope(extensions={PEER_EXTENSION: peer})) == ("203.0.113.5", None)
    assert client_of(scope(extensions={PEER_EXTENSION: {**peer, "address": None, "uid": 33}})) == (None, 33)
    assert client_of(scope()) == ("192.0.2.9", None)
    assert client_of(scope(client=None)) == (None, None)


CERTIFICATE_HEADERS = [
    b"client-cert",
    b"Client-Cert",
    b"client_cert",
    b"client-cert-chain",
    b"x-ssl-client-cert",
    b"x-ssl-client-verify",
    b"X-SSL-Client-S-DN",
    b"x_ssl_client_cert",
    b"ssl-client-cert",
    b"x-forwarded-client-cert",
    b"x-forwarded-tls-client-cert",
    b"x-forwarded-tls-client-cert-info",
    b"x-amzn-mtls-clientcert-leaf",
    b"x-client-cert",
    b"x-arr-clientcert",
    b"x-goog-client-cert-present",
]


@pytest.mark.parametrize("name", CERTIFICATE_HEADERS)
def test_headers_that_carry_certificates_are_removed(name: bytes) -> None:
    """Anybody can write such a header, in any spelling; no app behind the door gets to see one."""
    read = read_headers([(b"host", b"a"), (name, b":MIIB:"), (b"accept", b"*/*")])
    assert read.passed == [(b"host", b"a"), (b"accept", b"*/*")]
    assert read.stripped == 1


def test_other_headers_pass_untouched() -> None:
    """Order, repetition and spelling of all other headers are the client's."""
    headers = [(b"Cookie", b"a"), (b"x-client", b"b"), (b"cookie", b"c"), (b"content-length", b"1")]
    read = read_headers(headers)
    assert read.passed == headers
    assert read.stripped == 0


def test_credentials_are_read_and_never_shown() -> None:
    """Every occurrence is kept, for an ambiguous one must be refused; ``repr`` holds none of them."""
    headers = read_headers([(b"Authorization", b"Bearer s3cret"), (b"authorization", b"Basic s3cret"), (b"biscuit", b"s3cret")])
    request = read_request(scope(type="websocket", subprotocols=["certauth.bearer.s3cret"]), headers)
    assert request.authorization == (b"Bearer s3cret", b"Basic s3cret")
    assert request.biscuit == (b"s3cret",)
    assert "s3cret" not in repr(request) + repr(headers)


@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        ([b"0190a5f0-1111-7000-8000-000000000000"], "0190a5f0-1111-7000-8000-000000000000"),
        ([b"abcdefgh"], "abcdefgh"),
        ([], None),
        ([b"short"], None),
        ([b"a" * 65], None),
        ([b"has space"], None),
        ([b"new\nline-x"], None),
        ([b'quote"quote'], None),
        ([b"<script>alert"], None),
        ([b"abcdefgh", b"abcdefgi"], None),
    ],
)
def test_a_request_id_from_outside_is_taken_only_if_harmless(values: list[bytes], accepted: str | None) -> None:
    """It ends up in headers, logs and shells; two of them are none."""
    assert read_headers([(b"x-request-id", value) for value in values]).request_id == accepted


@given(st.integers(min_value=0, max_value=2**48 - 1), st.binary(min_size=10, max_size=10))
def test_our_own_request_ids_are_uuids_that_sort_by_time(milliseconds: int, entropy: bytes) -> None:
    """RFC 9562 version 7: the standard library agrees on version and variant, and the time comes first."""
    text = uuid7(milliseconds=milliseconds, entropy=entropy)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert str(parsed) == text
    assert parsed.int >> 80 == milliseconds
    assert read_headers([(b"x-request-id", text.encode())]).request_id == text
