"""``certauth signer serve`` as a process of its own: to be killed, starved and robbed of its database."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tests.demo.stage import CERTAUTH, ROOT
from tests.signer.kit import Site

SECONDS = 90.0


@contextlib.contextmanager
def serving(site: Site, *, command: Sequence[str] = (str(CERTAUTH), "signer", "serve")) -> Iterator[subprocess.Popen[bytes]]:
    """The running process, which answers; terminated at the end unless it is gone already."""
    with (site.directory / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--settings", str(site.settings_file)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_ready(site, process)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(site: Site, process: subprocess.Popen[bytes]) -> None:
    """Until ``/livez`` answers."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the signer ended: {(site.directory / 'serve.log').read_text()[-3000:]}")
        with contextlib.suppress(Exception), site.client() as client:
            if client.get("/livez").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the signer did not answer in time")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, to the process and whatever it started; returns when it is gone."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


PYTHON = sys.executable
