"""What starting costs: help must load nothing of the server, the network or cryptography."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "sqlmodel",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "pydantic",
    "httpx2",
    "cryptography",
    "biscuit_auth",
    "jwt",
    "structlog",
}


def modules_after(*arguments: str) -> set[str]:
    """The top-level modules loaded after running ``certauth`` with these arguments in a fresh process."""
    code = (
        "import json, sys\n"
        "from certauth.cli import root\n"
        "try:\n"
        f"    root.main({list(arguments)!r})\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy():
    """``certauth --help`` lists every command and loads none of them."""
    loaded = modules_after("--help")
    assert not loaded & HEAVY
    assert not loaded & {"signer", "policy", "asyncio", "ssl"}


def test_the_users_commands_load_no_server():
    """A user's installation runs its commands without the server's packages being imported."""
    for words in (("login", "--help"), ("token", "mint", "--help"), ("call", "--help"), ("audit", "verify", "--help")):
        loaded = modules_after(*words)
        assert not loaded & {"sqlmodel", "sqlalchemy", "starlette", "uvicorn", "signer", "policy"}, words
