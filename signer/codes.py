"""One-time codes: how a person is invited, and how a machine proves for the first time which one it is.

A code is 128 random bits, so it cannot be guessed and needs no counter of attempts. Only its SHA-256 is stored. Looking one up
consumes nothing; it is used when the grant it led to is recorded, in the same transaction.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from typing import Final

from certauth.errors import ProofError
from certauth.identity import Binding, ProofKind, VerifiedIdentity
from signer.reading import CodeState, StoredCode
from signer.rows import Purpose
from signer.store import Store

CODE_BYTES: Final = 16
CODE_ISSUER: Final = "code"
"""The issuer's id of an identity proved by a code."""
CODE_ASSURANCE: Final = 2

INVITATION_MAX: Final = timedelta(days=30)
MACHINE_CODE_MAX: Final = timedelta(days=7)
"""How long the two kinds of code can be used at most."""


def make_code(entropy: bytes) -> str:
    """The text of a code from 16 random bytes: groups of letters and digits that survive being read out and typed."""
    if len(entropy) != CODE_BYTES:
        raise ValueError(f"a code is made of {CODE_BYTES} random bytes")
    text = base64.b32encode(entropy).decode("ascii").rstrip("=").lower()
    return "-".join(text[start : start + 5] for start in range(0, len(text), 5))


def digest_of(code: str) -> str:
    """What is stored of a code: hex SHA-256, without regard to case, dashes and spaces."""
    plain = "".join(character for character in code.lower() if character not in "- \n\r\t")
    return hashlib.sha256(b"certauth/v1 code\x00" + plain.encode("utf-8", "surrogatepass")).hexdigest()


def unusable(found: StoredCode | None, purpose: Purpose, *, now: datetime) -> bool:
    """Whether a code does not exist, is for something else, or is over: all the same to whoever presents it."""
    return found is None or found.row.purpose is not purpose or found.state(now) is not CodeState.OPEN


def same_address(one: str, other: str) -> bool:
    """Whether two e-mail addresses are one, without regard to case.

    In ASCII only: in Unicode, letters that are not the same become the same when their case is taken away (U+212A and k).
    """
    return one.isascii() and other.isascii() and one.lower() == other.lower()


class Codes:
    """Enrolment codes of machines, as proofs of identity."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    def identity(self, code: str, *, now: datetime) -> VerifiedIdentity:
        """The machine to which ``code`` was given; ``ProofError`` (``code-invalid``) for any other text."""
        digest = digest_of(code)
        found = self._store.code(digest)
        # A code that was used may be asked about once more: the same request, whose answer was lost, finds its grant by its id.
        # Whoever asks anything else with it is refused by the ledger, as with every other proof.
        usable = found is not None and found.state(now) in {CodeState.OPEN, CodeState.USED} and now < found.row.expires_at
        row = found.row if usable and found is not None else None
        if row is None or row.purpose is not Purpose.MACHINE or row.principal is None:
            raise ProofError(
                "code-invalid",
                "this enrolment code does not exist or has run out",
                hint="have a new one made: certauth signer service enroll --code",
            )
        name = str(row.principal)
        return VerifiedIdentity(
            issuer_id=CODE_ISSUER,
            issuer=name,
            subject=name,
            kind=ProofKind.CODE,
            binding=Binding.POSSESSION,
            assurance=CODE_ASSURANCE,
            auth_time=None,
            acr=None,
            amr=(),
            email=None,
            name=None,
            issued_at=row.at,
            expires_at=row.expires_at,
            proof_digest=bytes.fromhex(digest),
            replay_until=row.expires_at,
        )
