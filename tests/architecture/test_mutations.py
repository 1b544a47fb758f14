"""The quickest negative controls on every run; ``python -m tests.mutations`` does them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import Mutation, NotApplicable

QUICK = (
    "CSR: proof of possession",
    "proof: audience",
    "rules: no login becomes root",
    "expiry of the certificate on each request",
    "issuer of the token is its key's",
    "binding of the token to the certificate",
    "lint: rules",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the whole tree."""
    made = tmp_path_factory.mktemp("tree").resolve()
    mutations.copy_tree(made)
    mutations.check_import(made)
    return made


@pytest.mark.parametrize("name", QUICK)
def test_a_guard_that_is_gone_is_missed(tree: Path, name: str) -> None:
    """Without this guard, one of its tests fails."""
    mutation = next(each for each in mutations.MUTATIONS if each.name == name)
    assert mutations.killed_by(tree, mutation)


def test_every_mutation_still_applies(tree: Path) -> None:
    """Each text to be replaced is there, exactly once, and what comes of it is Python; nothing stays changed."""
    for mutation in mutations.MUTATIONS:
        before = mutations.apply(tree, mutation)
        for path, data in before.items():
            compile(path.read_text(), str(path), "exec")
            assert path.read_bytes() != data
        mutations.restore(before)
        for name, old, _ in mutation.edits:
            assert (tree / name).read_text().count(old) == 1
        for test in mutation.tests:
            assert (tree / test).is_file(), test


def test_every_guard_of_the_road_is_there() -> None:
    """The guards without which the road would be open are all among the mutations."""
    names = " ".join(each.name for each in mutations.MUTATIONS)
    for word in (
        *("binding", "audience", "path validation", "revocation", "commit before release", "lint", "replay", "nonce"),
        *(
            "CSR",
            "usage",
            "profile",
            "expiry of the certificate on each request",
            "record before permit",
            "issuer of the token",
            "exchange",
            "introspection",
            "invitation",
            "agent",
            "a state works once",
            "rules: namespaces",
            "one fetch for all who wait",
            "so many questions at once",
            "power",
            "approval is waited for",
            "counted by one process at a time",
            "one form of each",
        ),
    ):
        assert word in names


def test_a_mutation_that_says_nothing_is_an_error(tree: Path) -> None:
    """A text that is not there, and one that is there twice, are said and change nothing; so is one that nobody notices."""
    file = "certauth/clock.py"
    before = (tree / file).read_bytes()
    for old in ("no such text anywhere", "\n"):
        with pytest.raises(NotApplicable):
            mutations.apply(tree, Mutation(name="x", edits=((file, old, ""),), tests=()))
    assert (tree / file).read_bytes() == before
    harmless = Mutation(
        name="x",
        edits=(
            (
                file,
                '"""',
                '"""',
            ),
        ),
        tests=("tests/certauth/test_clock.py",),
    )
    with pytest.raises(NotApplicable):
        mutations.apply(tree, harmless)
    first = before.decode().splitlines()[0]
    harmless = Mutation(name="x", edits=((file, first, first + "\n"),), tests=("tests/certauth/test_clock.py",))
    assert mutations.killed_by(tree, harmless) is None
    broken = Mutation(name="x", edits=((file, first, "import no_such_module"),), tests=("tests/certauth/test_clock.py",))
    with pytest.raises(NotApplicable):
        mutations.killed_by(tree, broken)
    assert (tree / file).read_bytes() == before
