"""The trust bundle: what a facility publishes so that others can verify what it signs.

``docs/specification/trust-bundle.md`` is the normative text of the document. What is believed of a bundle, and how a peer is
verified against it, is ``certauth.bundles``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certauth.audit.checkpoint import VerifierKey
from certauth.certificates import load_der
from certauth.clock import from_timestamp
from certauth.encoding import b64url, canonical_json, from_b64url, strict_json
from certauth.errors import CertauthError, ChainError, ConfigError
from certauth.keys import PublicKey, key_id, raw, refuse_example
from certauth.names import TrustDomain
from certauth.requests import shown
from certauth.small_order import is_small_order

MAX_BUNDLE = 256 * 1024
"""Bytes of a trust bundle."""
_MAX_AUTHORITIES = 32
MAX_TOKEN_ROOTS = _MAX_AUTHORITIES
"""Token keys in a bundle."""

_MEMBERS = {
    "v", "domain", "sequence", "issued_at", "refresh_hint", "x509_roots", "x509_issuers", "token_roots", "log_vkey", "feed_key",
    "signer_url", "feed_url",
}  # fmt: skip


class KeyState(StrEnum):
    """Where a token root key is in its life."""

    PREPARED = "prepared"
    """Published ahead, not signing yet."""
    ACTIVE = "active"
    RETIRED = "retired"
    """No longer signing; what it signed is valid until it ends."""
    TAINTED = "tainted"
    """Perhaps in the wrong hands: nothing it signed is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRoot:
    """A key that signs a domain's tokens."""

    kid: str
    key: Ed25519PublicKey
    state: KeyState = KeyState.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """What a facility publishes about itself. Public keys and addresses, nothing secret."""

    domain: TrustDomain
    sequence: int
    """Never goes back."""
    issued_at: datetime
    refresh_hint: int
    """Seconds after which a newer bundle may exist."""
    x509_roots: tuple[x509.Certificate, ...]
    x509_issuers: tuple[x509.Certificate, ...]
    """Intermediates: some clients send their leaf alone."""
    token_roots: tuple[TokenRoot, ...]
    log_vkey: str
    """The audit log's verifier key as a signed-note line (C2SP)."""
    feed_key: Ed25519PublicKey
    signer_url: str
    feed_url: str

    @property
    def believed_token_roots(self) -> tuple[TokenRoot, ...]:
        """The token keys whose signatures count: all but the tainted ones."""
        return tuple(root for root in self.token_roots if root.state is not KeyState.TAINTED)

    @property
    def tainted_kids(self) -> tuple[str, ...]:
        """The ids of the token keys that are withdrawn: for telling a user why a token is refused."""
        return tuple(root.kid for root in self.token_roots if root.state is KeyState.TAINTED)

    def to_json(self) -> bytes:
        """The bundle as canonical JSON; :meth:`parse` reads it back."""
        return canonical_json(
            {
                "v": 1,
                "domain": str(self.domain),
                "sequence": self.sequence,
                "issued_at": int(self.issued_at.timestamp()),
                "refresh_hint": self.refresh_hint,
                "x509_roots": [_encode(certificate) for certificate in self.x509_roots],
                "x509_issuers": [_encode(certificate) for certificate in self.x509_issuers],
                "token_roots": [
                    {"kid": root.kid, "key": b64url(raw(root.key)), "state": str(root.state)} for root in self.token_roots
                ],
                "log_vkey": self.log_vkey,
                "feed_key": b64url(raw(self.feed_key)),
                "signer_url": self.signer_url,
                "feed_url": self.feed_url,
            }
        )

    @classmethod
    def parse(cls, data: bytes, *, allow_example_keys: bool) -> TrustBundle:
        """Read a bundle, refusing unknown members, what cannot work, and published example keys.

        Raises ``ConfigError`` (``bundle-malformed``) and ``KeyMaterialError`` (``example-key``).
        """
        try:
            if len(data) > MAX_BUNDLE:
                raise ValueError(f"more than {MAX_BUNDLE} bytes")
            bundle = _parse(data)
        except (ValueError, CertauthError) as error:
            reason = shown(error.message if isinstance(error, CertauthError) else str(error))
            raise ConfigError(
                "bundle-malformed",
                f"this is not a trust bundle: {reason}",
                hint="get the bundle from the facility again: /.well-known/certauth/bundle",
            ) from error
        public: list[PublicKey] = [authority_key(c) for c in (*bundle.x509_roots, *bundle.x509_issuers)]
        public += [root.key for root in bundle.token_roots]
        public += [bundle.feed_key, VerifierKey.parse(bundle.log_vkey).public_key]
        for key in public:
            refuse_example(key, allow_example_keys=allow_example_keys)
        return bundle


def _parse(data: bytes) -> TrustBundle:
    document = strict_json(data)
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error type for every malformed document
    if odd := set(document) ^ _MEMBERS:
        raise ValueError(f"unknown or missing member {min(odd)}")
    if _integer(document, "v") != 1:
        raise ValueError("a version we do not know")
    bundle = TrustBundle(
        domain=TrustDomain.parse(_text(document, "domain")),
        sequence=_integer(document, "sequence"),
        issued_at=from_timestamp(_integer(document, "issued_at")),
        refresh_hint=_integer(document, "refresh_hint"),
        x509_roots=_authorities(document, "x509_roots"),
        x509_issuers=_authorities(document, "x509_issuers"),
        token_roots=tuple(_token_root(entry) for entry in _list(document, "token_roots")),
        log_vkey=_text(document, "log_vkey"),
        feed_key=Ed25519PublicKey.from_public_bytes(from_b64url(_text(document, "feed_key"))),
        signer_url=_https(document, "signer_url"),
        feed_url=_https(document, "feed_url"),
    )
    if not bundle.x509_roots:
        raise ValueError("no root")
    if len({root.kid for root in bundle.token_roots}) != len(bundle.token_roots):
        raise ValueError("two token keys with one id")
    VerifierKey.parse(bundle.log_vkey)
    if any(is_small_order(raw(key)) for key in (bundle.feed_key, *(root.key for root in bundle.token_roots))):
        raise ValueError("a key that anybody can sign for (a point of small order)")
    return bundle


def _text(document: Mapping[str, object], member: str) -> str:
    value = document.get(member)
    if not isinstance(value, str):
        raise ValueError(f"{member} is not a string")  # noqa: TRY004 - as above
    return value


def _integer(document: Mapping[str, object], member: str) -> int:
    value = document.get(member)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 253_402_300_799:  # the end of year 9999
        raise ValueError(f"{member} is not a count or a time")
    return value


def _list(document: Mapping[str, object], member: str) -> list[object]:
    value = document.get(member)
    if not isinstance(value, list) or len(value) > _MAX_AUTHORITIES:
        raise ValueError(f"{member} is not a list of at most {_MAX_AUTHORITIES}")
    return value


def _https(document: Mapping[str, object], member: str) -> str:
    url = _text(document, member)
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.fragment or not url.isascii():
        raise ValueError(f"{member} is not an https address")
    return url


def _encode(certificate: x509.Certificate) -> str:
    return b64url(certificate.public_bytes(serialization.Encoding.DER))


def _authorities(document: Mapping[str, object], member: str) -> tuple[x509.Certificate, ...]:
    certificates = []
    for entry in _list(document, member):
        if not isinstance(entry, str):
            raise ValueError(f"{member} holds something else than certificates")  # noqa: TRY004 - as above
        certificate = load_der(from_b64url(entry))
        authority_key(certificate)
        try:
            is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            is_ca = False
        if not is_ca:
            raise ValueError(f"{member} holds a certificate that is not an authority's")
        certificates.append(certificate)
    return tuple(certificates)


def authority_key(certificate: x509.Certificate) -> PublicKey:
    """A key that path validators accept in a chain; ``ChainError`` (``chain-algorithm``) for Ed25519 and the like."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ChainError(
            "chain-algorithm",
            "the chain has a key that is neither elliptic-curve nor RSA",
            hint="path validators refuse Ed25519 certificates; use P-256",
        )
    return key


def _token_root(entry: object) -> TokenRoot:
    match entry:
        case {"kid": str(kid), "key": str(key), "state": str(state), **rest} if not rest:
            public = Ed25519PublicKey.from_public_bytes(from_b64url(key))
            if kid != key_id(public):
                raise ValueError("a token key under an id that is not its own")
            return TokenRoot(kid=kid, key=public, state=KeyState(state))
    raise ValueError("token_roots holds something else than kid, key and state")
