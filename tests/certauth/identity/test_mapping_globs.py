"""Anchored globs: what they match, and that nobody can make them slow."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import ConfigError
from certauth.identity.mapping import Glob, host_matches
from certauth.identity.mapping.globs import host_pattern


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("staff", "staff", True),
        ("staff", "staff2", False),
        ("staff", "xstaff", False),
        ("staff", "Staff", False),
        ("stf*", "stf007", True),
        ("stf*", "stf", True),
        ("stf*", "xstf007", False),
        ("*-admins", "hpc-admins", True),
        ("*-admins", "hpc-admins-old", False),
        ("*", "", True),
        ("*", "anything", True),
        ("*", "a/b", False),
        ("*", "a:b", False),
        ("**", "a/b:c", True),
        ("/cms/*", "/cms/uscms", True),
        ("/cms/*", "/cms/uscms/x", False),
        ("/cms/**", "/cms/uscms/x", True),
        ("/cms/**", "/cms", False),
        ("repo:als/*:ref:refs/heads/main", "repo:als/data:ref:refs/heads/main", True),
        ("repo:als/*:ref:refs/heads/main", "repo:als/data:environment:x:ref:refs/heads/main", False),
        ("repo:als/*:ref:refs/heads/main", "repo:als/a/b:ref:refs/heads/main", False),
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "aXcYb", False),
        ("*aa", "aaa", True),
        ("**ab*cd", "x/ab/ab1cd", True),
        ("**ab*cd", "x/ab/cd", False),
        ("[a-z]?.+", "[a-z]?.+", True),
        ("[a-z]?.+", "b", False),
        ("*é*", "caféteria", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, value: str, matches: bool) -> None:
    """The whole value, by case; a star stays in its segment, two stars do not; nothing else is special."""
    assert Glob(pattern).matches(value) is matches


@pytest.mark.parametrize("pattern", ["", "a***b", "****", "x" * 257, "*a" * 9])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """Empty, too long, too many stars, or three in a row, whose meaning would be a guess."""
    with pytest.raises(ConfigError) as error:
        Glob(pattern)
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)


ATOMS = st.sampled_from(["a", "b", "ab", "/", ":", "*", "**", "."])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """Patterns of few letters, no two stars together, so that they often match."""
    pieces: list[str] = []
    for piece in draw(st.lists(ATOMS, min_size=1, max_size=8)):
        if not (pieces and pieces[-1].startswith("*") and piece.startswith("*")):
            pieces.append(piece)
    return "".join(pieces)


@given(pattern=patterns(), value=st.text("ab/:.", max_size=10))
def test_the_same_as_a_regular_expression(pattern: str, value: str) -> None:
    """Against the regular expression that the pattern stands for, on texts short enough for one."""
    meaning = {"**": ".*", "*": "[^/:]*"}
    expression = "".join(meaning.get(piece, re.escape(piece)) for piece in re.split(r"(\*+)", pattern))
    assert Glob(pattern).matches(value) is bool(re.fullmatch(expression, value))


class Counted(str):
    """A text that counts how many of its characters are looked at."""

    __slots__ = ("steps",)
    steps: int

    def __iter__(self) -> Iterator[str]:
        self.steps = 0
        for character in str(self):
            self.steps += 1
            yield character


@pytest.mark.parametrize("pattern", ["a**a**a**a**a**a**a**a**", "**a*a*a*a*a*a*a*b", "*a" * 8, "**" + "a" * 254])
def test_each_character_is_looked_at_once(pattern: str) -> None:
    """Patterns on which backtracking takes longer than anybody lives take one step for each character of the value."""
    value = Counted("a" * 4000 + "b")
    Glob(pattern).matches(value)
    assert getattr(value, "steps", 0) <= 4001
    value = Counted("a" * 4000)
    Glob(pattern).matches(value)
    assert getattr(value, "steps", 0) <= 4000


def test_most_values_end_at_the_first_character() -> None:
    """A pattern that begins with a text looks no further than where the value differs."""
    value = Counted("b" * 4000)
    assert not Glob("a*").matches(value)
    assert value.steps == 1


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("*.olcf.lab.example", "frontier.olcf.lab.example", True),
        ("*.olcf.lab.example", "olcf.lab.example", False),
        ("*.olcf.lab.example", ".olcf.lab.example", False),
        ("*.olcf.lab.example", "a.b.olcf.lab.example", False),
        ("*.olcf.lab.example", "evil.example/.olcf.lab.example", False),
        ("*.olcf.lab.example", "*.olcf.lab.example", False),
        ("*.olcf.lab.example", "A.olcf.lab.example", False),
        ("login*.lab.example", "login12.lab.example", True),
        ("login1.lab.example", "login1.lab.example", True),
        ("login1.lab.example", "login1.lab.example.evil.example", False),
        ("localhost", "localhost", True),
    ],
)
def test_hosts(pattern: str, host: str, matches: bool) -> None:
    """A star is within one label, and what is no host name is none that is allowed."""
    assert host_matches(pattern, host) is matches


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.example", "*.*", "a.*.example", "**.lab.example", "*.LAB.example", "", "a..b.c", "-a.b.c", "x" * 254, "a b.c.d"],
)
def test_hosts_that_could_be_anybodys_are_refused(pattern: str) -> None:
    """No star near the top of the tree, and nothing that is no host name."""
    with pytest.raises(ConfigError, match="hosts:"):
        host_pattern(pattern)
