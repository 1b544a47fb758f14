"""From the proof in a request to a verified identity, whatever kind of proof it is.

A proof is verified here and not consumed: what makes it usable once is its digest, recorded together with what it led to.
Each kind has its own verifier, and the request says which is meant; a token that was sent as another kind is refused as that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Protocol, assert_never

import structlog

from certauth.clock import Clock
from certauth.encoding import canonical_json, from_b64url, strict_json
from certauth.errors import ProofError, RequestError
from certauth.identity import (
    BoundKey,
    Issuer,
    KeySet,
    UnverifiedProof,
    VerifiedIdentity,
    issuer_of,
    opaque_digest,
    read_proof,
    verify_access_token,
    verify_client_assertion,
    verify_id_token,
    verify_introspected,
    verify_workload,
)
from certauth.names import Principal
from certauth.requests import CertificationRequest
from signer.codes import Codes
from signer.introspection import Introspection
from signer.jwks import KeySource
from signer.schemas import (
    AccessTokenProof,
    AssertionProof,
    CodeProof,
    IdTokenProof,
    LoginProof,
    Proof,
    WorkloadProof,
)
from signer.store import Store

ASSERTION_SKEW = timedelta(seconds=60)

log = structlog.get_logger("signer")


class Logins(Protocol):
    """The logins that were begun here (``signer.login``)."""

    def claim(self, login: str, secret: str, spki: bytes, *, link: str | None = None) -> VerifiedIdentity: ...


class Verifier(Protocol):
    """One of the verifiers of tokens that identity providers sign."""

    def __call__(
        self, proof: UnverifiedProof, *, issuer: Issuer, keys: KeySet, key: BoundKey, now: datetime
    ) -> VerifiedIdentity: ...


class Proving:
    """Verifies proofs against the configured identity providers, the enrolled keys, and what was begun here."""

    def __init__(
        self,
        *,
        signer_id: str,
        issuers: Mapping[str, Issuer],
        key_source: KeySource,
        introspection: Introspection,
        logins: Logins,
        codes: Codes,
        store: Store,
        clock: Clock,
    ) -> None:
        self._signer_id = signer_id
        self._issuers = issuers
        self._key_source = key_source
        self._introspection = introspection
        self._logins = logins
        self._codes = codes
        self._store = store
        self._clock = clock

    async def identity(self, proof: Proof, request: CertificationRequest, *, link: Principal | None = None) -> VerifiedIdentity:
        """Who asks, bound to the key of ``request``; ``link`` is whose login it is to become, if it is not for a certificate.

        Raises ``RequestError``, ``ProofError``, ``UnavailableError`` or ``StoreError``.
        """
        key = BoundKey(signer_id=self._signer_id, spki=request.spki)
        match proof:
            case IdTokenProof():
                key = BoundKey(signer_id=self._signer_id, spki=request.spki, salt=_salt(proof.salt))
                return await self._signed(proof.token, key, verify_id_token)
            case WorkloadProof():
                return await self._signed(proof.token, key, verify_workload)
            case AccessTokenProof():
                return await self._access_token(proof, key)
            case AssertionProof():
                return self._assertion(proof.token, key)
            case CodeProof():
                return self._codes.identity(proof.code, now=self._clock())
            case LoginProof():
                purpose = None if link is None else str(link)
                return self._logins.claim(proof.login, proof.secret, request.spki, link=purpose)
            case _:
                assert_never(proof)

    async def _signed(self, token: str, key: BoundKey, verify: Verifier) -> VerifiedIdentity:
        unverified = read_proof(token)
        with _said(unverified.digest):
            issuer = issuer_of(unverified.unverified_issuer, self._issuers)
            check: Callable[[KeySet], VerifiedIdentity] = lambda keys: verify(  # noqa: E731 - it closes over what is known here
                unverified, issuer=issuer, keys=keys, key=key, now=self._clock()
            )
            return await self._key_source.verified(issuer.url, unverified.kid, check)

    async def _access_token(self, proof: AccessTokenProof, key: BoundKey) -> VerifiedIdentity:
        """A JWT by its signature; anything else by asking its issuer. Never both ways, or one token could be used twice."""
        if proof.issuer is None:
            return await self._signed(proof.token, key, verify_access_token)
        try:
            digest = opaque_digest(proof.token)
        except ProofError:
            return await self._signed(proof.token, key, verify_access_token)
        issuer = self._named(proof.issuer)
        answer = await self._introspection.introspect(issuer.url, proof.token)
        with _said(digest):
            return verify_introspected(answer, token_digest=digest, issuer=issuer, key=key, now=self._clock())

    def _named(self, issuer_id: str) -> Issuer:
        for issuer in self._issuers.values():
            if issuer.id == issuer_id:
                return issuer
        raise ProofError(
            "unknown-issuer",
            "this facility uses no identity provider of that name",
            hint="name one of those that the facility lists",
        )

    def _assertion(self, token: str, key: BoundKey) -> VerifiedIdentity:
        unverified = read_proof(token)
        with _said(unverified.digest):
            keys = self._enrolled_keys(unverified.unverified_issuer)
            return verify_client_assertion(
                unverified, principal=unverified.unverified_issuer, keys=keys, key=key, now=self._clock(), skew=ASSERTION_SKEW
            )

    def _enrolled_keys(self, name: str) -> KeySet:
        """The keys of a service or agent. Who is not enrolled and who has no key are refused alike."""
        try:
            found = self._store.client_keys(Principal.parse(name))
        except RequestError:
            found = ()
        if not found:
            raise ProofError(
                "unknown-issuer",
                "no key is enrolled for the name in the assertion",
                hint="have it enrolled: certauth signer service enroll --key",
            )
        return KeySet.parse(canonical_json({"keys": [strict_json(jwk.encode()) for jwk in found]}))


@contextlib.contextmanager
def _said(digest: bytes) -> Iterator[None]:
    """Say in the signer's log which proof is refused, by the digest under which a grant would have it; never the proof."""
    try:
        yield
    except ProofError as error:
        log.info("proof.refused", code=error.code, proof=digest.hex(), reason=error.message)
        raise


def _salt(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return from_b64url(text)
    except ValueError as error:
        raise RequestError("body-malformed", "proof.salt is not base64url", hint="16 bytes, 22 characters") from error
