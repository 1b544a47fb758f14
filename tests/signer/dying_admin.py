"""``certauth`` that is killed at a named step: ``python -m tests.signer.dying_admin STEP signer key …``. Real SIGKILL."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from certauth import cli
from signer.key_files import KeyFiles
from signer.key_ring import KeyRing
from signer.ledger import Ledger

STEPS = {
    "while the key is written": (Path, "rename", 1, True),
    "after the key": (KeyFiles, "save", 1, False),
    "before the commit": (Ledger, "record", 1, True),
    "after the commit": (Ledger, "record", 1, False),
    "after the second commit": (Ledger, "record", 2, False),
    "after the bundle": (KeyRing, "write_bundle", 1, False),
}
"""Where the process dies: before or after which call of what."""


def die_in(owner: type, name: str, count: int, *, before: bool) -> None:
    """Let the ``count``-th call of ``owner.name`` be the last thing that happens."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def last(*args: Any, **extra: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **extra)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, last)


if __name__ == "__main__":
    owner, name, count, before = STEPS[sys.argv[1]]
    die_in(owner, name, count, before=before)
    sys.argv = ["certauth", *sys.argv[2:]]
    cli.main()
