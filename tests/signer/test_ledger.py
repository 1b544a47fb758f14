"""The ledger: what is acknowledged is in the signed log, once; everything else is refused and changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.audit.chain import next_chain
from certauth.audit.checkpoint import open_note
from certauth.audit.record import ServiceStarted, decode, open_commitment
from certauth.audit.tree import leaf_hash, verify_consistency
from certauth.clock import from_timestamp
from certauth.errors import (
    CertauthError,
    KeyMaterialError,
    LogError,
    ProofError,
    Refused,
    RequestError,
    StoreError,
    UnavailableError,
)
from certauth.keys import Algorithm, SoftwareKey, generate
from signer import database
from signer.ledger import MAX_BATCH, MAX_QUEUE, Committed, Ledger, LedgerState, Outcome, Replay
from signer.log_head import MAX_CLOCK_STEP
from signer.log_reader import open_offline
from signer.rows import Change
from tests.faults.kit import (
    BOB,
    KEY,
    NOW,
    ORIGIN,
    SOURCE,
    VKEY,
    Facility,
    certificate,
    enrolment,
    person,
    prefill,
    proves,
    submission,
    token_row,
    verify,
)

PATIENCE = 60.0


@pytest.fixture
def facility(tmp_path: Path) -> Facility:
    """A signer's directory, empty."""
    return Facility(tmp_path)


@contextlib.contextmanager
def held_up(facility: Facility) -> Iterator[None]:
    """Another process holds the turn to write: submissions gather and go into one batch afterwards."""
    with database.turn(facility.path):
        yield


def codes(futures: list[Future[Committed]]) -> list[str]:
    """How each submission ended: its outcome, or the code of its error."""
    wait(futures, PATIENCE)
    ended = []
    for future in futures:
        error = future.exception(0)
        ended.append(error.code if isinstance(error, CertauthError) else str(future.result(0).outcome))
    return ended


# --- what is recorded --------------------------------------------------------------------------------------------------


def test_receipt_proves_the_entry(facility: Facility) -> None:
    """What comes back proves by itself that the signed log holds exactly this record."""
    with facility.running() as (store, ledger):
        committed = [ledger.record(certificate(number + 1)) for number in range(5)]
        assert all(map(proves, committed))
        assert [one.index for one in committed] == list(range(5))
        assert verify(store).checkpoint.size == 5
    body = decode(committed[3].receipt.entry)
    assert (body["rid"], body["log"], body["ts"]) == ("request-certificate-4", ORIGIN, int(NOW.timestamp()) * 1_000_000)


def test_altered_receipt_proves_nothing(facility: Facility) -> None:
    """Another entry under the same proof, or the same entry at another index, does not verify."""
    with facility.running() as (_, ledger):
        committed = [ledger.record(submission(name)) for name in "abc"][-1]
    for forged in (
        replace(committed.receipt, entry=committed.receipt.entry.replace(b"not-enrolled", b"replayed")),
        replace(committed.receipt, index=0),
    ):
        with pytest.raises(LogError):
            proves(replace(committed, receipt=forged))


def test_batch_is_one_transaction_with_one_checkpoint(facility: Facility) -> None:
    """Submissions that gather while the disk is busy share one commit and one signature, and each gets its own proof."""
    with facility.running() as (store, ledger):
        with held_up(facility):
            futures = [ledger.submit(certificate(number + 1)) for number in range(MAX_BATCH + 1)]
        committed = [future.result(PATIENCE) for future in futures]
        assert all(map(proves, committed))
        assert verify(store).checkpoint.size == len(futures)
        with store.log() as reader:
            assert len(list(reader.checkpoints())) <= 3
        assert ledger.status().batches <= 3


def test_old_entries_can_be_proved_from_tiles(facility: Facility) -> None:
    """Past two full tiles, any entry still has a receipt, and any two sizes a consistency proof."""
    with facility.running() as (store, ledger):
        futures = [ledger.submit(submission(f"{number:04d}")) for number in range(600)]
        committed = [future.result(PATIENCE) for future in futures]
        root = {one.receipt.note: one for one in committed}
        with store.log() as reader:
            for index in (0, 255, 256, 511, 512, 599):
                again = replace(committed[index], receipt=reader.receipt(index))
                assert proves(again)
            sizes = [int(note.split("\n")[1]) for note in root]
            for size in sizes:
                verify_consistency(
                    first=size,
                    first_root=_root(reader.checkpoint_of(size)),
                    second=600,
                    second_root=_root(reader.checkpoint()),
                    proof=reader.consistency(size, 600),
                )
            for index in (600, -1):
                with pytest.raises(LogError):
                    reader.receipt(index)
            with pytest.raises(LogError):
                reader.entry(600)
            with pytest.raises(LogError):
                reader.consistency(1, 601)
            assert [entry.index for entry in reader.entries(254, 258)] == [254, 255, 256, 257]


def _root(note: str | None) -> bytes:
    return open_note(note or "", VKEY).root


def test_growing_past_a_tile_of_tiles(facility: Facility) -> None:
    """At 65,536 entries the second level of tiles begins; proofs across it hold."""
    with facility.running() as (store, ledger):
        first = 256 * 256 - 100
        prefill(ledger, first)
        futures = [ledger.submit(submission(f"{number}")) for number in range(first, first + 400)]
        assert all(proves(future.result(PATIENCE)) for future in futures)
        with store.log() as reader:
            assert len(reader.receipt(0).proof) == 17
            for index in (255, first, 65_535, 65_536, first + 399):
                assert reader.receipt(index).index == index
            assert reader.consistency(first, 65_536)
        assert verify(store).checkpoint.size == first + 400


def test_disclosures_are_beside_the_log_and_can_be_erased(facility: Facility) -> None:
    """Personal data can be opened against the commitment; once erased, the log still verifies."""
    with facility.running() as (store, ledger):
        committed = ledger.record(certificate(1))
        with store.log() as reader:
            (disclosure,) = reader.disclosures(committed.index)
        actor = decode(committed.receipt.entry)["actor"]
        assert isinstance(actor, dict)
        assert open_commitment(str(actor["sub_c"]), disclosure).value == "subject-of-bob"
        assert b"subject-of-bob" not in committed.receipt.entry
        facility.sql("DELETE FROM log_disclosure")
        with store.log() as reader:
            assert reader.disclosures(committed.index) == ()
        verify(store)


def test_log_goes_on_after_a_restart(facility: Facility) -> None:
    """A new process continues the chain and the tree where the last one stopped."""
    with facility.running() as (_, ledger):
        first = ledger.record(submission("one"))
    with facility.running() as (store, ledger):
        assert ledger.status().size == 1
        second = ledger.record(submission("two"))
        assert (first.index, second.index) == (0, 1)
        assert verify(store).older_checkpoints == 2


# --- repetitions, replays, bad neighbours ------------------------------------------------------------------------------


def test_repeated_request_gets_the_same_answer(facility: Facility) -> None:
    """The same request under the same id is recorded once, and answered with what was stored, however often it comes."""
    with facility.running() as (store, ledger):
        first = ledger.record(certificate(1, response=b"the chain"))
        again = ledger.record(certificate(1, response=b"another chain"))
        assert (first.outcome, again.outcome) == (Outcome.NEW, Outcome.REPEATED)
        assert (again.index, again.leaf_hash, again.response) == (0, first.leaf_hash, b"the chain")
        assert proves(again)
        assert len(store.certificates()) == 1
        assert verify(store).checkpoint.size == 1
    with facility.running() as (_, ledger):
        assert ledger.record(certificate(1)).response == b"the chain"


def test_request_id_of_another_request_is_refused(facility: Facility) -> None:
    """Whoever asks for something else under a used id gets neither a new grant nor the old answer."""
    with facility.running() as (store, ledger):
        ledger.record(certificate(1))
        with pytest.raises(RequestError) as refused:
            ledger.record(certificate(2, request_id="request-certificate-1"))
        assert refused.value.code == "request-id-used"
        assert len(store.certificates()) == 1


def test_token_is_not_handed_out_twice(facility: Facility) -> None:
    """A token is not stored, so a repetition of its request is refused rather than answered with another token."""
    token = submission("token", rows=(token_row("0123456789abcdef"),), response=None)
    with facility.running() as (store, ledger):
        assert ledger.record(token).response is None
        with pytest.raises(RequestError) as refused:
            ledger.record(token)
        assert refused.value.code == "request-id-used"
        with held_up(facility):
            futures = [ledger.submit(submission("twin", response=None)) for _ in range(2)]
        assert codes(futures) == ["new", "request-id-used"]
        assert verify(store).checkpoint.size == 2


def test_proof_is_used_once(facility: Facility) -> None:
    """A second request with a used proof is refused, also after a restart; one with another proof is not."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one", proof="proof"))
        with pytest.raises(ProofError) as replayed:
            ledger.record(submission("two", proof="proof"))
        assert replayed.value.code == "replayed"
    with facility.running() as (store, ledger):
        with pytest.raises(ProofError):
            ledger.record(submission("three", proof="proof"))
        ledger.record(submission("four", proof="another"))
        assert verify(store).checkpoint.size == 2


def test_refused_submission_does_not_burn_its_proof(facility: Facility) -> None:
    """A submission that is refused consumes nothing: the genuine one with the same proof goes through."""
    with facility.running() as (_, ledger):
        with pytest.raises(Refused):
            ledger.record(submission("one", proof="proof", grantee=BOB))
        with pytest.raises(LogError):
            ledger.record(submission("two", proof="proof", event=ServiceStarted(version="", config="")))
        assert ledger.record(submission("three", proof="proof")).index == 0


def test_thousand_retries_of_one_request_are_one_entry(facility: Facility) -> None:
    """However many impatient retries of one request arrive together, there is one entry and one answer."""
    with facility.running() as (store, ledger):
        with ThreadPoolExecutor(16) as pool:
            futures = list(pool.map(lambda _: ledger.submit(certificate(1)), range(1000)))
        ended = codes(futures)
        assert (ended.count("new"), ended.count("repeated")) == (1, 999)
        assert all(proves(future.result(0)) for future in futures)
        assert verify(store).checkpoint.size == 1


def test_neighbours_of_duplicates_and_replays_are_unaffected(facility: Facility) -> None:
    """A thousand at once, every fourth a duplicate, every fifth a replay: all others are recorded, none of these twice."""
    batch = []
    for number in range(1000):
        if number % 4 == 1:
            batch.append(certificate(number))  # the number before, again
        elif number % 5 == 2:
            batch.append(certificate(10_000 + number, proof="used"))
        else:
            batch.append(certificate(number + 1))
    with facility.running() as (store, ledger):
        ledger.record(submission("first", proof="used"))
        with ThreadPoolExecutor(16) as pool:
            futures = list(pool.map(ledger.submit, batch))
        ended = codes(futures)
        replays = [number for number in range(1000) if number % 4 != 1 and number % 5 == 2]
        assert {ended[number] for number in replays} == {"replayed"}
        recorded = {item.request_id for number, item in enumerate(batch) if number not in replays}
        assert ended.count("new") == len(recorded) == verify(store).checkpoint.size - 1
        assert ended.count("new") + ended.count("repeated") + len(replays) == 1000


def test_replay_and_repetition_inside_a_batch_do_not_break_it_up(facility: Facility) -> None:
    """Two uses of one proof, and one request twice, in the same batch: recognised there, at no cost for the others."""
    with facility.running() as (store, ledger):
        with held_up(facility):
            futures = [ledger.submit(submission(f"{number}", proof=f"{number}")) for number in range(20)]
            futures.append(ledger.submit(submission("replay", proof="19")))
            futures.append(ledger.submit(submission("19", proof="19")))
        assert codes(futures) == ["new"] * 20 + ["replayed", "repeated"]
        with store.log() as reader:
            assert len(list(reader.checkpoints())) <= 2


def test_retries_of_an_old_request_share_one_proof(facility: Facility) -> None:
    """A crowd of retries of something recorded long ago is answered, together with new requests and alone."""
    with facility.running() as (store, ledger):
        ledger.record(certificate(1))
        for more in ([], [certificate(2)]):
            with held_up(facility):
                futures = [ledger.submit(one) for one in [certificate(1)] * 10 + more]
            assert codes(futures) == ["repeated"] * 10 + ["new"] * len(more)
            assert all(proves(future.result(0)) for future in futures)
        assert verify(store).checkpoint.size == 2


def test_row_that_contradicts_the_store_fails_alone(facility: Facility) -> None:
    """A serial number that exists already, in the middle of a batch, refuses that submission and no other."""
    with facility.running() as (store, ledger):
        ledger.record(certificate(1))
        poison = submission("poison", rows=certificate(1).rows, proof="of the poison")
        with held_up(facility):
            futures = [ledger.submit(certificate(number)) for number in range(2, 12)]
            futures.insert(5, ledger.submit(poison))
            futures += [ledger.submit(certificate(number)) for number in range(12, 22)]
        ended = codes(futures)
        assert [number for number, how in enumerate(ended) if how != "new"] == [5]
        assert ended[5] == "store-conflict"
        assert ledger.status().state is LedgerState.READY
        assert verify(store).checkpoint.size == 21
        # Nothing of the poison stayed: its proof and its request id are free.
        assert ledger.record(submission("poison", proof="of the poison")).outcome is Outcome.NEW


def test_unrecordable_event_fails_alone(facility: Facility) -> None:
    """A record that is not as specified is refused on its own, before it could be in anybody's way."""
    with facility.running() as (_, ledger):
        with held_up(facility):
            futures = [
                ledger.submit(submission("one")),
                ledger.submit(submission("bad", event=ServiceStarted(version="1", config="not a hash"))),
                ledger.submit(submission("two")),
            ]
        assert codes(futures) == ["new", "record-malformed", "new"]


LATER = Replay(key=b"k", until=NOW + timedelta(minutes=10))


def test_value_the_database_cannot_hold_fails_alone(facility: Facility) -> None:
    """A number beyond 64 bits neither stops the writer nor reaches a neighbour."""
    huge = submission("huge", replay=LATER, rows=(replace(token_row("aa"), audience=(b"x",)),))  # type: ignore[arg-type]  # the point
    with facility.running() as (_, ledger):
        with held_up(facility):
            futures = [ledger.submit(submission("one")), ledger.submit(huge), ledger.submit(submission("two"))]
        assert codes(futures) == ["new", "store-conflict", "new"]


def test_disabled_between_decision_and_record_is_refused(facility: Facility) -> None:
    """A grant decided before its principal was disabled is not recorded after; nor is one to somebody never enrolled."""
    with facility.running() as (_, ledger):
        ledger.record(enrolment(person()))
        assert ledger.record(certificate(1, grantee=BOB)).outcome is Outcome.NEW
        ledger.record(enrolment(person(disabled=True), change=Change.STATE))
        for grantee in (BOB, person("nobody").principal):
            with pytest.raises(Refused) as refused:
                ledger.record(certificate(2, grantee=grantee))
            assert refused.value.code == "principal-disabled"
        assert ledger.record(submission("other")).index == 3


def test_used_proofs_are_forgotten_only_after_they_expired(facility: Facility) -> None:
    """Replay keys are removed once the proof itself is refused, not a second earlier; a clock that goes back revives none."""
    with facility.running() as (store, ledger):
        until = NOW + timedelta(seconds=30, milliseconds=500)
        ledger.record(submission("one", replay=Replay(key=b"fraction", until=until)))
        facility.clock.now = NOW + timedelta(seconds=31)
        ledger.record(submission("two", proof="another"))
        with pytest.raises(ProofError):
            ledger.record(submission("three", replay=Replay(key=b"fraction", until=until)))
        assert store.has_used(b"fraction")
        facility.clock.now = NOW + timedelta(seconds=32)
        ledger.record(submission("four"))
        assert not store.has_used(b"fraction")
        for seconds in (32, 24):  # both within what the clock may fall behind the log
            facility.clock.now = NOW + timedelta(seconds=seconds)
            with pytest.raises(ProofError) as refused:
                ledger.record(submission("five", replay=Replay(key=b"fraction", until=until)))
            assert refused.value.code == "proof-expired"
        assert ledger.record(submission("six", proof="fresh")).outcome is Outcome.NEW


def test_forgetting_is_bounded(facility: Facility) -> None:
    """A thousand expired proofs do not make one grant wait: each batch removes some."""
    with facility.running() as (store, ledger):
        futures = [ledger.submit(submission(f"{number}", proof=f"proof {number}")) for number in range(1000)]
        wait(futures, PATIENCE)
        facility.clock.now = NOW + timedelta(hours=1)
        left = []
        for name in ("a", "b", "c"):
            ledger.record(submission(name))
            left.append(_count(store.path))
        assert left[0] > left[1] > left[2] > 800


def _count(path: Path) -> int:
    connection = sqlite3.connect(path)
    (rows,) = connection.execute("SELECT count(*) FROM replay").fetchone()
    connection.close()
    return int(rows)


# --- time --------------------------------------------------------------------------------------------------------------


def test_times_in_the_log_never_go_back(facility: Facility) -> None:
    """A clock that falls back a little repeats the newest time; one that falls back far stops the log until it is right."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
        facility.clock.now = NOW - timedelta(seconds=5)
        assert decode(ledger.record(submission("two")).receipt.entry)["ts"] == int(NOW.timestamp()) * 1_000_000
        facility.clock.now = NOW - MAX_CLOCK_STEP - timedelta(seconds=1)
        with pytest.raises(StoreError) as refused:
            ledger.record(submission("three"))
        assert refused.value.code == "audit-unavailable"
        cause = ledger.status().cause
        assert cause is not None
        assert cause.code == "clock-behind"
        facility.clock.now = NOW + timedelta(seconds=1)
        _until_ready(ledger)
        assert ledger.record(submission("three")).outcome is Outcome.NEW
    facility.clock.now = from_timestamp(0)
    with pytest.raises(StoreError) as at_start, facility.running():
        pass
    assert at_start.value.code == "clock-behind"


def _until_ready(ledger: Ledger) -> None:
    ready = threading.Event()
    for _ in range(200):
        if ledger.status().state is LedgerState.READY:
            return
        ready.wait(0.05)
    pytest.fail(f"the ledger did not recover: {ledger.status()}")


# --- queue, cancelling, closing ----------------------------------------------------------------------------------------


def test_queue_is_bounded(facility: Facility) -> None:
    """When too many wait, the next is told to come back; those that wait are recorded all the same."""
    with facility.running() as (store, ledger):
        futures = []
        with held_up(facility):
            with pytest.raises(UnavailableError) as busy:
                futures.extend(ledger.submit(submission(f"{number}")) for number in range(MAX_QUEUE + MAX_BATCH + 2))
            assert ledger.status().queued == MAX_QUEUE
            assert ledger.status().busy_for >= 0
        assert (busy.value.code, busy.value.retry_after) == ("busy", 1)
        assert set(codes(futures)) == {"new"}
        assert verify(store).checkpoint.size == len(futures)


def test_cancelled_submission_is_not_recorded(facility: Facility) -> None:
    """Who goes away before their turn is granted nothing; afterwards it is too late to withdraw."""
    with facility.running() as (store, ledger):
        with held_up(facility):
            first = ledger.submit(submission("first"))
            while ledger.status().queued:
                pass  # the first is on its way; what follows gathers
            second, third = ledger.submit(submission("second")), ledger.submit(submission("third"))
            assert second.cancel()
            assert not first.cancel()
        assert (first.result(PATIENCE).index, third.result(PATIENCE).index) == (0, 1)
        with pytest.raises(CancelledError):
            second.result(0)
        assert verify(store).checkpoint.size == 2


def test_closing_records_what_is_queued(facility: Facility) -> None:
    """A shutdown loses nothing that was accepted, and accepts nothing more."""
    store = facility.create()
    ledger = facility.ledger(store).start()
    with held_up(facility):
        futures = [ledger.submit(submission(f"{number}")) for number in range(600)]
        closing = threading.Thread(target=ledger.close)
        closing.start()
    closing.join(PATIENCE)
    assert set(codes(futures)) == {"new"}
    assert verify(store).checkpoint.size == 600
    with pytest.raises(StoreError) as refused:
        ledger.submit(submission("late"))
    assert refused.value.code == "audit-unavailable"
    assert ledger.status().state is LedgerState.CLOSED
    ledger.close()
    store.close()


def test_closing_while_stuck_refuses_what_is_queued(facility: Facility) -> None:
    """If the turn to write never comes, closing ends in time and says no to everybody who waits."""
    store = facility.create()
    ledger = facility.ledger(store).start()
    with held_up(facility):
        first = ledger.submit(submission("first"))
        while ledger.status().queued:
            pass  # the first is in the writer's hands
        waiting = [ledger.submit(submission(f"{number}")) for number in range(3)]
        cancelled = ledger.submit(submission("cancelled"))
        cancelled.cancel()
        ledger.close(timeout=0.05)
        assert codes(waiting) == ["audit-unavailable"] * 3
        assert not first.done()
    assert first.result(PATIENCE).index == 0
    ledger.close()
    assert verify(store).checkpoint.size == 1
    store.close()


def test_closing_with_a_full_queue_while_stuck(facility: Facility) -> None:
    """Not even the word to stop fits into a full queue; closing ends in time all the same."""
    store = facility.create()
    ledger = facility.ledger(store).start()
    futures = []
    with held_up(facility):
        with contextlib.suppress(UnavailableError):
            while True:
                futures.append(ledger.submit(submission(f"{len(futures)}")))
        ledger.close(timeout=0.05)
    ended = codes(futures)
    assert ended.count("audit-unavailable") >= MAX_QUEUE
    assert ended.count("new") == len(futures) - ended.count("audit-unavailable")
    ledger.close()
    store.close()


def test_ledger_that_was_never_started_takes_nothing(facility: Facility) -> None:
    """Before ``start`` nothing was checked, so nothing is accepted."""
    store = facility.create()
    ledger = facility.ledger(store)
    with pytest.raises(StoreError):
        ledger.submit(submission("one"))
    ledger.close()
    store.close()


# --- a log that is not the one we signed -------------------------------------------------------------------------------


TAMPERING = {
    "the newest entry": ["UPDATE log_entry SET body = replace(body, 'not-enrolled', 'replayed') WHERE seq = 299"],
    "the newest entry's leaf": ["UPDATE log_entry SET leaf = zeroblob(32) WHERE seq = 299"],
    "the newest entry's chain": ["UPDATE log_entry SET chain = zeroblob(32) WHERE seq = 299"],
    "an entry of the last tile": ["UPDATE log_entry SET body = 'x' WHERE seq = 270"],
    "the chain across a tile": ["UPDATE log_entry SET chain = zeroblob(32) WHERE seq = 255"],
    "the root of a full tile": ["UPDATE log_tile SET root = zeroblob(32)"],
    "a missing tile": ["DELETE FROM log_tile"],
    "a missing entry": ["DELETE FROM log_entry WHERE seq = 299"],
    "an unsigned entry": ["INSERT INTO log_entry SELECT 300, leaf, chain, body FROM log_entry WHERE seq = 299"],
    "the head's chain": ["UPDATE log_head SET chain = zeroblob(32)"],
    "the head's right edge": ["UPDATE log_head SET frontier = substr(frontier, 1, 8) || zeroblob(128)"],
    "the head's size": ["UPDATE log_head SET size = 299"],
    "no head": ["DELETE FROM log_head"],
    "the checkpoint": ["UPDATE log_checkpoint SET note = replace(note, '300', '301') WHERE size = 300"],
    "no checkpoint": ["DELETE FROM log_checkpoint WHERE size = 300"],
    "a checkpoint of a longer log": [
        "INSERT INTO log_checkpoint SELECT 301, root, 'newer', at FROM log_checkpoint WHERE size = 300"
    ],
    "an empty head over a log": [
        "UPDATE log_head SET size = 0, frontier = zeroblob(8), at = 0, chain = (SELECT chain FROM backup.log_head)"
    ],
}


@pytest.fixture(scope="module")
def log_of_300(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a database with 300 entries: one full tile and some more."""
    facility = Facility(tmp_path_factory.mktemp("log"))
    with facility.running() as (_, ledger):
        wait([ledger.submit(submission(f"{number}")) for number in range(300)], PATIENCE)
    return facility.path.read_bytes()


@pytest.mark.parametrize("what", TAMPERING)
def test_start_refuses_a_log_it_did_not_sign(facility: Facility, log_of_300: bytes, what: str) -> None:
    """Whatever is changed at the end of the log while the signer is down, it does not sign on top of it."""
    empty = Facility(facility.directory / "empty")
    empty.directory.mkdir()
    empty.create().close()
    facility.path.write_bytes(log_of_300)
    facility.sql(f"ATTACH '{empty.path}' AS backup", *TAMPERING[what])
    with pytest.raises(LogError), facility.running():
        pass


def test_start_refuses_a_well_made_entry_that_was_never_signed(facility: Facility, log_of_300: bytes) -> None:
    """An entry appended by SQL, with the right leaf and the right chain, is still not part of what the head says."""
    facility.path.write_bytes(log_of_300)
    body = submission_body(facility)
    connection = sqlite3.connect(facility.path)
    (chain,) = connection.execute("SELECT chain FROM log_head").fetchone()
    leaf = leaf_hash(body)
    connection.execute("INSERT INTO log_entry VALUES (300, ?, ?, ?)", (leaf, next_chain(chain, leaf), body))
    connection.commit()
    connection.close()
    with pytest.raises(LogError) as refused, facility.running():
        pass
    assert refused.value.code == "log-head"


def submission_body(facility: Facility) -> bytes:
    """The bytes of the newest entry: a real record."""
    with open_offline(facility.path) as reader:
        return reader.entry(reader.size() - 1).body


def test_untouched_log_starts(facility: Facility, log_of_300: bytes) -> None:
    """The control of the test above: the same bytes, not changed, are accepted."""
    facility.path.write_bytes(log_of_300)
    with facility.running() as (_, ledger):
        assert ledger.record(submission("more")).index == 300


def test_another_log_key_does_not_continue_the_log(facility: Facility, log_of_300: bytes) -> None:
    """Whoever lost the key, or has another facility's, cannot go on with this log."""
    facility.path.write_bytes(log_of_300)
    store = facility.open()
    with pytest.raises(LogError):
        facility.ledger(store, key=generate(Algorithm.ED25519)).start()
    store.close()


ROLLBACK = (
    "DELETE FROM log_entry WHERE seq >= 1",
    "DELETE FROM request WHERE seq >= 1",
    "DELETE FROM log_checkpoint WHERE size > 1",
    "UPDATE log_head SET size = 1, frontier = (SELECT frontier FROM old.log_head), chain = (SELECT chain FROM old.log_head)",
)


def test_rollback_under_a_running_signer_is_not_signed(facility: Facility) -> None:
    """An older state put back by SQL while the signer runs is noticed before the next signature, though it is well signed."""
    with facility.running() as (_, ledger):
        ledger.record(submission("0"))
        old = facility.directory / "old.db"
        facility.sql(f"VACUUM INTO '{old}'")
        for number in range(1, 4):
            ledger.record(submission(f"{number}"))
        facility.sql(f"ATTACH '{old}' AS old", *ROLLBACK)
        with pytest.raises(StoreError):
            ledger.record(submission("fork"))
        cause = ledger.status().cause
        assert cause is not None
        assert cause.code == "log-rolled-back"
        with pytest.raises(StoreError):
            ledger.submit(submission("fork"))


def test_other_history_of_a_stolen_key_is_not_continued(facility: Facility, tmp_path: Path) -> None:
    """A longer log, signed by our very key but not a continuation of ours, is not signed on top of."""
    other = Facility(tmp_path / "other")
    other.directory.mkdir()
    with other.running() as (_, ledger):
        for number in range(5):
            ledger.record(submission(f"other {number}".replace(" ", "-")))
    tables = ("log_entry", "log_checkpoint", "log_head", "request")
    with facility.running() as (_, ledger):
        ledger.record(submission("ours"))
        facility.sql(
            f"ATTACH '{other.path}' AS other",
            *(f"DELETE FROM {table}" for table in tables),
            *(f"INSERT INTO {table} SELECT * FROM other.{table}" for table in tables),
        )
        with pytest.raises(StoreError):
            ledger.record(submission("more"))
        cause = ledger.status().cause
        assert cause is not None
        assert cause.code == "consistency-invalid"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            "UPDATE log_entry SET body = body || ' ' WHERE seq = new.seq",
            "log-entry-altered",
        ),
        (
            "UPDATE log_entry SET leaf = zeroblob(32) WHERE seq = new.seq",
            "log-entry-altered",
        ),
        ("UPDATE log_head SET size = size + 1", "log-head"),
    ],
    ids=["a byte changes on its way", "the stored leaf differs", "the head moves"],
)
def test_nothing_is_signed_that_does_not_read_back(facility: Facility, change: str, code: str) -> None:
    """What is read back from the transaction is what was hashed, or there is no signature and no entry."""
    with facility.running() as (store, ledger):
        ledger.record(submission("before"))
        facility.sql(f"CREATE TRIGGER fault AFTER INSERT ON log_entry BEGIN {change}; END")
        with pytest.raises(StoreError):
            ledger.record(submission("during"))
        cause = ledger.status().cause
        assert cause is not None
        assert cause.code == code
        assert verify(store).checkpoint.size == 1
        facility.sql("DROP TRIGGER fault")
        _until_ready(ledger)
        assert ledger.record(submission("during")).index == 1


def test_damaged_leaf_never_gets_into_a_tile(facility: Facility) -> None:
    """A leaf that changed in the database since it was signed is noticed when its tile is made, not years later."""
    with facility.running() as (_, ledger):
        wait([ledger.submit(submission(f"{number}")) for number in range(255)], PATIENCE)
        facility.sql("UPDATE log_entry SET leaf = zeroblob(32) WHERE seq = 7")
        with pytest.raises(StoreError):
            ledger.record(submission("last"))
        cause = ledger.status().cause
        assert cause is not None
        assert cause.code in {"tile-malformed", "log-head"}


def test_damaged_tile_gives_no_receipt(facility: Facility, log_of_300: bytes) -> None:
    """A receipt that would not verify is not handed out."""
    facility.path.write_bytes(log_of_300)
    facility.sql("UPDATE log_tile SET data = zeroblob(8192)")
    store = facility.open()
    with store.log() as reader:
        with pytest.raises(LogError):
            reader.receipt(5)
        assert reader.receipt(299).index == 299  # its proof needs only the tile's root
    store.close()


class UnableKey(SoftwareKey):
    """A key whose hardware module went away."""

    def sign(self, data: bytes) -> bytes:
        raise KeyMaterialError("key-unreachable", "the module does not answer")


def test_key_that_cannot_sign_grants_nothing(facility: Facility) -> None:
    """No signature, no entry, no answer."""
    store = facility.create()
    with facility.ledger(store, key=UnableKey(KEY.private_key)) as ledger:
        with pytest.raises(StoreError) as refused:
            ledger.record(submission("one"))
        assert refused.value.code == "audit-unavailable"
    with store.log() as reader:
        assert (reader.size(), reader.checkpoint()) == (0, None)
    store.close()


def test_source_of_records_is_written(facility: Facility) -> None:
    """Every entry names the program that wrote it."""
    with facility.running() as (_, ledger):
        body = decode(ledger.record(submission("one")).receipt.entry)
    assert body["src"] == {"replica": SOURCE.replica, "ver": SOURCE.version, "cfg": SOURCE.config}
