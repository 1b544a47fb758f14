"""A token's text, taken apart without believing any of it: compact JWS (RFC 7515 §7.1) in its one canonical spelling.

    1  at most 16 KiB; three non-empty parts of canonical base64url
    2  header and claims are JSON objects without duplicates; no member that changes how to verify or brings its own key

The digest covers the *signing input*: an ECDSA signature has a second valid form, so the token's text does not identify it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from certauth.encoding import from_b64url, strict_json
from certauth.errors import ProofError
from certauth.identity.claims import printable
from certauth.identity.keyset import is_key_id, normal_algorithm

MAX_PROOF: Final = 16 * 1024

# Members that change how a token must be verified, or that bring a key or a place to fetch one from (RFC 7515 §4.1, §10.12).
_REFUSED_HEADERS: Final = frozenset({"crit", "b64", "zip", "enc", "cty", "jku", "jwk", "x5u", "x5c"})
_SEND: Final = "send the token as its issuer made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedJws:
    """A well-formed JWS about which nothing is known yet. Its ``repr`` shows no part of it."""

    alg: str
    kid: str | None
    typ: str | None
    digest: bytes
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedProof(UnverifiedJws):
    """A JWS whose payload are claims, still nobody's."""

    unverified_issuer: str
    unverified_claims: Mapping[str, object] = field(repr=False)


def read_proof(unverified_token: str) -> UnverifiedProof:
    """Take a compact JWT apart (checks 1 and 2).

    Raises ``ProofError``: ``proof-too-large``, ``proof-malformed``, ``unsupported-header``, ``missing-claim``, ``bad-claim``.
    """
    jws, payload = read_jws(unverified_token)
    claims = _object(payload, "claims")
    return UnverifiedProof(
        alg=jws.alg,
        kid=jws.kid,
        typ=jws.typ,
        digest=jws.digest,
        signing_input=jws.signing_input,
        signature=jws.signature,
        unverified_issuer=printable(claims, "iss", longest=2048),
        unverified_claims=claims,
    )


def read_jws(unverified_token: str) -> tuple[UnverifiedJws, bytes]:
    """Take a compact JWS apart, header and payload; raises as ``read_proof`` does, but for what the payload says."""
    if len(unverified_token) > MAX_PROOF:
        raise ProofError(
            "proof-too-large",
            f"the proof is longer than {MAX_PROOF} characters",
            hint="ask the provider to put fewer claims, often groups, into its tokens",
        )
    match unverified_token.split("."):
        case [first, second, third] if first and second and third:
            header, payload, signature = _object(_decode(first), "header"), _decode(second), _decode(third)
        case _:
            raise ProofError("proof-malformed", "the proof is not three non-empty parts joined by dots", hint=_SEND)
    if refused := sorted(_REFUSED_HEADERS & header.keys()):
        raise ProofError(
            "unsupported-header",
            f"the proof's header has {', '.join(refused)}, which is never followed",
            hint="ask those who run the provider to leave it out",
        )
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str) or not isinstance(typ, str | None):
        raise ProofError("proof-malformed", "the proof's header has no usable alg, or a typ that is no text", hint=_SEND)
    if kid is not None and not (isinstance(kid, str) and is_key_id(kid)):
        raise ProofError("proof-malformed", "the proof's key id is not 1 to 200 printable characters", hint=_SEND)
    signing_input = unverified_token.rpartition(".")[0].encode("ascii")
    digest = hashlib.sha256(signing_input).digest()
    jws = UnverifiedJws(
        alg=normal_algorithm(alg), kid=kid, typ=typ, digest=digest, signing_input=signing_input, signature=signature
    )
    return jws, payload


def _decode(part: str) -> bytes:
    try:
        return from_b64url(part)
    except ValueError as error:
        raise ProofError("proof-malformed", "a part of the proof is not canonical base64url", hint=_SEND) from error


def _object(data: bytes, what: str) -> dict[str, object]:
    try:
        value = strict_json(data)
    except ValueError as error:
        raise ProofError("proof-malformed", f"the {what} of the proof are not strict JSON", hint=_SEND) from error
    if not isinstance(value, dict):
        raise ProofError("proof-malformed", f"the {what} of the proof are not a JSON object", hint=_SEND)
    return value
