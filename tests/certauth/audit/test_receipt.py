"""Receipts: what is handed out proves the entry, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.audit import checkpoint, tree
from certauth.audit.receipt import MAX_RECEIPT, CheckedReceipt, Receipt, check
from certauth.errors import LogError
from tests.certauth.audit.making import ORIGIN, Log, entry, key, mutations, vkey

LOG = Log.of(13)


def single(body: bytes, *, origin: str = ORIGIN) -> Receipt:
    """A receipt, honestly signed, for a log whose only entry is ``body``."""
    text = checkpoint.sign(checkpoint.Checkpoint(origin, 1, tree.leaf_hash(body)), key=key())
    return Receipt(entry=body, index=0, proof=(), note=text)


def test_every_entry_has_a_receipt_that_checks_offline() -> None:
    """What the receipt proves is the entry's record, its index and the signed checkpoint."""
    for index in range(13):
        checked = check(Receipt.parse(LOG.receipt(index).to_json()), vkey())
        assert checked.index == index
        assert checked.record["rid"] == f"request-{index:06d}"
        assert checked.leaf_hash == LOG.rows[index].leaf
        assert checked.checkpoint == LOG.checkpoint()


def test_the_proof_is_a_c2sp_tlog_proof() -> None:
    """Header, index, hashes, an empty line, the note verbatim; with and without hashes."""
    receipt = LOG.receipt(12)
    lines = receipt.to_proof().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 12"]
    assert len(lines[2]) == 44
    assert receipt.to_proof().endswith("\n\n" + receipt.note)
    assert single(entry(0)).to_proof() == "c2sp.org/tlog-proof@v1\nindex 0\n\n" + single(entry(0)).note


def test_every_form_reads_back() -> None:
    """JSON bytes, JSON object and proof text give the same receipt."""
    for receipt in (LOG.receipt(7), single(entry(0))):
        assert Receipt.parse(receipt.to_json()) == receipt
        assert Receipt.from_dict(json.loads(receipt.to_json())) == receipt
        assert Receipt.from_proof(receipt.to_proof(), entry=receipt.entry) == receipt


@pytest.mark.parametrize("index", [0, 12])
def test_every_altered_byte_of_a_receipt_is_refused(index: int) -> None:
    """Each bit of each byte, line ends, removals and doublings: none passes, and nothing but LogError is raised."""
    data = LOG.receipt(index).to_json()
    assert isinstance(check(Receipt.parse(data), vkey()), CheckedReceipt)
    for altered in mutations(data):
        with pytest.raises(LogError):
            check(Receipt.parse(altered), vkey())


def test_every_altered_byte_of_a_proof_file_is_refused() -> None:
    """The same for the tlog-proof text beside its entry."""
    receipt = LOG.receipt(7)
    for altered in mutations(receipt.to_proof().encode()):
        with pytest.raises(LogError):
            check(Receipt.from_proof(altered.decode("latin-1"), entry=receipt.entry), vkey())


def test_a_receipt_proves_its_own_entry_and_index_only() -> None:
    """Another entry of the same log, or the same entry at another index, is not proved."""
    receipt = LOG.receipt(7)
    for other in (replace(receipt, entry=entry(8)), replace(receipt, index=6), replace(receipt, index=13)):
        with pytest.raises(LogError, match="inclusion-invalid"):
            check(other, vkey())


def test_another_logs_key_does_not_check_it() -> None:
    """The verifier brings the key; the receipt cannot."""
    for verifier in (vkey(seed=2), vkey(origin="other.example/audit")):
        with pytest.raises(LogError, match="note-unsigned"):
            check(LOG.receipt(7), verifier)


def test_an_entry_written_for_another_log_is_refused() -> None:
    """A log cannot adopt another's record, even with a proof that holds."""
    with pytest.raises(LogError, match="foreign-log"):
        check(single(entry(0, origin="other.example/audit")), vkey())


def test_a_signed_entry_that_is_no_record_is_refused() -> None:
    """A proof that holds does not make bytes a record."""
    with pytest.raises(LogError, match="record-malformed"):
        check(single(b"hello"), vkey())
    with pytest.raises(LogError, match="record-unknown"):
        check(single(b'{"kind":"grant.wish"}'), vkey())


PROOF = LOG.receipt(7).to_proof()
HASH = PROOF.split("\n")[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\n\n",
        "c2sp.org/tlog-proof@v1\nindex 7",
        PROOF.replace("@v1", "@v2"),
        PROOF.replace("index 7", "extra AAAA\nindex 7"),
        PROOF.replace("index 7", "index 07"),
        PROOF.replace("index 7", "index ٧"),
        PROOF.replace("index 7", f"index {2**63}"),
        PROOF.replace("index 7", "index 7\r"),
        PROOF.replace(HASH, HASH[:-4]),
        PROOF.replace(HASH, HASH[:-2] + "_="),
        PROOF.replace(HASH, "\n".join([HASH] * 64)),
    ],
)
def test_what_is_not_a_proof_is_refused(text: str) -> None:
    """Other versions, unauthenticated extra lines, other numerals and base64, and too many hashes are malformed."""
    with pytest.raises(LogError, match="receipt-malformed"):
        Receipt.from_proof(text, entry=b"")


def test_the_limits_of_a_receipt_are_exact() -> None:
    """The largest index, the longest proof and the longest file are read; what is in them is for the check to refuse."""
    assert Receipt.from_proof(PROOF.replace("index 7", f"index {2**63 - 1}"), entry=b"").index == 2**63 - 1
    text = "c2sp.org/tlog-proof@v1\nindex 7\n" + f"{HASH}\n" * 63 + "\n"
    assert len(Receipt.from_proof(text, entry=b"").proof) == 63
    receipt = replace(LOG.receipt(7), note="")
    longest = replace(receipt, note="x" * (MAX_RECEIPT - len(receipt.to_json())))
    assert Receipt.parse(longest.to_json()) == longest


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"v": 2, "entry": "", "proof": PROOF},
        {"v": True, "entry": "", "proof": PROOF},
        {"v": 1.0, "entry": "", "proof": PROOF},
        {"v": 1, "entry": "", "proof": None},
        {"v": 1, "entry": None, "proof": PROOF},
        {"v": 1, "entry": "=", "proof": PROOF},
        {"v": 1, "entry": "", "proof": PROOF, "more": 1},
    ],
)
def test_what_is_not_a_receipt_is_refused(value: object) -> None:
    """Members missing, surplus or of another type are malformed."""
    with pytest.raises(LogError, match="receipt-malformed"):
        Receipt.from_dict(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        LOG.receipt(7).to_json() + b"\n",
        replace(LOG.receipt(7), entry=bytes(MAX_RECEIPT)).to_json(),
        json.dumps({"v": 1, "entry": "", "proof": PROOF + "\ud800"}).encode(),
    ],
)
def test_what_is_not_receipt_json_is_refused(data: bytes) -> None:
    """Other JSON, loose spelling, deep nesting, lone surrogates and excess are malformed."""
    with pytest.raises(LogError, match="receipt-malformed"):
        Receipt.parse(data)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.text(max_size=100))
def test_parsers_raise_log_errors_only(data: bytes, text: str) -> None:
    """Whatever the bytes, a parser answers with a LogError."""
    with pytest.raises(LogError):
        Receipt.parse(data)
    with pytest.raises(LogError):
        Receipt.from_proof(text, entry=data)
    with pytest.raises(LogError):
        Receipt.from_dict({"v": 1, "entry": text, "proof": text})


@given(st.text(max_size=60))
def test_anything_may_follow_a_proof_but_only_a_note_is_believed(text: str) -> None:
    """The note part is opaque to the parser and refused by the check."""
    receipt = Receipt.from_proof("c2sp.org/tlog-proof@v1\nindex 0\n\n" + text, entry=entry(0))
    with pytest.raises(LogError):
        check(receipt, vkey())
