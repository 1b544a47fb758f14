"""A facility for tests: real keys and certificates of the product, and a hand-made leaf for every way to be wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certauth import certificates, keys, profiles
from certauth.audit.checkpoint import VerifierKey
from certauth.bundles import TokenRoot, TrustBundle, TrustEntry
from certauth.canonical_der import canonical_certificate
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm, SoftwareKey, generate
from certauth.names import Kind, Principal, TrustDomain

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
LEAF_USAGE = profiles.USER.key_usage
CA_USAGE = profiles.ROOT.key_usage
START = NOW - timedelta(seconds=60)
END = NOW + timedelta(hours=8)


def der(*chain: x509.Certificate) -> tuple[bytes, ...]:
    """The chain as a door receives it."""
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)


def uri(text: str) -> x509.UniformResourceIdentifier:
    """A URI name."""
    return x509.UniformResourceIdentifier(text)


@dataclasses.dataclass
class Facility:
    """One trust domain with its authorities."""

    name: str = "als.example"

    @cached_property
    def domain(self) -> TrustDomain:
        return TrustDomain.parse(self.name)

    @cached_property
    def root_key(self) -> SoftwareKey:
        return generate(Algorithm.P256)

    @cached_property
    def issuer_key(self) -> SoftwareKey:
        return generate(Algorithm.P256)

    @cached_property
    def root(self) -> x509.Certificate:
        return certificates.make_root(domain=self.domain, key=self.root_key, serial=1, now=NOW)

    @cached_property
    def issuer(self) -> x509.Certificate:
        return certificates.make_intermediate(
            domain=self.domain,
            public_key=self.issuer_key.public_key,
            issuer=self.root,
            issuer_key=self.root_key,
            serial=2,
            now=NOW,
        )

    @cached_property
    def token_key(self) -> SoftwareKey:
        return generate(Algorithm.ED25519)

    @cached_property
    def feed_key(self) -> SoftwareKey:
        return generate(Algorithm.ED25519)

    @cached_property
    def log_key(self) -> SoftwareKey:
        return generate(Algorithm.ED25519)

    @cached_property
    def bundle(self) -> TrustBundle:
        token, feed = self.token_key.public_key, self.feed_key.public_key
        return TrustBundle(
            domain=self.domain,
            sequence=7,
            issued_at=NOW,
            refresh_hint=300,
            x509_roots=(self.root,),
            x509_issuers=(self.issuer,),
            token_roots=(TokenRoot(kid=keys.key_id(token), key=token),),  # type: ignore[arg-type]  # generated as Ed25519
            log_vkey=str(VerifierKey.make(f"{self.name}/audit", self.log_key.public_key)),
            feed_key=feed,  # type: ignore[arg-type]  # generated as Ed25519
            signer_url=f"https://signer.{self.name}",
            feed_url=f"https://signer.{self.name}/v1/revocations",
        )

    @property
    def entry(self) -> TrustEntry:
        return TrustEntry(bundle=self.bundle)

    @property
    def entries(self) -> dict[TrustDomain, TrustEntry]:
        return {self.domain: self.entry}

    def principal(self, id_: str = "alice", kind: Kind = Kind.USER) -> Principal:
        return Principal.make(self.domain, kind, id_)

    def grant(self, public_key: keys.PublicKey, **changes: object) -> CertificateGrant:
        grant = CertificateGrant(
            principal=self.principal(),
            profile=profiles.USER,
            public_key=public_key,
            spki=keys.spki(public_key),
            not_before=START,
            not_after=END,
            assurance=2,
            issuer_id="idp",
            ignored=(),
            clamped=None,
            rule="enrolled",
        )
        return dataclasses.replace(grant, **changes)  # type: ignore[arg-type]  # the names are the grant's

    def leaf(self, public_key: keys.PublicKey | None = None, **changes: object) -> x509.Certificate:
        """A genuine user certificate, made by the product."""
        key = public_key or generate(Algorithm.P256).public_key
        return certificates.make_leaf(
            grant=self.grant(key, **changes), issuer=self.issuer, issuer_key=self.issuer_key, serial=99
        )

    def forged(
        self,
        *,
        names: Sequence[x509.GeneralName] | None = None,
        ekus: Iterable[x509.ObjectIdentifier] | None = CLIENT,
        usage: x509.KeyUsage | None = LEAF_USAGE,
        ca: bool | None = False,
        path_length: int | None = None,
        public_key: CertificatePublicKeyTypes | None = None,
        not_before: datetime = START,
        not_after: datetime = END,
        issuer: x509.Certificate | None = None,
        issuer_key: SoftwareKey | None = None,
        subject: x509.Name | None = None,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """A certificate signed by this facility's own authority, wrong in exactly the given ways."""
        above, key = issuer or self.issuer, issuer_key or self.issuer_key
        public = public_key or generate(Algorithm.P256).public_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]))
            .issuer_name(above.subject)
            .public_key(public)
            .serial_number(1234)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        if ekus is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
        san = [uri(str(self.principal()))] if names is None else names
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        algorithm = None if key.algorithm is Algorithm.ED25519 else hashes.SHA256()
        signed = builder.sign(key.private_key, algorithm)
        return canonical_certificate(signed, issuer_key=key.public_key)
