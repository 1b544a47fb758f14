"""Step 2, peer: who is at the other end of the wire, as the transport says, before anything is believed.

The chain found here is *presented*, not verified; ``policy.certificate`` verifies it against the bundle of its trust domain.
One source per listener: the TLS connection itself. Headers are no source (``policy.request`` removes those that look like one).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from certauth.errors import ChainError
from policy.request import PEER_EXTENSION

MAX_CHAIN = 8
MAX_CERTIFICATE = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentedPeer:
    """What the transport knows of the client."""

    chain_der: tuple[bytes, ...] = field(repr=False)
    """DER certificates, leaf first; empty if the client presented none."""
    address: tuple[str, int] | None
    uid: int | None


def read_peer(scope: Mapping[str, Any]) -> PresentedPeer:
    """The presented peer of a scope, from the best source there is.

    In this order: our own protocol classes; ``client_cert_chain`` (PEM, leaf first) of the ASGI TLS extension; its proposed
    successor ``client_cert`` (DER leaf). No extension means no certificate. Raises ``ChainError`` (``certificate-malformed``)
    if the server hands over something that cannot be a certificate chain: a broken source must not look like no certificate.
    """
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    own = extensions.get(PEER_EXTENSION)
    if own is not None:
        return PresentedPeer(chain_der=_bounded(own["chain_der"]), address=own["address"], uid=own["uid"])
    client = scope.get("client")
    address = (client[0], client[1]) if client else None
    tls: Mapping[str, Any] = extensions.get("tls") or {}
    chain: tuple[bytes, ...] = ()
    try:
        if pems := tls.get("client_cert_chain"):
            chain = tuple(ssl.PEM_cert_to_DER_cert(pem) for pem in pems)
        elif leaf := tls.get("client_cert"):
            chain = (bytes(leaf),)
    except (ValueError, TypeError, AttributeError) as error:
        raise _malformed() from error
    return PresentedPeer(chain_der=_bounded(chain), address=address, uid=None)


def _bounded(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(chain) > MAX_CHAIN or any(len(certificate) > MAX_CERTIFICATE for certificate in chain):
        raise _malformed()
    return chain


def _malformed() -> ChainError:
    return ChainError(
        "certificate-malformed",
        "the presented certificate chain cannot be read",
        hint="send your certificate and its issuers as the signer made them",
    )
