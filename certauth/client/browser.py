"""The user's browser: whether one can be opened here, and opening an address in it."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from certauth.errors import Refused, UsageError

TIMEOUT_SECONDS = 180.0
_STDERR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """How an address is opened: by ``command`` with the address as last argument, by the system's browser, or by the user.

    ``port`` of 127.0.0.1 receives the answer, 0 for any free one. ``timeout`` (seconds) is how long a login may take.
    """

    command: str | None = None
    enabled: bool = True
    port: int = 0
    timeout: float = TIMEOUT_SECONDS


def is_remote(environment: Mapping[str, str]) -> bool:
    """Whether the user sits at another machine: a session of SSH."""
    return bool(environment.get("SSH_TTY") or environment.get("SSH_CONNECTION"))


def can_open(environment: Mapping[str, str]) -> bool:
    """Whether a window can be opened here, as far as anybody can tell; a text browser in the terminal is of no use."""
    if is_remote(environment):
        return False
    if sys.platform != "darwin" and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return False
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return False
    # The standard library knows browsers of the terminal (lynx, w3m) by exactly this class; $BROWSER is the user's own choice.
    return type(found) is not webbrowser.GenericBrowser or bool(environment.get("BROWSER"))


@contextlib.contextmanager
def opened(url: str, browser: Browser, *, window: bool) -> Iterator[subprocess.Popen[bytes] | None]:
    """Open ``url`` as ``browser`` says, in a window only if ``window``; yields the process of a browser command."""
    process = None
    if browser.command is not None:
        process = _run(browser.command, url)
    elif browser.enabled and window:
        webbrowser.open(url)
    yield process
    if process is not None:
        # A command that only visits the page ends with it. A browser that stays open is the user's: it is left alone, with a
        # thread to collect its exit status should it end before we do.
        reaper = threading.Thread(target=process.wait, daemon=True)
        reaper.start()
        reaper.join(timeout=2)


def check_alive(process: subprocess.Popen[bytes] | None) -> None:
    """Raise ``Refused`` (``browser-failed``) if the browser command ended with an error: nobody will finish the login."""
    if process is not None and process.poll() not in {None, 0}:
        raise Refused(
            "browser-failed",
            f"the browser command ended with status {process.returncode} and no login",
            hint="check --browser-command, or open the address yourself",
        )


def ended_once(process: subprocess.Popen[bytes] | None) -> Callable[[], bool]:
    """A function that is true once, after the browser command ended: a good moment to look for a result."""
    pending = process is not None

    def ended() -> bool:
        nonlocal pending
        if pending and process is not None and process.poll() is not None:
            pending = False
            return True
        return False

    return ended


def _run(command: str, url: str) -> subprocess.Popen[bytes]:
    """Start the browser command; its output joins our standard error, so that standard output stays ours."""
    try:
        words = shlex.split(command)
        if not words:
            raise ValueError("empty")
        return subprocess.Popen(  # noqa: S603  the user's own command
            [*words, url], stdin=subprocess.DEVNULL, stdout=_STDERR, env=_without_tokens(os.environ)
        )
    except (OSError, ValueError) as error:
        raise UsageError("bad-browser-command", "the browser command cannot be run", hint="check --browser-command") from error


def _without_tokens(environment: Mapping[str, str]) -> dict[str, str]:
    """What a browser need not know: credentials that others put into our environment."""
    return {
        name: value for name, value in environment.items() if name not in {"BEARER_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    }
