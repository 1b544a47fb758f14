"""Waiting for the user, who is busy elsewhere: until something happens, the time is up, or Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from certauth.errors import UnavailableError

_SLICE = 0.5


def _silent(_text: str) -> None:
    """Show nothing."""


def _nobody(_question: str) -> str:
    """There is nobody to ask: as if the input had ended."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """How a login speaks to its user: ``tell`` for what must be read, ``tick`` for a passing state, ``ask`` for a line.

    ``ask`` shows a question and returns the line that was entered, empty at the end of the input.
    """

    tell: Callable[[str], None]
    tick: Callable[[str], None] = _silent
    ask: Callable[[str], str] = _nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """Time that passes, and a way to let it pass. Seconds, from an unknown beginning."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Waiting:
    """One wait of at most ``seconds``; ``what`` is what is waited for, as the user reads it."""

    def __init__(self, *, seconds: float, what: str, screen: Screen, stopwatch: Stopwatch) -> None:
        self._what = what
        self._screen = screen
        self._stopwatch = stopwatch
        self._seconds = seconds
        self._begun = stopwatch.now()

    @property
    def left(self) -> float:
        return self._begun + self._seconds - self._stopwatch.now()

    def tick(self) -> None:
        """Show that, and for how long, we wait; raise ``UnavailableError`` (``login-timeout``) when the time is up."""
        if self.left <= 0:
            raise UnavailableError(
                "login-timeout", f"nobody finished the login within {self._seconds:.0f} s", hint="run the command again"
            )
        self._screen.tick(f"waiting {self._what}, {self._seconds - self.left:.0f} s; Ctrl-C gives up")

    def pause(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let ``seconds`` pass, or less if ``until`` becomes true; raises as ``tick`` does."""
        end = self._stopwatch.now() + seconds
        while not until() and (more := end - self._stopwatch.now()) > 0:
            self.tick()
            self._stopwatch.sleep(min(_SLICE, more))
        self.tick()
