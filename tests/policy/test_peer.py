"""``policy.peer``: what the transport says of the other end."""

from __future__ import annotations

import ssl

import pytest

from certauth.errors import ChainError
from policy.peer import MAX_CERTIFICATE, MAX_CHAIN, read_peer
from policy.request import PEER_EXTENSION

LEAF, ISSUER = b"leaf", b"issuer"


def pem(der: bytes) -> str:
    """A certificate as the ASGI TLS extension spells it."""
    return ssl.DER_cert_to_PEM_cert(der)


def test_our_own_protocol_classes_come_first() -> None:
    """What was read from the socket beats whatever else the scope says."""
    peer = read_peer(
        {
            "client": ("10.9.8.7", 0),
            "extensions": {
                PEER_EXTENSION: {"chain_der": (LEAF, ISSUER), "address": ("192.0.2.1", 5), "uid": 33},
                "tls": {"client_cert_chain": [pem(b"other")]},
            },
        }
    )
    assert (peer.chain_der, peer.address, peer.uid) == ((LEAF, ISSUER), ("192.0.2.1", 5), 33)


def test_the_tls_extension_of_asgi() -> None:
    """A chain of PEM texts, leaf first."""
    peer = read_peer({"client": ("192.0.2.1", 5), "extensions": {"tls": {"client_cert_chain": [pem(LEAF), pem(ISSUER)]}}})
    assert (peer.chain_der, peer.address, peer.uid) == ((LEAF, ISSUER), ("192.0.2.1", 5), None)


def test_the_leaf_in_der_that_uvicorn_may_send() -> None:
    """A leaf alone is a chain of one; the bundle supplies the issuing CA."""
    assert read_peer({"extensions": {"tls": {"client_cert": LEAF}}}).chain_der == (LEAF,)


@pytest.mark.parametrize(
    "extensions", [None, {}, {"tls": None}, {"tls": {}}, {"tls": {"client_cert_chain": [], "client_cert": None}}]
)
def test_no_source_means_no_certificate(extensions: object) -> None:
    """The absence of evidence is nobody, not somebody."""
    peer = read_peer({"client": None, "extensions": extensions})
    assert (peer.chain_der, peer.address, peer.uid) == ((), None, None)


@pytest.mark.parametrize(
    "extensions",
    [
        {"tls": {"client_cert_chain": ["no PEM"]}},
        {"tls": {"client_cert_chain": [b"-----BEGIN CERTIFICATE-----"]}},
        {"tls": {"client_cert_chain": 7}},
        {"tls": {"client_cert_chain": [pem(LEAF)] * (MAX_CHAIN + 1)}},
        {"tls": {"client_cert": b"x" * (MAX_CERTIFICATE + 1)}},
        {PEER_EXTENSION: {"chain_der": (b"x" * (MAX_CERTIFICATE + 1),), "address": None, "uid": None}},
    ],
)
def test_a_broken_source_is_an_error_not_an_anonymous_client(extensions: object) -> None:
    """Otherwise a certificate too odd to read would open every public door and hide who came."""
    with pytest.raises(ChainError) as caught:
        read_peer({"client": None, "extensions": extensions})
    assert caught.value.code == "certificate-malformed"
