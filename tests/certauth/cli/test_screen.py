"""What a login shows while it waits."""

from __future__ import annotations

import io
import sys

import pytest

from certauth.cli.screen import screen


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error, as a terminal of 20 columns; called in the test, because pytest sets its own before that."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    return made


def test_one_line_that_changes_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch):
    """Each state replaces the one before, within the width; what must be read stands on lines of its own."""
    terminal = a_terminal(monkeypatch)
    with screen() as shown:
        shown.tick("a state that is longer than the terminal is wide")
        shown.tick("two\nlines\x1b[2J")
        shown.tell("read this")
        shown.tell("and this")
        shown.tick("three")
    assert terminal.getvalue() == (
        "\r\x1b[Ka state that is lon\r\x1b[Ktwo lines\\x1b[2J\r\x1b[Kread this\nand this\n\r\x1b[Kthree\r\x1b[K"
    )


def test_it_is_gone_after_an_error_too(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C leaves no half line for the shell's prompt to follow."""
    terminal = a_terminal(monkeypatch)
    shown = screen()
    shown.__enter__().tick("waiting")
    assert shown.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert terminal.getvalue().endswith("waiting\r\x1b[K")


@pytest.mark.parametrize("dumb", [True, False])
def test_no_state_where_it_would_be_noise(monkeypatch: pytest.MonkeyPatch, dumb: bool):
    """A dumb terminal, or none at all, is told only what must be read."""
    terminal = a_terminal(monkeypatch)
    if dumb:
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    with screen() as shown:
        shown.tick("waiting")
        shown.tell("read this")
    assert terminal.getvalue() == "read this\n"


def test_a_question_is_for_people(monkeypatch: pytest.MonkeyPatch):
    """At a terminal the question is shown; in a pipe only the answer is read, and at its end nothing."""
    terminal = a_terminal(monkeypatch)
    answers = Terminal("the answer\n")
    monkeypatch.setattr(sys, "stdin", answers)
    with screen() as shown:
        assert shown.ask("well? ") == "the answer\n"
        assert shown.ask("well? ") == ""
    assert terminal.getvalue() == "well? well? "
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 30_000))
    with screen() as shown:
        assert len(shown.ask("well? ")) == 20_000
    assert terminal.getvalue() == "well? well? "
