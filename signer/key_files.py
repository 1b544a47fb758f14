"""The private halves of the keys that sign tokens: ``<state>/keys/<use>-<kid>.pem``, or ``<use>.pem`` for the first of each.

A file is written before the database speaks of its key, and deleted after the database says that the key signs no more. So a
crash leaves a file too many and never one too few; what nobody needs is swept away by the next act.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from certauth import files, keys
from certauth.errors import ConfigError, KeyMaterialError
from certauth.keys import SoftwareKey
from signer.key_index import Use

_NAME: Final = re.compile(r"(token|jwt)(-[0-9a-f]{8})?\.pem")
_HALF_WRITTEN: Final = re.compile(r"\.(token|jwt)-[0-9a-f]{8}\.pem\.\d+\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """A directory of private keys. ``passphrase`` is asked for at each use and not kept."""

    directory: Path
    passphrase: Callable[[], bytes] = field(repr=False)
    allow_example_keys: bool = False

    def load(self, use: Use, kid: str) -> SoftwareKey:
        """The private half of a key.

        Raises ``KeyMaterialError`` if it is missing or unreadable, ``ConfigError`` (``authority-mismatch``) if it is another.
        """
        named = self.directory / f"{use}-{kid}.pem"
        if not named.exists() and not (self.directory / f"{use}.pem").exists():
            raise KeyMaterialError(
                "key-unreadable",
                f"the {use} key {kid} is missing: there is neither {named} nor {use}.pem beside it",
                hint="restore the file from a backup, or let another key take over",
            )
        key = self._read(named) if named.exists() else self.first(use)
        if keys.key_id(key.public_key) != kid:
            raise ConfigError(
                "authority-mismatch",
                f"the {use} key in {self.directory} is not {kid}, which signs",
                hint="restore keys, database and bundle from one backup",
            )
        return key

    def first(self, use: Use) -> SoftwareKey:
        """The key that the facility was made with; raises ``KeyMaterialError``."""
        return self._read(self.directory / f"{use}.pem")

    def save(self, use: Use, key: SoftwareKey) -> None:
        """Store a new key, encrypted and durable; raise ``StoreError``."""
        path = self.directory / f"{use}-{keys.key_id(key.public_key)}.pem"
        keys.save_private(path, key, passphrase=self.passphrase())

    def sweep(self, needed: Collection[str]) -> None:
        """Delete the keys that sign no more and those of an act that was never finished: all whose id is not ``needed``.

        A key made by ``init`` is told by what is in its file. Of what does not open nothing is known, so it is left alone.
        The caller holds the lock: a file that is half-written is nobody's work in progress.
        """
        for path in sorted(self.directory.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name is not None:
                kid = name[2][1:] if name[2] else self._id_of(path)
                if kid is not None and kid not in needed:
                    path.unlink()
            elif _HALF_WRITTEN.fullmatch(path.name):
                path.unlink()

    @contextlib.contextmanager
    def locked(self, *, seconds: float) -> Iterator[None]:
        """Be the only one who changes keys or writes the bundle; raise ``StoreError`` (``locked``, ``cannot-write``)."""
        with files.lock(self.directory.with_suffix(".lock"), timeout=seconds):
            yield

    def _id_of(self, path: Path) -> str | None:
        with contextlib.suppress(KeyMaterialError):
            return keys.key_id(self._read(path).public_key)
        return None

    def _read(self, path: Path) -> SoftwareKey:
        return keys.load_private(path, passphrase=self.passphrase(), allow_example_keys=self.allow_example_keys)
