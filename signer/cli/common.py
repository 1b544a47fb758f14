"""What the admin's commands share: where the settings are, who is acting, and the open facility."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from certauth.clock import system_clock
from signer import authority as authorities
from signer import settings as configuration
from signer.authority import Authority
from signer.key_ring import KeyRing
from signer.ledger import Ledger
from signer.service import open_ledger
from signer.settings import Settings
from signer.store import Store

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SETTINGS = "signer.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facility:
    """An initialised facility, opened for one admin command; a running service shares the log with it."""

    settings: Settings
    authority: Authority
    keys: KeyRing
    store: Store
    ledger: Ledger


def settings_option(function: F) -> F:
    """``--settings FILE``."""
    return click.option(
        "--settings",
        "settings_file",
        type=click.Path(dir_okay=False, path_type=Path),
        default=DEFAULT_SETTINGS,
        show_default=True,
        help="The facility's settings file.",
    )(function)


def example_keys_option(function: F) -> F:
    """``--insecure-example-keys``."""
    return click.option(
        "--insecure-example-keys",
        "allow_example_keys",
        is_flag=True,
        help="Accept the published keys of keys-example/. For trying things out only.",
    )(function)


def reason_option(function: F) -> F:
    """``--reason TEXT``."""
    return click.option("--reason", required=True, help="Why; it goes into the audit log.")(function)


def load_settings(path: Path) -> Settings:
    """The settings as this process sees them."""
    return configuration.load(path, os.environ)


@contextlib.contextmanager
def facility(path: Path, *, allow_example_keys: bool) -> Iterator[Facility]:
    """Open the facility whose settings are at ``path``, and close it again."""
    settings = load_settings(path)
    authority = authorities.load(settings, environment=os.environ, allow_example_keys=allow_example_keys)
    store, ledger = open_ledger(settings, authority, clock=system_clock)
    try:
        keys = KeyRing(authority, store, must_sign=False)
        yield Facility(settings=settings, authority=authority, keys=keys, store=store, ledger=ledger)
    finally:
        ledger.close()
        store.close()


def acting() -> str:
    """Who is at the keyboard, for the record: the login user of this machine, ``sudo`` looked through."""
    uid = os.environ.get("SUDO_UID", "")
    number = int(uid) if uid.isdigit() and os.geteuid() == 0 else os.getuid()
    try:
        return f"admin {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"admin uid {number}"
