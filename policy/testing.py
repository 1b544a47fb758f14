"""For the tests of a protected app: a facility of its own, made in memory, and calls as anybody.

    facility = Facility()
    app = PolicyMiddleware(my_app, policy="policy.toml", trust=facility.trust())

    def test_alice_reads_her_files():
        alice = facility.peer("alice")
        token = facility.token(alice, "data", rights=["read /files/alice/"])
        assert_permitted(client(app, alice, token).get("/files/alice/run-7"))
        assert_denied(client(app, alice, token).put("/files/alice/run-7"), "right-not-held")

Tokens with more to them take a line as well: ``facility.token(…, max_uses=1)``, ``facility.token(…, body=b"…")``, and with
another facility's word in it, ``other.vouch(token, "run7")``.

Keys are made anew for each facility, nothing is written, no network is used; certificates, tokens and decisions are real.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate
from starlette.testclient import TestClient

from certauth.audit.checkpoint import VerifierKey
from certauth.bundles import TokenRoot, TrustBundle, TrustEntry
from certauth.certificates import fingerprint, make_intermediate, make_leaf, make_root, random_serial
from certauth.clock import Clock, system_clock, whole_seconds
from certauth.errors import UsageError
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm, SoftwareKey, generate, key_id, spki
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import BACKDATE, TOKEN_DEFAULT, leaf_profile
from certauth.revocation import Feed, RevocationKind, RevocationSet, Revoked
from certauth.tokens.attenuate import attenuate
from certauth.tokens.attest import append_attestation, attest, request_attestation
from certauth.tokens.codec import from_text, to_text
from certauth.tokens.mint import mint
from certauth.tokens.signing import key_ref
from certauth.tokens.verify import TrustedAttester
from certauth.tokens.vocabulary import Narrowing, Right, TokenSpec
from policy.counting import Reservation, Reserved, used_up
from policy.request import PEER_EXTENSION
from policy.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Somebody with a certificate and its key."""

    principal: Principal
    key: SoftwareKey
    certificate: Certificate
    chain_der: tuple[bytes, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


class Facility:
    """A trust domain with its authority. ``clock`` says when; move it to see what expires."""

    def __init__(self, domain: str = "test.example", *, clock: Clock = system_clock) -> None:
        self.domain = TrustDomain.parse(domain)
        self.clock = clock
        token, feed, log, groups = (Ed25519PrivateKey.generate() for _ in range(4))
        self.token_key, self.feed_key, self.group_key = SoftwareKey(token), SoftwareKey(feed), SoftwareKey(groups)
        self._token_public, self._feed_public = token.public_key(), feed.public_key()
        self._log_vkey = str(VerifierKey.make(f"{domain}/certauth/log", log.public_key()))
        self.issuing_key = generate(Algorithm.P256)
        self.root_key, now = generate(Algorithm.P256), clock()
        self.root = make_root(domain=self.domain, key=self.root_key, serial=_serial(), now=now)
        self.issuing = make_intermediate(
            domain=self.domain,
            public_key=self.issuing_key.public_key,
            issuer=self.root,
            issuer_key=self.root_key,
            serial=_serial(),
            now=now,
        )
        self._revoked: list[Revoked] = []
        self._revocations = self._publish()

    def bundle(self) -> TrustBundle:
        """What this facility would publish about itself."""
        return TrustBundle(
            domain=self.domain,
            sequence=1,
            issued_at=whole_seconds(self.clock()),
            refresh_hint=300,
            x509_roots=(self.root,),
            x509_issuers=(self.issuing,),
            token_roots=(TokenRoot(kid=key_id(self._token_public), key=self._token_public),),
            log_vkey=self._log_vkey,
            feed_key=self._feed_public,
            signer_url=f"https://ca.{self.domain}",
            feed_url=f"https://ca.{self.domain}/v1/revocations",
        )

    def trust(self, *others: Facility, attesters: Iterable[TrustedAttester] = ()) -> Trust:
        """Trust in this facility, and in ``others``, that knows of each revocation at once; and in ``attesters``."""
        facilities = {facility.domain: facility for facility in (self, *others)}
        entries = [TrustEntry(bundle=facility.bundle()) for facility in facilities.values()]
        return Trust.of(entries, revocations=lambda domain: facilities[domain].revocations, attesters=attesters)

    def attester(self, *groups: str) -> TrustedAttester:
        """What a door is told that believes this facility about its ``groups`` (patterns); by default, about all of them."""
        return TrustedAttester(key=key_ref(self.group_key.public_key), domain=self.domain, groups=groups or ("*",))

    def vouch(self, token: str, *groups: str, lifetime: timedelta = timedelta(minutes=30)) -> str:
        """Anybody's ``token``, in which this facility vouches that its holder is in ``groups``."""
        request = request_attestation(from_text(token))
        answer = attest(request, key=self.group_key, groups=groups, expires_at=self.clock() + lifetime)
        return to_text(append_attestation(from_text(token), answer))

    def peer(self, id_: str, *, kind: Kind = Kind.USER, assurance: int = 2, lifetime: timedelta = timedelta(hours=8)) -> Peer:
        """Somebody of this facility, with a new key and a certificate that begins now."""
        key, now = generate(Algorithm.P256), whole_seconds(self.clock())
        principal = Principal.make(self.domain, kind, id_)
        grant = CertificateGrant(
            principal=principal,
            profile=leaf_profile(kind),
            public_key=key.public_key,
            spki=spki(key.public_key),
            not_before=now - BACKDATE,
            not_after=now + lifetime,
            assurance=assurance,
            issuer_id="test",
            ignored=(),
            clamped=None,
            rule="test",
        )
        leaf = make_leaf(grant=grant, issuer=self.issuing, issuer_key=self.issuing_key, serial=_serial())
        chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in (leaf, self.issuing))
        return Peer(principal=principal, key=key, certificate=leaf, chain_der=chain)

    def token(
        self,
        peer: Peer,
        service: str,
        *,
        rights: Iterable[str],
        groups: Iterable[str] = (),
        roles: Iterable[str] = (),
        projects: Iterable[str] = (),
        assurance: int = 2,
        lifetime: timedelta = TOKEN_DEFAULT,
        delegable: bool = True,
        delegations: int = 1,
        max_uses: int | None = None,
        body: bytes | None = None,
    ) -> str:
        """A token for ``peer`` at ``service``. A right is an operation and a path: ``"read /files/"``.

        ``delegations`` is how often it can be handed over in a row; ``max_uses`` and ``body`` narrow it to a number of uses and
        to requests with that body.
        """
        now = whole_seconds(self.clock())
        spec = TokenSpec(
            issuer=f"spiffe://{self.domain}",
            jti=os.urandom(16).hex(),
            user=str(peer.principal),
            issued_at=now,
            not_before=now - BACKDATE,
            expires_at=now + lifetime,
            audience=(service,),
            rights=tuple(_right(service, right) for right in rights),
            groups=tuple(groups),
            roles=tuple(roles),
            projects=tuple(projects),
            assurance=assurance,
            peer_fingerprint=peer.fingerprint,
            delegate_key=peer.key.public_key if delegable else None,
            delegation_depth=delegations,
        )
        token = mint(spec, self.token_key)
        if max_uses is not None or body is not None:
            digest = None if body is None else hashlib.sha256(body).hexdigest()
            token = attenuate(token, Narrowing(max_uses=max_uses, body_sha256=digest))
        return to_text(token)

    def revoke(self, kind: RevocationKind, value: str, *, reason: str = "test") -> None:
        """Withdraw a certificate, token, block or key by its name; or, by URI, all that a principal was given until now."""
        now = int(self.clock().timestamp())
        before = now if kind is RevocationKind.PRINCIPAL else None
        self._revoked.append(Revoked(kind=kind, value=value, before=before, reason=reason, at=now))
        self._revocations = self._publish()

    @property
    def revocations(self) -> RevocationSet:
        """What is withdrawn now."""
        return self._revocations

    def feed(self, *, lifetime: timedelta = timedelta(minutes=10)) -> Feed:
        """The same as a feed, to be signed with ``feed_key``."""
        now = whole_seconds(self.clock())
        return Feed(
            domain=self.domain,
            sequence=len(self._revoked),
            issued_at=now,
            next_update=now + lifetime,
            entries=tuple(self._revoked),
        )

    def _publish(self) -> RevocationSet:
        return RevocationSet(self.feed())


class MemoryUses:
    """A counter of limited uses that forgets everything at the end: ``PolicyMiddleware(app, …, uses=MemoryUses())``."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Nothing to do."""

    def reserve(self, token: str, limits: Mapping[str, int], *, until: datetime, now: datetime) -> Reservation:  # noqa: ARG002 - nothing is ever forgotten before the end
        with self._lock:
            used = {nonce: self.counts.get((token, nonce), 0) for nonce in limits}
            if refused := used_up(used, limits):
                return refused
            self.counts |= {(token, nonce): count + 1 for nonce, count in used.items()}
            return Reserved({nonce: count + 1 for nonce, count in used.items()})

    def close(self) -> None:
        """Nothing to do."""


def client(app: Any, peer: Peer | None = None, token: str | None = None) -> TestClient:
    """Call ``app`` in process, over a connection on which ``peer`` presented its certificate, with ``token`` in each request.

    The result is Starlette's test client: ``get``, ``put``, ``websocket_connect``, and ``with`` for the app's lifespan.
    """

    async def connection(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            shown = {"chain_der": peer.chain_der if peer else (), "address": ("127.0.0.1", 50000), "uid": None}
            scope["extensions"] = {**(scope.get("extensions") or {}), PEER_EXTENSION: shown}
        await app(scope, receive, send)

    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    return TestClient(connection, base_url="https://testserver", headers=headers)


def assert_permitted(response: httpx2.Response) -> None:
    """Fail unless the door let the request through; what the app answered, an error included, is not looked at."""
    problem = _problem(response)
    if problem is not None:
        raise AssertionError(f"denied with {problem.get('code')}: {problem.get('detail')}")


def assert_denied(response: httpx2.Response, code: str) -> None:
    """Fail unless the door denied the request with exactly this code."""
    problem = _problem(response)
    if problem is None:
        raise AssertionError(f"permitted, and the app answered {response.status_code}; expected a denial with {code}")
    if problem.get("code") != code:
        raise AssertionError(f"denied with {problem.get('code')} ({problem.get('detail')}); expected {code}")


def _problem(response: httpx2.Response) -> dict[str, object] | None:
    """The door's problem document; an app's own has no ``code`` and ``request_id`` together."""
    if response.headers.get("content-type") != "application/problem+json":
        return None
    document = response.json()
    return document if isinstance(document, dict) and {"code", "request_id"} <= document.keys() else None


def _right(service: str, text: str) -> Right:
    operation, _, path = text.partition(" ")
    if not path.startswith("/"):
        raise UsageError("bad-right", f"{text!r} is not a right", hint='write "read /files/"')
    return Right(service, operation, path)


def _serial() -> int:
    return random_serial(os.urandom(20))
