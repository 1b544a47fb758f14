"""How every command of ``certauth`` speaks: what goes to which stream, which number it exits with, how an error reads.

Results go to standard output, everything else to standard error. With ``--json`` the result is one JSON object and every line
on standard error is one too. A command returns a ``Result`` and raises the errors of ``certauth.errors``; this module alone
prints and chooses the exit status, so ``certauth``, ``certauth signer`` and ``certauth policy`` cannot drift apart.

    @command(group, example="certauth token list")
    def list_(...) -> Result:
        '''List the stored tokens.'''
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, Any

import click

from certauth import errors
from certauth.errors import CertauthError


class Status(IntEnum):
    """What the exit status of any command means."""

    DONE = 0
    FAILED = 1  # also: a settings file, a policy or a variable of the environment is wrong
    USAGE = 2  # the command line is not usable
    REFUSED = 3  # refused by the other side, denied by a policy, or does not verify
    LOGIN = 4  # log in again; the hint is the command to run
    UNREACHABLE = 5
    INTERRUPTED = 130  # as shells report Ctrl-C


STATUS_OF: Mapping[type[CertauthError], Status] = {
    errors.UsageError: Status.USAGE,
    errors.ConfigError: Status.FAILED,
    errors.KeyMaterialError: Status.FAILED,
    errors.ProofError: Status.REFUSED,
    errors.RequestError: Status.USAGE,
    errors.ChainError: Status.REFUSED,
    errors.TokenError: Status.REFUSED,
    errors.RevokedError: Status.REFUSED,
    errors.LogError: Status.REFUSED,
    errors.StoreError: Status.FAILED,
    errors.UnavailableError: Status.UNREACHABLE,
    errors.AnswerError: Status.REFUSED,
    errors.LoginRequired: Status.LOGIN,
    errors.Refused: Status.REFUSED,
}
"""The one table from error class to exit status; a class it does not name counts as its nearest parent, at last as failed."""

ENVIRONMENT: Mapping[str, str] = {
    "CERTAUTH_HOME": "directory for credentials instead of the one the XDG rules give",
    "CERTAUTH_PROFILE": "trust domain to use instead of the one chosen by the last login",
}
"""Every ``CERTAUTH_…`` variable this program reads. Others are refused: a misspelt setting must not be silently ignored."""

_JSON = "certauth.json"
_ADVICE = "certauth: hint: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command found: ``data`` for programs (JSON-able, documented in its help), ``text`` for people."""

    data: Mapping[str, object]
    text: str
    status: Status = Status.DONE


def status_of(error: CertauthError) -> Status:
    """The exit status for an error, by its class or its nearest known parent."""
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), Status.FAILED)


def printable(text: str) -> str:
    """``text`` with every control character but newline and tab escaped: what a server says must not steer a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """Aligned ``name  value`` lines; pairs whose value is ``None`` are left out."""
    present = [(name, str(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in present), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in present)


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns under their headings."""
    lines = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def progress(text: str) -> None:
    """Tell the user what is going on, on standard error; with ``--json`` as one JSON line."""
    _say(json.dumps({"progress": text}) if wants_json() else text)


def wants_json() -> bool:
    """Whether the running command was called with ``--json``."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(_JSON))


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


def _coloured(text: str, stream: IO[Any]) -> str:
    """Bold red, if ``stream`` is a terminal and the user has not set ``NO_COLOR`` (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\x1b[1;31m{text}\x1b[0m"


def show_error(error: CertauthError, *, as_json: bool) -> Status:
    """Print ``error`` on standard error, as lines for people or as one JSON object, and return its exit status."""
    status = status_of(error)
    if as_json:
        members: dict[str, object] = {"code": error.code, "message": error.message, "status": int(status)}
        if error.hint:
            members["hint"] = error.hint
        if error.retry_after is not None:
            members["retry_after"] = error.retry_after
        click.echo(json.dumps({"error": members}), err=True)
        return status
    click.echo(f"certauth: {_coloured('error:', sys.stderr)} {printable(str(error))}", err=True)
    if error.hint:
        _say(_ADVICE + error.hint)
    if error.retry_after is not None:
        _say(f"{_ADVICE}try again in {error.retry_after} s")
    return status


def show(result: Result, *, as_json: bool) -> None:
    """Print a result on standard output."""
    click.echo(json.dumps(result.data, indent=2) if as_json else printable(result.text))


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` (``unknown-variable``) naming each ``CERTAUTH_…`` variable that no part of the program reads."""
    strangers = sorted(name for name in environment if name.startswith("CERTAUTH_") and name not in ENVIRONMENT)
    if strangers:
        raise errors.ConfigError(
            "unknown-variable",
            f"the environment sets {', '.join(strangers)}, which certauth does not know",
            hint=f"unset it; known are {', '.join(ENVIRONMENT)}",
        )


class _Speaking(click.Command):
    """A click command whose errors, usage errors included, leave in our form and with our exit status."""

    def main(  # type: ignore[override]  # click types it as overloads on standalone_mode; ours always exits
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        given = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        as_json = "--json" in given  # known even when the arguments do not parse
        try:
            outcome = super().main(given, prog_name or "certauth", standalone_mode=False, **extra)
        except CertauthError as error:
            outcome = show_error(error, as_json=as_json)
        except click.exceptions.NoArgsIsHelpError as error:
            _say(error.format_message())
            outcome = Status.USAGE
        except click.UsageError as error:
            outcome = show_error(_usage(error), as_json=as_json)
        except click.ClickException as error:
            outcome = show_error(CertauthError("failed", _sentence(error.format_message())), as_json=as_json)
        except (click.Abort, KeyboardInterrupt):
            _say("certauth: interrupted")
            outcome = Status.INTERRUPTED
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
            outcome = show_error(CertauthError("system", what), as_json=as_json)
        sys.exit(outcome if isinstance(outcome, int) else Status.DONE)


def _usage(error: click.UsageError) -> errors.UsageError:
    path = error.ctx.command_path if error.ctx else "certauth"
    return errors.UsageError("usage", _sentence(error.format_message()), hint=f"see '{path} --help'")


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


class Command(_Speaking):
    """A command; made by ``@command``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A sub-command that is imported only when used: ``package.module:attribute``, one line of help, and the extra it needs."""

    target: str
    help: str
    extra: str | None = None

    def load(self) -> click.Command:
        """Import it; raises as ``load`` does."""
        loaded = load(self.target, extra=self.extra)
        if not isinstance(loaded, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return loaded


def load(target: str, *, extra: str | None) -> Any:
    """The attribute ``package.module:name``, imported now.

    So the user's program can offer what needs the server's packages without importing them; raises ``UsageError``
    (``not-installed``) naming what to install if a module is missing.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        distribution = f"iri-certauth[{extra}]" if extra else "iri-certauth"
        raise errors.UsageError(
            "not-installed",
            f"this command needs the Python module {error.name}, which is not installed",
            hint=f"pip install '{distribution}'",
        ) from error


class Group(_Speaking, click.Group):
    """A group of commands, some of which may be mounted lazily, so that help costs no imports."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, mounts: Mapping[str, Mount] | None = None, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.mounts = dict(mounts or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.mounts, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        mount = self.mounts.get(cmd_name)
        return mount.load() if mount else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.mounts:
                rows.append((name, self.mounts[name].help))
            elif not self.commands[name].hidden:
                rows.append((name, self.commands[name].get_short_help_str(limit=90)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _remember_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001  click calls it so
    context.meta[_JSON] = value


def command(
    parent: click.Group | None = None, *, name: str | None = None, example: str, **attributes: Any
) -> Callable[[Callable[..., Result | None]], Command]:
    """Make a function a command: adds ``--json``, the example to its help, refusal of unknown variables, and the printing.

    The function returns a ``Result``, or ``None`` if it has nothing to report (a server that ran until stopped).
    Its docstring is the help text; ``example`` is one or more command lines.
    """

    def wrap(function: Callable[..., Result | None]) -> Command:
        @functools.wraps(function)
        def run(*args: Any, **parameters: Any) -> None:
            check_environment(os.environ)
            result = function(*args, **parameters)
            if result is not None:
                show(result, as_json=wants_json())
                if result.status is not Status.DONE:
                    click.get_current_context().exit(result.status)

        lines = "\n".join(f"  {line}" for line in example.splitlines())
        make = click.command(
            name or function.__name__.strip("_").replace("_", "-"),
            cls=Command,
            epilog=f"\b\nExample:\n{lines}",
            context_settings={"help_option_names": ["-h", "--help"]},
            **attributes,
        )
        option = click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_remember_json,
            help="Print JSON instead of text.",
        )
        made = make(option(run))
        if parent is not None:
            parent.add_command(made)
        return made

    return wrap


def group(name: str, *, help: str, mounts: Mapping[str, Mount] | None = None) -> Group:  # noqa: A002  click's own name for it
    """A group of commands in this program's manner."""
    return Group(name, help=help, mounts=mounts, context_settings={"help_option_names": ["-h", "--help"]})
