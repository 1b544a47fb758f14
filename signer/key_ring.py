"""The keys that sign tokens, as of now: what the database says of them, and what follows from that.

Bundle, JWK set, the keys that verify and the one that signs are made from one index and replaced together, within 0.2 s of a
change by another process; so a running service takes a new key without a restart. ``bundle.json`` on the disk follows the
database too: whoever finds it behind writes it, so an act that was killed after its commit is finished by the next that looks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from certauth.bundles import KeyState, TrustBundle
from certauth.errors import CertauthError, ConfigError, KeyMaterialError, StoreError, UnavailableError
from certauth.files import PUBLIC, write_atomic
from certauth.identity.binding import jwk_of
from certauth.keys import PublicKey, SoftwareKey, key_id, raw
from certauth.revocation import RevocationKind, RevocationSet
from certauth.tokens import TrustedTokenKey
from certauth.tokens.jwt_form import ALGORITHM
from signer.authority import Authority
from signer.key_index import KeyIndex, Use
from signer.store import Store

JWKS_MAX_AGE: Final = 300
"""Seconds for which others may keep the JWK set."""
_RECHECK: Final = 0.2
_RETRY: Final = 5.0
"""Seconds until a key that could not be loaded, or a bundle that could not be written, is tried again."""

logger = logging.getLogger("signer.keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Everything that follows from one index. Immutable."""

    index: KeyIndex
    text: str | None
    """The index as the database holds it; ``None`` if no key was ever changed."""
    bundle: TrustBundle
    bundle_bytes: bytes
    roots: Mapping[str, TrustedTokenKey]
    signing: Mapping[Use, SoftwareKey] = field(repr=False)
    """Without a key that could not be loaded."""
    problem: CertauthError | None
    """Why it could not."""

    def jwks(self, revocations: RevocationSet | None) -> dict[str, object]:
        """The keys of tokens in JWT form, as a JWK set (RFC 7517), without those whose id is among ``revocations``.

        Whoever verifies with this set does not read the feed.
        """
        believed = [
            entry
            for entry in self.index.believed(Use.JWT)
            if revocations is None or revocations.named(RevocationKind.KID, entry.kid) is None
        ]
        common = {"use": "sig", "alg": ALGORITHM}
        return {"keys": [{**(jwk_of(entry.public) or {}), "kid": entry.kid, **common} for entry in believed]}

    def believes_jwt(self, kid: str) -> bool:
        """Whether a token in JWT form that this key signed still counts."""
        return any(entry.kid == kid for entry in self.index.believed(Use.JWT))


class KeyRing:
    """The current ``Keys``. Safe to share between threads; ``_keys`` is replaced as a whole, under ``_lock``."""

    def __init__(self, authority: Authority, store: Store, *, must_sign: bool = True) -> None:
        """Read the index and load the keys that sign; put ``bundle.json`` in order if it is behind and can be written.

        An administrator's command does without ``must_sign``: a key that is lost has to be replaced, and it stops nothing else.

        Raises ``ConfigError`` (``authority-mismatch``), ``KeyMaterialError`` or ``StoreError``.
        """
        self._authority = authority
        self._store = store
        self._must_sign = must_sign
        self._rest = authority.bundle  # the bundle, but for its token keys and what goes with them
        self._lock = threading.Lock()
        self._in_order: tuple[int, ...] | None = None  # the file as it was when it was found to be as new as it should be
        self._keys = self._read(store.key_index(), {})
        if self._keys.problem is not None and must_sign:
            raise self._keys.problem
        with contextlib.suppress(CertauthError):  # nothing rests on the file; the service says so if it goes on
            self._publish()
        self._look_again = time.monotonic() + _RECHECK
        self._try_again = time.monotonic() + _RETRY

    @property
    def roots(self) -> Mapping[str, TrustedTokenKey]:
        """The keys that verify this facility's tokens: a view that is always current."""
        return _Roots(self)

    def current(self) -> Keys:
        """The keys, current to within 0.2 s; raise ``StoreError`` if the database cannot be read."""
        if time.monotonic() >= self._look_again:
            with self._lock:
                self._look()
        return self._keys

    def newest(self) -> Keys:
        """The keys as of this moment, for whoever changes them; raise as the constructor does."""
        with self._lock:
            self._keys = self._read(self._store.key_index(), self._keys.signing, least=self._keys.index.revision)
        if self._keys.problem is not None and self._must_sign:
            raise self._keys.problem
        return self._keys

    def signing(self, use: Use) -> tuple[SoftwareKey, str]:
        """The key that signs now, and its id; raise ``UnavailableError`` (``signing-key-unavailable``), or as ``current``."""
        keys = self.current()
        kid = keys.index.active(use).kid
        if use not in keys.signing:
            raise UnavailableError(
                "signing-key-unavailable",
                f"the {use} key {kid} cannot be loaded",
                hint="the signer's /readyz names the cause; its administrator can mend it",
                retry_after=int(_RETRY),
            )
        return keys.signing[use], kid

    def write_bundle(self) -> None:
        """Make ``bundle.json`` what it should be; the caller holds the lock of the key files. Raises ``StoreError``."""
        write_atomic(self._authority.bundle_file, self.newest().bundle_bytes, mode=PUBLIC)

    # ------------------------------------------------------------------ looking

    def _look(self) -> None:
        now, before = time.monotonic(), self._keys
        # A database that was moved or replaced may know of fewer changes; what it says would bring withdrawn keys back.
        self._store.place.check()
        text = self._store.key_index()
        behind = before.problem is not None or not self._is_published()
        if text != before.text or (behind and now >= self._try_again):
            self._keys = self._read(text, before.signing, least=before.index.revision)
            self._try_again = now + _RETRY
            if self._keys.problem is not None:
                logger.error("a key for tokens cannot be loaded: %s", self._keys.problem)
            try:
                self._publish()
            except CertauthError as error:
                logger.warning("the trust bundle on the disk is not up to date: %s", error)
        self._look_again = now + _RECHECK

    def _read(self, text: str | None, known: Mapping[Use, SoftwareKey], *, least: int = 0) -> Keys:
        """What an index leads to. A private key that cannot be loaded is a ``problem`` and delays nothing that is withdrawn."""
        index = self._index(text) if text is not None or least == 0 else None
        if index is None or index.revision < least:
            raise StoreError(
                "keys-rolled-back",
                "the database knows of fewer changes of keys than before",
                hint="put the newer database back, or stop the signer and restore keys, database and bundle from one backup",
                retry_after=30,
            )
        signing: dict[Use, SoftwareKey] = {}
        problem: CertauthError | None = None
        for use in Use:
            kid = index.active(use).kid
            if use in known and key_id(known[use].public_key) == kid:
                signing[use] = known[use]
                continue
            try:
                signing[use] = self._authority.key_files.load(use, kid)
            except CertauthError as error:
                problem = error
        domain, issuer = self._authority.domain, self._authority.token_issuer
        bundle = replace(
            self._rest_of(index), sequence=index.sequence, issued_at=index.issued_at, token_roots=index.token_roots()
        )
        roots = [
            TrustedTokenKey(kid=root.kid, key=root.key, issuer=issuer, domain=domain) for root in bundle.believed_token_roots
        ]
        return Keys(
            index=index,
            text=text,
            bundle=bundle,
            bundle_bytes=bundle.to_json(),
            roots={root.kid: root for root in roots},
            signing=signing,
            problem=problem,
        )

    def _index(self, text: str | None) -> KeyIndex:
        bundle = self._authority.bundle
        if text is None:
            return KeyIndex.first(bundle, token=self._first_token(), jwt=self._authority.key_files.first(Use.JWT).public_key)
        index = KeyIndex.parse(text)
        if bundle.sequence <= index.sequence:
            return index
        if bundle.token_roots != index.token_roots():
            raise ConfigError(
                "authority-mismatch",
                f"the trust bundle has sequence {bundle.sequence} and token keys that the database does not know",
                hint="restore keys, database and bundle from one backup",
            )
        # An administrator changed something else in it.
        return replace(index, sequence=bundle.sequence, issued_at=bundle.issued_at)

    def _rest_of(self, index: KeyIndex) -> TrustBundle:
        """The bundle's other members: what an administrator changed since we read it, once an act has counted it in.

        Else two bundles of one sequence would differ, ours and the file. The names and keys that we go by stay as they were.
        """
        before, file = self._rest, self._authority.bundle_file
        with contextlib.suppress(OSError, CertauthError):
            found = TrustBundle.parse(file.read_bytes(), allow_example_keys=self._authority.key_files.allow_example_keys)
            if _story(found) == _story(before) and before.sequence < found.sequence <= index.sequence:
                self._rest = found
        return self._rest

    def _first_token(self) -> PublicKey:
        """The first token key; if its file is lost, the bundle still says which it was."""
        try:
            return self._authority.key_files.first(Use.TOKEN).public_key
        except KeyMaterialError:
            for root in self._authority.bundle.token_roots:
                if root.state is KeyState.ACTIVE:
                    return root.key
            raise

    def _is_published(self) -> bool:
        """Whether the file is as new as what we serve; one that is newer is not ours to undo."""
        with contextlib.suppress(OSError, CertauthError):
            status = self._authority.bundle_file.stat()
            seen = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, self._keys.bundle.sequence
            if seen != self._in_order:
                data = self._authority.bundle_file.read_bytes()
                found = TrustBundle.parse(data, allow_example_keys=True)
                self._in_order = seen if found.sequence >= self._keys.bundle.sequence else None
            return seen == self._in_order
        return False

    def _publish(self) -> None:
        """Write the bundle if it is behind. Somebody who changes keys at this moment writes it himself."""
        if self._is_published():
            return
        with self._authority.key_files.locked(seconds=0):
            if self._store.key_index() == self._keys.text:
                write_atomic(self._authority.bundle_file, self._keys.bundle_bytes, mode=PUBLIC)


def _story(bundle: TrustBundle) -> tuple[object, ...]:
    return bundle.domain, bundle.signer_url, bundle.log_vkey, raw(bundle.feed_key)


class _Roots(Mapping[str, TrustedTokenKey]):
    """The believed token keys by their ids, looked up in whatever is current."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def __getitem__(self, kid: str) -> TrustedTokenKey:
        return self._ring.current().roots[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ring.current().roots)

    def __len__(self) -> int:
        return len(self._ring.current().roots)
