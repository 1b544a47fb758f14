"""The linear chain beside the tree: each entry's value depends on everything before it, in one hash.

The tree is what gets signed. The chain makes a table of rows checkable as a stream, and lets a reader name the very row at
which the stored log stops being the one that was written.
"""

from __future__ import annotations

import hashlib

from certauth.errors import LogError

_STEP = b"certauth/v1 chain\x00"
_START = b"certauth/v1 chain start\x00"


class DamagedLog(LogError):
    """The log is not the one that was written; ``index`` is the first entry (or line) that shows it."""

    def __init__(self, code: str, message: str, *, index: int) -> None:
        super().__init__(code, message, hint="keep this copy as evidence; compare with a backup and with receipts")
        self.index = index


def start(origin: str) -> bytes:
    """The value before entry 0; it names the log, so that two logs with the same entries have different chains."""
    return hashlib.sha256(_START + origin.encode()).digest()


def next_chain(previous: bytes, leaf_hash: bytes) -> bytes:
    """The value after an entry: both arguments are 32 bytes, so the three parts cannot run into each other."""
    return hashlib.sha256(_STEP + previous + leaf_hash).digest()


def extend_chain(previous: bytes, leaf_hashes: list[bytes]) -> list[bytes]:
    """The values after each of several entries."""
    values: list[bytes] = []
    begun, value = hashlib.sha256(_STEP), previous
    for leaf in leaf_hashes:
        state = begun.copy()  # cheaper than beginning anew each time
        state.update(value + leaf)
        value = state.digest()
        values.append(value)
    return values
