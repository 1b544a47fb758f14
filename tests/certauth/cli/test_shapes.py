"""What the help texts promise about ``--json`` is what the commands print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from certauth.cli import root
from tests.certauth.cli.conftest import BROWSER, Run
from tests.simulator.hostile_signer import HostileSigner


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the program, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


def documented(words: tuple[str, ...]) -> set[str]:
    """The members that the help of a command names after ``JSON:``."""
    text = next(found.help or "" for path, found in commands(root) if path == words)
    listed = text.partition("JSON:")[2].partition("\n\n")[0]
    return set(re.findall(r"[a-z_]+", re.sub(r'\(.*?\)|"[a-z]+"', "", listed)))


def test_every_command_documents_its_json_and_shows_an_example():
    """No command is without an example and a description of its JSON; those still without one are the ones listed."""
    silent = {" ".join(words) for words, found in commands(root) if "JSON:" not in (found.help or "")}
    assert silent == set()
    for words, found in commands(root):
        assert f"certauth {' '.join(words)}" in (found.epilog or ""), words
        assert any(option.name == "json" or "--json" in option.opts for option in found.params), words


@pytest.mark.parametrize(
    "line",
    [
        "login SIGNER --force --browser-command BROWSER",
        "whoami",
        "token mint data",
        "token verify data",
        "token inspect data",
        "cert inspect",
        "logout",
        "audit check-receipt RECEIPT",
    ],
)
def test_the_documented_members_are_those_printed(signer: HostileSigner, run: Run, home: Path, line: str):
    """The JSON of a command has exactly the members its help names."""
    receipt = next((home / "hostile.example" / "receipts").iterdir())
    values = {"SIGNER": signer.url, "BROWSER": BROWSER, "RECEIPT": str(receipt)}
    words = [values.get(word, word) for word in line.split()]
    done = run(*words, "--json")
    assert done.status == 0, done.err
    names = tuple(words[:2]) if words[0] in {"token", "cert", "audit"} else (words[0],)
    assert set(done.data) == documented(names)
