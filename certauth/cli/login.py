"""``certauth login``: every way of proving who one is, behind one command that chooses the one that suits."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command, fields
from certauth.cli.screen import screen
from certauth.cli.session import count, facts_of, logout, status, who, whoami
from certauth.client.attempt import Method
from certauth.client.browser import Browser
from certauth.client.given import read_secret
from certauth.client.http import origin
from certauth.client.linking import METHODS, link_login
from certauth.client.login import AlreadyLoggedIn, LoggedIn, Wishes, here, log_in_once
from certauth.client.profile import Home
from certauth.client.sources import read_token
from certauth.clock import in_words, system_clock
from certauth.errors import LoginRequired, UsageError
from certauth.keys import SoftwareKey, load_private
from certauth.names import Principal, TrustDomain

__all__ = ["login", "logout", "status", "whoami"]

_ENVIRONMENT = "env"


@command(
    example="certauth login https://signer.als.example\n"
    "certauth login https://signer.als.example --mediated --for 2h\n"
    "certauth login https://signer.als.example --code enrolment.txt\n"
    "certauth login --link --issuer orcid"
)
@click.argument("url", required=False)
@click.option("--issuer", metavar="ID", help="Identity provider to use, if the signer accepts several.")
@click.option("--for", "lifetime", type=options.DURATION, help="Lifetime to ask for, e.g. 2h; the signer may grant less.")
@options.ca_option
@click.option(
    "--browser/--no-browser", "browser", default=None, help="Log in with a browser on this machine, or open none here."
)
@click.option("--browser-command", metavar="CMD", help="Open the address with this command; it becomes the last argument.")
@click.option(
    "--port", type=click.IntRange(1024, 65535), help="Port of 127.0.0.1 that receives the answer; default: any free one."
)
@click.option("--mediated", is_flag=True, help="Finish the login at the signer's page, in any browser on any machine.")
@click.option("--device", is_flag=True, help="Finish the login at the identity provider's device page, on any machine.")
@click.option("--paste", is_flag=True, help="Log in in any browser, then paste the address at which it ends.")
@click.option("--workload", is_flag=True, help="Be the CI job or the pod that this runs in; needs no user.")
@click.option(
    "--token",
    "token_source",
    metavar="FILE",
    help="Use the token in this file, - for standard input, env for where WLCG tools look.",
)
@click.option(
    "--code", "code_source", metavar="FILE", help="Use the one-time enrolment code in this file; - for standard input."
)
@click.option("--key", "key_file", type=options.READABLE, help="Use this enrolled private key of a service or agent (PEM).")
@click.option("--principal", metavar="NAME", help="Whose enrolled key that is, e.g. spiffe://als.example/service/mover.")
@click.option("--invite", "invite_source", metavar="FILE", help="Show the invitation in this file; - for standard input.")
@click.option("--timeout", type=options.DURATION, default="180s", show_default=True, help="How long to wait for the login.")
@click.option("--force", is_flag=True, help="Log in even if the stored certificate is still good.")
@click.option("--link", is_flag=True, help="Make another login yours: log in there, within 15 minutes of your own login.")
@options.profile_option
@options.example_keys_option
def login(
    *,
    url: str | None,
    issuer: str | None,
    lifetime: timedelta | None,
    ca_file: tuple[Path, ...],
    browser: bool | None,
    browser_command: str | None,
    port: int | None,
    mediated: bool,
    device: bool,
    paste: bool,
    workload: bool,
    token_source: str | None,
    code_source: str | None,
    key_file: Path | None,
    principal: str | None,
    invite_source: str | None,
    timeout: timedelta,
    force: bool,
    link: bool,
    profile_name: str | None,
    allow_example_keys: bool,
) -> Result:
    """Prove who you are to the facility's signer and receive a certificate.

    URL is the address of the facility's signer; without it, the signer of the last login.
    The way of logging in is chosen: a browser on this machine if one can be opened; over SSH or without a display, the
    signer's page with a code to type, in any browser; in CI and Kubernetes, the platform's own word.
    The address to open is always printed. Codes, invitations and tokens are read from files, never from the command line.

    Processes that log in at once share one login.

    With --link you stay who you are, and whoever has the other login is you from then on. It prints domain, signer, principal,
    issuer and linked.

    JSON: domain, signer, stored, principal, fingerprint, serial, not_before, not_after, state, assurance, already, ignored,
    clamped.
    """
    method = _method(
        {
            Method.MEDIATED: mediated,
            Method.DEVICE: device,
            Method.PASTE: paste,
            Method.WORKLOAD: workload,
            Method.TOKEN: token_source is not None,
            Method.CODE: code_source is not None,
            Method.KEY: key_file is not None,
        },
        browser=browser,
    )
    if (key_file is None) != (principal is None):
        raise UsageError("usage", "--key and --principal need each other", hint="see 'certauth login --help'")
    if [token_source, code_source, invite_source, "-" if paste else None].count("-") > 1:
        raise UsageError("usage", "standard input cannot be two things", hint="put one of them into a file")
    if link:
        _check_link(method, lifetime=lifetime, invite=invite_source, force=force)
    home = options.home(profile_name)
    address = origin(url) if url is not None else home.active().signer().url
    wishes = Wishes(
        issuer=issuer,
        lifetime=lifetime,
        ca=options.read_ca(ca_file),
        browser=Browser(command=browser_command, enabled=browser is not False, port=port or 0, timeout=timeout.total_seconds()),
        allow_example_keys=allow_example_keys,
        method=method,
        domain=None if profile_name is None else TrustDomain.parse(profile_name),
        token=_token(token_source),
        code=None if code_source is None else read_secret(code_source, "an enrolment code", sys.stdin.buffer),
        invite=None if invite_source is None else read_secret(invite_source, "an invitation", sys.stdin.buffer),
        key=_key(key_file, allow_example_keys=allow_example_keys),
        principal=None if principal is None else Principal.parse(principal),
    )
    if link:
        return _link(home, address, wishes)
    with screen() as shown:
        done = log_in_once(home, address, wishes, force=force, clock=system_clock, screen=shown, situation=here())
    if isinstance(done, LoggedIn):
        return _report(done)
    home.activate(done.profile)
    return _already(done)


def _method(named: dict[Method, bool], *, browser: bool | None) -> Method | None:
    """The one way that was named; ``None`` for none. ``UsageError`` (``usage``) for several."""
    chosen = [method for method, wanted in named.items() if wanted]
    if browser is True:
        chosen.append(Method.BROWSER)
    if len(chosen) > 1:
        raise UsageError(
            "usage",
            f"{' and '.join(f'--{method}' for method in chosen)} are different ways of logging in",
            hint="name one, or none to let the situation decide",
        )
    return chosen[0] if chosen else None


def _check_link(method: Method | None, *, lifetime: timedelta | None, invite: str | None, force: bool) -> None:
    """Raise ``UsageError`` (``usage``) for what makes no sense where no certificate is asked for."""
    named = {"--for": lifetime is not None, "--invite": invite is not None, "--force": force}
    named |= {f"--{method}": method not in METHODS} if method else {}
    if wrong := [option for option, given in named.items() if given]:
        raise UsageError(
            "usage",
            f"{' and '.join(wrong)} cannot be used with --link",
            hint="--link takes a person's ways of logging in, and leaves your certificate as it is",
        )


def _link(home: Home, address: str, wishes: Wishes) -> Result:
    profile = home.by_signer(address)
    if profile is None:
        raise LoginRequired(
            "not-logged-in",
            f"a login is linked to the one you have, and there was none to {address} yet",
            hint=f"certauth login {address}",
        )
    with screen() as shown:
        done = link_login(profile, wishes, clock=system_clock, screen=shown)
    data = {
        "domain": str(profile.domain),
        "signer": address,
        "principal": str(done.credential.principal),
        "issuer": done.issuer,
        "linked": True,
    }
    text = fields([("linked", f"your login at {done.issuer}"), ("who", done.credential.principal), ("signer", address)])
    return Result(data=data, text=f"{text}\n\nWhoever has that login is you from now on. Your certificate stays as it is.")


def _token(source: str | None) -> str | None:
    if source is None:
        return None
    found = None if source == _ENVIRONMENT else source
    return read_token(found, profile=None, environment=os.environ, stdin=sys.stdin.buffer)


def _key(file: Path | None, *, allow_example_keys: bool) -> SoftwareKey | None:
    return None if file is None else load_private(file, passphrase=None, allow_example_keys=allow_example_keys)


def _already(found: AlreadyLoggedIn) -> Result:
    now = system_clock()
    text = f"Already logged in; --force logs in again.\n\n{who(found.profile, found.credential, now)}"
    data = facts_of(found.profile, found.credential, now) | {"already": True, "ignored": [], "clamped": None}
    return Result(data=data, text=text)


def _report(done: LoggedIn) -> Result:
    now = system_clock()
    data = facts_of(done.profile, done.credential, now) | {
        "ignored": list(done.ignored),
        "clamped": None if done.clamped is None else dict(done.clamped),
        "already": False,
    }
    lines = ["Logged in.", "", who(done.profile, done.credential, now)]
    if done.clamped is not None or done.ignored or done.forgotten_tokens:
        lines.append("")
    if done.clamped is not None:
        lines.append(f"The lifetime you asked for was cut: {_clamp(done.clamped)}.")
    if done.ignored:
        lines.append(f"Names in the request were ignored: {', '.join(done.ignored)}.")
    if done.forgotten_tokens:
        lines.append(f"Deleted {count(done.forgotten_tokens)} of the previous certificate.")
    return Result(data=data, text="\n".join(lines))


def _clamp(clamp: object) -> str:
    match clamp:
        case {"requested": int(asked), "granted": int(got), **rest}:
            by = f" by {rest['by']}" if isinstance(rest.get("by"), str) else ""
            return f"{in_words(timedelta(seconds=asked))} asked, {in_words(timedelta(seconds=got))} granted{by}"
        case _:
            return "the signer granted less"
