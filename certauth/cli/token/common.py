"""What several commands about tokens share: where a token comes from and where a new one goes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from certauth.cli.output import Result
from certauth.client.profile import Profile
from certauth.client.sources import read_token
from certauth.errors import LoginRequired, UsageError
from certauth.files import PRIVATE, write_atomic

SOURCE = "[NAME|FILE|-]"
source_argument = click.argument("source", metavar=SOURCE, required=False)
"""A stored name, a file, - for standard input; without it, what WLCG discovery finds."""


def read(source: str | None, profile: Profile | None) -> str:
    """The token's text, unverified; raises as ``read_token``."""
    return read_token(source, profile=profile, environment=os.environ, stdin=sys.stdin.buffer)


def deliver(text: str, profile: Profile | None, *, name: str | None, output: Path | None, remark: str | None = None) -> Result:
    """A new token: stored as ``name``, or in the file ``output``, or on standard output.

    ``remark`` is one more line for people, unless the token itself is what is printed.
    """
    if name is not None and output is not None:
        raise UsageError("usage", "--as and --output exclude each other", hint="give one of them")
    more = "" if remark is None else f"\n{remark}"
    if output is not None:
        write_atomic(output, text.encode() + b"\n", mode=PRIVATE)
        return Result(data={"output": str(output)}, text=f"The token is in {output}.{more}")
    if name is not None:
        if profile is None:
            raise LoginRequired("not-logged-in", "there is no profile to store the token in", hint="use --output FILE")
        path = profile.store_token(name, text)
        return Result(data={"stored": str(path), "name": name}, text=f"The token is stored as {name}, in {path}.{more}")
    return Result(data={"token": text}, text=text)
