"""What the transport must do so that a certificate means something: the server's TLS, and how its facts reach the app.

uvicorn verifies client certificates but tells the app nothing. The protocol classes here are uvicorn's own with one addition:
each request's scope says which chain the client presented and who the transport's peer is. They work on its command line too::

    uvicorn app:app --http policy.tls:H11Protocol --ws policy.tls:WebSocketProtocol --ssl-cert-reqs 1 ...

A connection that resumed a TLS session is ended by them, whatever context the server was started with.
``server_context`` is the context they should serve with. Its rules, and the attack behind each:

1. no session tickets, no resumption by id: a resumed session is not verified again, and outlives its certificate by hours;
2. no post-handshake authentication: with ``CERT_REQUIRED`` it would let a client in without a certificate;
3. TLS 1.2 or newer, no renegotiation, no compression;
4. a private key that others can read, or that is published, is not served with;
5. a failed handshake sends its alert: asyncio and uvloop drop it, and the user sees "empty reply" instead of "unknown CA".
"""

from __future__ import annotations

import importlib
import importlib.util
import socket
import ssl
import struct
from asyncio import BaseTransport, Transport
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from certauth.errors import ConfigError
from certauth.keys import check_tls_key
from policy.bounds import bounded
from policy.request import PEER_EXTENSION

_HANDSHAKE_PENDING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_ENCODING_DER = 2  # _ssl.ENCODING_DER, X509_FILETYPE_ASN1 of OpenSSL


class ClientCertificate(Enum):
    """Whether a client may connect without one. Optional ones let ``/livez`` answer, and are still verified when presented."""

    OPTIONAL = ssl.CERT_OPTIONAL
    REQUIRED = ssl.CERT_REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedHandshake:
    """Why a client did not get in. The certificate it showed is not available: OpenSSL drops it with the handshake."""

    reason: str
    """OpenSSL's name, e.g. ``CERTIFICATE_VERIFY_FAILED``; with the verifier's sentence if it was about the certificate."""
    verify_code: int | None
    """X509_V_ERR_*: 10 expired, 20 unknown issuer, 26 wrong purpose."""
    address: str | None


def failed_handshake(error: ssl.SSLError, *, address: str | None) -> FailedHandshake:
    """What is known of a handshake that ended with ``error``."""
    reason = error.reason
    if isinstance(error, ssl.SSLCertVerificationError):
        return FailedHandshake(reason=f"{reason}: {error.verify_message}", verify_code=error.verify_code, address=address)
    return FailedHandshake(reason=reason, verify_code=None, address=address)


class ReloadingSSLContext(ssl.SSLContext):
    """A context whose certificate and roots can be replaced while connections live on.

    asyncio and uvloop call ``wrap_bio`` once per connection; each new connection gets the newest context, made from scratch.
    (To change the live context, or to swap it in an SNI callback, leaves verification as it was before the change.)
    """

    _build: Callable[[], ssl.SSLContext]
    _current: ssl.SSLContext

    def __new__(cls, build: Callable[[], ssl.SSLContext]) -> ReloadingSSLContext:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._build = build
        self._current = build()
        return self

    def __init__(self, build: Callable[[], ssl.SSLContext]) -> None:
        """Make the first context. Raises what ``build`` raises."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self._current.wrap_bio(*args, **kwargs)

    def reload(self) -> None:
        """Use a newly made context from now on. If it cannot be made, the error is raised and the last good one stays."""
        self._current = self._build()


on_handshake_error: ContextVar[Callable[[ssl.SSLError], None]] = ContextVar("on_handshake_error")
"""Called when a handshake fails, if whoever accepts the connection set it: the event loops run a connection's callbacks in the
context it was accepted in. (The exception they report is the last one, usually that the client went away.)"""


class _StrictSSLObject(ssl.SSLObject):
    """An ``SSLObject`` that sends the alert of a failed handshake, reports the failure, and takes no resumed session."""

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except _HANDSHAKE_PENDING:
            raise
        except ssl.SSLError as error:
            self._failed(error)
            # "Want read" makes the loop flush what OpenSSL wrote (the alert) and call again when the client answers or leaves.
            raise ssl.SSLWantReadError from error
        if self.session_reused:
            # Without tickets TLS 1.2 still resumes by session id, from a cache that Python cannot switch off.
            refusal = ssl.SSLError(ssl.SSL_ERROR_SSL, "the client resumed a session")
            refusal.reason = "SESSION_RESUMED"
            raise self._failed(refusal)

    def _failed(self, error: ssl.SSLError) -> ssl.SSLError:
        self._failure = error
        on_handshake_error.get(_nobody_asked)(error)
        return error


def _nobody_asked(_error: ssl.SSLError) -> None:
    pass


def server_context(
    *,
    certificate: Path,
    key: Path,
    client_roots: bytes,
    client_certificate: ClientCertificate,
    passphrase: str | None = None,
    allow_example_keys: bool = False,
) -> ssl.SSLContext:
    """A server context under the rules above, from PEM files and the PEM of every CA a client's chain may lead through.

    ``client_roots`` should hold issuing CAs besides roots, as some clients send their leaf alone. That a chain leads to one of
    them is not yet trust: ``policy.certificate`` verifies it again against the bundle of its own domain only.
    Raises ``ConfigError`` (``tls-unusable``) and, for a key open to others, locked or published, ``KeyMaterialError``.
    """
    secret = None if passphrase is None else passphrase.encode()
    check_tls_key(key, passphrase=secret, allow_example_keys=allow_example_keys)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.sslobject_class = _StrictSSLObject
    try:
        # An encrypted key without a passphrase would make OpenSSL ask on the terminal of a service.
        context.load_cert_chain(certificate, key, password=passphrase or "")
        context.load_verify_locations(cadata=client_roots.decode("ascii"))
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(
            "tls-unusable",
            f"cannot serve TLS with {certificate} and {key}",
            hint="check that they belong together and can be read",
        ) from error
    context.verify_mode = client_certificate.value
    context.post_handshake_auth = False
    return context


def presented_chain(ssl_object: ssl.SSLObject | None) -> tuple[bytes, ...]:
    """The DER certificates the client sent, leaf first; empty if it sent none or the connection is not TLS.

    Python before 3.13 has no public way to more than the leaf. The private one is used where it exists; without it the leaf is
    all there is, and verification finds the issuing CA in the trust bundle.
    """
    leaf = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
    if ssl_object is None or leaf is None:
        return ()
    public = hasattr(ssl_object, "get_unverified_chain")
    source: Any = ssl_object if public else getattr(ssl_object, "_sslobj", None)
    certificates: tuple[Any, ...] = getattr(source, "get_unverified_chain", tuple)() or ()
    chain = tuple(found if isinstance(found, bytes) else found.public_bytes(_ENCODING_DER) for found in certificates)
    return chain if chain[:1] == (leaf,) else (leaf,)


def peer_uid(connection: Any) -> int | None:
    """The user id of a UNIX socket's peer, from the kernel (``SO_PEERCRED``, Linux); None for any other socket."""
    option = getattr(socket, "SO_PEERCRED", None)
    if connection is None or option is None or connection.family != socket.AF_UNIX:
        return None
    _pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return int(uid)


def connection_extensions(transport: BaseTransport) -> dict[str, Any]:
    """What every request of a connection gets to know about it. Computed once per connection."""
    chain = presented_chain(transport.get_extra_info("ssl_object"))
    name = transport.get_extra_info("peername")
    address = (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
    uid = peer_uid(transport.get_extra_info("socket"))
    extensions: dict[str, Any] = {PEER_EXTENSION: {"chain_der": chain, "address": address, "uid": uid}}
    if transport.get_extra_info("sslcontext") is not None:
        extensions["tls"] = {"client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(der) for der in chain)}
    return extensions


def _resumed(transport: BaseTransport) -> bool:
    """Whether the connection goes on with an earlier session, whose certificate nobody has verified again.

    A context of uvicorn's own making issues tickets. They are turned off from here on, so that a client that has one is not
    disconnected but verified like a new one.
    """
    context, ssl_object = transport.get_extra_info("sslcontext"), transport.get_extra_info("ssl_object")
    if context is None or ssl_object is None:
        return False
    if context.num_tickets:
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return bool(ssl_object.session_reused)


def _ignored(_data: bytes) -> None:
    pass


def with_peer(base: type[Any], name: str) -> type[Any]:
    """A uvicorn protocol class that tells the app who is at the other end.

    It relies on what all of uvicorn's have in common: ``connection_made(transport)``, ``data_received(data)``, and
    ``self.app``, called with a scope.
    """
    members = bounded(base) if hasattr(base, "timeout_keep_alive_handler") else {}  # not for WebSockets
    made: Any = members.get("connection_made", base.connection_made)

    def connection_made(self: Any, transport: Transport) -> None:
        made(self, transport)
        if _resumed(transport):
            self.data_received = _ignored  # what came with the handshake is delivered after this
            transport.abort()
            return
        facts, inner = connection_extensions(transport), self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"] = {**(scope.get("extensions") or {}), **facts}
            await inner(scope, receive, send)

        self.app = app

    # The name and module are those under which the class can be found again: worker processes unpickle it.
    members |= {"connection_made": connection_made, "__module__": __name__, "__qualname__": name}
    return type(name, (base,), members)


_PROTOCOLS: Final = {
    "H11Protocol": ("uvicorn.protocols.http.h11_impl", "H11Protocol"),
    "HttpToolsProtocol": ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
    "HTTPProtocol": ("uvicorn.protocols.http.auto", "AutoHTTPProtocol"),
    "WebSocketProtocol": ("uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol"),
    "LegacyWebSocketProtocol": ("uvicorn.protocols.websockets.websockets_impl", "WebSocketProtocol"),
}


def __getattr__(name: str) -> type[Any]:
    """Make a protocol class when it is first asked for: httptools and websockets are not in the base installation.

    Raises ``ConfigError`` (``websockets-missing``).
    """
    if name not in _PROTOCOLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PROTOCOLS[name]
    if ".websockets." in module and importlib.util.find_spec("websockets") is None:
        raise ConfigError(
            "websockets-missing", f"{name} needs the package websockets", hint="pip install 'iri-certauth[signer]'"
        )
    made = with_peer(getattr(importlib.import_module(module), attribute), name)
    globals()[name] = made
    return made
