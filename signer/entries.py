"""From a grant to everything that is written down and said about it: event, row, response. Pure functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certauth import certificates, tokens
from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.clock import rfc3339
from certauth.enrolment import Terms
from certauth.identity import VerifiedIdentity
from certauth.issuance import CertificateGrant, Clamp, TokenGrant
from certauth.names import TrustDomain
from certauth.tokens import TokenSpec, block_ids
from signer.oauth import scope_text
from signer.rows import CertificateRow, TokenRow


def digest(*parts: str | bytes) -> bytes:
    """SHA-256 over the parts, each with its length: what a request asks, for telling a repetition from a namesake."""
    material = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        material.update(len(data).to_bytes(4))
        material.update(data)
    return material.digest()


def own_id(kind: str, name: bytes) -> str:
    """A request id of ours for something named by a hash. The colon keeps it apart from every id a client can choose."""
    return f"{kind}:{name.hex()[:48]}"


# --- certificates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How somebody proved who they are, as the log tells it: ``subject`` is committed to, never written."""

    kind: str
    issuer: str
    subject: record.Commitment
    binding: str
    digest: str

    @classmethod
    def of(cls, identity: VerifiedIdentity, *, subject: record.Commitment) -> Proof:
        """A proof that was verified."""
        digest = identity.proof_digest.hex()
        kind, binding = str(identity.kind), str(identity.binding)
        return cls(kind=kind, issuer=identity.issuer, subject=subject, binding=binding, digest=digest)

    @classmethod
    def of_peer(cls, peer: VerifiedPeer, *, subject: record.Commitment, domain: TrustDomain) -> Proof:
        """A current certificate, on whose connection its successor was asked for."""
        issuer = f"spiffe://{domain}"
        return cls(kind="certificate", issuer=issuer, subject=subject, binding="possession", digest=peer.fingerprint)


def certificate_event(
    grant: CertificateGrant, proof: Proof, certificate: x509.Certificate, *, serial: int
) -> record.CertificateGranted:
    """The log's entry: who, how they proved it, by which rule, and the certificate by its hash."""
    return record.CertificateGranted(
        principal=grant.principal,
        issuer=proof.issuer,
        subject=proof.subject,
        assurance=grant.assurance,
        proof=proof.kind,
        binding=proof.binding,
        proof_digest=proof.digest,
        rule=grant.rule,
        clamp=grant.clamped,
        ignored=grant.ignored,
        serial=serial,
        certificate=certificates.fingerprint(certificate),
        spki=hashlib.sha256(grant.spki).hexdigest(),
        not_before=grant.not_before,
        not_after=grant.not_after,
        profile=grant.profile.name,
    )


def certificate_row(
    grant: CertificateGrant, certificate: x509.Certificate, *, serial: int, terms: Terms, session_at: datetime
) -> CertificateRow:
    """The store's row."""
    return CertificateRow(
        fingerprint=certificates.fingerprint(certificate),
        serial=serial,
        principal=grant.principal,
        key_fingerprint=hashlib.sha256(grant.spki).hexdigest(),
        not_before=grant.not_before,
        not_after=grant.not_after,
        der=certificate.public_bytes(serialization.Encoding.DER),
        issuer_id=grant.issuer_id,
        terms=terms,
        session_at=session_at,
    )


def certificate_response(grant: CertificateGrant, chain: list[x509.Certificate], *, serial: int) -> dict[str, object]:
    """What the client is told."""
    return {
        "certificate_chain": certificates.dump_chain(chain).decode("ascii"),
        "principal": str(grant.principal),
        "serial": f"{serial:x}",
        "not_before": rfc3339(grant.not_before),
        "not_after": rfc3339(grant.not_after),
        "ignored": list(grant.ignored),
        "clamped": clamped(grant.clamped),
    }


# --- tokens --------------------------------------------------------------------------------------------------------------


def token_spec(grant: TokenGrant, *, issuer: str, jti: str, issued_at: datetime) -> TokenSpec:
    """What the token will state."""
    return TokenSpec(
        issuer=issuer,
        jti=jti,
        user=str(grant.principal),
        issued_at=issued_at,
        not_before=grant.not_before,
        expires_at=grant.expires_at,
        audience=(grant.audience,),
        rights=tuple(tokens.Right(right.service, right.operation, right.path) for right in grant.rights),
        groups=grant.groups,
        roles=grant.roles,
        projects=grant.projects,
        assurance=grant.assurance,
        peer_fingerprint=grant.peer_fingerprint,
        delegate_key=grant.delegate_key,
        delegation_depth=grant.delegations,
    )


def token_event(grant: TokenGrant, spec: TokenSpec, token: bytes, *, kid: str, form: str = "biscuit") -> record.TokenGranted:
    """The log's entry: the token by its ids and hash, never itself. ``form``: ``biscuit`` or ``jwt``."""
    return record.TokenGranted(
        principal=grant.principal,
        peer=grant.peer_fingerprint,
        rule=grant.rule,
        clamp=grant.clamped,
        jti=spec.jti,
        kid=kid,
        audience=spec.audience,
        rights=spec.rights,
        expires_at=spec.expires_at,
        form=form,
        block=block_ids(token)[0] if form == "biscuit" else None,
        token=hashlib.sha256(token).hexdigest(),
        delegations=grant.delegations,
    )


def token_row(
    grant: TokenGrant, spec: TokenSpec, token: bytes, *, kid: str, ends_with: tuple[tuple[str, str], ...] = ()
) -> TokenRow:
    """The store's row: what it was for and its hash."""
    return TokenRow(
        jti=spec.jti,
        principal=grant.principal,
        peer_fingerprint=grant.peer_fingerprint,
        kid=kid,
        audience=spec.audience,
        issued_at=spec.issued_at,
        expires_at=spec.expires_at,
        ends_with=ends_with,
        token_sha256=hashlib.sha256(token).hexdigest(),
    )


def token_digest(token: str) -> str:
    """Under which a token in JWT form is found again: hex SHA-256 of its text."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def token_response(grant: TokenGrant, spec: TokenSpec, token: str) -> dict[str, object]:
    """What the client is told; the one place where the token itself appears."""
    return {
        "token": token,
        "jti": spec.jti,
        "expires_at": rfc3339(grant.expires_at),
        "expires_in": int((spec.expires_at - spec.issued_at).total_seconds()),
        "scope": scope_text(spec.rights),
        "audience": grant.audience,
        "rights": [{"operation": right.operation, "path": right.path} for right in grant.rights],
        "delegations": grant.delegations,
        "clamped": clamped(grant.clamped),
    }


def clamped(clamp: Clamp | None) -> dict[str, object] | None:
    """A shortened lifetime as the client is told of it."""
    if clamp is None:
        return None
    seconds = {"requested": int(clamp.requested.total_seconds()), "granted": int(clamp.granted.total_seconds())}
    return {"what": clamp.what, **seconds, "by": clamp.by, "message": str(clamp)}
