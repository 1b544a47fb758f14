"""The import contracts notice what they are there for: each forbidden import, added to a copy, fails ``lint-imports``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.stage import ROOT


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, to be spoiled."""
    made = tmp_path_factory.mktemp("copy")
    for package in ("certauth", "policy", "signer"):
        shutil.copytree(ROOT / package, made / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", made)
    return made


def lint(tree: Path) -> tuple[int, str]:
    """Exit status and words of ``lint-imports`` for the packages in ``tree``."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_contracts_hold_as_things_stand(copy: Path) -> None:
    """Without a forbidden import, every contract is kept; a failure below is the import's alone."""
    status, said = lint(copy)
    assert status == 0, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("certauth/names.py", "import logging"),
        ("certauth/keys.py", "import socket"),
        ("certauth/profiles.py", "import pydantic"),
        ("certauth/trust_bundle.py", "import httpx2"),
        ("certauth/audit/tree.py", "import sqlite3"),
        ("certauth/bundles.py", "import certauth.client"),
        ("certauth/cli/token/mint.py", "import jwt"),
        ("signer/issuing.py", "import biscuit_auth"),
        ("policy/decision.py", "import biscuit_auth"),
        ("signer/api/issuing.py", "import httpx2"),
        ("policy/middleware.py", "import http.client"),
        ("signer/issuing.py", "import sqlalchemy"),
        ("policy/decision_log.py", "import sqlite3"),
        ("policy/token.py", "import signer.store"),
        ("certauth/tokens/verify.py", "import policy.rules"),
        ("policy/caller.py", "import certauth.identity"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(copy: Path, module: str, statement: str) -> None:
    """One line too many, and ``make contracts`` fails, naming the module."""
    path = copy / module
    before = path.read_text()
    path.write_text(f"{before}\n\n{statement}\n")
    try:
        status, said = lint(copy)
    finally:
        path.write_text(before)
    assert status == 1, said
    assert module.removesuffix(".py").replace("/", ".") in said
