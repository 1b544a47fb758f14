"""The linear chain."""

from __future__ import annotations

import hashlib

from certauth.audit.chain import extend_chain, next_chain, start
from tests.certauth.audit.making import ORIGIN, Log


def test_the_chain_is_the_specified_hash() -> None:
    """Prefix, zero byte, previous value, leaf hash, in this order."""
    previous, leaf = b"p" * 32, b"l" * 32
    assert next_chain(previous, leaf) == hashlib.sha256(b"certauth/v1 chain\x00" + previous + leaf).digest()
    assert start(ORIGIN) == hashlib.sha256(b"certauth/v1 chain start\x00" + ORIGIN.encode()).digest()


def test_logs_of_different_origin_have_different_chains() -> None:
    """The start value names the log."""
    assert start("a.example/audit") != start("b.example/audit")


def test_many_steps_are_the_single_steps() -> None:
    """The fast path gives the values of the slow one."""
    rows = Log.of(9).rows
    assert extend_chain(start(ORIGIN), [row.leaf for row in rows]) == [row.chain for row in rows]
    assert extend_chain(start(ORIGIN), []) == []
