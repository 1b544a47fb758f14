"""Certificates of servers: the signer's own and those of the facility's services.

Their names are an administrator's decision at this machine, never the result of a login. They are recorded like every other
grant, before anybody holds them.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certauth import certificates, keys
from certauth.audit import record
from certauth.clock import Clock, whole_seconds
from certauth.enrolment import Terms
from certauth.errors import ConfigError, RequestError
from certauth.files import PUBLIC, make_private_directory, write_atomic
from certauth.keys import Algorithm, PublicKey
from certauth.names import Kind, Principal, label
from certauth.profiles import BACKDATE, SERVICE
from signer.authority import Authority, random_serial
from signer.ledger import Ledger, Submission
from signer.rows import CertificateRow
from signer.settings import Settings

Address = IPv4Address | IPv6Address

_DNS_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL}(\.{_DNS_LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerNames:
    """Under which names a server is reached."""

    service: str
    dns: tuple[str, ...]
    addresses: tuple[Address, ...]


def issue(
    names: ServerNames,
    public_key: PublicKey,
    *,
    authority: Authority,
    ledger: Ledger,
    clock: Clock,
    by: str,
    why: str | None = None,
) -> list[x509.Certificate]:
    """A server's chain, leaf first, recorded with who made it and why; ``why`` is ``None`` for the signer's own alone.

    Raises ``RequestError``, ``ConfigError`` or ``StoreError``; nothing was made then.
    """
    principal = Principal.make(authority.domain, Kind.SERVICE, names.service)
    start = whole_seconds(clock())
    end = min(start + SERVICE.default_lifetime, authority.issuing.not_valid_after_utc)
    if end - start < timedelta(hours=1):
        raise ConfigError(
            "authority-expired",
            "the issuing certificate ends within the hour",
            hint="tell the facility's administrator: nothing can be issued past its end",
        )
    serial = random_serial()
    leaf = certificates.make_service(
        principal=principal,
        public_key=public_key,
        dns_names=names.dns,
        ip_addresses=names.addresses,
        issuer=authority.issuing,
        issuer_key=authority.issuing_key,
        serial=serial,
        not_before=start - BACKDATE,
        not_after=end,
    )
    ledger.record(_submission(principal, leaf, public_key, serial, by, why))
    return [leaf, authority.issuing]


def _submission(
    principal: Principal, leaf: x509.Certificate, public_key: PublicKey, serial: int, by: str, why: str | None
) -> Submission:
    fingerprint = certificates.fingerprint(leaf)
    event = record.CertificateGranted(
        principal=principal,
        issuer="local",
        subject=record.commit("sub", by, salt=secrets.token_bytes(record.SALT_BYTES)),
        assurance=0,
        proof="administrator",
        binding="none",
        proof_digest=hashlib.sha256(keys.spki(public_key)).hexdigest(),
        rule="administrator",
        clamp=None,
        ignored=(),
        serial=serial,
        certificate=fingerprint,
        spki=keys.fingerprint(public_key),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        profile=SERVICE.name,
        why=why,
    )
    row = CertificateRow(
        fingerprint=fingerprint,
        serial=serial,
        principal=principal,
        key_fingerprint=keys.fingerprint(public_key),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        der=leaf.public_bytes(serialization.Encoding.DER),
        issuer_id="",
        terms=Terms(rule="administrator"),
        session_at=leaf.not_valid_before_utc,
    )
    request_id = f"server-{secrets.token_hex(12)}"
    return Submission(request_id=request_id, digest=bytes.fromhex(fingerprint), event=event, rows=(row,))


# --- the signer's own ----------------------------------------------------------------------------------------------------


def own_paths(settings: Settings) -> tuple[Path, Path]:
    """Where the signer keeps its own TLS chain and key."""
    directory = settings.state / "tls"
    return directory / "chain.pem", directory / "key.pem"


def renew_own(
    settings: Settings,
    *,
    authority: Authority,
    ledger: Ledger,
    passphrase: bytes,
    clock: Clock,
    allow_example_keys: bool = False,
) -> None:
    """Make the signer's own TLS certificate if there is none, or two thirds of its life are over.

    The key stays, so a crash between the two writes leaves a pair that fits. Raises as ``issue`` does.
    """
    chain_path, key_path = own_paths(settings)
    if chain_path.exists() and not _worn(certificates.load_chain(chain_path.read_bytes())[0], clock()):
        return
    make_private_directory(chain_path.parent)
    if not key_path.exists():
        keys.save_private(key_path, keys.generate(Algorithm.P256), passphrase=passphrase)
    key = keys.load_private(key_path, passphrase=passphrase, allow_example_keys=allow_example_keys)
    chain = issue(own_names(settings), key.public_key, authority=authority, ledger=ledger, clock=clock, by="the signer itself")
    write_atomic(chain_path, certificates.dump_chain(chain), mode=PUBLIC)


def _worn(certificate: x509.Certificate, now: datetime) -> bool:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) * 2 / 3


def own_names(settings: Settings) -> ServerNames:
    """The host of ``public_url``, which is what clients verify."""
    host = urlsplit(settings.public_url).hostname or ""
    return named("signer", [host])


def named(service: str, hosts: Sequence[str]) -> ServerNames:
    """Sort host names and IP addresses apart. Raises ``RequestError`` (``bad-name``) for what is neither, or no service."""
    dns: list[str] = []
    addresses: list[Address] = []
    for host in hosts:
        try:
            addresses.append(ip_address(host))
        except ValueError:
            dns.append(_dns_name(host))
    return ServerNames(service=label(service, "a service"), dns=tuple(dns), addresses=tuple(addresses))


def _dns_name(host: str) -> str:
    """``host`` in lower case if it is one DNS name in letters, digits and hyphens; no wildcard, which would be many servers."""
    if not _DNS_NAME.fullmatch(host):
        raise RequestError(
            "bad-name",
            f"{host[:80]!a} is neither a host name nor an IP address",
            hint="no wildcards; xn--... for other scripts",
        )
    return host.lower()
