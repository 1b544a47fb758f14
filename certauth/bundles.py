"""Trust in a facility: what we believe of its bundle (an entry), and the check of a peer's certificate chain.

A peer is verified against the bundle of the one trust domain its own certificate names. There is no pooled store: in a pool,
every facility's authority can speak for every facility.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certauth.canonical_der import is_canonical
from certauth.certificates import MAX_CHAIN, assurance_of, fingerprint, load_der, principal_of
from certauth.clock import rfc3339
from certauth.errors import ChainError, ConfigError
from certauth.keys import PublicKey, spki
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import BACKDATE
from certauth.requests import shown
from certauth.trust_bundle import MAX_BUNDLE, KeyState, TokenRoot, TrustBundle, authority_key

__all__ = ["MAX_BUNDLE", "MAX_CERTIFICATE", "KeyState", "TokenRoot", "TrustBundle", "TrustEntry", "VerifiedPeer", "verify_peer"]

MAX_CERTIFICATE = 16 * 1024
"""Bytes of one certificate of a peer."""
_MAX_INTERMEDIATES = 2  # ours uses one; a facility that keeps another authority above its own needs two
_PATTERN = re.compile(r"[A-Za-z0-9._@+*-]{1,128}")
_AGAIN = "use a certificate as certauth made it: certauth login --force makes a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustEntry:
    """What we accept from a trust domain, whatever it certifies."""

    bundle: TrustBundle
    kinds: frozenset[Kind] = frozenset(Kind)
    ids: tuple[str, ...] = ("*",)
    """Patterns for the whole id; ``*`` stands for any number of characters, nothing else is special."""
    assurance_ceiling: int = 3
    """Higher statements are lowered to this."""
    max_certificate_lifetime: timedelta | None = None
    """Certificates made for longer are refused."""

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``entry-malformed``) for a pattern that would not mean what it looks like."""
        for pattern in self.ids:
            if not _PATTERN.fullmatch(pattern):
                raise ConfigError("entry-malformed", f"{shown(pattern)!r} is not a pattern of ids", hint="only * is special")
        if not 0 <= self.assurance_ceiling <= 3:
            raise ConfigError(
                "entry-malformed", "an assurance ceiling is 0, 1, 2 or 3", hint="correct the entry in the trust file"
            )

    def accepts(self, principal: Principal) -> bool:
        """Whether the entry lets this name in."""
        return principal.kind in self.kinds and any(fnmatchcase(principal.id, pattern) for pattern in self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPeer:
    """Who is at the other end: the result of :func:`verify_peer`, and of nothing else."""

    principal: Principal
    fingerprint: str
    """Hex SHA-256 of the leaf's DER."""
    serial: int
    not_before: datetime
    not_after: datetime
    assurance: int
    public_key: PublicKey
    spki: bytes
    issuer_fingerprint: str


def verify_peer(chain_der: Sequence[bytes], entries: Mapping[TrustDomain, TrustEntry], *, now: datetime) -> VerifiedPeer:
    """Verify a client's certificate chain, leaf first, for client authentication at ``now``.

    Revocation is not checked here: that happens on every request, this once per chain. Raises ``ChainError``:
    ``chain-malformed``, ``certificate-name``, ``domain-unknown``, ``name-not-accepted``, ``certificate-not-yet-valid``,
    ``certificate-expired``, ``certificate-usage``, ``chain-algorithm``, ``chain-invalid``, ``certificate-not-canonical``,
    ``lifetime-too-long``, ``certificate-provenance``.
    """
    # 1. Bounds, then bytes: work done for a stranger is limited before it starts.
    if not 1 <= len(chain_der) <= MAX_CHAIN or any(len(der) > MAX_CERTIFICATE for der in chain_der):
        raise ChainError(
            "chain-malformed",
            f"a chain has 1 to {MAX_CHAIN} certificates of at most {MAX_CERTIFICATE} bytes",
            hint="send your certificate and the one that issued it, no more",
        )
    leaf, presented = load_der(chain_der[0]), [_load_presented(der) for der in chain_der[1:]]
    # 2. The name chooses the one bundle that may vouch for it.
    principal = principal_of(leaf)
    entry = entries.get(principal.domain)
    if entry is None or entry.bundle.domain != principal.domain:
        raise ChainError(
            "domain-unknown",
            f"no trust in {principal.domain} is configured here",
            hint="use a certificate of a facility that this service trusts; its owner lists them in trust.toml",
        )
    # 3. The entry accepts this name, and there is no other name in the certificate that somebody else might read.
    if not entry.accepts(principal):
        raise ChainError(
            "name-not-accepted",
            f"{principal} is not among the names accepted from {principal.domain}",
            hint="the owner of this service accepts names with kinds and ids in trust.toml",
        )
    _check_names(leaf, principal.kind)
    # 4. The leaf's own dates and usages, with a code each.
    _check_dates(leaf, now)
    _check_usage(leaf, principal.kind)
    # 5. The path, in this bundle only. Presented intermediates are hints: they count if a root of the bundle vouches for them.
    issuer = _check_path(leaf, presented, entry.bundle, now)
    # 6. The one encoding of this certificate, so that its fingerprint is its name.
    if not is_canonical(chain_der[0], leaf, issuer_key=authority_key(issuer)):
        raise ChainError(
            "certificate-not-canonical",
            "the certificate was re-encoded since it was signed, or not made by certauth",
            hint=_AGAIN,
        )
    # 7. The entry's caps.
    _check_lifetime(leaf, entry)
    key = authority_key(leaf)
    return VerifiedPeer(
        principal=principal,
        fingerprint=hashlib.sha256(chain_der[0]).hexdigest(),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        assurance=min(assurance_of(leaf), entry.assurance_ceiling),
        public_key=key,
        spki=spki(key),
        issuer_fingerprint=fingerprint(issuer),
    )


@lru_cache(maxsize=256)  # the same few authorities stand above everybody; what was read of one does not change
def _load_presented(der: bytes) -> x509.Certificate:
    return load_der(der)


def _check_names(leaf: x509.Certificate, kind: Kind) -> None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    allowed: tuple[type[x509.GeneralName], ...] = (x509.UniformResourceIdentifier,)
    if kind in {Kind.SERVICE, Kind.HOST}:
        allowed += (x509.DNSName, x509.IPAddress)
    for name in names:
        if not isinstance(name, allowed):
            raise ChainError(
                "certificate-name", f"the certificate of a {kind} has a name that such a certificate must not have", hint=_AGAIN
            )


def _check_dates(leaf: x509.Certificate, now: datetime) -> None:
    if now < leaf.not_valid_before_utc:
        raise ChainError(
            "certificate-not-yet-valid",
            f"the certificate starts {rfc3339(leaf.not_valid_before_utc)}",
            hint="compare the clocks of the two machines",
        )
    if now >= leaf.not_valid_after_utc:
        raise ChainError(
            "certificate-expired", f"the certificate ended {rfc3339(leaf.not_valid_after_utc)}", hint="certauth login"
        )


def _check_usage(leaf: x509.Certificate, kind: Kind) -> None:
    """Exactly the usages of the profile. The path validator alone would accept a leaf that names no usage at all."""
    try:
        usages = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        key_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise ChainError("certificate-usage", "the certificate does not say what it may be used for", hint=_AGAIN) from error
    allowed = {ExtendedKeyUsageOID.CLIENT_AUTH}
    if kind in {Kind.SERVICE, Kind.HOST}:
        allowed.add(ExtendedKeyUsageOID.SERVER_AUTH)
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages or not usages <= allowed:
        raise ChainError("certificate-usage", f"the certificate is not one for a {kind} acting as a client", hint=_AGAIN)
    if not key_usage.digital_signature or key_usage.key_cert_sign or key_usage.crl_sign:
        raise ChainError(
            "certificate-usage",
            "an authority's certificate does not identify a client",
            hint="use the certificate of a user, an agent or a service",
        )


def _check_path(
    leaf: x509.Certificate, presented: Sequence[x509.Certificate], bundle: TrustBundle, now: datetime
) -> x509.Certificate:
    """The certificate that issued the leaf, on a verified path to a root of the bundle."""
    for certificate in (leaf, *presented):
        authority_key(certificate)
    # A builder keeps the time it was made with: one kept from start-up would accept expired leaves later.
    builder = PolicyBuilder().store(Store(list(bundle.x509_roots))).time(now).max_chain_depth(_MAX_INTERMEDIATES)
    try:
        verified = builder.build_client_verifier().verify(leaf, [*presented, *bundle.x509_issuers])
    except (VerificationError, x509.UnsupportedGeneralNameType) as error:
        raise ChainError(
            "chain-invalid",
            f"the certificate does not lead to a root of {bundle.domain}: {shown(str(error))}",
            hint="send the whole chain; if the facility has new authorities, log in again",
        ) from error
    return verified.chain[1]


def _check_lifetime(leaf: x509.Certificate, entry: TrustEntry) -> None:
    cap = entry.max_certificate_lifetime
    if cap is not None and leaf.not_valid_after_utc - leaf.not_valid_before_utc > cap + BACKDATE:
        raise ChainError(
            "lifetime-too-long",
            "the certificate was made for longer than this facility accepts",
            hint="ask for a shorter one: certauth login --force --for 8h",
        )
