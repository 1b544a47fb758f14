"""``certauth token revoke``."""

from __future__ import annotations

from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command
from certauth.cli.token.common import read, source_argument
from certauth.client import tokens
from certauth.client.profile import Profile
from certauth.client.tokens import Revocation
from certauth.clock import system_clock
from certauth.errors import UsageError
from certauth.tokens import describe

_EFFECT = "Services refuse it as soon as they have read the facility's next list of revocations."


@command(example="certauth token revoke data --reason 'laptop lost'\ncertauth token revoke run7 --only-this")
@source_argument
@click.option("--only-this", is_flag=True, help="Only what was made last: the token it was derived from goes on.")
@click.option("--jti", metavar="JTI", help="The id of a token that is not at hand, as its receipt or 'inspect' shows it.")
@click.option("--reason", default="revoked by its holder", show_default=True, help="Why; it is recorded.")
@options.ca_option
@options.profile_option
def revoke(
    *,
    source: str | None,
    only_this: bool,
    jti: str | None,
    reason: str,
    ca_file: tuple[Path, ...],
    profile_name: str | None,
) -> Result:
    """Make a token worthless everywhere, and with it all that was derived from it or handed on.

    Without --only-this, that is the token as it was minted and everything made from it, whoever holds it.
    With --only-this, it is the token named and what was made from it: made it or hold it, and you may.
    What dies is also deleted here.

    JSON: kind ("jti" or "block"), value, reason, forgotten (names of stored tokens that were deleted).
    """
    profile = options.active(profile_name)
    what = _what(source, jti, profile, only_this=only_this)
    done = tokens.revoke(profile, what, reason=reason, ca=options.read_ca(ca_file), clock=system_clock)
    lines = [
        f"Revoked the token with the id {what.value}, and everything derived from it."
        if what.kind == "jti"
        else f"Revoked this token (block {what.value}), and everything derived from it. What it was derived from goes on.",
        _EFFECT,
    ]
    if done.forgotten:
        lines.append(f"Deleted here: {', '.join(done.forgotten)}.")
    data = {"kind": what.kind, "value": what.value, "reason": reason, "forgotten": list(done.forgotten)}
    return Result(data=data, text="\n".join(lines))


def _what(source: str | None, jti: str | None, profile: Profile, *, only_this: bool) -> Revocation:
    if jti is not None:
        if source is not None or only_this:
            raise UsageError("usage", "--jti names a token by itself", hint="leave out the name, and --only-this")
        return Revocation.whole(jti)
    if source is None:
        raise UsageError("usage", "which token?", hint="name it, or its id with --jti; 'certauth token list' shows the names")
    text = read(source, profile)
    facts = describe(text, now=system_clock())
    if facts["issuer"] != f"spiffe://{profile.domain}":
        raise UsageError(
            "other-issuer",
            f"{profile.domain} did not issue this token",
            hint=f"name the profile of {facts['issuer']} with --profile",
        )
    # A token that was never narrowed is its own newest block: then all of it is meant.
    return Revocation.only_this(text) if only_this and facts["narrowings"] else Revocation.whole(str(facts["jti"]))
