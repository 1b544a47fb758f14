"""The code people type: how it is made and read, and that guessing it is hopeless."""

from __future__ import annotations

import secrets
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import UnavailableError
from signer import login_code
from signer.login_code import ALPHABET, LENGTH, Guesses, in_groups, network_of, new_code, read_code
from signer.login_state import LoginLimits


def test_codes_are_even_and_unambiguous() -> None:
    """Every character is as likely as any other, and none looks like another or makes words."""
    assert len(set(ALPHABET)) == len(ALPHABET) == 24
    assert not set(ALPHABET) & set("AEIOU01L58S2")
    counted = Counter("".join(new_code(secrets.token_bytes) for _ in range(6000)))
    expected = 6000 * LENGTH / len(ALPHABET)
    assert set(counted) == set(ALPHABET)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counted.values())  # six sigma


def test_bytes_that_would_favour_some_characters_are_passed_over() -> None:
    """256 is no multiple of 24: the last 16 values of a byte are not used."""
    given_bytes = [bytes(range(240, 256)), bytes([0, 255, 1, 254, 2, 253, 3, 252, 23, 251, 24, 250, 25, 249, 239, 248])]
    assert new_code(lambda _count: given_bytes.pop(0)) == "BCDF9BC9"


@pytest.mark.parametrize(
    "typed", ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "b c d f g h j k", "BCDF–GHJK", "bcdf_ghjk", "BCDF.GHJK"]
)
def test_what_people_type(typed: str) -> None:
    """Case, spaces and hyphens of any length do not matter."""
    assert read_code(typed) == "BCDFGHJK"


@pytest.mark.parametrize("typed", ["", "BCDF-GHJ", "BCDF-GHJKL", "BCDF-GHJ0", "ÄCDF-GHJK", "BCDF-GHJK" + " " * 64, "ßßßß"])
def test_what_is_no_code(typed: str) -> None:
    """Too short, too long, foreign characters, or padded without end."""
    assert read_code(typed) is None


@given(st.text(max_size=80))
def test_any_text_is_a_code_or_none(typed: str) -> None:
    """Nothing that is typed raises, and what is read is a code."""
    code = read_code(typed)
    assert code is None or (len(code) == LENGTH and set(code) <= set(ALPHABET))


@given(st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH))
def test_a_code_is_read_as_it_is_shown(code: str) -> None:
    """What the terminal shows can be typed."""
    assert read_code(in_groups(code)) == code
    assert len(in_groups(code)) == LENGTH + 1


def test_guessing_is_hopeless() -> None:
    """The budgets as they are, with the most logins there can be, all attackers at once: the arithmetic of the module."""
    limits, guesses, at = LoginLimits(), Guesses(), 0.0
    tried, networks = 0, iter(range(10**6))
    while at < limits.lifetime:  # a new network for each guess: only the total holds them back
        try:
            network = f"2001:db8::{next(networks):x}"
            guesses.check(network, at=at)
            guesses.wrong(network, at=at)
            tried += 1
        except UnavailableError:
            at += 0.05
    assert 6000 <= tried <= 6700
    codes = len(ALPHABET) ** LENGTH
    assert tried / codes < 1e-7
    assert tried * limits.total / codes < 2e-4


def test_one_network_has_ten_guesses_and_then_one_a_minute() -> None:
    """Who types wrong codes waits; who is elsewhere does not."""
    guesses = Guesses()
    for _ in range(10):
        guesses.check("a", at=0)
        guesses.wrong("a", at=0)
    with pytest.raises(UnavailableError) as caught:
        guesses.check("a", at=0)
    assert (caught.value.code, caught.value.retry_after) == ("too-many-tries", 60)
    guesses.check("b", at=0)
    guesses.check("a", at=60)
    guesses.wrong("a", at=60)
    with pytest.raises(UnavailableError):
        guesses.check("a", at=61)
    guesses.check("a", at=10_000)


def test_what_is_remembered_of_networks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million addresses do not fill the memory."""
    monkeypatch.setattr(login_code, "_MAX_NETWORKS", 5)
    guesses = Guesses()
    for number in range(100):
        guesses.wrong(str(number), at=number)
    assert len(guesses._spent) == 5


@pytest.mark.parametrize(
    ("address", "network"),
    [
        (None, "local"),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_whom_an_address_counts_to(address: str | None, network: str) -> None:
    """A machine may choose any of the 2^64 addresses of its network: they count as one."""
    assert network_of(address) == network
