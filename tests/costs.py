"""What something costs on a machine that does other things as well, so that every run of the tests can assert a bound."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

REFERENCE_SECONDS = 0.00045
"""What ``_reference`` takes on the machine whose figures are in the documentation."""


def least_cost(action: Callable[[], object], *, runs: int = 50) -> float:
    """CPU seconds of this thread for one ``action``, the least of several runs of the same.

    Other processes do not add to CPU time; what they do to caches and clock rates, the least run avoids. Tracing is off
    meanwhile: that of coverage makes Python several times dearer than it is.
    """
    costs, tracer = [], sys.gettrace()
    sys.settrace(None)
    try:
        for _ in range(runs):
            begin = time.thread_time()
            action()
            costs.append(time.thread_time() - begin)
    finally:
        sys.settrace(tracer)
    return min(costs)


def slowness() -> float:
    """How many times slower than the reference machine this one is just now; 1 for one that is as fast or faster.

    A bound in seconds is one for the reference machine. Multiplied with this, it holds for the same work on another.
    """
    return max(1.0, least_cost(_reference, runs=10) / REFERENCE_SECONDS)


def _reference() -> int:
    """Work of the kind that reading a token is: bytes one by one, small objects, a table."""
    seen: dict[int, list[int]] = {}
    for number, byte in enumerate(b"0123456789abcdef" * 256):
        seen.setdefault(byte & 0x7F, []).append(number << 7 | byte)
    return len(seen)
