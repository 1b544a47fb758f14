"""What each kind of certificate may be used for, and how long it lives. Values only; nothing here can be configured.

``docs/specification/certificate-profile.md`` is the normative text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certauth.names import Kind

BACKDATE = timedelta(seconds=60)
"""Credentials start this long before they are issued: the clocks of doors are not perfect."""
MIN_LIFETIME = timedelta(seconds=60)
"""Shorter than this is a mistake in the request, or an issuer about to end."""
TOKEN_DEFAULT = timedelta(hours=1)
TOKEN_MAX = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Usages and bounds of one kind of certificate."""

    name: str
    ca: bool
    path_length: int | None
    ekus: tuple[x509.ObjectIdentifier, ...]
    default_lifetime: timedelta
    max_lifetime: timedelta
    min_assurance: int
    """The least assurance of an identity proof that leads to this certificate."""

    @property
    def key_usage(self) -> x509.KeyUsage:
        """RFC 5280 §4.2.1.3: an authority signs certificates and lists, a leaf signs handshakes, and neither does both."""
        return x509.KeyUsage(
            digital_signature=not self.ca,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=self.ca,
            crl_sign=self.ca,
            encipher_only=False,
            decipher_only=False,
        )


USER = Profile(
    name="user",
    ca=False,
    path_length=None,
    # Never serverAuth: the holder of a person's certificate could pose as a service to everybody who trusts the facility.
    ekus=(ExtendedKeyUsageOID.CLIENT_AUTH,),
    default_lifetime=timedelta(hours=8),
    max_lifetime=timedelta(hours=24),
    min_assurance=1,
)
AGENT = Profile(
    name="agent",
    ca=False,
    path_length=None,
    ekus=(ExtendedKeyUsageOID.CLIENT_AUTH,),
    default_lifetime=timedelta(hours=8),
    max_lifetime=timedelta(hours=24),
    min_assurance=1,
)
SERVICE = Profile(
    name="service",
    ca=False,
    path_length=None,
    ekus=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    default_lifetime=timedelta(days=7),
    max_lifetime=timedelta(days=31),
    min_assurance=0,
)
INTERMEDIATE = Profile(
    name="intermediate",
    ca=True,
    path_length=0,
    ekus=(),
    default_lifetime=timedelta(days=730),
    max_lifetime=timedelta(days=1826),
    min_assurance=0,
)
ROOT = Profile(
    name="root",
    ca=True,
    path_length=1,
    ekus=(),
    default_lifetime=timedelta(days=3652),
    max_lifetime=timedelta(days=9131),
    min_assurance=0,
)


def leaf_profile(kind: Kind) -> Profile:
    """The profile of a leaf certificate for this kind of principal."""
    match kind:
        case Kind.USER:
            return USER
        case Kind.AGENT:
            return AGENT
        case Kind.SERVICE | Kind.HOST:
            return SERVICE
        case _:
            assert_never(kind)
