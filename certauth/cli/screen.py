"""What a login shows while it waits: one line that changes on a terminal, nothing in a pipe or with ``--json``."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator

import click

from certauth.cli.output import printable, progress, wants_json
from certauth.client.waiting import Screen

_CLEAR = "\r\x1b[K"
_LINE_LIMIT = 20_000


class _Line:
    """The last line of the terminal, written again and again."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._dirty = False

    def tick(self, text: str) -> None:
        if self._shown:
            width = shutil.get_terminal_size().columns - 1
            click.echo(_CLEAR + printable(text).replace("\n", " ")[:width], err=True, nl=False)
            self._dirty = True

    def tell(self, text: str) -> None:
        self.clear()
        progress(text)

    def clear(self) -> None:
        if self._dirty:
            click.echo(_CLEAR, err=True, nl=False)
            self._dirty = False

    def ask(self, question: str) -> str:
        """The next line of standard input, empty at its end; the question is shown to people only."""
        self.clear()
        if sys.stdin.isatty():
            click.echo(question, err=True, nl=False)
        return sys.stdin.readline(_LINE_LIMIT)


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """A screen whose changing line is gone at the end, however the block ends."""
    line = _Line(shown=sys.stderr.isatty() and not wants_json() and os.environ.get("TERM") != "dumb")
    try:
        yield Screen(tell=line.tell, tick=line.tick, ask=line.ask)
    finally:
        line.clear()
