"""Files that survive a crash and that nobody else can read.

``write_atomic`` makes these system calls, in this order: open a temporary file in the same directory with its final mode,
write, fsync, rename over the target, fsync the directory. A crash leaves the old content or the new, never a mixture.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from certauth.errors import KeyMaterialError, StoreError

PRIVATE = 0o600
PUBLIC = 0o644


def write_atomic(path: Path, data: bytes, *, mode: int) -> None:
    """Replace ``path`` by ``data`` durably; raise ``StoreError`` (``cannot-write``) with the old content intact."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)  # the umask may have taken bits away; a public file should be readable
                os.fsync(file.fileno())
            temporary.rename(path)
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(
            "cannot-write", f"cannot write {path}: {error.strerror}", hint="see who owns it, and whether the disk is full"
        ) from error


def make_private_directory(path: Path) -> Path:
    """Create ``path`` with mode 0700, parents included; an existing directory is left as it is."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            "cannot-write", f"cannot create {path}: {error.strerror}", hint="see who owns it, and whether the disk is full"
        ) from error
    return path


def read_private(path: Path) -> bytes:
    """Read a secret file; raise ``KeyMaterialError`` if it is missing, not ours, or open to others."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise KeyMaterialError(
                    "key-file-open", f"{path} can be read by other users", hint=f"chmod 600 {path}; replace the key if in doubt"
                )
            if status.st_uid not in (os.geteuid(), 0):
                raise KeyMaterialError(
                    "key-file-owner", f"{path} belongs to another user", hint="give the file to the user that runs this: chown"
                )
            return file.read()
    except OSError as error:
        raise KeyMaterialError(
            "key-unreadable", f"cannot read {path}: {error.strerror}", hint="compare the name, and see who may read it"
        ) from error


@contextlib.contextmanager
def lock(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created 0600); raise ``StoreError`` (``locked``) after ``timeout`` seconds."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise StoreError(
            "cannot-write", f"cannot lock {path}: {error.strerror}", hint="see who owns it, and whether the disk is full"
        ) from error
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise StoreError(
                        "locked", f"{path} is held by another process", hint="wait until that process has ended, or stop it"
                    ) from error
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)
