"""Providers: their keys, and what they answer about a token."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "provider keys: ROCA",
        (("certauth/identity/keyset.py", "    if roca.is_vulnerable(modulus):", "    if False:"),),
        ("tests/certauth/identity/test_keyset.py", "tests/certauth/identity/test_roca.py"),
    ),
    (
        "provider keys: points of small order",
        (("certauth/identity/keyset.py", "    if is_small_order(encoded):", "    if False:"),),
        ("tests/certauth/identity/test_small_order.py",),
    ),
    (
        "provider keys: one fetch for all who wait",
        (
            (
                "signer/keeper.py",
                "    def _fly(self) -> asyncio.Task[None]:\n        if self._flight is None:",
                "    def _fly(self) -> asyncio.Task[None]:\n        if True:",
            ),
        ),
        ("tests/signer/test_jwks.py",),
    ),
    (
        "provider keys: who hangs up ends no fetch",
        (("signer/keeper.py", "await asyncio.shield(self._fly())", "await self._fly()"),),
        ("tests/signer/test_jwks.py",),
    ),
    (
        "provider keys: not asked again at once",
        (("signer/keeper.py", "self._next_fetch = self._ticks() + self._pace.cooldown", "self._next_fetch = self._ticks()"),),
        ("tests/signer/test_jwks.py",),
    ),
    (
        "provider keys: a known key never waits",
        (
            (
                "signer/keeper.py",
                "                self._fly()\n            return keys",
                "                await self.refresh()\n            return keys",
            ),
        ),
        ("tests/signer/test_jwks.py",),
    ),
    (
        "provider keys: forgotten after a day without the provider",
        (
            (
                "signer/keeper.py",
                "return self._keys if self._ticks() < self._fetched_at + self._pace.expire_after else None",
                "return self._keys",
            ),
        ),
        ("tests/signer/test_jwks.py",),
    ),
    (
        "provider keys: made-up ids do not fill the memory",
        (("signer/keeper.py", "            if len(self._missing) < _MAX_MISSING:", "            if True:"),),
        ("tests/signer/test_jwks.py",),
    ),
    (
        "introspection: an answer is remembered for a while",
        (("signer/introspection.py", "        if self._ticks() < until:", "        if False:"),),
        ("tests/signer/test_introspection.py",),
    ),
    (
        "introspection: one question about one token",
        (("signer/introspection.py", "question = self._under_way.get(digest)", "question = None"),),
        ("tests/signer/test_introspection.py",),
    ),
    (
        "introspection: so many questions at once",
        (("signer/introspection.py", "if len(self._under_way) >= _MAX_UNDER_WAY:", "if False:"),),
        ("tests/signer/test_introspection.py",),
    ),
    (
        "introspection: a provider that is down is left alone",
        (("signer/introspection.py", "if self._ticks() < self._not_before:", "if False:"),),
        ("tests/signer/test_introspection.py",),
    ),
    (
        "introspection: no answer outlives its token",
        (("signer/introspection.py", "            if expires < now + _KEEP:", "            if False:"),),
        ("tests/signer/test_introspection.py",),
    ),
    (
        "introspection: the memory is bounded",
        (("signer/introspection.py", "        if len(self._kept) > _MAX_KEPT:", "        if False:"),),
        ("tests/signer/test_introspection.py",),
    ),
    (
        "provider keys: endpoints that moved are shown",
        (("signer/health.py", "if status.moved else []", "if False else []"),),
        ("tests/signer/test_health.py",),
    ),
    (
        "provider keys: no long wait for a provider",
        (("signer/sources.py", "    timeout: float = 5", "    timeout: float = 55"),),
        ("tests/signer/test_key_source_numbers.py",),
    ),
    (
        "key file: not one that the group may write",
        (("signer/key_file.py", "(stat.S_IWGRP | stat.S_IWOTH)", "stat.S_IWOTH"),),
        ("tests/signer/test_key_file.py",),
    ),
)
