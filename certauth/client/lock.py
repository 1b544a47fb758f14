"""One login at a time for one user and signer: parallel processes share the login of the first.

The lock is ``flock`` on a file of its own, so it ends with the process that holds it, however that ends. The file is never
removed (another process may be waiting on it) and holds only which process has it, for those who wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from certauth.client.waiting import Screen, Stopwatch
from certauth.encoding import strict_json
from certauth.errors import StoreError, UnavailableError
from certauth.files import PRIVATE, make_private_directory

_SLICE = 0.1


def lock_file(home: Path, url: str) -> Path:
    """The file whose lock is held during a login at ``url``."""
    return home / f".login-{hashlib.sha256(url.encode()).hexdigest()[:16]}.lock"


@contextlib.contextmanager
def login_lock(home: Path, url: str, *, seconds: float, screen: Screen, stopwatch: Stopwatch) -> Iterator[bool]:
    """Hold the lock while the block runs; yields whether another process had to be waited for.

    Raises ``UnavailableError`` (``login-elsewhere``) if another login takes longer than ``seconds``, ``StoreError``
    (``cannot-write``) if the file cannot be locked at all.
    """
    path = lock_file(make_private_directory(home), url)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        waited = _acquire(descriptor, path, url, seconds=seconds, screen=screen, stopwatch=stopwatch)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)
        yield waited
        os.ftruncate(descriptor, 0)
    finally:
        # Closing alone would not do: a child that is just being started shares the open file until its program is loaded.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, url: str, *, seconds: float, screen: Screen, stopwatch: Stopwatch) -> bool:
    end = stopwatch.now() + seconds
    told: str | None = None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return told is not None
        except BlockingIOError:
            pass
        except OSError as error:
            raise _cannot(path, error) from error
        holder = _holder(descriptor)
        if holder != told:
            screen.tell(f"{holder} is logging in at {url}; waiting to share that login.")
            told = holder
        left = end - stopwatch.now()
        if left <= 0:
            raise UnavailableError(
                "login-elsewhere",
                f"{holder} has been logging in at {url} for more than {seconds:.0f} s",
                hint="finish that login or stop that process, then run the command again",
            )
        screen.tick(f"waiting for {holder}, {seconds - left:.0f} s; Ctrl-C gives up")
        stopwatch.sleep(min(_SLICE, left))


def _holder(descriptor: int) -> str:
    """For people: which process has the lock."""
    try:
        members = strict_json(os.pread(descriptor, 200, 0))
    except ValueError:
        members = None
    pid = members.get("pid") if isinstance(members, dict) else None
    return f"another certauth (process {pid})" if isinstance(pid, int) else "another certauth"


def _cannot(path: Path, error: OSError) -> StoreError:
    return StoreError(
        "cannot-write", f"cannot lock {path}: {error.strerror}", hint="see who owns it, and whether the disk is full"
    )
