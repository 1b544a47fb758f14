"""Step 1, request: what is asked, in one spelling, or a refusal to guess.

A policy is only as good as the agreement between it and the app on what a path means. ``read_request`` therefore accepts a
path only if there is one way to read it: percent-decoded once, no dot segments, no empty segments, no encoded separators. What
passes is byte for byte what the app will see in ``scope["path"]``; everything else is ``path-ambiguous``, answered with 400.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, assert_never
from urllib.parse import unquote_to_bytes

from certauth.errors import RequestError

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

OPERATIONS: Mapping[str, str] = {
    "GET": "read",
    "HEAD": "read",
    "OPTIONS": "read",
    "PUT": "write",
    "POST": "write",
    "PATCH": "write",
    "DELETE": "delete",
}
"""What a method does unless the route says otherwise. A WebSocket's operation is ``connect``."""

CONNECT = "connect"
PEER_EXTENSION = "certauth.peer"
"""Key in ``scope["extensions"]`` under which ``policy.tls`` puts what the transport knows (see ``policy.peer``)."""

# Certificates that proxies pass in headers. We never believe them here, and no app behind us may: whoever can reach the
# server can write them. Prefixes, because each name has companions (-chain, -verify, -s-dn). The spelling is folded first:
# ``Client_Cert`` slips past filters that look for ``Client-Cert`` and arrives as the same variable in WSGI-like code.
_CERTIFICATE_HEADERS = (
    b"client-cert",
    b"cf-client-cert",
    b"ssl-client-",
    b"tls-client-",
    b"x-amzn-mtls-",
    b"x-arr-clientcert",
    b"x-client-cert",
    b"x-client-dn",
    b"x-client-verify",
    b"x-clientcert",
    b"x-forwarded-client-cert",
    b"x-forwarded-ssl-client-",
    b"x-forwarded-tls-client-",
    b"x-goog-client-cert",
    b"x-ssl-cert",
    b"x-ssl-client-",
    b"x-ssl-issuer",
    b"x-ssl-subject",
    b"x-tls-client-",
)

# One slash, then segments that hold no separator, control character, replacement character or percent escape, none of them
# "." or "..". The character class cannot match a slash, so the match is linear.
_CANONICAL = re.compile(r"/(?:(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f\ufffd\ud800-\udfff]+(?:/|\Z))*")
_ENCODED_SEPARATOR = re.compile(rb"%(?:2[fF]|5[cC]|00)")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")


class RequestKind(StrEnum):
    """What the client opened."""

    HTTP = "http"
    WEBSOCKET = "websocket"


class _Header(StrEnum):
    """The headers this door reads or removes."""

    AUTHORIZATION = "authorization"
    BISCUIT = "biscuit"
    REQUEST_ID = "x-request-id"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """What is asked. ``path`` is canonical; credentials are raw, unverified, and never shown by ``repr``."""

    kind: RequestKind
    method: str
    path: str
    operation: str
    client_address: str | None
    """Text of the transport's IP address; None on a UNIX socket."""
    uid: int | None
    """The peer's user id on a UNIX socket, vouched for by the kernel."""
    authorization: tuple[bytes, ...] = field(repr=False)
    """Every ``Authorization`` field value; more than one is for ``policy.token`` to refuse."""
    biscuit: tuple[bytes, ...] = field(repr=False)
    """Every ``Biscuit`` field value."""
    subprotocols: tuple[str, ...] = field(repr=False)
    """What a WebSocket client offers; one of them may carry a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadHeaders:
    """One pass over the headers: what the door needs, and what may go on to the app."""

    authorization: tuple[bytes, ...] = field(repr=False)
    biscuit: tuple[bytes, ...] = field(repr=False)
    request_id: str | None
    """The client's own request id, if it sent exactly one and it is a safe token."""
    passed: Headers = field(repr=False)
    """All headers except those that carry certificates."""
    stripped: int
    """How many certificate-carrying headers were removed."""


def read_headers(headers: Headers) -> ReadHeaders:
    """Sort the headers of a scope. Names are compared in lower case, ``_`` as ``-`` where that is the safe side."""
    authorization: list[bytes] = []
    biscuit: list[bytes] = []
    ids: list[bytes] = []
    passed: Headers = []
    for item in headers:
        match _meaning(item[0]):
            case None:
                pass
            case _Header.CERTIFICATE:
                continue
            case _Header.AUTHORIZATION:
                authorization.append(item[1])
            case _Header.BISCUIT:
                biscuit.append(item[1])
            case _Header.REQUEST_ID:
                ids.append(item[1])
            case other:
                assert_never(other)
        passed.append(item)
    request_id = ids[0].decode("ascii") if len(ids) == 1 and _REQUEST_ID.fullmatch(ids[0]) else None
    return ReadHeaders(
        authorization=tuple(authorization),
        biscuit=tuple(biscuit),
        request_id=request_id,
        passed=passed,
        stripped=len(headers) - len(passed),
    )


def read_request(scope: Scope, headers: ReadHeaders) -> AccessRequest:
    """The request of an ASGI http or websocket scope.

    Raises ``RequestError``: ``path-ambiguous`` for a path with more than one reading, ``method-unknown`` for a method whose
    operation is not known.
    """
    path = canonical_path(scope.get("path", ""), scope.get("raw_path"))
    if scope["type"] == "websocket":
        kind, method, operation = RequestKind.WEBSOCKET, "GET", CONNECT
    else:
        kind, method = RequestKind.HTTP, scope["method"]
        if (known := OPERATIONS.get(method)) is None:
            raise RequestError("method-unknown", "no operation is known for this method", hint=", ".join(OPERATIONS))
        operation = known
    address, uid = client_of(scope)
    return AccessRequest(
        kind=kind,
        method=method,
        path=path,
        operation=operation,
        client_address=address,
        uid=uid,
        authorization=headers.authorization,
        biscuit=headers.biscuit,
        subprotocols=tuple(scope.get("subprotocols") or ()),
    )


def canonical_path(path: str, raw_path: bytes | None) -> str:
    """``path`` if it and the bytes it came from allow one reading only; else ``RequestError`` (``path-ambiguous``)."""
    if not _CANONICAL.fullmatch(path):
        raise _ambiguous("the path has dot segments, empty segments, control characters or a foreign form")
    if "%" in path and _ESCAPE.search(path):
        # An app that decodes again would read another path: %252e%252e is %2e%2e is "..".
        raise _ambiguous("the path is percent-encoded twice")
    if raw_path is None:
        return path
    if b"%" not in raw_path:
        same = raw_path.decode("ascii", "replace") == path
    elif _ENCODED_SEPARATOR.search(raw_path):
        raise _ambiguous("the path has an encoded separator")
    else:
        same = unquote_to_bytes(raw_path) == path.encode()
    if not same:
        # Something between the server and us rewrote one of the two, and the app may route on either.
        raise _ambiguous("the path and its raw bytes differ")
    return path


def client_of(scope: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """The client's address and, on a UNIX socket, user id: from the transport if our protocol classes serve.

    ``scope["client"]`` may have been rewritten from ``X-Forwarded-For`` by the server; it is the last resort.
    """
    peer = (scope.get("extensions") or {}).get(PEER_EXTENSION)
    if peer is not None:
        address = peer["address"]
        return (None if address is None else address[0]), peer["uid"]
    client = scope.get("client")
    return (client[0] if client else None), None


def uuid7(*, milliseconds: int, entropy: bytes) -> str:
    """A request id that sorts by time: UUID version 7 (RFC 9562 §5.7) from 10 random bytes."""
    value = bytearray(milliseconds.to_bytes(6) + entropy)
    value[6] = value[6] & 0x0F | 0x70  # version
    value[8] = value[8] & 0x3F | 0x80  # variant
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=4096)  # bounded: names come from outside; the few real ones stay in it
def _meaning(name: bytes) -> _Header | None:
    lower = name.lower()
    match lower:
        case b"authorization":
            return _Header.AUTHORIZATION
        case b"biscuit":
            return _Header.BISCUIT
        case b"x-request-id":
            return _Header.REQUEST_ID
        case _ if lower.replace(b"_", b"-").startswith(_CERTIFICATE_HEADERS):
            return _Header.CERTIFICATE
        case _:
            return None


def _ambiguous(reason: str) -> RequestError:
    return RequestError("path-ambiguous", reason, hint="ask for the resource by its plain path, decoded once")
