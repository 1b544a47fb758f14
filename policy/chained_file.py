"""A decision file on the disk: appended to in whole batches, never overwritten, and never quietly continued after damage."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from certauth.audit import decisions
from certauth.clock import Clock
from certauth.errors import LogError, StoreError
from certauth.files import PRIVATE, write_atomic

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """``moment`` as records carry it: microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


class ChainedFile:
    """A decision file and its durable end. Used by one thread; locked against other processes."""

    def __init__(self, path: Path, lock: int, *, clock: Clock, program: str, sync: Callable[[int], None]) -> None:
        self.path, self._lock, self._clock, self._program, self._sync = path, lock, clock, program, sync
        self._descriptor = -1
        self._size = 0
        self._head = decisions.Head(0, b"")
        self._suspect = False
        """The last batch failed half-way: bytes after ``_size`` are not part of the log."""

    @classmethod
    def open(cls, base: Path, *, slots: int, clock: Clock, program: str, sync: Callable[[int], None]) -> ChainedFile:
        """The file of the first slot no living process holds. Raises ``StoreError``: ``locked``, ``decision-log-damaged``."""
        for slot in range(slots):
            path = base.with_stem(f"{base.stem}-{slot}")
            lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            file = cls(path, lock, clock=clock, program=program, sync=sync)
            try:
                file._recover()
            except BaseException:
                file.close()
                raise
            return file
        raise StoreError("locked", f"all {slots} decision logs beside {base} are in use")

    def close(self) -> None:
        """Close the file and give the slot back."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def append(self, members: list[dict[str, object]]) -> None:
        """Write the members as lines and sync. If this returns, they are on the disk, in the file that ``path`` names."""
        if self._displaced():
            self._continue_in_new_file()
        self._write(members)
        if self._displaced():  # moved away between the first look and the sync: what was written may be gone with it
            self._continue_in_new_file()
            self._write(members)

    def _write(self, members: list[dict[str, object]]) -> None:
        if self._suspect:
            os.ftruncate(self._descriptor, self._size)
        head, lines = self._head, []
        for record in members:
            line = decisions.append(head, record)
            lines.append(line.data)
            head = line.head
        data = b"".join(lines)
        self._suspect = True
        view, offset = memoryview(data), self._size
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        self._sync(self._descriptor)
        self._head, self._size, self._suspect = head, offset, False

    def _displaced(self) -> bool:
        """Whether the open file is no longer the one at ``path``, or no longer as long as we made it."""
        ours = os.fstat(self._descriptor)
        if not self._suspect and ours.st_size != self._size:
            return True
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return True
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)

    def _recover(self) -> None:
        """Take up the file where the last process left it, or begin one."""
        if not self.path.exists():
            self._begin(after=None)
            return
        with self.path.open("rb") as file:
            try:
                found = decisions.verify_lines(file)
            except LogError as error:
                raise StoreError(
                    "decision-log-damaged",
                    f"{self.path}: {error.message}",
                    hint="keep it as evidence: move it away, and the next start begins a new file",
                ) from error
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._head, self._size = found.head, found.size
        if found.torn:
            os.ftruncate(self._descriptor, found.size)
        self._write([{"event": "started", "at": self._now(), "process": os.getpid(), "removed": found.torn}])

    def _begin(self, *, after: decisions.Head | None) -> None:
        line = decisions.begin(file_id=os.urandom(16).hex(), at=self._clock(), program=self._program, after=after)
        write_atomic(self.path, line.data, mode=PRIVATE)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._head, self._size, self._suspect = line.head, len(line.data), False

    def _continue_in_new_file(self) -> None:
        if self.path.exists():
            # A stranger's file, or ours after somebody else changed it. Either is evidence.
            self.path.rename(self.path.with_suffix(f".displaced-{self._now()}"))
        self._begin(after=self._head)
        self._write([{"event": "continued", "at": self._now(), "process": os.getpid()}])

    def _now(self) -> int:
        return microseconds(self._clock())
