"""Identity proofs: from a token's text to a verified identity, or to a refusal with a stable code.

A proof is read (``read_proof``), its issuer is looked up (``issuer_of``), that issuer's keys are found (``signer.jwks``), and
the verifier of its kind decides: ``verify_id_token``, ``verify_access_token``, ``verify_introspected``, ``verify_workload`` or
``verify_client_assertion``. Everything here is a pure function of text, configuration, keys and time.
"""

from certauth.identity.access_token import opaque_digest, verify_access_token, verify_introspected
from certauth.identity.binding import (
    SALT_BYTES,
    BoundKey,
    audience_for,
    jwk_thumbprint,
    nonce_for,
    short_fingerprint,
    signer_id_of,
)
from certauth.identity.client_assertion import ASSERTION_ISSUER, MAX_ASSERTION_LIFETIME, verify_client_assertion
from certauth.identity.id_token import verify_id_token
from certauth.identity.issuers import Issuer, issuer_of, registry
from certauth.identity.keyset import MAX_JWKS, KeySet, VerificationKey
from certauth.identity.kinds import Binding, ProofKind
from certauth.identity.proof import VerifiedIdentity
from certauth.identity.read import MAX_PROOF, UnverifiedProof, read_proof
from certauth.identity.userinfo import with_userinfo
from certauth.identity.workload import verify_workload

__all__ = [
    "ASSERTION_ISSUER",
    "MAX_ASSERTION_LIFETIME",
    "MAX_JWKS",
    "MAX_PROOF",
    "SALT_BYTES",
    "Binding",
    "BoundKey",
    "Issuer",
    "KeySet",
    "ProofKind",
    "UnverifiedProof",
    "VerificationKey",
    "VerifiedIdentity",
    "audience_for",
    "issuer_of",
    "jwk_thumbprint",
    "nonce_for",
    "opaque_digest",
    "read_proof",
    "registry",
    "short_fingerprint",
    "signer_id_of",
    "verify_access_token",
    "verify_client_assertion",
    "verify_id_token",
    "verify_introspected",
    "verify_workload",
    "with_userinfo",
]
