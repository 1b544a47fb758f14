"""A signer that is broken on purpose: it answers before COMMIT. The control of ``test_kill.py``: that must be noticed there."""

from __future__ import annotations

import sys

import signer.service
from certauth.cli import main
from tests.faults.writer_process import Early


def broken() -> None:
    """``certauth`` with a ledger that lets go of its answers too early."""
    signer.service.Ledger = Early  # type: ignore[misc]  # this process exists to be broken
    sys.argv[0] = "certauth"
    main()


if __name__ == "__main__":
    broken()
