"""``certauth renew``."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command, progress
from certauth.client.agents import AgentRecord
from certauth.client.keeping import Keeper, describe_renewal, due
from certauth.client.profile import Home, Profile
from certauth.client.renewal import renew as renew_now
from certauth.client.renewal import renewal_lock
from certauth.clock import rfc3339, system_clock
from certauth.errors import LoginRequired, UsageError

_HOOK_SECONDS = 60


def _fraction(text: str) -> Fraction:
    try:
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fraction = Fraction(0)
    if not 0 < fraction < 1:
        raise UsageError("usage", f"{text[:40]!r} is not a fraction", hint="write 1/3 or 0.25")
    return fraction


@command(example="certauth renew\ncertauth renew --daemon\ncertauth renew --once --before 1/2 --exec 'systemctl reload mover'")
@click.option("--daemon", is_flag=True, help="Go on until stopped (SIGTERM); in the foreground, one line for each act.")
@click.option("--once", is_flag=True, help="Only what is due, then stop: for cron.")
@click.option("--before", default="1/3", show_default=True, help="Due is what has less than this part of its life left.")
@click.option("--for", "lifetime", type=options.DURATION, help="Lifetime of the certificate to ask for, e.g. 8h.")
@click.option("--exec", "hook", metavar="COMMAND", help="Run this after each act; no shell.")
@options.ca_option
@options.profile_option
def renew(
    *,
    daemon: bool,
    once: bool,
    before: str,
    lifetime: timedelta | None,
    hook: str | None,
    ca_file: tuple[Path, ...],
    profile_name: str | None,
) -> Result | None:
    """Replace your certificate, and the tokens minted for it, by new ones.

    Without an option it is done now; with --once, if due; with --daemon, whenever it is due.
    Tokens are minted again with the same wishes. What was derived from them, or handed over to this certificate, ends
    with it.

    The certificate of a person can be renewed until the session ends that their login began; then exit status 4, and
    the hint is the command to run. An agent goes on until its own end (see 'certauth agent').

    JSON: principal, renewed, not_after, tokens, lost (a list of name and code).
    """
    if daemon and once:
        raise UsageError("usage", "--daemon goes on, --once does not", hint="name one of them")
    fraction, words = _fraction(before), _words(hook)
    home = options.home(profile_name)
    agent = AgentRecord.read(home.directory)
    profile = home.active() if agent is None else agent.profile(home)
    ca = options.read_ca(ca_file)
    with renewal_lock(profile):
        if daemon:
            keeper = Keeper(
                home,
                profile,
                agent,
                before=fraction,
                lifetime=lifetime,
                ca=ca,
                clock=system_clock,
                chance=random.SystemRandom().random,
            )
            with _until_told() as stop:
                keeper.run(stopped=stop.wait, tell=progress, acted=lambda: _run(words, home))
            return None
        if once and (kept := _not_due(profile, agent, fraction)) is not None:
            return kept
        done = renew_now(home, profile, agent, lifetime=lifetime, ca=ca, clock=system_clock)
    _run(words, home)
    data = _facts(profile, renewed=True) | {
        "tokens": list(done.tokens),
        "lost": [{"name": one.name, "code": one.code} for one in done.lost],
    }
    return Result(data=data, text=describe_renewal(done)[:1].upper() + describe_renewal(done)[1:] + ".")


def _not_due(profile: Profile, agent: AgentRecord | None, before: Fraction) -> Result | None:
    try:
        found = due(profile, before=before, last=False, now=system_clock())
    except LoginRequired:
        if agent is None:
            raise
        return None
    if found.certificate or found.tokens:
        return None
    text = f"Nothing is due before {rfc3339(found.next_at)}."
    return Result(data=_facts(profile, renewed=False) | {"tokens": [], "lost": []}, text=text)


def _facts(profile: Profile, *, renewed: bool) -> dict[str, object]:
    credential = profile.stored_credential()
    end = rfc3339(credential.leaf.not_valid_after_utc)
    return {"principal": str(credential.principal), "renewed": renewed, "not_after": end}


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; what they did before is restored."""
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(one, lambda *_: stop.set()) for one in signals]
    try:
        yield stop
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def _words(hook: str | None) -> list[str]:
    try:
        words = [] if hook is None else shlex.split(hook)
    except ValueError as error:
        raise UsageError("usage", "the command of --exec cannot be read", hint="compare its quotes") from error
    if hook is not None and not words:
        raise UsageError("usage", "--exec names no command", hint="e.g. --exec 'systemctl reload mover'")
    return words


def _run(words: list[str], home: Home) -> None:
    """The user's own command; that it fails is said, and ends nothing."""
    if not words:
        return
    environment = {**os.environ, "CERTAUTH_HOME": str(home.directory)}
    try:
        done = subprocess.run(  # noqa: S603  the user's own words, and no shell
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            timeout=_HOOK_SECONDS,
            check=False,
        )
        if done.returncode:
            progress(f"{words[0]} ended with status {done.returncode}")
    except (OSError, subprocess.TimeoutExpired):
        progress(f"{words[0]} could not be run, or took more than {_HOOK_SECONDS} s")
