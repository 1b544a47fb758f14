"""How the next token is asked for: from what the stored one says, and from what was written down of the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from certauth.client import tokens
from certauth.client.profile import Profile
from certauth.client.wishes import TokenWish, keep_wishes, read_wishes
from certauth.clock import system_clock
from certauth.requests import Right
from certauth.tokens import attenuate

LogIn = Callable[..., Any]


@pytest.fixture
def profile(log_me_in: LogIn) -> Profile:
    """Somebody with one token."""
    done: Profile = log_me_in().profile
    tokens.mint(
        done,
        audience="data",
        rights=(Right.make("read", "/data/"),),
        lifetime=timedelta(minutes=30),
        delegations=0,
        name="t",
        ca=None,
        clock=system_clock,
    )
    return done


def found(profile: Profile) -> list[TokenWish]:
    """The wishes for the stored certificate."""
    return read_wishes(profile, profile.stored_credential().fingerprint, now=system_clock())


def test_a_token_says_what_it_was(profile: Profile):
    """Service, rights, how long, and whether it may be handed on."""
    (wish,) = found(profile)
    assert (wish.name, wish.audience, wish.rights) == ("t", "data", (Right("read", "/data/"),))
    assert timedelta(seconds=wish.lifetime) == wish.ends - wish.starts
    assert wish.delegations == 0


def test_what_was_written_down_is_what_counts(profile: Profile):
    """For the very token that was minted then; and never a shorter life than it has."""
    (wish,) = found(profile)
    keep_wishes(profile, [wish])
    path = profile.directory / "renewal.json"
    written = json.loads(path.read_text())
    written[wish.jti] |= {"lifetime": 36_000, "rights": [["write", "/x/"], "odd", ["too", "many", "of"]]}
    path.write_text(json.dumps(written))
    (remembered,) = found(profile)
    assert (remembered.lifetime, remembered.rights) == (36_000, (Right("write", "/x/"),))
    path.write_text(json.dumps({wish.jti: written[wish.jti] | {"lifetime": 1}}))
    assert found(profile)[0].lifetime == wish.lifetime
    path.write_text(json.dumps({"another": written[wish.jti]}))
    assert found(profile) == [wish]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', '"x"'])
def test_what_is_damaged_is_as_if_nothing_was_written(profile: Profile, text: str):
    """The tokens speak for themselves."""
    (wish,) = found(profile)
    path = profile.directory / "renewal.json"
    path.write_text(text)
    path.chmod(0o600)
    assert found(profile) == [wish]
    path.write_text(json.dumps({wish.jti: "odd"}))
    assert found(profile) == [wish]


def test_only_tokens_as_they_were_minted_for_this_certificate(profile: Profile):
    """Not a narrowed one, not one of another certificate, not what is damaged."""
    profile.store_token("narrow", attenuate(profile.token("t") or "", read=["/data/x"]))
    profile.store_token("damaged", "x")
    assert [wish.name for wish in found(profile)] == ["t"]
    assert read_wishes(profile, "ab" * 32, now=system_clock()) == []
