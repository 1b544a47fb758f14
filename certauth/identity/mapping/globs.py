"""Anchored globs: the only patterns a rule may hold. A star is ``*`` or ``**``; every other character means itself.

    *    any characters, also none, within one segment
    **   any characters, also none

Segments of a claim end at ``/`` and ``:``, those of a host name at ``.``. The whole value must match. There is no regular
expression behind it: a set of positions in the pattern moves over the value once, so that the work is one step for each
character, whatever the pattern and whoever chose the value.
"""

from __future__ import annotations

import re
from typing import Final

from certauth.errors import ConfigError

MAX_GLOB: Final = 256
MAX_STARS: Final = 8
CLAIM_SEPARATORS: Final = frozenset("/:")
HOST_SEPARATORS: Final = frozenset(".")

_STARS = re.compile(r"(\*+)")
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9*](?:[a-z0-9*-]{0,61}[a-z0-9*])?)(?:\.[a-z0-9*](?:[a-z0-9*-]{0,61}[a-z0-9*])?)*")


class Glob:
    """A pattern for whole values; case-sensitive."""

    __slots__ = ("_across", "_end", "_literals", "_separators", "_stars", "_tail", "text")

    def __init__(self, text: str, *, separators: frozenset[str] = CLAIM_SEPARATORS) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for a pattern that is empty, too long, or has three stars in a row."""
        pieces = [piece for piece in _STARS.split(text) if piece]
        stars = [piece for piece in pieces if piece.startswith("*")]
        if not 0 < len(text) <= MAX_GLOB or len(stars) > MAX_STARS or any(len(star) > 2 for star in stars):
            raise ConfigError(
                "rule-invalid",
                f"{text[:80]!r} is not a pattern",
                hint=f"1 to {MAX_GLOB} characters, at most {MAX_STARS} stars, * within a segment or ** across",
            )
        self.text = text
        self._separators = separators
        # Bit i stands for "the first i elements of the pattern have matched"; an element is one character or one star.
        self._literals: dict[str, int] = {}
        self._stars = self._across = position = 0
        for piece in pieces:
            if piece.startswith("*"):
                self._stars |= 1 << position
                self._across |= (len(piece) - 1) << position
                position += 1
                continue
            for character in piece:
                self._literals[character] = self._literals.get(character, 0) | 1 << position
                position += 1
        self._end = position
        self._tail = "" if pieces[-1].startswith("*") else pieces[-1]

    def matches(self, value: str) -> bool:
        """Whether the whole of ``value`` matches."""
        if not value.endswith(self._tail):  # only for speed: most values of a long list end here
            return False
        state = 1 | (self._stars & 1) << 1
        for character in value:
            staying = self._across if character in self._separators else self._stars
            state = (state & self._literals.get(character, 0)) << 1 | (state & staying)
            state |= (state & self._stars) << 1  # no two stars are neighbours, so once is enough
            if not state:
                return False
        return bool(state >> self._end & 1)


def host_pattern(text: str) -> Glob:
    """A pattern of host names such as ``*.hpc.example``; ``ConfigError`` (``rule-invalid``) for one that could be anybody's.

    ``*`` stands for characters within one label. The last two labels hold no star.
    """
    labels = text.split(".")
    if not _HOST.fullmatch(text) or "**" in text or ("*" in text and (len(labels) < 3 or "*" in "".join(labels[-2:]))):
        raise ConfigError(
            "rule-invalid",
            f"hosts: {text[:80]!r} is not a pattern of host names",
            hint="lower case, * within a label, and no star in the last two labels: *.hpc.example",
        )
    return Glob(text, separators=HOST_SEPARATORS)


def host_matches(pattern: str, host: str) -> bool:
    """Whether ``host`` is a host name (lower case, no final dot) that an admission's ``hosts`` entry ``pattern`` allows."""
    return bool(_HOST.fullmatch(host)) and "*" not in host and host_pattern(pattern).matches(host)
