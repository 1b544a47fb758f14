"""What is recognised by its bytes is what a general reading finds, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.tokens.block_writer import _write_check
from certauth.tokens.blocks import _check
from certauth.tokens.conditions import (
    BodyDigest,
    Condition,
    Members,
    Operations,
    Paths,
    Peer,
    Projects,
    Services,
    Uses,
    Voucher,
    Window,
    from_check,
)
from certauth.tokens.datalog import KeyRef, Tables
from certauth.tokens.shapes import _literal, _message, recognise

KEY, OTHER = KeyRef(0, b"k" * 32), KeyRef(1, b"\x02" + b"o" * 32)
DATES = st.integers(2**28, 2**35 - 1)
texts = st.sampled_from(["files", "read", "service", "x", "t", "p", "peer_cert", "delegate", "/", "/data/", "/data/a"])
own = texts.filter(lambda name: name not in ("read", "service"))
frequent: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Window, st.none() | DATES, DATES),
    st.builds(lambda name: Services((name,)), texts),
    st.builds(lambda name: Operations((name,)), texts),
    st.builds(lambda name: Paths((name,)), texts),
    st.builds(Peer, own, st.sampled_from([None, KEY])),
    st.builds(Peer, own, st.just(KEY), st.integers(2, 4)),
    st.builds(BodyDigest, own),
    st.builds(lambda name: Projects((name,)), own),
)


def tables() -> Tables:
    """Tables in which everything already has its number, and other numbers are near."""
    made = Tables()
    made.add(("t", "peer_cert", "p", "files", "delegate", "x", "/", "/data/", "/data/a", "other", "holder", "y"))
    made.add(("body_sha256", "for_project"))
    made.add_keys((KEY, OTHER))
    return made


def general(data: bytes, known: Tables) -> Condition | None:
    """What the general reader makes of a check."""
    return from_check(_check(data, known))


@settings(deadline=None)
@given(frequent)
def test_frequent_checks_are_recognised(condition: Condition) -> None:
    """The checks that people have are recognised without the general reader."""
    known = tables()
    data = _write_check(condition, known)
    assert recognise(data, known.names, known.keys) == condition == general(data, known)


@settings(max_examples=600, deadline=None)
@given(frequent, st.data())
def test_recognition_is_exact(condition: Condition, data: st.DataObject) -> None:
    """Whatever damaged bytes are still recognised mean exactly that to the general reader."""
    known = tables()
    damaged = bytearray(_write_check(condition, known))
    for _ in range(data.draw(st.integers(1, 2))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.sampled_from([damaged[position] ^ 1, *range(0x80, 0x8C), 3, 5, 12, 21, *range(9)]))
    found = recognise(bytes(damaged), known.names, known.keys)
    assert found is None or found == general(bytes(damaged), known)


@pytest.mark.parametrize(
    "condition", [Peer("files", KEY), Peer("files", KEY, 2), Peer("files"), Paths(("/data/",)), Window(2**30, 2**31)]
)
def test_every_single_damage_is_noticed_or_meant(condition: Condition) -> None:
    """Every byte of a check replaced by every other: what is still recognised means exactly that to the general reader."""
    known = tables()
    whole = _write_check(condition, known)
    for position in range(len(whole)):
        for value in range(256):
            damaged = whole[:position] + bytes([value]) + whole[position + 1 :]
            found = recognise(damaged, known.names, known.keys)
            assert found is None or found == general(damaged, known)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_other_bytes_are_left_alone(data: bytes) -> None:
    """Arbitrary bytes are not recognised, and raise nothing."""
    assert recognise(data, tables().names, []) is None


@pytest.mark.parametrize(
    "condition",
    [
        Window(None, 5),  # a date of one byte
        Window(2**36, 2**36 + 1),
        Services(("a", "b")),
        Operations(("a", "b")),
        Paths(("/a", "/b")),
        Peer("ab", OTHER),  # not the first key
        Peer("ab", OTHER, 2),
        Peer("ab", KEY, 5),
        BodyDigest("read"),
        Uses("0123456789abcdef", 3),
        Members((Voucher("run7", KEY),)),
    ],
    ids=range(11),
)
def test_rare_forms_are_left_to_the_general_reader(condition: Condition) -> None:
    """Several alternatives, early dates and later keys are read the general way, with the same result."""
    known = tables()
    data = _write_check(condition, known)
    assert recognise(data, known.names, known.keys) is None
    assert general(data, known) == condition


def test_unknown_symbols_and_keys_are_left_to_the_general_reader() -> None:
    """A number without a symbol or key behind it is not guessed at."""
    known = tables()
    for condition in (
        *(Window(None, 2**30), Services(("files",)), Paths(("/data/",)), BodyDigest("/data/")),
        *(Peer("/data/"), Peer("/data/", KEY), Peer("/data/", KEY, 2)),
    ):
        data = _write_check(condition, known)
        assert recognise(data, {}, known.keys) is None
    for depth in (1, 2):
        assert recognise(_write_check(Peer("/data/", KEY, depth), known), known.names, []) is None


def test_forms_are_short() -> None:
    """A form that needed lengths of two bytes would be composed wrongly, and is refused when composed."""
    with pytest.raises(ValueError, match="one byte"):
        _message(0x0A, _literal(b"x" * 128))
