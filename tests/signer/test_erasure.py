"""Deleting personal data while somebody reads the database: what cannot be overwritten yet is not called deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.signer.kit import Site, facility
from tests.signer.test_enrolment import act

SUBJECT = b"subject-of-grace"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh facility."""
    with facility(tmp_path) as made:
        yield made


def is_left(site: Site) -> bool:
    """Whether the person's subject is in any of the database's files."""
    database = site.settings.database_path
    return any(SUBJECT in path.read_bytes() for path in database.parent.glob(f"{database.name}*"))


def test_a_reader_of_an_older_state_keeps_the_data_and_that_is_said(site: Site) -> None:
    """The reader may be a backup: the command fails and says what to do; run again when it is done, nothing is left."""
    with site.serving() as service:
        act(site, "user", "enroll", "grace", "--subject", SUBJECT.decode(), "--display", "Amazing Grace")
        act(site, "user", "disable", "grace")
        with service.store.log() as reader:
            assert list(reader.entries())
            failed = act(site, "user", "delete-personal-data", "grace", "--yes", expect=1)["error"]
            assert failed["code"] == "erasure-incomplete"
            assert "run this again" in failed["hint"]
            assert is_left(site), "the search would find it"
        assert act(site, "user", "delete-personal-data", "grace", "--yes")["principal"].endswith("/user/grace")
        assert not is_left(site)
