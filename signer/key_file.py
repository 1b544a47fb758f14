"""The keys of a provider in a file: for a signer without a way to the provider. No network, no waiting.

1. The file is looked at for every proof, and read again when it has changed.
2. Nobody else may write to it: it belongs to us or to root, and its mode gives neither its group nor others a right to write.
3. A change that cannot be used leaves the keys of before in force, for ``expire_after`` seconds and no longer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from certauth.errors import CertauthError, ConfigError, ProofError, UnavailableError
from certauth.identity.keyset import KeySet
from signer.discovery import Discovery
from signer.outbound import MAX_ANSWER
from signer.sources import IssuerSource, Pace, SourceStatus

_Stamp = tuple[int, int, int, int, int]
_HINT: Final = "it is a JSON Web Key Set (RFC 7517), owned by the signer's user or root, mode 0644 or less"


def read_regular(path: Path, *, limit: int, trusted: bool) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    With ``trusted``, a file that others could have written is refused. Raises ``ConfigError`` (``file-open``,
    ``file-unreadable``); a pipe or a device does not hold us up.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise ConfigError("file-unreadable", f"{path} is no file of at most {limit} bytes", hint="name the right file")
            if trusted and (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (os.geteuid(), 0)):
                raise ConfigError("file-open", f"{path} can be written by other users", hint=f"chmod go-w {path}; {_HINT}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError("file-unreadable", f"cannot read {path}: {error.strerror}", hint="name the right file") from error


class FileKeeper:
    """The keys of one provider, out of a file. Its times are of ``ticks``."""

    def __init__(self, source: IssuerSource, path: Path, pace: Pace, ticks: Callable[[], float]) -> None:
        """Raise ``ConfigError``: the file must be usable when the service starts."""
        self._source, self._path, self._pace, self._ticks = source, path, pace, ticks
        self._failure: str | None = None
        self._failed_at = 0.0
        try:
            self._seen = _stamp(path.stat())
            self._keys = _load(path)
        except OSError as error:
            raise ConfigError("file-unreadable", f"cannot read {path}: {error.strerror}", hint=_HINT) from error
        except UnavailableError as error:
            raise ConfigError("file-unreadable", f"{path}: {error.message}", hint=_HINT) from error
        self._read_at = ticks()

    async def keys(self, kid: str | None) -> KeySet:
        keys = self._current()
        if kid is not None and kid not in keys.by_kid:
            raise ProofError(
                "unknown-key",
                "the proof names a key that is not among those configured for its provider",
                hint="log in again; if it stays, the facility's file with the provider's keys is out of date",
            )
        return keys

    async def newer_than(self, tried: KeySet) -> KeySet | None:
        keys = self._current()
        return None if keys is tried else keys

    async def refresh(self) -> None:
        self._look()

    async def discovery(self) -> Discovery:
        raise UnavailableError(
            "no-discovery",
            "this identity provider is used without asking it anything: its keys are in a file",
            hint="log in at another provider of the facility, or bring a token of this one",
        )

    def status(self) -> SourceStatus:
        self._look()
        now, usable = self._ticks(), self._usable()
        return SourceStatus(
            url=self._source.url,
            state="fresh" if self._failure is None else "stale" if usable else "none",
            keys=len(self._keys) if usable else 0,
            age=now - self._read_at if usable else None,
            failure=self._failure,
            next_fetch_in=0.0,
            ignored=self._keys.ignored if usable else (),
        )

    async def aclose(self) -> None:
        """Nothing is open."""

    def _current(self) -> KeySet:
        self._look()
        if not self._usable():
            raise UnavailableError(
                "issuer-unavailable",
                f"the keys of the identity provider cannot be read: {self._failure}",
                hint="'certauth signer issuer test' shows what is wrong",
                retry_after=max(1, int(self._pace.cooldown)),
            )
        return self._keys

    def _usable(self) -> bool:
        return self._failure is None or self._ticks() < self._failed_at + self._pace.expire_after

    def _look(self) -> None:
        """Read the file if it has changed since it was last read, or tried."""
        try:
            found = _stamp(self._path.stat())
            if found == self._seen:
                return
            self._seen = found
            self._keys = _load(self._path)
            self._failure, self._read_at = None, self._ticks()
        except (CertauthError, OSError) as error:
            if self._failure is None:
                self._failed_at = self._ticks()
            self._failure = error.message if isinstance(error, CertauthError) else f"cannot read {self._path}: {error.strerror}"


def _load(path: Path) -> KeySet:
    keys = KeySet.parse(read_regular(path, limit=MAX_ANSWER, trusted=True))
    if not len(keys):
        raise UnavailableError("issuer-unavailable", f"{path} holds no usable key", hint=_HINT)
    return keys


def _stamp(status: os.stat_result) -> _Stamp:
    """Changes when the file does: also when it is replaced, or when only its mode or owner is changed (ctime)."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
