"""A user who is logged in at a simulated facility; each test has a copy of the credentials to itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from certauth.cli import root
from tests.simulator.hostile_signer import HostileSigner, hostile_signer

BROWSER = f"{sys.executable} -m tests.simulator.hostile_signer"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def data(self) -> dict[str, object]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, object]:
        value = json.loads(self.err.splitlines()[-1])["error"]
        assert isinstance(value, dict)
        return value


Run = Callable[..., Ran]


def run_in(home: Path) -> Run:
    """A function that runs ``certauth`` with its credentials in ``home``."""

    def run(*arguments: object, stdin: bytes = b"", **environment: str) -> Ran:
        given = {"CERTAUTH_HOME": str(home), "XDG_RUNTIME_DIR": str(home), "BEARER_TOKEN": "", "NO_COLOR": "1"} | environment
        result = CliRunner(env=given).invoke(root, [str(one) for one in arguments], input=stdin, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout_bytes, result.stderr)

    return run


@pytest.fixture(scope="module")
def logged_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostileSigner, Path]]:
    """A running signer and the home of a user who logged in there and minted a token; not to be changed."""
    directory = tmp_path_factory.mktemp("signer")
    home = tmp_path_factory.mktemp("home") / "credentials"
    with hostile_signer(directory) as signer:
        run = run_in(home)
        done = run("login", signer.url, "--ca-file", signer.ca_file, "--browser-command", BROWSER)
        assert done.status == 0, done.err
        minted = run("token", "mint", "data", "--read", "/data/", "--for", "1h")
        assert minted.status == 0, minted.err
        yield signer, home


@pytest.fixture
def signer(logged_in: tuple[HostileSigner, Path]) -> Iterator[HostileSigner]:
    """The signer, honest again after each test."""
    yield logged_in[0]
    logged_in[0].lies.clear()


@pytest.fixture
def home(logged_in: tuple[HostileSigner, Path], tmp_path: Path) -> Path:
    """A copy of the credentials."""
    return Path(shutil.copytree(logged_in[1], tmp_path / "home"))


@pytest.fixture
def run(home: Path) -> Run:
    """Run ``certauth`` as the user who is logged in."""
    return run_in(home)


@pytest.fixture
def stranger(tmp_path: Path) -> Run:
    """Run ``certauth`` as somebody who never logged in."""
    return run_in(tmp_path / "nobody")
