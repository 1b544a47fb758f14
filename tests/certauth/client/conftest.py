"""A facility that can lie, and a user who logs in there."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from certauth.client.attempt import Situation
from certauth.client.browser import Browser
from certauth.client.login import LoggedIn, Wishes, log_in
from certauth.client.profile import Home
from certauth.client.waiting import Screen, Stopwatch
from certauth.clock import system_clock
from tests.simulator.hostile_signer import HostileSigner, hostile_signer, visit

LogIn = Callable[..., LoggedIn]


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[HostileSigner]:
    """A signer on loopback, honest until told to lie."""
    directory = tmp_path / "signer"
    directory.mkdir()
    with hostile_signer(directory) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path / "home")


def browse(text: str) -> None:
    """Do what the user does who reads the address: open it, in a browser that goes on by itself."""
    found = re.search(r"https://\S+/idp/authorize\?\S+", text)
    if found:
        threading.Thread(target=visit, args=(found[0],), daemon=True).start()


class HandWatch:
    """Time that passes only while somebody sleeps, at once; ``at`` is what happens then, by second."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.at: dict[float, Callable[[], object]] = {}
        self.watch = Stopwatch(now=lambda: self.seconds, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for moment in sorted(self.at):
            if moment <= self.seconds:
                self.at.pop(moment)()


@pytest.fixture
def hand() -> HandWatch:
    """A stopwatch that a test moves."""
    return HandWatch()


@pytest.fixture
def log_me_in(signer: HostileSigner, home: Home, hand: HandWatch) -> LogIn:
    """Log in at ``signer``; keyword arguments are wishes, and ``tell``, ``tick``, ``ask``, ``situation``, ``by_hand``."""

    def log(**wishes: Any) -> LoggedIn:
        wishes.setdefault("ca", signer.ca_file.read_bytes())
        wishes.setdefault("browser", Browser(enabled=False, timeout=60))
        shown = {name: wishes.pop(name) for name in ("tick", "ask") if name in wishes}
        tell = wishes.pop("tell", browse)
        situation = wishes.pop("situation", Situation())
        stopwatch = hand.watch if wishes.pop("by_hand", False) else Stopwatch()
        return log_in(
            home,
            signer.url,
            Wishes(**wishes),
            clock=system_clock,
            tell=tell,
            screen=Screen(tell=tell, **shown),
            situation=situation,
            stopwatch=stopwatch,
        )

    return log
