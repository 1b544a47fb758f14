"""The tokens a profile keeps, as a program sees them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from certauth.client.stored import entries, forget, mint_command, usable, verified
from certauth.client.tokens import mint
from certauth.clock import system_clock
from certauth.errors import LoginRequired, TokenError, UsageError
from certauth.keys import Algorithm, generate
from certauth.tokens import append_attestation, attest, from_text, request_attestation, to_text
from tests.simulator.hostile_signer import HostileSigner

LogIn = Callable[..., Any]


@pytest.fixture
def done(log_me_in: LogIn) -> Any:
    """A finished login with a token for an hour."""
    logged_in = log_me_in()
    profile = logged_in.profile
    mint(profile, audience="data", rights=None, lifetime=None, delegations=1, name="t", ca=None, clock=system_clock)
    return logged_in


def test_usable_is_about_time(done: Any):
    """A token is usable until so long before its end, and never after it."""
    text, start = done.profile.token("t"), system_clock()
    found = usable(text, profile=done.profile, name="t", min_remaining=timedelta(minutes=5), now=start)
    assert (found.text, found.holder) == (text, done.credential.fingerprint)
    assert text not in repr(found)
    end = found.expires_at
    assert usable(text, profile=None, name=None, min_remaining=timedelta(), now=end - timedelta(seconds=1))
    for moment, least in ((end - timedelta(minutes=4), 300), (end, 0), (end + timedelta(days=1), 0)):
        with pytest.raises(LoginRequired) as caught:
            usable(text, profile=done.profile, name="t", min_remaining=timedelta(seconds=least), now=moment)
        assert caught.value.code == "token-ending"
    with pytest.raises(TokenError):
        usable("x", profile=None, name=None, min_remaining=timedelta(), now=start)


def test_verification_of_a_vouched_token_accepts_no_foreign_signature(done: Any, signer: HostileSigner):
    """Whoever vouched counts for the holder, but every signature still has to hold."""
    token = from_text(done.profile.token("t"))
    answer = attest(
        request_attestation(token),
        key=generate(Algorithm.P256),
        groups=["g"],
        expires_at=system_clock() + timedelta(hours=1),
    )
    vouched = append_attestation(token, answer)
    assert len(verified(to_text(vouched), done.profile.bundle()).attestations) == 1
    where = vouched.index(b"\x01g" if b"\x01g" in vouched else b"g")
    for position in range(where, len(vouched)):
        changed = bytearray(vouched)
        changed[position] ^= 1
        with pytest.raises(TokenError):
            verified(to_text(bytes(changed)), done.profile.bundle())


def test_forget_is_all_or_nothing(done: Any):
    """A name that is not there deletes nothing."""
    done.profile.store_token("u", "x")
    with pytest.raises(UsageError):
        forget(done.profile, ["u", "v"])
    assert [one.name for one in entries(done.profile, now=system_clock())] == ["t", "u"]
    forget(done.profile, ["u"])
    assert [one.name for one in entries(done.profile, now=system_clock())] == ["t"]


def test_the_command_that_mints_is_fit_for_a_shell():
    """Paths are quoted, the name is left out where it is the service's, facts of another shape do no harm."""
    rights = [{"service": "data", "operation": "write", "path": "/a b/$(x)"}, "rubbish"]
    facts: dict[str, object] = {"audience": ["data"], "rights": rights}
    assert mint_command(facts, name="data") == "certauth token mint data --write '/a b/$(x)'"
    assert mint_command({"audience": None, "rights": None}, name="x") == "certauth token mint '' --name x"
