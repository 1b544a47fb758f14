"""Whole logs: the honest one verifies, and every attack on it is named at the right entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certauth.audit import checkpoint, tree
from certauth.audit.chain import DamagedLog
from certauth.audit.verify import StoredEntry, verify_log
from certauth.errors import LogError
from tests.certauth.audit.making import ORIGIN, Log, entry, key, mutations, stored, vkey

LOG = Log.of(11)
NOTE = LOG.note()


def damage(rows: list[StoredEntry], note: str = NOTE, *, older: tuple[str, ...] = ()) -> tuple[str, int]:
    """The code and index with which a log is refused."""
    with pytest.raises(DamagedLog) as caught:
        verify_log(rows, note, vkey(), older=older)
    assert caught.value.hint is not None
    return caught.value.code, caught.value.index


@pytest.mark.parametrize("size", [0, 1, 2, 1023, 1024, 1025, 2500])
def test_an_honest_log_verifies(size: int) -> None:
    """Of any size, against its newest checkpoint and older ones; the report names what was covered."""
    log = Log.of(size)
    older = [log.note(part) for part in {0, size // 3, size}]
    report = verify_log(iter(log.rows), log.note().encode(), vkey(), older=older)
    assert report.checkpoint == log.checkpoint()
    assert report.older_checkpoints == len(older)
    assert not log.rows or report.chain == log.rows[-1].chain


def test_every_altered_byte_of_every_stored_entry_is_found_at_its_index() -> None:
    """Bodies, leaf hashes and chain values: each bit, removals and doublings."""
    log, verifier = Log.of(3), vkey()
    note = log.note()
    verify_log(log.rows, note, verifier)
    for index, row in enumerate(log.rows):
        for name in ("body", "leaf", "chain"):
            expected = ("log-chain-broken" if name == "chain" else "log-entry-altered", index)
            for data in mutations(getattr(row, name)):
                rows = [*log.rows[:index], replace(row, **{name: data}), *log.rows[index + 1 :]]
                assert damage(rows, note) == expected


def test_damage_far_into_a_long_log_is_named_exactly() -> None:
    """Beyond the first batch as well, and the first of two damages is the one named."""
    log = Log.of(2500)
    rows = list(log.rows)
    rows[2300] = replace(rows[2300], body=b"x")
    rows[1800] = replace(rows[1800], body=b"x")
    assert damage(rows, log.note()) == ("log-entry-altered", 1800)


def test_a_removed_entry_is_a_gap() -> None:
    """Renumbering the rest does not help: the chain breaks at the joint."""
    rows = [*LOG.rows[:4], *LOG.rows[5:]]
    assert damage(rows) == ("log-gap", 4)
    assert damage([*LOG.rows[:4], replace(LOG.rows[4], index=5), *LOG.rows[5:]]) == ("log-gap", 4)
    renumbered = [replace(row, index=index) for index, row in enumerate(rows)]
    assert damage(renumbered) == ("log-chain-broken", 4)


def test_an_inserted_or_moved_entry_is_found() -> None:
    """An entry twice, or two in each other's place."""
    rows = list(LOG.rows)
    assert damage([*rows[:5], rows[4], *rows[5:]]) == ("log-gap", 5)
    rows[3], rows[7] = replace(rows[7], index=3), replace(rows[3], index=7)
    assert damage(rows) == ("log-chain-broken", 3)


def test_a_log_recomputed_after_the_change_does_not_match_the_signature() -> None:
    """An attacker who can write the database but not sign cannot make the root fit."""
    bodies = list(LOG.bodies)
    bodies[6] = bodies[6].replace(b"laptop lost", b"laptop soft")
    assert bodies[6] != LOG.bodies[6]
    assert damage(stored(bodies)) == ("log-root-mismatch", 0)


def test_older_checkpoints_tell_where_the_past_was_rewritten() -> None:
    """With what receipt holders and witnesses kept, the change is between two sizes, even if the newest note is forged."""
    bodies = list(LOG.bodies)
    bodies[6] = bodies[5]
    rows = stored(bodies)
    root = tree.extend(tree.Frontier(), [row.leaf for row in rows]).frontier.root()
    forged = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 11, root), key=key())
    verify_log(rows, forged, vkey())  # the control: a thief of the log key is not caught by the newest note alone
    assert damage(rows, forged, older=(LOG.note(4), LOG.note(8))) == ("log-root-mismatch", 4)


def test_two_roots_for_one_size_are_a_fork() -> None:
    """A key that signed two trees of one size is caught, whichever of them is presented."""
    other = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 11, bytes(32)), key=key())
    assert damage(list(LOG.rows), NOTE, older=(other,)) == ("log-forked", 11)
    with pytest.raises(DamagedLog, match="log-root-mismatch"):
        verify_log(LOG.rows, other, vkey(), older=[NOTE])


def test_a_shortened_log_is_found() -> None:
    """Fewer entries than signed; and a restored backup with its own, older note against one newer note."""
    assert damage(list(LOG.rows[:9])) == ("log-truncated", 9)
    assert damage([]) == ("log-truncated", 0)
    backup = Log.of(9)
    verify_log(backup.rows, backup.note(), vkey())  # the control: a rollback is consistent in itself
    assert damage(list(backup.rows), backup.note(), older=(NOTE,)) == ("log-rolled-back", 9)


def test_entries_that_were_never_signed_are_found() -> None:
    """More rows than the checkpoint covers are not part of the log."""
    assert damage([*LOG.rows, *stored([entry(0)])]) == ("log-unsigned-entries", 11)


def test_notes_by_another_key_do_not_count() -> None:
    """Neither the newest nor an older note may be by a foreign key."""
    foreign = checkpoint.sign(LOG.checkpoint(), key=key(2))
    with pytest.raises(LogError, match="note-unsigned"):
        verify_log(LOG.rows, foreign, vkey())
    with pytest.raises(LogError, match="note-unsigned"):
        verify_log(LOG.rows, NOTE, vkey(), older=[foreign])


def test_the_chain_of_another_log_is_not_accepted() -> None:
    """The same entries under another origin's chain are refused at the first."""
    assert damage(stored(LOG.bodies, origin="other.example/audit")) == ("log-chain-broken", 0)
