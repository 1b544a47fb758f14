"""What would become of a token, check by check, rule by rule, and then for whom it leads to, for the admin who wonders why.

The decisions are those of the verifier, of the rules and of ``signer.foreseeing``; what is listed before are their own checks,
one at a time. Only the tie to a key cannot be tried: it is taken as good. Nothing is consumed, recorded or granted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from certauth.errors import CertauthError, ProofError
from certauth.identity import (
    Binding,
    BoundKey,
    Issuer,
    KeySet,
    ProofKind,
    UnverifiedProof,
    VerifiedIdentity,
    issuer_of,
    jwk_thumbprint,
    read_proof,
    verify_access_token,
    verify_id_token,
    verify_introspected,
    verify_workload,
)
from certauth.identity.binding import audience_prefix
from certauth.identity.mapping import Admission, Explanation, Rule, explain
from certauth.identity.proof import (
    check_algorithm,
    check_authentication,
    check_kind,
    check_provider_times,
    check_signature,
)
from certauth.identity.token_types import ACCESS_TOKEN, check_type
from signer.foreseeing import Foresee, Foreseen, Wish
from signer.introspection import Introspection
from signer.jwks import KeySource

T = TypeVar("T")

_FOR_THE_SIGNER: Final = (
    "it is for client_id, whose tokens the signer takes in a login through itself (certauth login --mediated), where it "
    "fetched them; what programs bring must be for public_client_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """One check: passed, or refused with the code that the caller would get."""

    name: str
    code: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """Everything found out. ``identity`` is there if the token proves one, ``rules`` if rules were then asked.

    ``foreseen`` is what the request for a certificate would come to, where the facility's database could be asked.
    """

    checks: tuple[CheckReport, ...]
    issuer: Issuer | None = None
    identity: VerifiedIdentity | None = None
    rules: Explanation | None = None
    foreseen: Foreseen | None = None
    error: CertauthError | None = None

    @property
    def enrolment(self) -> str:
        """How people come in through the issuer."""
        return "enrolled" if self.issuer is None else self.issuer.enrolment

    @property
    def admitted(self) -> bool:
        """Whether the rules, if there are any, let this identity in."""
        return self.rules is not None and isinstance(self.rules.decision, Admission)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """The facility's issuers and rules (by the issuer's id), and the ways to ask its providers.

    ``own_clients`` are the signer's own client ids, by URL, where programs have another one.
    """

    signer_id: str
    issuers: Mapping[str, Issuer]
    rules: Mapping[str, Sequence[Rule]]
    key_source: KeySource
    introspection: Introspection
    foresee: Foresee | None = None
    own_clients: Mapping[str, str] = field(default_factory=dict)

    async def explain(
        self,
        token: str,
        *,
        kind: ProofKind | None,
        opaque_issuer: str | None,
        now: datetime,
        wish: Wish | None = None,
    ) -> TokenReport:
        """What would become of ``token``, sent as ``kind`` (by default as what it looks like), with what else ``wish`` says.

        ``opaque_issuer`` is the URL of the provider to ask about a token that is no JWT. Raises nothing for a bad token, and
        ``StoreError`` if the database cannot be read.
        """
        steps = _Steps()
        try:
            if token.count(".") == 2:
                identity = await self._jwt(steps, token, kind, now)
            else:
                identity = await self._opaque(steps, token, opaque_issuer, now)
        except CertauthError as error:
            return TokenReport(checks=tuple(steps.done), issuer=steps.issuer, error=error)
        rules = explain(self.rules.get(identity.issuer_id, ()), identity)
        foreseen = None if self.foresee is None else self.foresee(identity, wish or Wish(), now)
        return TokenReport(checks=tuple(steps.done), issuer=steps.issuer, identity=identity, rules=rules, foreseen=foreseen)

    async def _jwt(self, steps: _Steps, token: str, kind: ProofKind | None, now: datetime) -> VerifiedIdentity:
        proof = steps.run("form", lambda: read_proof(token), "a well-formed JWT")
        issuer = steps.issuer = steps.run("issuer", lambda: issuer_of(proof.unverified_issuer, self.issuers), "configured")
        sent_as = kind or _looks_like(proof, issuer)
        claims = proof.unverified_claims
        steps.run("kind", lambda: check_kind(sent_as, issuer), f"{sent_as.replace('_', ' ')}, accepted of this issuer")
        steps.run("algorithm", lambda: check_algorithm(proof.alg, issuer.algorithms), proof.alg)
        steps.run("type", lambda: check_type(proof.typ, claims, sent_as), "nothing in it says that it is of another kind")
        signature = partial(check_signature, proof, issuer)
        key = "the issuer's only key" if proof.kid is None else f"key {proof.kid}"
        await steps.wait("signature", lambda: self.key_source.verified(issuer.url, proof.kid, signature), f"good, by {key}")
        steps.run("times", lambda: check_provider_times(claims, issuer, now), "within the limits of the issuer")
        if sent_as is not ProofKind.WORKLOAD:
            steps.run("login", lambda: check_authentication(claims, issuer, now), "recent enough, or not asked for")
        verify = partial(_verify, sent_as, proof, issuer=issuer, signer_id=self.signer_id, now=now)
        try:
            return await steps.wait(
                "audience, subject, key",
                lambda: self.key_source.verified(issuer.url, proof.kid, verify),
                "for us, about somebody, bound as it must be",
            )
        except ProofError as error:
            own = self.own_clients.get(issuer.url)
            if error.code == "wrong-audience" and own is not None and own in (claims.get("aud"), *_listed(claims.get("aud"))):
                error.hint = _FOR_THE_SIGNER
            raise

    async def _opaque(self, steps: _Steps, token: str, issuer_url: str | None, now: datetime) -> VerifiedIdentity:
        found = partial(_named, issuer_url, self.issuers)
        issuer = steps.issuer = steps.run("issuer", found, "to be asked about it: it is no JWT")
        answer = await steps.wait("introspection", lambda: self.introspection.introspect(issuer.url, token), "answered")
        key = _WhicheverKey(signer_id=self.signer_id, spki=b"", claims=answer)
        digest = hashlib.sha256(token.encode()).digest()
        return steps.run(
            "state", lambda: verify_introspected(answer, token_digest=digest, issuer=issuer, key=key, now=now), "active, for us"
        )


class _Steps:
    """The checks made so far; the first that refuses ends them."""

    def __init__(self) -> None:
        self.done: list[CheckReport] = []
        self.issuer: Issuer | None = None

    def run(self, name: str, check: Callable[[], T], good: str) -> T:
        try:
            outcome = check()
        except CertauthError as error:
            raise self._refused(name, error) from error
        self.done.append(CheckReport(name=name, text=good))
        return outcome

    async def wait(self, name: str, check: Callable[[], Awaitable[T]], good: str) -> T:
        try:
            outcome = await check()
        except CertauthError as error:
            raise self._refused(name, error) from error
        self.done.append(CheckReport(name=name, text=good))
        return outcome

    def _refused(self, name: str, error: CertauthError) -> CertauthError:
        self.done.append(CheckReport(name=name, code=error.code, text=error.message))
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class _WhicheverKey(BoundKey):
    """The key the token is bound to, whichever that is: nobody's, and good for an explanation alone."""

    claims: Mapping[str, object] = field(repr=False)

    def nonce(self) -> str:
        return str(self.claims.get("nonce"))

    def audience(self) -> str:
        named = self.claims.get("aud")
        texts = named if isinstance(named, list) else [named]
        prefix = audience_prefix(self.signer_id)
        return next((text for text in texts if isinstance(text, str) and text.startswith(prefix)), prefix)

    def thumbprint(self) -> str:
        match self.claims.get("cnf"):
            case {"jkt": str(named)}:
                return named
            case {"jwk": jwk}:
                return jwk_thumbprint(jwk) or ""
            case _:
                return ""


_VERIFIERS: Final = {
    ProofKind.ID_TOKEN: verify_id_token,
    ProofKind.ACCESS_TOKEN: verify_access_token,
    ProofKind.WORKLOAD: verify_workload,
}


def _verify(
    kind: ProofKind, proof: UnverifiedProof, keys: KeySet, *, issuer: Issuer, signer_id: str, now: datetime
) -> VerifiedIdentity:
    claims = proof.unverified_claims
    with_nonce = "nonce" in claims and Binding.NONCE in issuer.bindings
    key = _WhicheverKey(signer_id=signer_id, spki=b"", salt=b"" if with_nonce else None, claims=claims)
    return _VERIFIERS[kind](proof, issuer=issuer, keys=keys, key=key, now=now)


def _looks_like(proof: UnverifiedProof, issuer: Issuer) -> ProofKind:
    """What a token without a word about it is most likely sent as."""
    if (proof.typ or "").lower().removeprefix("application/") == ACCESS_TOKEN:
        return ProofKind.ACCESS_TOKEN
    return next(kind for kind in (*_VERIFIERS, *issuer.kinds) if kind in issuer.kinds)


def _listed(audience: object) -> list[object]:
    return audience if isinstance(audience, list) else []


def _named(issuer_url: str | None, issuers: Mapping[str, Issuer]) -> Issuer:
    if issuer_url is None:
        raise ProofError(
            "proof-malformed",
            "the token is no JWT, and no issuer is named that could be asked about it",
            hint="name one: --issuer",
        )
    return issuer_of(issuer_url, issuers)
