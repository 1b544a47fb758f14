"""Which keys sign tokens, and where each is in its life: a value that lives in the database, and the ways it may change.

    prepared   published, so that whoever verifies tokens knows it; it signs nothing yet
    active     signs; there is exactly one for each use
    retired    signs no more; what it signed is good until it ends
    tainted    perhaps in the wrong hands: nothing it signed is believed
    removed    no longer published

Every change makes a new index; ``sequence`` is that of the trust bundle and grows when a token key changes, ``revision`` grows
with every change. Nothing here reads a file, a clock or the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certauth.bundles import KeyState, TokenRoot, TrustBundle
from certauth.clock import from_timestamp, whole_seconds
from certauth.encoding import b64url, canonical_json, from_b64url, strict_json
from certauth.errors import ConfigError, KeyMaterialError, StoreError, UsageError
from certauth.keys import Algorithm, PublicKey, algorithm_of, key_id, spki
from certauth.trust_bundle import MAX_TOKEN_ROOTS

_LIST = "certauth signer key list"


class Use(StrEnum):
    """What a key signs."""

    TOKEN = "token"  # noqa: S105 - the name of a use
    """Biscuits; its public half is in the trust bundle."""
    JWT = "jwt"
    """Tokens in JWT form; its public half is in the JWK set."""

    @property
    def algorithm(self) -> Algorithm:
        return Algorithm.ED25519 if self is Use.TOKEN else Algorithm.P256


class State(StrEnum):
    """Where a key is in its life; those that a bundle knows have the names that it gives them."""

    PREPARED = "prepared"
    ACTIVE = "active"
    RETIRED = "retired"
    TAINTED = "tainted"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key. ``since`` is when it came into its state."""

    use: Use
    public: PublicKey
    state: State
    since: datetime

    @property
    def kid(self) -> str:
        return key_id(self.public)

    @property
    def believed(self) -> bool:
        """Whether what it signed counts."""
        return self.state not in {State.TAINTED, State.REMOVED}

    @property
    def may_sign(self) -> bool:
        """Whether its private half is still needed."""
        return self.state in {State.PREPARED, State.ACTIVE}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyIndex:
    """All keys that ever signed tokens, or will."""

    revision: int
    sequence: int
    issued_at: datetime
    entries: tuple[KeyEntry, ...]

    @classmethod
    def first(cls, bundle: TrustBundle, *, token: PublicKey, jwt: PublicKey) -> KeyIndex:
        """The index of a facility that never changed a key, from its bundle and the keys it has.

        Raises ``ConfigError`` (``authority-mismatch``) if the bundle does not say that ``token`` is the one that signs.
        """
        made = KeyIndex(
            revision=0,
            sequence=bundle.sequence,
            issued_at=bundle.issued_at,
            entries=(
                *(
                    KeyEntry(use=Use.TOKEN, public=root.key, state=State(root.state), since=bundle.issued_at)
                    for root in bundle.token_roots
                ),
                KeyEntry(use=Use.JWT, public=jwt, state=State.ACTIVE, since=bundle.issued_at),
            ),
        )
        signing = [entry.kid for entry in made.entries if entry.use is Use.TOKEN and entry.state is State.ACTIVE]
        if signing != [key_id(token)]:
            raise ConfigError(
                "authority-mismatch",
                "the token key is not the one key that the trust bundle calls active",
                hint="restore keys, certificates and bundle from one backup",
            )
        return made

    # --- looking things up ---

    def active(self, use: Use) -> KeyEntry:
        """The key that signs."""
        return next(entry for entry in self.entries if entry.use is use and entry.state is State.ACTIVE)

    def prepared(self, use: Use) -> KeyEntry | None:
        """The key that will sign next, if there is one."""
        return next((entry for entry in self.entries if entry.use is use and entry.state is State.PREPARED), None)

    def named(self, kid: str) -> KeyEntry:
        """The key with this id; ``UsageError`` (``key-unknown``) if there never was one."""
        for entry in self.entries:
            if entry.kid == kid:
                return entry
        raise UsageError("key-unknown", "there is no such key", hint=f"'{_LIST}' shows the ids")

    def believed(self, use: Use) -> tuple[KeyEntry, ...]:
        """The keys of a use whose signatures count."""
        return tuple(entry for entry in self.entries if entry.use is use and entry.believed)

    def token_roots(self) -> tuple[TokenRoot, ...]:
        """The token keys as the bundle has them."""
        return tuple(
            TokenRoot(kid=entry.kid, key=entry.public, state=KeyState(entry.state))
            for entry in self.entries
            if entry.state is not State.REMOVED and isinstance(entry.public, Ed25519PublicKey)
        )

    # --- changes ---

    def with_prepared(self, use: Use, public: PublicKey, *, now: datetime) -> KeyIndex:
        """A key more, published and not signing; raises ``UsageError`` (``key-prepared``, ``too-many-keys``)."""
        waiting = self.prepared(use)
        if waiting is not None:
            raise UsageError(
                "key-prepared",
                f"the {use} key {waiting.kid} is prepared already",
                hint=f"certauth signer key activate {use}, or to give it up: certauth signer key retire {waiting.kid}",
            )
        added = KeyEntry(use=use, public=public, state=State.PREPARED, since=whole_seconds(now))
        return self._changed({}, use, now=now, added=(added,))

    def with_activated(self, use: Use, *, now: datetime, former: State = State.RETIRED) -> KeyIndex:
        """The prepared key signs, the one before is retired, or tainted; ``UsageError`` (``key-not-prepared``) without one."""
        following = self.prepared(use)
        if following is None:
            raise UsageError(
                "key-not-prepared",
                f"no {use} key is prepared",
                hint=f"certauth signer key prepare {use} --reason 'yearly change'",
            )
        return self._changed({self.active(use).kid: former, following.kid: State.ACTIVE}, use, now=now)

    def with_removed(self, kid: str, *, now: datetime) -> KeyIndex:
        """The key is published no more; ``UsageError``: ``key-unknown``, ``key-active``, ``key-removed``."""
        entry = self.named(kid)
        if entry.state is State.ACTIVE:
            raise UsageError(
                "key-active",
                f"{kid} is the {entry.use} key that signs",
                hint=f"let another take over first: certauth signer key prepare {entry.use}, then activate {entry.use}",
            )
        if entry.state is State.REMOVED:
            raise UsageError("key-removed", f"{kid} was removed before", hint=f"'{_LIST}' shows the states")
        return self._changed({kid: State.REMOVED}, entry.use, now=now)

    def with_tainted(self, kid: str, *, now: datetime) -> KeyIndex:
        """Nothing the key signed is believed, and the prepared one takes over from an active one.

        ``UsageError``: ``key-unknown``, ``key-tainted``, ``key-not-prepared``.
        """
        entry = self.named(kid)
        if entry.state is State.TAINTED:
            raise UsageError("key-tainted", f"{kid} is tainted already", hint=f"'{_LIST}' shows the states")
        if entry.state is State.ACTIVE:
            return self.with_activated(entry.use, now=now, former=State.TAINTED)
        return self._changed({kid: State.TAINTED}, entry.use, now=now)

    def _changed(self, states: Mapping[str, State], use: Use, *, now: datetime, added: tuple[KeyEntry, ...] = ()) -> KeyIndex:
        at = whole_seconds(now)
        entries = tuple(
            replace(entry, state=states[entry.kid], since=at) if entry.kid in states else entry for entry in self.entries
        )
        changed = replace(self, revision=self.revision + 1, entries=(*entries, *added))
        if use is Use.TOKEN:
            changed = replace(changed, sequence=self.sequence + 1, issued_at=at)
        if len(changed.token_roots()) > MAX_TOKEN_ROOTS:
            raise UsageError(
                "too-many-keys",
                f"a trust bundle holds at most {MAX_TOKEN_ROOTS} token keys",
                hint="certauth signer key retire KID takes one out that is needed no more",
            )
        return changed

    # --- as text ---

    def to_text(self) -> str:
        """The index as canonical JSON; ``parse`` reads it back."""
        keys = [
            {
                "use": str(entry.use),
                "public": b64url(spki(entry.public)),
                "state": str(entry.state),
                "since": int(entry.since.timestamp()),
            }
            for entry in self.entries
        ]
        issued_at = int(self.issued_at.timestamp())
        members = {"v": 1, "revision": self.revision, "sequence": self.sequence, "issued_at": issued_at, "keys": keys}
        return canonical_json(members).decode()

    @classmethod
    def parse(cls, text: str) -> KeyIndex:
        """Read it back; raise ``StoreError`` (``key-index-malformed``) for what this version did not write."""
        try:
            document: Any = strict_json(text.encode())
            if document["v"] != 1:
                raise ValueError("a version we do not know")
            index = cls(
                revision=int(document["revision"]),
                sequence=int(document["sequence"]),
                issued_at=from_timestamp(document["issued_at"]),
                entries=tuple(_entry(member) for member in document["keys"]),
            )
            _check(index.entries)
        except (ValueError, KeyError, TypeError, KeyMaterialError) as error:
            raise StoreError(
                "key-index-malformed",
                "the database's list of signing keys is not one that this version wrote",
                hint="use the version of certauth that changed the keys last, or restore the database",
            ) from error
        return index


def _entry(member: Mapping[str, Any]) -> KeyEntry:
    use, public = Use(member["use"]), load_der_public_key(from_b64url(member["public"]))
    if algorithm_of(public) is not use.algorithm or not isinstance(public, PublicKey):
        raise ValueError("a key of another kind")
    return KeyEntry(use=use, public=public, state=State(member["state"]), since=from_timestamp(member["since"]))


def _check(entries: Iterable[KeyEntry]) -> None:
    """One active key for each use, and no id twice: everything else here relies on it."""
    entries = tuple(entries)
    active = sorted(entry.use for entry in entries if entry.state is State.ACTIVE)
    if active != sorted(Use) or len({entry.kid for entry in entries}) != len(entries):
        raise ValueError("not one active key for each use, or one id twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyIndexRow:
    """The index is replaced; one that is not ``before`` any more is a conflict. ``before`` is ``None`` for the first change."""

    before: str | None
    after: str
