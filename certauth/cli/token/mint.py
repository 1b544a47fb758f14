"""``certauth token mint``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command, fields
from certauth.client import tokens
from certauth.clock import in_words, rfc3339, system_clock
from certauth.requests import Right

_MAX_DELEGATIONS = 4


@command(example="certauth token mint data --read /data/run7/ --for 2h\ncertauth token mint data --name everything")
@click.argument("audience", metavar="SERVICE")
@options.rights_options
@click.option("--for", "lifetime", type=options.DURATION, help="Lifetime to ask for, e.g. 2h; the signer may grant less.")
@click.option(
    "--delegations",
    type=click.IntRange(0, _MAX_DELEGATIONS),
    default=1,
    show_default=True,
    help="How many times it may be handed on, one holder to the next.",
)
@click.option("--name", help="Name to store it under; default: the name of the service.")
@options.ca_option
@options.profile_option
def mint(
    *,
    audience: str,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    rights: tuple[str, ...],
    lifetime: timedelta | None,
    delegations: int,
    name: str | None,
    ca_file: tuple[Path, ...],
    profile_name: str | None,
) -> Result:
    """Get a token for SERVICE, bound to your certificate, and store it.

    Without --read, --write or --right it carries everything you may do there; with them, that part of it.

    JSON: name, stored, jti, user, audience, rights, expires_at, delegable, delegations, clamped.
    """
    wanted = [Right.make("read", path) for path in reads] + [Right.make("write", path) for path in writes]
    wanted += [Right.make(*options.split_right(right)) for right in rights]
    minted = tokens.mint(
        options.active(profile_name),
        audience=audience,
        rights=tuple(wanted) or None,
        lifetime=lifetime,
        delegations=delegations,
        name=name or audience,
        ca=options.read_ca(ca_file),
        clock=system_clock,
    )
    token = minted.token
    data = {
        "name": minted.name,
        "stored": str(minted.path),
        "jti": token.jti,
        "user": token.user,
        "audience": list(token.audience),
        "rights": [list(right) for right in token.rights],
        "expires_at": rfc3339(token.expires_at),
        "delegable": token.delegable,
        "delegations": token.delegation_depth,
        "clamped": None if minted.clamped is None else dict(minted.clamped),
    }
    lines = [
        fields(
            [
                ("token", minted.name),
                ("for", ", ".join(token.audience)),
                ("may", ", ".join(f"{operation} {where}" for _, operation, where in token.rights) or "nothing by itself"),
                ("until", f"{rfc3339(token.expires_at)}, {in_words(token.expires_at - system_clock())} left"),
                ("delegable", _delegable(token.delegation_depth)),
                ("stored in", minted.path),
            ]
        )
    ]
    if minted.clamped is not None:
        lines.append(f"Less than you asked for: {_clamp(minted.clamped)}.")
    if token.delegation_depth < delegations:
        lines.append(f"Less than you asked for: it can be handed on {_times(token.delegation_depth)}, not {delegations} times.")
    return Result(data=data, text="\n".join(lines))


def _clamp(clamped: Mapping[str, object]) -> str:
    match clamped:
        case {"requested": int(asked), "granted": int(got)}:
            return f"{in_words(timedelta(seconds=asked))} asked, {in_words(timedelta(seconds=got))} granted"
        case _:
            return "the signer cut the lifetime"


def _delegable(depth: int) -> str:
    return "no" if depth == 0 else "yes" if depth == 1 else f"yes, {_times(depth)}, one holder to the next"


def _times(depth: int) -> str:
    return ("never", "once")[depth] if depth < 2 else f"{depth} times"
