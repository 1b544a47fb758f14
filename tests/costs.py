"""What something costs on a machine that does other things as well, so that every run of the tests can assert a bound."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


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
