"""What ``POST /v1/certificates`` would answer to a login now: the same decisions on the same store, and nothing changes.

1. whom the login leads to, by ``Admitting``, as for a request;
2. whether they get a certificate, by ``decide``, as for a request;
3. what the ledger would still refuse: a proof that was used before, or is over by the time of the log.

What is new - an enrolment, an application, a code used - exists in memory and is forgotten.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certauth import keys
from certauth.clock import from_timestamp
from certauth.enrolment import Address, EnrolledRight
from certauth.errors import StoreError
from certauth.identity import VerifiedIdentity, registry
from certauth.issuance import CertificateGrant, Refusal
from certauth.keys import Algorithm
from certauth.requests import CertificationRequest, parse_csr
from signer.admitting import Admitted, Admitting
from signer.authority import issuing_certificate, log_origin
from signer.database import sqlite_url
from signer.deciding import decide, longest_certificate
from signer.settings import Settings
from signer.standing import Standing
from signer.store import Store, open_store

REPLAYED: Final = Refusal("replayed", "this proof of identity was used before", "log in again")
"""What the ledger says to a proof that led to a certificate already."""
EXPIRED: Final = Refusal("proof-expired", "the proof has expired", "get a new one: log in again")
"""What it says to one that ends before the newest entry of the log, whose time never goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request says besides its proof: the text of an invitation, a shorter lifetime, and from where it comes."""

    invite: str | None = None
    lifetime: timedelta | None = None
    address: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """The outcome. ``rights`` are what tokens could then be for; ``why`` is what the outside would not be told of a refusal."""

    outcome: CertificateGrant | Refusal
    rights: tuple[EnrolledRight, ...] = ()
    newcomer: bool = False
    why: str = ""


Foresee = Callable[[VerifiedIdentity, Wish, datetime], Foreseen]


class Foreseeing:
    """Foretells decisions on a store that a service may be working with. ``issuer_not_after``: the end of its authority."""

    def __init__(self, *, settings: Settings, store: Store, issuer_not_after: datetime) -> None:
        self._settings = settings
        self._store = store
        self._issuer_not_after = issuer_not_after
        self._admitting = Admitting(
            issuers=registry(issuer.issuer() for issuer in settings.issuer),
            rules={issuer.id: issuer.rules for issuer in settings.issuer},
            store=store,
            domain=settings.domain,
            admins=settings.admins,
        )
        self._standing = Standing(store=store, entitlements=[one for grant in settings.grant for one in grant.entitlements()])

    def certificate(self, identity: VerifiedIdentity, wish: Wish, now: datetime) -> Foreseen:
        """What a request with this proof would come to at ``now``. Raises ``StoreError`` if that cannot be looked up."""
        admitted = self._admitting.consider(identity, invite=wish.invite, at=now)
        decided = decide(
            admitted,
            identity=identity,
            request=_some_request(),
            lifetime=wish.lifetime,
            issuer_not_after=self._issuer_not_after,
            max_lifetime=longest_certificate(self._settings, identity.issuer_id),
            address=wish.address,
            now=now,
        )
        if isinstance(decided.outcome, Refusal):
            return Foreseen(outcome=decided.outcome, why=admitted.why)
        if self._store.has_used(identity.proof_digest):
            return Foreseen(outcome=REPLAYED)
        if max(now, self._log_time()) >= identity.replay_until:
            return Foreseen(outcome=EXPIRED)
        return Foreseen(outcome=decided.outcome, rights=self._rights(admitted), newcomer=admitted.newcomer)

    def _log_time(self) -> datetime:
        with self._store.log() as reader:
            return from_timestamp(reader.head().at / 1_000_000)

    def _rights(self, admitted: Admitted) -> tuple[EnrolledRight, ...]:
        return () if admitted.enrolment is None else self._standing.rights(admitted.enrolment, admitted.terms)


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Foreseeing | None]:
    """Foretell on the facility's own database, without its keys; ``None`` where no facility was made yet.

    Raises ``StoreError`` for a database that is there and cannot be used, ``ConfigError`` for an authority that is not.
    """
    try:
        store = open_store(sqlite_url(settings.database_path), domain=settings.domain, origin=log_origin(settings.domain))
    except StoreError as error:
        if error.code != "store-missing":
            raise
        yield None
        return
    try:
        issuing = issuing_certificate(settings)
        yield Foreseeing(settings=settings, store=store, issuer_not_after=issuing.not_valid_after_utc)
    finally:
        store.close()


def _some_request() -> CertificationRequest:
    """A request for a key that is nobody's: the decision is the same for every key that a request may have."""
    key = keys.generate(Algorithm.P256)
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key.private_key, hashes.SHA256())
    return parse_csr(made.public_bytes(serialization.Encoding.PEM).decode("ascii"))
