"""What deciding and making a certificate costs, and verifying one, beside the bare library calls that cannot be avoided.

Issuing is compared with the library alone doing the same work: parse the request, verify its signature, build and sign a
certificate with the same extensions, write PEM. Verifying a peer is compared with the library alone parsing the chain and
validating the path. Both run interleaved with ours, on the same keys and bytes. (The whole grant has its own measurement.)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from certauth import certificates
from certauth.bundles import verify_peer
from certauth.enrolment import Enrolment, Login, Terms
from certauth.identity import VerifiedIdentity
from certauth.identity.kinds import ProofKind
from certauth.issuance import CertificateGrant, Refusal, decide_certificate
from certauth.requests import parse_csr
from tests.certauth.facility import NOW, Facility, der

_RUNS = 11
_CALLS = 200
_ISSUE_BAR = 2.0
_VERIFY_BAR = 1.5


def measurements() -> Iterator[dict[str, object]]:
    """Ratios of CPU time over the floor, and CPU microseconds of one operation."""
    for name, pair, bar, versus in (
        ("issue-certificate", _issuing(), _ISSUE_BAR, "the library alone: CSR, builder, signature, PEM"),
        ("issue-verify-peer", _verifying(), _VERIFY_BAR, "bare path validation of the same chain"),
    ):
        ours, floor = pair
        ratios, costs = [], []
        for _ in range(_RUNS):
            mine, theirs = _cpu_seconds(ours), _cpu_seconds(floor)
            ratios.append(mine / theirs)
            costs.append(mine / _CALLS * 1e6)
        ratio = statistics.median(ratios)
        yield _result(f"{name}-over-library", ratio, "x", bar, holds=ratio <= bar, versus=versus)
        cost = statistics.median(costs)
        yield _result(f"{name}-cpu", cost, "us", 1000.0, holds=cost <= 1000.0, versus="the whole grant's budget of 1 ms")


def _issuing() -> tuple[Callable[[], object], Callable[[], object]]:
    facility, now = Facility(), datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    data = csr.public_bytes(Encoding.PEM)
    identity = VerifiedIdentity(
        kind=ProofKind.ID_TOKEN,
        issuer_id="idp",
        issuer="https://idp.example",
        subject="sub-1",
        binding="nonce",
        assurance=2,
        auth_time=None,
        acr=None,
        amr=(),
        email=None,
        name=None,
        issued_at=now,
        expires_at=now,
        proof_digest=bytes(32),
        replay_until=now,
    )
    enrolment = Enrolment(principal=facility.principal(), logins=(Login("https://idp.example", "sub-1"),))
    issuer, issuer_key = facility.issuer, facility.issuer_key

    def ours() -> object:
        grant = decide_certificate(
            identity=identity,
            enrolment=enrolment,
            terms=Terms(),
            request=parse_csr(data),
            lifetime=None,
            issuer_not_after=issuer.not_valid_after_utc,
            max_lifetime=timedelta(hours=24),
            address=None,
            now=NOW,
        )
        match grant:
            case CertificateGrant():
                leaf = certificates.make_leaf(grant=grant, issuer=issuer, issuer_key=issuer_key, serial=7)
                return certificates.dump_chain([leaf])
            case Refusal():
                raise ValueError(grant.reason)

    template = facility.leaf(key.public_key())
    extensions = list(template.extensions)

    def floor() -> object:
        request = x509.load_pem_x509_csr(data)
        if not request.is_signature_valid:
            raise ValueError("the request is genuine")
        builder = (
            x509.CertificateBuilder()
            .subject_name(template.subject)
            .issuer_name(issuer.subject)
            .public_key(request.public_key())
            .serial_number(7)
            .not_valid_before(template.not_valid_before_utc)
            .not_valid_after(template.not_valid_after_utc)
        )
        for extension in extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        return builder.sign(issuer_key.private_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    return ours, floor


def _verifying() -> tuple[Callable[[], object], Callable[[], object]]:
    facility = Facility()
    chain, entries = der(facility.leaf()), facility.entries
    root, issuer = facility.root, facility.issuer

    def ours() -> object:
        return verify_peer(chain, entries, now=NOW)

    def floor() -> object:
        leaf = x509.load_der_x509_certificate(chain[0])
        return PolicyBuilder().store(Store([root])).time(NOW).build_client_verifier().verify(leaf, [issuer])

    return ours, floor


def _cpu_seconds(operation: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(_CALLS):
        operation()
    return time.process_time() - start


def _result(name: str, value: float, unit: str, bar: float, *, holds: bool, versus: str) -> dict[str, object]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": holds, "runs": _RUNS, "versus": versus}
