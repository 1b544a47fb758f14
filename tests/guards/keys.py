"""The keys that sign tokens, and how they are changed."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "keys: a tainted key is not believed",
        (("signer/key_index.py", "not in {State.TAINTED, State.REMOVED}", "not in {State.REMOVED}"),),
        ("tests/signer/test_key_index.py",),
    ),
    (
        "keys: a tainted key is in the feed, too",
        (("signer/key_changes.py", "event, RevocationRow(revoked=revoked, by=self._by))", "event)"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: none signs before everybody knows it",
        (("signer/key_changes.py", "if now < ready and not early:", "if False:"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: none leaves while its tokens live",
        (("signer/key_changes.py", "entry.state is State.RETIRED and now <", "False and now <"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: one administrator at a time",
        (("signer/key_changes.py", "with self._files.locked(seconds=LOCK_SECONDS):", "if True:"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: a private key is the one that the index names",
        (("signer/key_files.py", "if keys.key_id(key.public_key) != kid:", "if False:"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: an index that changed meanwhile is kept",
        (
            (
                "signer/row_changes.py",
                ".where(META.c.name == KEY_INDEX, META.c.value == row.before)",
                ".where(META.c.name == KEY_INDEX)",
            ),
        ),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: an index never goes back",
        (("signer/key_ring.py", "if index is None or index.revision < least:", "if index is None:"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: the index of a replaced database is not read",
        (("signer/key_ring.py", "        self._store.place.check()\n", ""),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: a JWT of a key that left is not active",
        (("signer/introspecting.py", "if not known or withdrawn", "if withdrawn"),),
        ("tests/signer/test_key_theft.py",),
    ),
    (
        "keys: an exchanged token ends with the key it came from",
        (("signer/exchange.py", '("kid", token.kid), ', ""),),
        ("tests/signer/test_key_theft.py",),
    ),
    (
        "keys: no biscuit for somebody else's token",
        (("signer/minting.py", " or subject.user != peer.principal)", ")"),),
        ("tests/signer/test_key_theft.py",),
    ),
    (
        "keys: a withdrawn key signs nothing",
        (
            (
                "signer/minting.py",
                "if revocations is not None and revocations.named(RevocationKind.KID, kid) is not None:",
                "if False:",
            ),
        ),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: the bundle is the index's",
        (("signer/key_ring.py", "self._rest_of(index), sequence", "self._authority.bundle, sequence"),),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: a withdrawn key leaves the JWK set",
        (
            (
                "signer/key_ring.py",
                "if revocations is None or revocations.named(RevocationKind.KID, entry.kid) is None",
                "if True",
            ),
        ),
        ("tests/signer/test_keys.py",),
    ),
    (
        "keys: an administrator needs no key that signs",
        (("signer/cli/common.py", ", must_sign=False", ""),),
        ("tests/signer/test_keys.py",),
    ),
)
