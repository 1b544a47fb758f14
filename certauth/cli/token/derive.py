"""``certauth token attenuate``, ``delegate`` and ``seal``: a token from a token, offline."""

from __future__ import annotations

from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command
from certauth.cli.token.common import deliver, read, source_argument
from certauth.clock import system_clock
from certauth.tokens.attenuate import Wishes, narrowed_to
from certauth.tokens.attenuate import attenuate as narrow
from certauth.tokens.codec import from_text, to_text
from certauth.tokens.delegate import delegate as hand_over
from certauth.tokens.seal import seal as close
from certauth.tokens.vocabulary import is_fingerprint


@command(
    example="certauth token attenuate data --read /data/run7/ --for 10m --from 10.0.0.0/8 --as run7\n"
    "certauth token attenuate - --uses 5 < job.token | certauth token inspect -"
)
@source_argument
@options.narrowing_options
@click.option("--to", "target", metavar="CERT|FINGERPRINT", help="Only with this certificate, a PEM file or its SHA-256.")
@options.target_options
@options.profile_option
def attenuate(
    *, source: str | None, wishes: Wishes, target: str | None, name: str | None, output: Path | None, profile_name: str | None
) -> Result:
    """Make a narrower token from one you have; offline, and nothing can widen it again.

    The token is a stored name, a file, - for standard input, or what WLCG discovery finds.
    --to hands nothing on, it only excludes other certificates; to hand a token on, use 'certauth token delegate'.
    The new token goes to standard output unless --as or --output is given.

    JSON: token; with --as, stored and name; with --output, output.
    """
    profile = options.active_if_any(profile_name)
    text = read(source, profile)
    wishes["peer"] = None if target is None else options.read_fingerprint(target)
    narrower = narrow(text, narrowed_to(**wishes, clock=system_clock))
    return deliver(narrower, profile, name=name, output=output, remark=None if target is None else _PINNED)


_PINNED = "It is pinned to that certificate and not handed on: whoever could not use it before cannot use it now."


@command(
    example="certauth token delegate data --to job.crt --read /data/run7/ --for 1h --output job.token\n"
    "certauth token delegate job.token --key job.key --to step.crt --output step.token"
)
@source_argument
@click.option(
    "--to", "target", metavar="CERT|FINGERPRINT", required=True, help="Certificate that may use it: PEM file or SHA-256."
)
@options.narrowing_options
@click.option(
    "--delegations",
    type=click.IntRange(0, 3),
    default=0,
    show_default=True,
    help="How many times it may be handed on from there; needs the certificate itself.",
)
@options.key_options(required=False, help="Private key of the certificate it is with now; default: the stored one.")
@options.target_options
@options.profile_option
def delegate(
    *,
    source: str | None,
    target: str,
    wishes: Wishes,
    delegations: int,
    key_file: Path | None,
    passphrase_file: Path | None,
    name: str | None,
    output: Path | None,
    profile_name: str | None,
) -> Result:
    """Hand a token on to another certificate, a job's or a colleague's, narrowed as you say.

    It is signed with the key of the certificate it is with now: nobody else can hand it on, and the new token works in the
    hands of the certificate named and of nobody else. Whether they can hand it on in turn you say with --delegations, within
    what 'certauth token mint' said.
    The new token goes to standard output unless --as or --output is given.

    JSON: token; with --as, stored and name; with --output, output.
    """
    profile = options.active_if_any(profile_name)
    if key_file is not None:
        key = options.read_key(key_file, passphrase_file)
    else:
        key = options.active(profile_name).credential(now=system_clock()).key
    handed = hand_over(
        from_text(read(source, profile)),
        holder_key=key,
        to_certificate=target if is_fingerprint(target) else options.read_certificate(target),
        narrowing=narrowed_to(**wishes, clock=system_clock),
        depth=delegations,
    )
    return deliver(to_text(handed), profile, name=name, output=output)


@command(example="certauth token seal run7 --as run7-sealed\ncertauth token seal - < job.token > sealed.token")
@source_argument
@options.target_options
@options.profile_option
def seal(*, source: str | None, name: str | None, output: Path | None, profile_name: str | None) -> Result:
    """Make a token that nobody can narrow, hand on or append to any more.

    What it allows stays as it is. The token it is made from can still be narrowed, so keep that one to yourself.
    The new token goes to standard output unless --as or --output is given.

    JSON: token; with --as, stored and name; with --output, output.
    """
    profile = options.active_if_any(profile_name)
    return deliver(to_text(close(from_text(read(source, profile)))), profile, name=name, output=output)
