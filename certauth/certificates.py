"""X.509: making the certificates that were decided, and reading back what they say.

Nothing here decides: every name, usage and date is an argument. Signatures are deterministic (RFC 6979), so a bad source of
randomness at signing time cannot give an authority's key away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from certauth.canonical_der import canonical_certificate
from certauth.clock import in_words, rfc3339, whole_seconds
from certauth.errors import CertauthError, ChainError, KeyMaterialError
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm, PublicKey, SoftwareKey, hash_for, key_id
from certauth.names import Kind, Principal, TrustDomain, label
from certauth.profiles import BACKDATE, INTERMEDIATE, ROOT, SERVICE, Profile, leaf_profile
from certauth.requests import general_name, shown

PROVENANCE = x509.ObjectIdentifier("2.25.26453743027464293287140752534789203163")
"""How the holder proved who they are (``docs/specification/certificate-profile.md`` §5). Non-critical:

    Provenance ::= SEQUENCE { assurance INTEGER (0..3), issuer UTF8String (SIZE (1..64)) }
"""
MAX_CHAIN = 8
"""Certificates a chain file or a peer may hold."""
MAX_CHAIN_BYTES = 64 * 1024

_PARSE_ERRORS = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # what a later release of the library refuses, where warnings are errors
)
_MAX_CN = 64  # ub-common-name, RFC 5280 appendix A.1
_PROVENANCE = re.compile(rb"\x30.\x02\x01([\x00-\x03])\x0c(.)(.+)", re.DOTALL)


def make_root(
    *, domain: TrustDomain, key: SoftwareKey, serial: int, now: datetime, lifetime: timedelta = ROOT.default_lifetime
) -> x509.Certificate:
    """The self-signed root of a trust domain."""
    name = _authority_name(domain, "root", key.public_key)
    start = whole_seconds(now) - BACKDATE
    builder = _builder(
        ROOT, key.public_key, subject=name, issuer=name, serial=serial, start=start, end=start + BACKDATE + lifetime
    )
    builder = builder.add_extension(_domain_name(domain), critical=False)
    return _sign(builder, issuer_ski=_ski(key.public_key), key=key)


def make_intermediate(
    *,
    domain: TrustDomain,
    public_key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: SoftwareKey,
    serial: int,
    now: datetime,
    lifetime: timedelta = INTERMEDIATE.default_lifetime,
) -> x509.Certificate:
    """An authority that signs leaf certificates and nothing else; it ends with its issuer at the latest."""
    start = whole_seconds(now) - BACKDATE
    builder = _builder(
        INTERMEDIATE,
        public_key,
        subject=_authority_name(domain, "issuing authority", public_key),
        issuer=issuer.subject,
        serial=serial,
        start=start,
        end=min(start + BACKDATE + lifetime, issuer.not_valid_after_utc),
    )
    builder = builder.add_extension(_domain_name(domain), critical=False)
    return _sign(builder, issuer_ski=_ski_of(issuer), key=issuer_key)


def make_leaf(*, grant: CertificateGrant, issuer: x509.Certificate, issuer_key: SoftwareKey, serial: int) -> x509.Certificate:
    """The certificate that a grant describes: one URI name, the profile's usages, and how the holder proved who they are.

    A service's also names the hosts it is reached under.
    """
    subject = _display_name(grant.principal)
    builder = _builder(
        grant.profile,
        grant.public_key,
        subject=subject,
        issuer=issuer.subject,
        serial=serial,
        start=grant.not_before,
        end=grant.not_after,
    )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(grant.principal))]
    names += [_host_name(host) for host in grant.hosts]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
    builder = builder.add_extension(_provenance(grant.assurance, grant.issuer_id), critical=False)
    return _sign(builder, issuer_ski=_ski_of(issuer), key=issuer_key)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def make_service(
    *,
    principal: Principal,
    public_key: PublicKey,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[IPv4Address | IPv6Address] = (),
    issuer: x509.Certificate,
    issuer_key: SoftwareKey,
    serial: int,
    not_before: datetime,
    not_after: datetime,
) -> x509.Certificate:
    """A service's certificate: for TLS as a server under the given addresses, and as a client of other services.

    It says nothing about provenance: no person proved anything. Raises ``ChainError`` (``certificate-name``) for a person.
    """
    if principal.kind not in {Kind.SERVICE, Kind.HOST}:
        raise ChainError(
            "certificate-name",
            f"{principal} is not a service",
            hint="use a certificate that a facility's signer issued: certauth login",
        )
    subject = _display_name(principal)
    builder = _builder(
        SERVICE, public_key, subject=subject, issuer=issuer.subject, serial=serial, start=not_before, end=not_after
    )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(principal))]
    names += [x509.DNSName(name) for name in dns_names]
    names += [x509.IPAddress(address) for address in ip_addresses]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
    return _sign(builder, issuer_ski=_ski_of(issuer), key=issuer_key)


def _builder(
    profile: Profile,
    public_key: PublicKey,
    *,
    subject: x509.Name,
    issuer: x509.Name,
    serial: int,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    """What every certificate has (RFC 5280 §4.1, §4.2.1)."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=profile.ca, path_length=profile.path_length), critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(_ski(public_key), critical=False)
    )
    return builder.add_extension(x509.ExtendedKeyUsage(profile.ekus), critical=False) if profile.ekus else builder


def _sign(builder: x509.CertificateBuilder, *, issuer_ski: x509.SubjectKeyIdentifier, key: SoftwareKey) -> x509.Certificate:
    if key.algorithm is Algorithm.ED25519:
        raise KeyMaterialError(
            "bad-key",
            "an authority's key is P-256 or P-384: path validators refuse Ed25519 chains",
            hint="make a P-256 key for the authority",
        )
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski)
    builder = builder.add_extension(authority, critical=False)
    signed = builder.sign(key.private_key, hash_for(key.algorithm), ecdsa_deterministic=True)
    return canonical_certificate(signed, issuer_key=key.public_key)


def _ski(public_key: CertificateIssuerPublicKeyTypes) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public_key)


def _ski_of(issuer: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def _authority_name(domain: TrustDomain, role: str, public_key: PublicKey) -> x509.Name:
    """A name that a new key changes, so that two generations of one authority are told apart in every listing."""
    common_name = f"{role} {key_id(public_key)}"
    units = [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, part) for part in reversed(str(domain).split("."))]
    return x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _domain_name(domain: TrustDomain) -> x509.SubjectAlternativeName:
    """The trust domain without a path, which marks an authority (X509-SVID §3.1)."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")])


def _display_name(principal: Principal) -> x509.Name:
    """For people's eyes, and qualified by the domain so that a server which misreads it does not confuse two facilities.

    Empty if the id is longer than X.509 allows: a cut name would be another's.
    """
    if len(principal.id) > _MAX_CN:
        return x509.Name([])
    units = [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, part) for part in reversed(str(principal.domain).split("."))]
    return x509.Name(
        [
            *units,
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, principal.kind),
            x509.NameAttribute(NameOID.COMMON_NAME, principal.id),
        ]
    )


def _provenance(assurance: int, issuer_id: str) -> x509.UnrecognizedExtension:
    if not 0 <= assurance <= 3:
        raise ChainError("certificate-provenance", "assurance is 0, 1, 2 or 3", hint="state an assurance from 0 to 3")
    issuer = label(issuer_id, "an issuer's id").encode()
    body = b"\x02\x01" + bytes([assurance]) + b"\x0c" + bytes([len(issuer)]) + issuer
    return x509.UnrecognizedExtension(PROVENANCE, b"\x30" + bytes([len(body)]) + body)


def provenance_of(certificate: x509.Certificate) -> tuple[int, str] | None:
    """Assurance and identity provider as the certificate states them, ``None`` if it states nothing.

    Raises ``ChainError`` (``certificate-provenance``) for an extension with any other content or encoding.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(PROVENANCE)
    except x509.ExtensionNotFound:
        return None
    value = extension.value
    data = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    found = _PROVENANCE.fullmatch(data)
    try:
        if found and _provenance(found[1][0], found[3].decode("ascii")).value == data:
            return found[1][0], found[3].decode("ascii")
    except (UnicodeDecodeError, CertauthError):
        pass
    raise ChainError(
        "certificate-provenance",
        "the certificate's statement about its holder's login is malformed",
        hint="use a certificate that a facility's signer issued: certauth login",
    )


def assurance_of(certificate: x509.Certificate) -> int:
    """0 to 3: how well the holder proved who they are; 0 if the certificate does not say. May raise as ``provenance_of``."""
    stated = provenance_of(certificate)
    return stated[0] if stated else 0


def random_serial(entropy: bytes) -> int:
    """A positive serial number of at most 159 bits (RFC 5280 §4.1.2.2) from 20 random bytes."""
    serial = int.from_bytes(entropy[:20]) >> 1
    if len(entropy) < 20 or serial == 0:
        raise KeyMaterialError(
            "bad-entropy", "a serial number needs 20 random bytes", hint="give it bytes from secrets.token_bytes"
        )
    return serial


def fingerprint(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of the DER: RFC 8705's ``x5t#S256``, before its base64url."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def principal_of(certificate: x509.Certificate) -> Principal:
    """The one principal a certificate names; ``ChainError`` (``certificate-name``) if it names none or several."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, *_PARSE_ERRORS) as error:
        raise ChainError(
            "certificate-name",
            "the certificate has no readable subject alternative name",
            hint="use a certificate that a facility's signer issued: certauth login",
        ) from error
    if len(uris) != 1:
        raise ChainError(
            "certificate-name",
            f"the certificate has {len(uris)} URI names; exactly one says who it is",
            hint="use a certificate that a facility's signer issued: certauth login",
        )
    try:
        return Principal.parse(uris[0])
    except CertauthError as error:
        raise ChainError(
            "certificate-name",
            f"{shown(uris[0])!r} is not a principal",
            hint="use a certificate that a facility's signer issued: certauth login",
        ) from error


def load_der(unverified_der: bytes) -> x509.Certificate:
    """Parse one DER certificate completely, extensions included; ``ChainError`` (``chain-malformed``)."""
    try:
        certificate = x509.load_der_x509_certificate(unverified_der)
        _ = certificate.extensions, certificate.public_key()
        if certificate.serial_number <= 0:
            raise ValueError("serial numbers are positive")
    except _PARSE_ERRORS as error:
        raise ChainError(
            "chain-malformed",
            "not an X.509 certificate we can read completely",
            hint="give the chain as PEM, the leaf first, as the signer sent it",
        ) from error
    return certificate


def load_chain(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, leaf first; ``ChainError`` (``chain-malformed``) for none, too many, or too large."""
    try:
        chain = x509.load_pem_x509_certificates(pem) if len(pem) <= MAX_CHAIN_BYTES else []
    except _PARSE_ERRORS as error:
        raise ChainError(
            "chain-malformed",
            "not a PEM certificate chain",
            hint="give the chain as PEM, the leaf first, as the signer sent it",
        ) from error
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise ChainError(
            "chain-malformed",
            f"a chain has 1 to {MAX_CHAIN} certificates and at most {MAX_CHAIN_BYTES} bytes",
            hint="give the chain as PEM, the leaf first, as the signer sent it",
        )
    return [load_der(certificate.public_bytes(serialization.Encoding.DER)) for certificate in chain]


def dump_chain(chain: Iterable[x509.Certificate]) -> bytes:
    """The certificates as PEM, in the given order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def describe(certificate: x509.Certificate, *, now: datetime) -> dict[str, object]:
    """What a leaf certificate says, as JSON values. Raises as ``principal_of`` and ``provenance_of``."""
    principal = principal_of(certificate)
    stated = provenance_of(certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return {
        "principal": str(principal),
        "kind": str(principal.kind),
        "profile": leaf_profile(principal.kind).name,
        "names": [general_name(name) for name in names],
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "fingerprint": fingerprint(certificate),
        "not_before": rfc3339(start),
        "not_after": rfc3339(end),
        "state": "not yet valid" if now < start else "valid" if now < end else "expired",
        "seconds_left": max(0, int((end - now).total_seconds())),
        "assurance": stated[0] if stated else None,
        "identity_provider": stated[1] if stated else None,
    }


def describe_text(certificate: x509.Certificate, *, now: datetime) -> str:
    """:func:`describe` in words, one fact per line."""
    facts = describe(certificate, now=now)
    left = certificate.not_valid_after_utc - now
    when = {"valid": f"{in_words(left)} left", "expired": f"expired {in_words(left)}"}.get(str(facts["state"]), facts["state"])
    others = [name for name in facts["names"] if not str(name).startswith("URI:")] if isinstance(facts["names"], list) else []
    lines = [
        f"who         {facts['principal']}",
        f"valid       {facts['not_before']} to {facts['not_after']}, {when}",
        f"issued by   {facts['issuer']}",
    ]
    if facts["identity_provider"] is not None:
        lines.append(f"proved by   login at {facts['identity_provider']}, assurance {facts['assurance']}")
    if others:
        lines.append(f"serves as   {', '.join(map(str, others))}")
    lines += [f"serial      {facts['serial']}", f"fingerprint {facts['fingerprint']}"]
    return "\n".join(lines)
