"""``certauth token request``, ``attest`` and ``append``: another facility vouches for the holder of a token, by two files.

The request is a copy of the token to which nothing can be added, the answer fits that one token alone. Without the holder's
certificate neither is of use to anybody.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command
from certauth.cli.token.common import SOURCE, deliver, read, source_argument
from certauth.client.stored import verified
from certauth.clock import rfc3339, system_clock
from certauth.errors import Refused, UsageError
from certauth.files import PUBLIC, write_atomic
from certauth.keys import key_id
from certauth.tokens.attest import (
    answer_from_text,
    answer_to_text,
    append_attestation,
    request_attestation,
    request_from_text,
    request_to_text,
)
from certauth.tokens.attest import attest as sign
from certauth.tokens.codec import from_text, to_text
from certauth.tokens.inspect import describe

_MAX_FILE = 16 * 1024
_MESSAGE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)


@command(example="certauth token request data --output data.request")
@source_argument
@click.option("--output", "-o", type=options.OUTPUT, help="Write the request to this file.")
@options.profile_option
def request(*, source: str | None, output: Path | None, profile_name: str | None) -> Result:
    """Ask another facility to vouch for you: make the file to send there.

    It is a copy of the token to which nothing can be added; they see whose it is and what it allows, and cannot use it.
    They answer with 'certauth token attest'; put the answer into the same token with 'certauth token append'.

    JSON: request; with --output, output.
    """
    asked = request_attestation(from_text(read(source, options.active_if_any(profile_name))))
    return _written(request_to_text(asked), "request", output)


@command(
    example="certauth token attest data.request --group run7 --key group-key.pem --for 8h --output data.answer\n"
    "certauth token attest data.request --user spiffe://nersc.example/user/alice --bundle nersc.json "
    "--group run7 --key group-key.pem"
)
@click.argument("file", metavar="REQUEST|-", type=_MESSAGE)
@click.option("--group", "groups", metavar="GROUP", multiple=True, required=True, help="What you vouch for; may be repeated.")
@options.key_options(required=True, help="Private key that vouches for the group.")
@click.option("--for", "lifetime", type=options.DURATION, default="8h", show_default=True, help="How long you vouch for it.")
@click.option("--user", metavar="PRINCIPAL", help="Refuse unless the request is about this principal.")
@click.option("--bundle", "bundle_file", type=options.READABLE, help="Trust bundle of the facility of the one who asks.")
@click.option("--output", "-o", type=options.OUTPUT, help="Write the answer to this file.")
@options.example_keys_option
def attest(
    *,
    file: Path,
    groups: tuple[str, ...],
    key_file: Path,
    passphrase_file: Path | None,
    lifetime: timedelta,
    user: str | None,
    bundle_file: Path | None,
    output: Path | None,
    allow_example_keys: bool,
) -> Result:
    """Vouch that the holder of the token a request is about belongs to a group of yours.

    The request is verified first, under the keys of the facility that issued the token: those of --bundle, or of a login there.
    Who asks is said, or compared with --user; whether they belong to the group is yours to know.
    The answer, and the token it is put into, end after --for.

    JSON: answer, or with --output, output; user, groups, kid, expires_at.
    """
    asked = request_from_text(_message(file))
    holder = _verified_user(asked, bundle_file, allow_example_keys=allow_example_keys)
    if user not in {None, holder}:
        raise Refused("other-user", f"the request is about {holder}", hint="ask them for whom you want to vouch for theirs")
    key, end = options.read_key(key_file, passphrase_file), system_clock() + lifetime
    result = _written(answer_to_text(sign(asked, key=key, groups=groups, expires_at=end)), "answer", output)
    kid = key_id(key.public_key)
    said = f"\nKey {kid} vouches until {rfc3339(end)} that {holder} is in {', '.join(groups)}." if output is not None else ""
    facts = {"user": holder, "groups": list(groups), "kid": kid, "expires_at": rfc3339(end)}
    return Result(data={**result.data, **facts}, text=result.text + said)


def _verified_user(request: bytes, bundle_file: Path | None, *, allow_example_keys: bool) -> str:
    """Whose token the request is a copy of.

    Without verification nobody's: the answer fits every token with the same last signature, so a forged request that names an
    honest user could carry the signature of its author's own token.
    """
    text = to_text(request)
    if bundle_file is not None:
        return verified(text, options.read_bundle(bundle_file, allow_example_keys=allow_example_keys)).user
    issuer = str(describe(text, now=system_clock())["issuer"])
    for profile in options.home().profiles():
        if issuer == f"spiffe://{profile.domain}":
            return verified(text, profile.bundle()).user
    raise UsageError(
        "no-bundle", f"the request is from {issuer}: under whose keys?", hint="name its trust bundle with --bundle"
    )


@command(example="certauth token append data data.answer --as vouched")
@click.argument("source", metavar=SOURCE.strip("[]"))
@click.argument("file", metavar="ANSWER|-", type=_MESSAGE)
@options.target_options
@options.profile_option
def append(*, source: str, file: Path, name: str | None, output: Path | None, profile_name: str | None) -> Result:
    """Put another facility's answer into the token it was asked for.

    Services that trust that facility's key then see you in its group; others refuse the new token. Only the very token that
    'certauth token request' was given takes the answer: narrow it afterwards.
    The new token goes to standard output unless --as or --output is given.

    JSON: token; with --as, stored and name; with --output, output.
    """
    if source == "-" and str(file) == "-":
        raise UsageError("usage", "only one of the two can come from standard input", hint="name a file for the other")
    profile = options.active_if_any(profile_name)
    vouched = append_attestation(from_text(read(source, profile)), answer_from_text(_message(file)))
    return deliver(to_text(vouched), profile, name=name, output=output)


def _message(file: Path) -> str:
    """The text of a request or an answer, at most 16 KiB of it."""
    if str(file) == "-":
        return sys.stdin.buffer.read(_MAX_FILE).decode("ascii", "replace")
    with file.open("rb") as stream:
        return stream.read(_MAX_FILE).decode("ascii", "replace")


def _written(text: str, what: str, output: Path | None) -> Result:
    if output is None:
        return Result(data={what: text}, text=text)
    write_atomic(output, text.encode() + b"\n", mode=PUBLIC)
    return Result(data={"output": str(output)}, text=f"The {what} is in {output}.")
