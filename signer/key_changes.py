"""Changing the keys that sign tokens: prepare, activate, retire, taint. Each is one transaction, its record included.

Only ``taint`` is two if it needs a key that nobody has prepared: it prepares one first. Killed between them, it leaves that key
prepared and has withdrawn nothing; the next ``taint`` takes it.

    1. the private half of a new key is written            killed here: a file nobody needs, which the next act sweeps away
    2. index, audit entry, and what is withdrawn: COMMIT   killed here: all is in force but for the file
    3. ``bundle.json`` is written                           by us, the running service, or the next command
    4. private halves that sign no more are deleted         by us or the next act

From 2 on the running service serves the new bundle, and signs with the new key. Who changes keys holds a lock throughout, and
the transaction is refused if the index is no longer the one that was decided upon.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from certauth import keys
from certauth.audit import record
from certauth.clock import Clock, rfc3339
from certauth.encoding import canonical_json
from certauth.errors import UsageError
from certauth.keys import SoftwareKey
from certauth.revocation import MAX_REASON, RevocationKind, Revoked
from signer.authority import Authority
from signer.key_index import KeyEntry, KeyIndex, KeyIndexRow, State, Use
from signer.key_ring import JWKS_MAX_AGE, KeyRing, Keys
from signer.ledger import Ledger, Submission
from signer.rows import RevocationRow
from signer.store import Store

LOCK_SECONDS: Final = 30.0
"""How long to wait for another administrator."""
MARGIN: Final = timedelta(seconds=60)
"""For whoever fetched what we publish to put it in force, and for clocks that differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What an act came to: the keys as they are now, and those that it changed, with their new states."""

    index: KeyIndex
    changed: tuple[KeyEntry, ...]


def signs_from(entry: KeyEntry, current: Keys) -> datetime:
    """When a prepared key has been published for so long that whoever keeps to the rules knows it."""
    seconds = current.bundle.refresh_hint if entry.use is Use.TOKEN else JWKS_MAX_AGE
    return entry.since + timedelta(seconds=seconds) + MARGIN


def needed_until(entry: KeyEntry, store: Store) -> datetime:
    """When the last token of a key that signs no more has ended everywhere."""
    end = store.last_token_end(entry.kid)
    return (entry.since if end is None else max(entry.since, end)) + MARGIN


class KeyChanges:
    """The acts of an administrator. Errors besides those named: what ``KeyRing``, ``KeyFiles`` and ``Ledger`` raise."""

    def __init__(
        self, *, authority: Authority, ring: KeyRing, store: Store, ledger: Ledger, clock: Clock, by: str, why: str
    ) -> None:
        """Raises ``UsageError`` (``bad-reason``) for a reason that has no place in the log or the feed."""
        if not why.isprintable() or not 0 < len(why) <= MAX_REASON:
            raise UsageError(
                "bad-reason", "the reason cannot be recorded", hint=f"printable text of at most {MAX_REASON} characters"
            )
        self._files = authority.key_files
        self._ring = ring
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._by = by
        self._why = why

    def prepare(self, use: Use) -> Act:
        """Make a key and publish it; it signs nothing yet. Raises ``UsageError`` (``key-prepared``, ``too-many-keys``)."""
        return self._acting(lambda: self._prepare(use))

    def activate(self, use: Use, *, early: bool = False) -> Act:
        """Let the prepared key sign; what the former one signed stays good.

        Raises ``UsageError``: ``key-not-prepared``, ``key-too-new`` unless ``early``.
        """
        return self._acting(lambda: self._activate(use, early=early))

    def retire(self, kid: str, *, early: bool = False) -> Act:
        """Publish a key no more.

        Raises ``UsageError``: ``key-unknown``, ``key-active``, ``key-removed``, ``key-needed`` unless ``early``.
        """
        return self._acting(lambda: self._retire(kid, early=early))

    def taint(self, kid: str) -> Act:
        """Withdraw a key and all that it signed; a prepared key, or a new one, takes over if it was the one that signs.

        Raises ``UsageError``: ``key-unknown``, ``key-tainted``, ``too-many-keys``.
        """
        return self._acting(lambda: self._taint(kid))

    # ------------------------------------------------------------------ the acts, under the lock

    def _acting(self, act: Callable[[], KeyIndex]) -> Act:
        with self._files.locked(seconds=LOCK_SECONDS):
            before = self._ring.newest().index
            after = act()
            self._ring.write_bundle()
            self._files.sweep({entry.kid for entry in after.entries if entry.may_sign})
        return Act(index=after, changed=tuple(entry for entry in after.entries if entry not in before.entries))

    def _prepare(self, use: Use) -> KeyIndex:
        current, now = self._ring.newest(), self._clock()
        key = _new_key(use, taken={entry.kid for entry in current.index.entries})
        after = current.index.with_prepared(use, key.public_key, now=now)
        self._files.save(use, key)
        kid, spki = keys.key_id(key.public_key), keys.fingerprint(key.public_key)
        self._commit(current, after, record.KeyAdded(use=str(use), kid=kid, spki=spki, by=self._by, why=self._why))
        return after

    def _activate(self, use: Use, *, early: bool) -> KeyIndex:
        current, now = self._ring.newest(), self._clock()
        after = current.index.with_activated(use, now=now)
        entry = after.active(use)
        ready = signs_from(current.index.named(entry.kid), current)
        if now < ready and not early:
            raise UsageError(
                "key-too-new",
                f"not everybody who verifies tokens can know {entry.kid} yet; it may sign from {rfc3339(ready)}",
                hint="wait until then, or --now: tokens are refused by whoever has not fetched it yet",
            )
        self._files.load(use, entry.kid)
        self._commit(current, after, self._event(current.index, after, use))
        return after

    def _retire(self, kid: str, *, early: bool) -> KeyIndex:
        current, now = self._ring.newest(), self._clock()
        after = current.index.with_removed(kid, now=now)
        entry = current.index.named(kid)
        if entry.state is State.RETIRED and now < (end := needed_until(entry, self._store)) and not early:
            raise UsageError(
                "key-needed",
                f"tokens that {kid} signed are in use until {rfc3339(end)}",
                hint="wait until then, or --force: they are refused from now on",
            )
        self._commit(current, after, self._event(current.index, after, entry.use))
        return after

    def _taint(self, kid: str) -> KeyIndex:
        entry = self._ring.newest().index.named(kid)
        if entry.state is State.ACTIVE:
            following = self._ring.newest().index.prepared(entry.use) or self._prepare(entry.use).prepared(entry.use)
            if following is not None:
                self._files.load(entry.use, following.kid)
        current, now = self._ring.newest(), self._clock()
        after = current.index.with_tainted(kid, now=now)
        # For ever: whoever has the key writes any dates into a token, and a door may have an old bundle for long.
        revoked = Revoked(kind=RevocationKind.KID, value=kid, reason=self._why, at=int(now.timestamp()))
        event = self._event(current.index, after, entry.use)
        self._commit(current, after, event, RevocationRow(revoked=revoked, by=self._by))
        return after

    # ------------------------------------------------------------------ what they share

    def _event(self, before: KeyIndex, after: KeyIndex, use: Use) -> record.KeyChanged:
        changes = tuple((entry.kid, str(entry.state)) for entry in after.entries if entry not in before.entries)
        return record.KeyChanged(use=str(use), changes=changes, by=self._by, why=self._why)

    def _commit(self, current: Keys, after: KeyIndex, event: record.Event, *withdrawn: RevocationRow) -> None:
        row = KeyIndexRow(before=current.text, after=after.to_text())
        digest = hashlib.sha256(canonical_json([event.kind, row.after])).digest()
        request_id = f"key-{secrets.token_hex(12)}"
        self._ledger.record(Submission(request_id=request_id, digest=digest, event=event, rows=(row, *withdrawn)))


def _new_key(use: Use, *, taken: Collection[str]) -> SoftwareKey:
    """A key whose id no other has. Ids have four bytes; that one is taken happens once in a billion times."""
    while keys.key_id((key := keys.generate(use.algorithm)).public_key) in taken:
        pass
    return key
