"""``make demo``: it plays to its end, and whatever goes wrong on the way ends it with a status that a shell understands."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.demo.stage import ROOT, DemoFailure, Stage

STEPS = 13
SECONDS = 20


def play(
    temporary: Path,
    *options: str,
    at: str = "",
    then: Callable[[Path, int, str], object] | None = None,
    command: tuple[str, ...] = ("-m", "tests.demo"),
    **environment: str,
) -> tuple[int, str]:
    """Play the demo below ``temporary``; at a line with ``at``, do ``then`` with its directory, process and what it said."""
    process = subprocess.Popen(
        [sys.executable, *command, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stream = process.stdout
    if stream is None:
        raise AssertionError("no pipe")
    said = []
    with process, stream:
        try:
            for line in stream:
                said.append(line)
                if then is not None and at in line:
                    then(next(temporary.glob("certauth-demo-*")), process.pid, "".join(said))
                    then = None
        except BaseException:
            process.terminate()
            raise
    return process.returncode, "".join(said)


def left_behind(temporary: Path) -> list[str]:
    """What a demo that has ended left, when what it told to end has had its time."""
    deadline = time.monotonic() + SECONDS
    while (found := things_of(temporary)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def things_of(temporary: Path) -> list[str]:
    """What a demo has there: its directory, and processes that still have its ``TMPDIR`` in their environment."""
    found = [str(path) for path in temporary.glob("certauth-demo-*")]
    mark = f"TMPDIR={temporary}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def came_out_as_it_should(said: str) -> None:
    """Every step, each refusal by its code."""
    assert f"All {STEPS} steps came out as they should" in said
    for code in ("not-enrolled", "token-path", "token-operation", "token-binding", "token-wrong-holder"):
        assert f"→ refused, as it should be: {code}" in said
    for code in ("token-expired", "token-required", "token-revoked"):
        assert f"→ refused, as it should be: {code}" in said
    assert "→ detected, as it should be: log-entry-altered" in said
    assert re.search(r'^     "jti": "([0-9a-f]{32})"', said, re.MULTILINE)[1] in said.partition("user revoke alice --token ")[2]


ONE_SCENE = """
import sys
from tests.demo import __main__ as demo

demo.Demo.play = demo.Demo.facility
sys.exit(demo.main())
"""


def test_a_demo_that_has_come_to_its_end_ends_well(tmp_path: Path) -> None:
    """After the last step, here also the first: exit status 0, and nothing is left behind."""
    status, said = play(tmp_path, command=("-c", ONE_SCENE))
    assert status == 0, said
    assert "All 1 steps came out as they should" in said
    assert left_behind(tmp_path) == []


def test_it_plays_to_its_end_what_is_printed_runs_and_sigterm_ends_it_all(tmp_path: Path) -> None:
    """Kept running, it prints commands that work in any terminal; SIGTERM stops every program and removes the directory."""
    results: list[subprocess.CompletedProcess[str]] = []

    def try_it(directory: Path, pid: int, said: str) -> None:
        assert len(things_of(tmp_path)) > 3, "the directory and the programs are found while they are there"
        tried = said.partition("Try, in another terminal:")[2].partition("Ctrl-C")[0]
        printed = re.findall(r"^   alice\$ (?:cd|certauth (?:token inspect|cert)) .*$", said, re.MULTILINE)
        for script in (tried, "\n".join(line.partition("$ ")[2] for line in printed)):
            bare = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
            done = subprocess.run(
                ["sh", "-e", "-c", script], cwd="/", env=bare, capture_output=True, text=True, timeout=120, check=False
            )
            results.append(done)
        os.kill(pid, signal.SIGTERM)

    status, said = play(tmp_path, "--keep", at="Ctrl-C stops it", then=try_it)
    assert status == 128 + signal.SIGTERM, said
    came_out_as_it_should(said)
    assert [done.returncode for done in results] == [0, 0], results
    assert '["frame1"' in results[0].stdout or "run7" in results[0].stdout
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("at", ["── 1.", "alice$ certauth login"])
def test_a_signal_in_the_middle_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, at: str) -> None:
    """A closed terminal or Ctrl-C while programs are starting or a command runs: nothing stays."""
    status, said = play(tmp_path, at=at, then=lambda _directory, pid, _said: os.kill(pid, number))
    assert status == 128 + number, said
    assert "stopped" in said
    assert left_behind(tmp_path) == []


def test_a_demo_that_cannot_even_begin_fails(tmp_path: Path) -> None:
    """An unknown setting in the environment is refused by the product, so the first step fails, and so does the demo."""
    status, said = play(tmp_path, SIGNER_NO_SUCH_SETTING="1")
    assert status == 1
    assert "The demo failed at step 1" in said
    assert "SIGNER_NO_SUCH_SETTING" in said


def test_a_demo_whose_ground_gives_way_fails(tmp_path: Path) -> None:
    """The facility's database disappears between two steps: the next one fails, and so does the demo."""
    status, said = play(
        tmp_path,
        at="── 3.",
        then=lambda directory, _pid, _said: (directory / "facility" / "signer.db").rename(directory / "gone.db"),
    )
    assert status == 1
    assert "The demo failed at step 3" in said
    assert "signer.log" in said, "the end of the programs' logs is shown"


def test_a_refusal_that_does_not_happen_fails_the_demo(tmp_path: Path) -> None:
    """A step that expects a refusal takes neither a success nor a refusal with another code for it."""
    stage = Stage(tmp_path)
    stage.certauth("--version")
    with pytest.raises(DemoFailure, match="exit status 0 where 3 was expected"):
        stage.certauth("--version", expect=3, code="token-binding")
    with pytest.raises(DemoFailure, match="the code token-binding was expected"):
        stage.certauth("no-such-command", expect=2, code="token-binding")
