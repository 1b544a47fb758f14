"""What the audit log costs, against the floor of what it must do: SHA-256 over the same bytes."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from certauth.audit import checkpoint, record, tree
from certauth.audit.receipt import Receipt, check
from certauth.audit.verify import StoredEntry, verify_log
from tests.certauth.audit.making import CERTIFICATE, NOW, ORIGIN, SOURCE, key, stored, vkey

ENTRIES = 20_000
RUNS = 7


def _cpu(action: Callable[[], object]) -> float:
    """CPU seconds of this thread for one call: a neighbour's load does not count."""
    begin = time.thread_time()
    action()
    return time.thread_time() - begin


def _interleaved(*actions: Callable[[], object]) -> list[list[float]]:
    """Times of each action, run in turn, so that a change in the machine's speed hits all of them alike."""
    rounds = [[_cpu(action) for action in actions] for _ in range(RUNS + 1)]
    return [list(times) for times in zip(*rounds[1:], strict=True)]  # the first round warms up


def _entry(index: int) -> bytes:
    return record.encode(
        CERTIFICATE, origin=ORIGIN, request_id=f"request-{index:09d}", at=NOW + timedelta(milliseconds=index), source=SOURCE
    )


def _log(size: int) -> tuple[Sequence[StoredEntry], str]:
    rows = stored([_entry(index) for index in range(size)])
    root = tree.extend(tree.Frontier(), [row.leaf for row in rows]).frontier.root()
    return rows, checkpoint.sign(checkpoint.Checkpoint(ORIGIN, size, root), key=key())


def full_verification() -> dict[str, object]:
    """Verifying a whole log (leaf hashes, chain, tree, signature) against hashing its entries once, as a ratio of rates."""
    rows, note = _log(ENTRIES)
    bodies = [row.body for row in rows]
    verifier = vkey()

    def floor() -> None:
        for body in bodies:
            hashlib.sha256(body).digest()

    verified, hashed = _interleaved(lambda: verify_log(rows, note, verifier), floor)
    ratios = [raw / full for full, raw in zip(verified, hashed, strict=True)]
    value = statistics.median(ratios)
    return {
        "name": "audit-verify-log",
        "value": round(value, 3),
        "unit": "x",
        "bar": ">= 0.40",
        "holds": value >= 0.40,
        "runs": RUNS,
        "versus": f"the rate of hashlib.sha256 over the same {ENTRIES} entries of {len(bodies[0])} bytes",
    }


def record_and_receipt() -> dict[str, object]:
    """The log's own CPU in one grant (encode, hash, extend, prove), against signing the checkpoint that covers it."""
    size = 1000
    frontier = tree.extend(tree.Frontier(), [tree.leaf_hash(_entry(index)) for index in range(size)]).frontier
    head = checkpoint.Checkpoint(ORIGIN, size, frontier.root())
    log_key = key()

    def log_one() -> None:
        for index in range(200):
            extension = tree.extend(frontier, [tree.leaf_hash(_entry(index))])
            extension.frontier.root()
            tree.inclusion_proof(size, size + 1, extension.read)

    def sign_one() -> None:
        for _ in range(200):
            checkpoint.sign(head, key=log_key)

    logged, signed = _interleaved(log_one, sign_one)
    value = statistics.median(log / signature for log, signature in zip(logged, signed, strict=True))
    return {
        "name": "audit-record-one",
        "value": round(value, 3),
        "unit": "x",
        "bar": "<= 3.5",
        "holds": value <= 3.5,
        "runs": RUNS,
        "versus": "Ed25519 signature of a checkpoint note",
    }


def receipt_check() -> dict[str, object]:
    """Checking a receipt of a log of 20,000 entries offline, against the Ed25519 verification inside it."""
    rows, note = _log(ENTRIES)
    read = tree.extend(tree.Frontier(), [row.leaf for row in rows]).read
    proof = tree.inclusion_proof(7, ENTRIES, read)
    data = Receipt(entry=rows[7].body, index=7, proof=proof, note=note).to_json()
    verifier = vkey()
    text = note.rpartition("\n\n")[0].encode() + b"\n"
    signature = key().sign(text)

    def check_some() -> None:
        for _ in range(200):
            check(Receipt.parse(data), verifier)

    def verify_some() -> None:
        for _ in range(200):
            verifier.public_key.verify(signature, text)

    checked, verified = _interleaved(check_some, verify_some)
    value = statistics.median(whole / bare for whole, bare in zip(checked, verified, strict=True))
    return {
        "name": "audit-check-receipt",
        "value": round(value, 3),
        "unit": "x",
        "bar": "<= 3.5",
        "holds": value <= 3.5,
        "runs": RUNS,
        "versus": "Ed25519 verification of the same checkpoint",
    }


def measurements() -> Iterator[dict[str, object]]:
    """All of them, one by one."""
    yield full_verification()
    yield record_and_receipt()
    yield receipt_check()
