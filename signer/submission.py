"""What is handed to the ledger, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certauth.audit import record
from certauth.audit.receipt import Receipt
from certauth.bundles import VerifiedPeer
from certauth.errors import CertauthError
from certauth.names import Principal
from signer.rows import StoreRow


class Outcome(StrEnum):
    """Whether a submission was recorded now or had been before."""

    NEW = "new"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A proof that may be used once: its key (a hash), and the moment from which it would be refused as expired anyway."""

    key: bytes
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What should be recorded, all of it or nothing.

    ``request_id`` names the request; ``digest`` is SHA-256 over what it asks, so that a repetition can be told from another
    request that took its name. ``response`` is what, besides the rows, answers a repetition; ``None`` (a token: it is not
    stored and cannot be handed out twice) makes a repetition an error. ``grantee`` must be enrolled and enabled at the moment
    of recording, however long ago the decision was; and the certificate of ``holder``, on whose connection was asked, must not
    be withdrawn by then: a request may be held back between the decision at the door and its last byte.
    """

    request_id: str
    digest: bytes
    event: record.Event
    replay: Replay | None = None
    rows: tuple[StoreRow, ...] = ()
    response: bytes | None = None
    grantee: Principal | None = None
    holder: VerifiedPeer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A submission that is durable and in the signed log."""

    index: int
    leaf_hash: bytes
    receipt: Receipt
    outcome: Outcome
    response: bytes | None


Result = Committed | CertauthError
