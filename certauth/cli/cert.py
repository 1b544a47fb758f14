"""``certauth cert``: reading certificates."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from certauth.certificates import describe, describe_text, load_chain, load_der
from certauth.cli import options
from certauth.cli.output import Result, Status, command
from certauth.cli.output import group as make_group
from certauth.clock import system_clock

_MAX_FILE = 256 * 1024

group = make_group("cert", help="Read certificates.")


@command(group, example="certauth cert inspect\ncertauth cert inspect job.crt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path), required=False)
@options.profile_option
def inspect(file: Path | None, profile_name: str | None) -> Result:
    """Say in words whose certificate this is, until when, and how its holder proved who they are.

    FILE is PEM or DER, - standard input; without it, your own certificate.
    Nothing is verified: a certificate says these things, whether they are true is for its verifier to find out.
    Exit status 3 if it is not valid now.

    JSON: principal, kind, profile, names, issuer, serial, fingerprint, not_before, not_after, state, seconds_left, assurance,
    identity_provider.
    """
    now = system_clock()
    if file is None:
        leaf = options.active(profile_name).stored_credential().leaf
    else:
        data = sys.stdin.buffer.read(_MAX_FILE) if str(file) == "-" else file.read_bytes()[:_MAX_FILE]
        leaf = load_chain(data)[0] if b"-----BEGIN" in data else load_der(data)
    facts = describe(leaf, now=now)
    status = Status.DONE if facts["state"] == "valid" else Status.REFUSED
    return Result(data=facts, text=describe_text(leaf, now=now), status=status)
