"""Under ``python -O`` every check still checks. In the program before this one all of them were ``assert``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutations
from tests.demo.stage import ROOT

SCRIPT = "tests.journeys.attacks"


def attack(tree: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the attacks on the code in ``tree``."""
    return subprocess.run(
        [sys.executable, *flags, "-m", SCRIPT],
        cwd=tree,
        env=mutations.environment_of(tree),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_every_attack_is_refused_without_asserts() -> None:
    """With and without docstrings removed, each attack ends with its own code."""
    for flag in ("-O", "-OO"):
        done = attack(ROOT, flag)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_itself_uses_no_assert_and_insists_on_the_flag() -> None:
    """An ``assert`` in it would be gone just like those it is there to find; without ``-O`` it says so and fails."""
    source = (ROOT / "tests" / "journeys" / "attacks.py").read_text()
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    assert attack(ROOT).returncode == 2


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything, to be weakened."""
    made = tmp_path_factory.mktemp("tree").resolve()
    mutations.copy_tree(made)
    mutations.check_import(made)
    return made


@pytest.mark.parametrize(
    ("file", "guard", "instead"),
    [
        ("certauth/requests.py", " or not csr.is_signature_valid:", ":"),
        (
            "certauth/files.py",
            "            if stat.S_IMODE(status.st_mode) & 0o077:",
            "            assert not stat.S_IMODE(status.st_mode) & 0o077\n            if False:",
        ),
    ],
    ids=["gone", "assert"],
)
def test_the_script_notices_a_check_that_is_gone_or_an_assert(tree: Path, file: str, guard: str, instead: str) -> None:
    """The control: a check removed, and a check made an ``assert``, which only ``-O`` shows, both end it with status 1."""
    before = mutations.apply(tree, mutations.Mutation(name="weakened", edits=((file, guard, instead),), tests=()))
    try:
        done = attack(tree, "-O")
    finally:
        mutations.restore(before)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "instead of" in done.stderr
