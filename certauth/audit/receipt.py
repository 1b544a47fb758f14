"""Receipts: what a requester keeps to prove, offline and for ever, that the log holds an entry.

A receipt is the entry's exact bytes and a C2SP tlog-proof: index, inclusion proof, signed checkpoint. Whoever has the log's
verifier key needs nothing else, neither the signer nor its database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from certauth.audit import record
from certauth.audit.checkpoint import MAX_NOTE, Checkpoint, VerifierKey, open_note
from certauth.audit.tree import HASH_BYTES, MAX_SIZE, leaf_hash, verify_inclusion
from certauth.encoding import b64, b64url, canonical_json, from_b64, from_b64url, strict_json
from certauth.errors import LogError

MAX_RECEIPT = 3 * MAX_NOTE
_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MAX_PROOF = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """An entry and its proof, as received: nothing in it is believed before ``check``."""

    entry: bytes
    index: int
    proof: tuple[bytes, ...]
    note: str

    def to_proof(self) -> str:
        """The C2SP tlog-proof text, without the entry; the customary file name ends in ``.tlog-proof``."""
        hashes = "".join(f"{b64(value)}\n" for value in self.proof)
        return f"{_HEADER}\nindex {self.index}\n{hashes}\n{self.note}"

    def to_dict(self) -> dict[str, object]:
        """The JSON form, for embedding in a response."""
        return {"v": 1, "entry": b64url(self.entry), "proof": self.to_proof()}

    def to_json(self) -> bytes:
        """The JSON form as canonical bytes, for a file."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_proof(cls, unverified_text: str, *, entry: bytes) -> Receipt:
        """Read a tlog-proof; raise ``LogError`` (``receipt-malformed``).

        The format's optional ``extra`` line is refused: nothing authenticates it.
        """
        head, separator, note = unverified_text.partition("\n\n")
        lines = head.split("\n")
        index = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
        if not separator or lines[0] != _HEADER or index is None or int(index[1]) > MAX_SIZE or len(lines) > 2 + _MAX_PROOF:
            raise LogError(
                "receipt-malformed",
                "the proof is not a c2sp.org/tlog-proof@v1 without extra data",
                hint="take the receipt as the signer gave it",
            )
        try:
            proof = tuple(from_b64(line) for line in lines[2:])
        except ValueError as error:
            raise LogError(
                "receipt-malformed", "the proof has a line that is not base64", hint="take the receipt as the signer gave it"
            ) from error
        if any(len(value) != HASH_BYTES for value in proof):
            raise LogError(
                "receipt-malformed",
                "the proof has a line that is not a SHA-256 hash",
                hint="take the receipt as the signer gave it",
            )
        return cls(entry=entry, index=int(index[1]), proof=proof, note=note)

    @classmethod
    def from_dict(cls, unverified: object) -> Receipt:
        """Read the JSON form, already parsed; raise ``LogError`` (``receipt-malformed``)."""
        if not isinstance(unverified, dict) or unverified.keys() != {"v", "entry", "proof"}:
            raise LogError(
                "receipt-malformed",
                "a receipt has exactly the members v, entry and proof",
                hint="take the receipt as the signer gave it",
            )
        version, entry, proof = unverified["v"], unverified["entry"], unverified["proof"]
        if type(version) is not int or version != 1 or not isinstance(entry, str) or not isinstance(proof, str):
            raise LogError(
                "receipt-malformed",
                "a receipt's v is 1, its entry and proof are text",
                hint="take the receipt as the signer gave it",
            )
        try:
            body = from_b64url(entry)
        except ValueError as error:
            raise LogError(
                "receipt-malformed", "the receipt's entry is not base64url", hint="take the receipt as the signer gave it"
            ) from error
        return cls.from_proof(proof, entry=body)

    @classmethod
    def parse(cls, unverified: bytes) -> Receipt:
        """Read the bytes of ``to_json``; raise ``LogError`` (``receipt-malformed``) for any other spelling of them."""
        if len(unverified) > MAX_RECEIPT:
            raise LogError(
                "receipt-malformed", f"a receipt has at most {MAX_RECEIPT} bytes", hint="take the receipt as the signer gave it"
            )
        try:
            receipt = cls.from_dict(strict_json(unverified))
            canonical = receipt.to_json()
        except ValueError as error:
            raise LogError(
                "receipt-malformed",
                "the receipt is not JSON, or holds text that is not Unicode",
                hint="take the receipt as the signer gave it",
            ) from error
        if canonical != unverified:
            raise LogError(
                "receipt-malformed",
                "the receipt's JSON is not in its canonical form",
                hint="take the receipt as the signer gave it",
            )
        return receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedReceipt:
    """A receipt whose proof holds; only ``check`` makes one."""

    record: Mapping[str, object]
    index: int
    leaf_hash: bytes
    checkpoint: Checkpoint


def check(receipt: Receipt, vkey: VerifierKey) -> CheckedReceipt:
    """Establish that the log whose key this is holds the receipt's entry; raise ``LogError`` otherwise.

    1. the note is a checkpoint signed by the log (codes of ``open_note``);
    2. the proof leads from the entry at its index to the signed root (``inclusion-invalid``);
    3. the entry is a record (``record-…``) written for this very log (``foreign-log``).
    """
    # 1
    checkpoint = open_note(receipt.note, vkey)
    # 2
    leaf = leaf_hash(receipt.entry)
    verify_inclusion(leaf=leaf, index=receipt.index, size=checkpoint.size, proof=receipt.proof, root=checkpoint.root)
    # 3
    body = record.decode(receipt.entry)
    if body["log"] != checkpoint.origin:
        raise LogError(
            "foreign-log",
            "the entry was written for another log",
            hint="verify it under the log key of the facility that wrote it",
        )
    return CheckedReceipt(record=body, index=receipt.index, leaf_hash=leaf, checkpoint=checkpoint)
