"""``certauth token list``, ``get-token`` and ``forget``: the tokens kept here, and what other programs get of them."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta

import click

from certauth.cli import options
from certauth.cli.output import Result, command, progress, table
from certauth.cli.token.common import read, source_argument
from certauth.client import stored
from certauth.client.profile import Profile
from certauth.client.sources import bearer_file, is_name
from certauth.clock import in_words, rfc3339, system_clock
from certauth.errors import CertauthError
from certauth.files import PRIVATE, write_atomic


@command(example="certauth token list")
@options.profile_option
def list_(profile_name: str | None) -> Result:
    """List the stored tokens: name, what for, until when.

    JSON: tokens, a list of name, stored, state ("valid", "expired" or an error code), audience, usable_until.
    """
    profile = options.active(profile_name)
    found = stored.entries(profile, now=system_clock())
    data = {"tokens": [asdict(one) | {"stored": str(profile.token_path(one.name))} for one in found]}
    if not found:
        return Result(data=data, text="No tokens are stored; 'certauth token mint SERVICE' gets one.")
    rows = [(one.name, one.audience or "-", one.state, one.usable_until or "-") for one in found]
    return Result(data=data, text=table(("name", "for", "state", "until"), rows))


@command(
    example='curl --cert chain.pem --key key.pem -H "Authorization: Bearer $(certauth token get-token data)" https://…\n'
    "certauth token get-token data --write-bearer-file --min-remaining 10m"
)
@source_argument
@click.option(
    "--min-remaining",
    type=options.DURATION,
    default="30s",
    show_default=True,
    help="Refuse a token that ends sooner than this.",
)
@click.option(
    "--write-bearer-file",
    is_flag=True,
    help="Write it where WLCG tools look, $XDG_RUNTIME_DIR/bt_u<uid>, instead of printing it.",
)
@options.profile_option
def get_token(*, source: str | None, min_remaining: timedelta, write_bearer_file: bool, profile_name: str | None) -> Result:
    """Print a token that still works for a while, for another program.

    The token is a stored name, a file, - for standard input, or what WLCG discovery finds.
    Whoever presents it must also present the certificate that it is bound to.
    Exit status 4 if it ends too soon; the hint is the command that gets a new one.

    JSON: token, token_type, expires_at, holder; with --write-bearer-file, output instead of token.
    """
    profile = options.active_if_any(profile_name)
    text = read(source, profile)
    now = system_clock()
    name = source if profile is not None and source is not None and _is_stored(profile, source) else None
    found = stored.usable(text, profile=profile, name=name, min_remaining=min_remaining, now=now)
    if name is not None and profile is not None:
        _remark(profile, found.holder)
    facts = {"token_type": "Bearer", "expires_at": rfc3339(found.expires_at), "holder": found.holder}
    if not write_bearer_file:
        return Result(data={"token": found.text, **facts}, text=found.text)
    path = bearer_file(os.environ)
    write_atomic(path, found.text.encode() + b"\n", mode=PRIVATE)
    left = in_words(found.expires_at - now)
    return Result(data={"output": str(path), **facts}, text=f"The token is in {path}; it works for {left} yet.")


def _is_stored(profile: Profile, source: str) -> bool:
    return is_name(source) and profile.token_path(source).is_file()


def _remark(profile: Profile, holder: str) -> None:
    """Say on standard error if the token is in other hands than the profile's."""
    try:
        own = profile.stored_credential().fingerprint
    except CertauthError:
        return
    if holder != own:
        progress(f"this token works in the hands of certificate {holder[:16]}… only, which is not yours")


@command(example="certauth token forget run7")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.profile_option
def forget(*, names: tuple[str, ...], profile_name: str | None) -> Result:
    """Delete stored tokens.

    Copies elsewhere go on working; 'certauth token revoke' makes them worthless. Receipts stay.

    JSON: forgotten, a list of names.
    """
    stored.forget(options.active(profile_name), names)
    return Result(data={"forgotten": list(names)}, text=f"Deleted {', '.join(names)}.")
