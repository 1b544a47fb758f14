"""Waiting ends: by what is waited for, or by the clock."""

from __future__ import annotations

import pytest

from certauth.client.waiting import Screen, Waiting
from certauth.errors import UnavailableError
from tests.certauth.client.conftest import HandWatch


def test_a_wait_shows_itself_and_ends(hand: HandWatch):
    """The state is shown again and again with the seconds that passed; when they are over the wait is, not before."""
    said: list[str] = []
    waiting = Waiting(seconds=10, what="for rain", screen=Screen(tell=print, tick=said.append), stopwatch=hand.watch)
    waiting.pause(4)
    assert (hand.seconds, waiting.left) == (4, 6)
    assert said[0] == "waiting for rain, 0 s; Ctrl-C gives up"
    assert said[-1] == "waiting for rain, 4 s; Ctrl-C gives up"
    with pytest.raises(UnavailableError) as caught:
        waiting.pause(60)
    assert caught.value.code == "login-timeout"
    assert hand.seconds == 10


def test_a_pause_ends_early_when_something_happened(hand: HandWatch):
    """A pause is not longer than it has to be."""
    waiting = Waiting(seconds=10, what="for rain", screen=Screen(tell=print), stopwatch=hand.watch)
    waiting.pause(5, until=lambda: hand.seconds >= 2)
    assert hand.seconds == 2


def test_without_anybody_to_ask_the_input_has_ended():
    """A screen that cannot ask answers like a closed input."""
    assert Screen(tell=print).ask("well?") == ""
