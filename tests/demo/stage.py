"""What the demo is played on: running programs, printed commands, and the check that each came out as it should."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
CERTAUTH = Path(sys.executable).with_name("certauth")
ADMIN = "admin"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end the demo, and everything it started."""
_READY_SECONDS = 60
_COMMAND_SECONDS = 120
_KEPT_PORTS = 64
_NOW = "the command that runs now"

_KEEPERS: list[socket.socket] = []
"""They are bound and do not listen. Without them somebody else may have the port by the time its server starts."""


class DemoFailure(Exception):
    """A step did not come out as it should; the demo is over and says so."""


@dataclass
class Stage:
    """The programs and people of the demo, all below one directory."""

    directory: Path
    steps: int = 0
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _introduced: set[str] = field(default_factory=set)

    # --- telling -----------------------------------------------------------------------------------------------------

    def step(self, title: str, explanation: str) -> None:
        """Announce a step and say what it is about."""
        self.steps += 1
        print(f"\n── {self.steps}. {title} {'─' * max(0, 92 - len(title))}")
        print(textwrap.fill(" ".join(explanation.split()), 100, initial_indent="   ", subsequent_indent="   "), flush=True)

    def say(self, text: str) -> None:
        """One more sentence."""
        print(textwrap.fill(" ".join(text.split()), 100, initial_indent="   ", subsequent_indent="   "), flush=True)

    # --- running -----------------------------------------------------------------------------------------------------

    def certauth(
        self,
        *arguments: str | Path,
        who: str = ADMIN,
        expect: int = 0,
        code: str | None = None,
        verdict: str = "refused",
        show: bool = True,
    ) -> str:
        """Run a command as ``who``, print it and what it says, and check its exit status and, for a refusal, its code.

        What is printed is what runs, in the demo's directory: copied into a shell after the person's first line, it runs there.
        """
        words = ["certauth", *map(str, arguments)]
        self.prompt(who, shlex.join(words))
        return self._check(self._ran(words, who), expect=expect, code=code, verdict=verdict, show=show)

    def shell(self, line: str, *, who: str = ADMIN) -> str:
        """Print a line and let the shell run it as ``who``; it must succeed."""
        self.prompt(who, line)
        return self._check(self._ran(["sh", "-c", line], who))

    def certauth_until(self, *arguments: str | Path, who: str, expect: int, code: str, seconds: float) -> None:
        """Run a command, printed once, again and again until it ends as expected; ``DemoFailure`` if it does not in time."""
        words = ["certauth", *map(str, arguments)]
        self.prompt(who, shlex.join(words))
        deadline = time.monotonic() + seconds
        while True:
            done = self._ran(words, who)
            if done.returncode == expect or time.monotonic() > deadline:
                self._check(done, expect=expect, code=code)
                return
            time.sleep(0.25)

    def prompt(self, who: str, line: str) -> None:
        """Print a command line of ``who``; the first one after what makes it, and those to come, run in any terminal."""
        mark = f"{who}#" if who == ADMIN else f"{who}$"
        if who not in self._introduced:
            self._introduced.add(who)
            print(f"\n   {mark} {self.setup(who)}")
        print(f"\n   {mark} {line}", flush=True)

    def setup(self, who: str) -> str:
        """The line that makes a terminal the one of ``who``."""
        return f"cd {self.directory} && export CERTAUTH_HOME=$PWD/{who} PATH={CERTAUTH.parent}:$PATH"

    def _environment(self, who: str) -> dict[str, str]:
        path = f"{CERTAUTH.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return os.environ | {"CERTAUTH_HOME": str(self.directory / who), "PATH": path, "NO_COLOR": "1"}

    def _ran(self, words: list[str], who: str) -> subprocess.CompletedProcess[str]:
        with self._signals_held():
            process = subprocess.Popen(
                words,
                cwd=self.directory,
                env=self._environment(who),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self.running[_NOW] = process
        try:
            out, err = process.communicate(timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DemoFailure(f"the command has not ended in {_COMMAND_SECONDS} s") from error
        del self.running[_NOW]
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    @staticmethod
    def _check(
        done: subprocess.CompletedProcess[str],
        *,
        expect: int = 0,
        code: str | None = None,
        verdict: str = "refused",
        show: bool = True,
    ) -> str:
        if show or done.returncode != expect:
            for line in f"{done.stderr}{done.stdout}".strip().splitlines():
                print(f"     {line}")
        if done.returncode != expect:
            raise DemoFailure(f"exit status {done.returncode} where {expect} was expected")
        if code is not None:
            if f"[{code}]" not in done.stderr:
                raise DemoFailure(f"the code {code} was expected")
            print(f"     → {verdict}, as it should be: {code} (exit status {expect})")
        sys.stdout.flush()
        return done.stdout

    def start(self, name: str, line: str, *, who: str = ADMIN) -> None:
        """Print a line, one command, and let the shell run it as ``who``, for good; its errors go to ``<name>.log``."""
        self.prompt(who, f"{line} &")
        with self._signals_held(), (self.directory / f"{name}.log").open("w") as log:
            self.running[name] = subprocess.Popen(
                ["sh", "-c", f"exec {line}"],
                cwd=self.directory,
                env=self._environment(who),
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @staticmethod
    @contextlib.contextmanager
    def _signals_held() -> Iterator[None]:
        """A signal that comes while a process is being made waits until it is known, so that it will be stopped, too."""
        came: list[int] = []
        before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for number in came:
                signal.raise_signal(number)

    def wait_for(self, name: str, port: int) -> None:
        """Wait until a started program listens."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self.running[name].poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise DemoFailure(f"{name} did not start; see {self.directory / f'{name}.log'}")

    def stop(self) -> None:
        """Stop everything that was started, the last first."""
        for process in reversed(self.running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def provider(self, *users: str) -> dict[str, Any]:
        """Start the OpenID provider and return what it says of itself."""
        program = f"env PYTHONPATH={shlex.quote(str(ROOT))} python -m tests.simulator.openid_provider"
        people = " ".join(f"--user {user}" for user in users)
        self.start("provider", f'{program} --directory "$PWD/provider" {people} > provider.json')
        output = self.directory / "provider.json"
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self.running["provider"].poll() is None:
            with contextlib.suppress(ValueError, FileNotFoundError):
                found: dict[str, Any] = json.loads(output.read_text())
                return found
            time.sleep(0.05)
        raise DemoFailure(f"the provider did not start; see {self.directory / 'provider.log'}")


def free_port() -> int:
    """A port of 127.0.0.1 at which a server can listen, and which the system gives to nobody else for a long while."""
    if len(_KEEPERS) == _KEPT_PORTS:
        _KEEPERS.pop(0).close()
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a server can share it
    keeper.bind(("127.0.0.1", 0))
    _KEEPERS.append(keeper)
    return int(keeper.getsockname()[1])
