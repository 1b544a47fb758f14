"""Decision files: whole ones verify, damage is named, a crash's last line is told apart from damage."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.audit.chain import DamagedLog
from certauth.audit.decisions import MAX_LINE, DecisionFile, Head, append, begin, verify_lines
from certauth.errors import LogError
from tests.certauth.audit.making import NOW, mutations


def made(count: int, *, after: Head | None = None) -> tuple[list[bytes], list[Head]]:
    """The lines of a file of ``count`` records, and the head after each."""
    line = begin(file_id="door-1.0001", at=NOW, program="policy/0.1.0", after=after)
    lines, heads = [line.data], [line.head]
    for number in range(count):
        record = {"effect": "deny" if number % 2 else "permit", "path": f"/data/{number}", "rid": f"r{number}", "codes": ["a"]}
        line = append(heads[-1], record)
        lines.append(line.data)
        heads.append(line.head)
    return lines, heads


LINES, HEADS = made(6)
FILE = b"".join(LINES)


def damage(data: bytes, known: Head | None = None) -> tuple[str, int]:
    """The code and line with which a file is refused."""
    with pytest.raises(DamagedLog) as caught:
        verify_lines(io.BytesIO(data), known=known)
    return caught.value.code, caught.value.index


def test_a_whole_file_verifies_and_says_how_far_it_goes() -> None:
    """Header, head and size; nothing torn; and it passes through every head it ever had."""
    for count in (0, 1, 6):
        result = verify_lines(io.BytesIO(b"".join(LINES[: count + 1])))
        assert result.head == HEADS[count]
        assert result.size == sum(map(len, LINES[: count + 1]))
        assert result.torn == 0
        assert result.header["program"] == "policy/0.1.0"
        assert result.header["created"] == 1772366400123456
    for head in HEADS:
        assert verify_lines(LINES, known=head).head.count == 6


def test_lines_are_canonical_json() -> None:
    """Each line is RFC 8785 as a whole, so that any JSON tool reads it."""
    for number, line in enumerate(LINES):
        value = json.loads(line)
        assert rfc8785.dumps(value) + b"\n" == line
        assert value["seq"] == number


def test_every_altered_byte_is_refused() -> None:
    """Each bit of each byte, removals and doublings, found in the file alone; only the last newline is a torn line instead."""
    verify_lines(io.BytesIO(FILE))
    torn = 0
    for data in mutations(FILE):
        try:
            result = verify_lines(io.BytesIO(data))
        except DamagedLog:
            continue
        assert data[:-1] != FILE[:-1] or not data.endswith(b"\n")
        assert result.head == HEADS[5]
        assert result.torn > 0
        torn += 1
    assert torn > 0


def test_every_altered_byte_is_refused_by_who_knows_the_head() -> None:
    """With the head kept elsewhere not even the last newline can go."""
    verify_lines(io.BytesIO(FILE), known=HEADS[6])
    for data in mutations(FILE):
        with pytest.raises(DamagedLog):
            verify_lines(io.BytesIO(data), known=HEADS[6])


@pytest.mark.parametrize("index", range(7))
def test_damage_is_named_at_its_line(index: int) -> None:
    """One altered letter inside line n is reported as line n."""
    line = LINES[index]
    altered = line.replace(b"/data", b"/dada") if index else line.replace(b"door", b"Door")
    assert altered != line
    assert damage(b"".join([*LINES[:index], altered, *LINES[index + 1 :]])) == ("decision-altered", index)


def test_removed_added_and_moved_lines_are_found_at_the_joint() -> None:
    """The chain holds between every line and the next."""
    assert damage(b"".join([*LINES[:3], *LINES[4:]])) == ("decision-altered", 3)
    assert damage(b"".join([*LINES[:3], LINES[2], *LINES[3:]])) == ("decision-altered", 3)
    assert damage(b"".join([*LINES[:3], LINES[4], LINES[3], *LINES[5:]])) == ("decision-altered", 3)
    assert damage(b"".join(LINES[1:])) == ("decision-altered", 0)


def test_a_cut_or_recomputed_tail_is_seen_only_by_who_kept_a_head() -> None:
    """Without a head such a file verifies, which is why the head is returned; with one it does not."""
    cut = b"".join(LINES[:5])
    assert verify_lines(io.BytesIO(cut)).head == HEADS[4]
    assert damage(cut, HEADS[6]) == ("decision-truncated", 5)
    forged = b"".join([*LINES[:5], append(HEADS[4], {"effect": "permit"}).data, append(HEADS[5], {"effect": "x"}).data])
    assert damage(forged) == ("decision-altered", 6)
    fifth = append(HEADS[4], {"effect": "permit"})
    forged = b"".join([*LINES[:5], fifth.data, append(fifth.head, {"effect": "permit"}).data])
    assert verify_lines(io.BytesIO(forged)).head.count == 6
    assert damage(forged, HEADS[5]) == ("decision-rewritten", 5)
    assert damage(forged, HEADS[6]) == ("decision-rewritten", 6)


def test_a_crash_at_any_byte_leaves_whole_lines_and_a_torn_one() -> None:
    """For every length of the last line, the whole lines verify, the rest is counted, and cutting it off repairs the file."""
    whole = len(FILE) - len(LINES[-1])
    for length in range(1, len(LINES[-1])):
        result = verify_lines(io.BytesIO(FILE[: whole + length]))
        assert (result.head, result.size, result.torn) == (HEADS[5], whole, length)
        assert verify_lines(io.BytesIO(FILE[: result.size])).torn == 0


def test_a_line_without_end_inside_the_file_is_damage() -> None:
    """Only the last line can be torn; a stream that goes on after one is not what a crash leaves."""
    assert damage_of_lines([*LINES[:3], LINES[3][:-1], *LINES[4:]]) == ("decision-altered", 3)
    assert damage_of_lines([*LINES[:3], LINES[3][:-1], *LINES[3:]]) == ("decision-altered", 3)
    assert damage(FILE[:-1] + b"\x00" * MAX_LINE) == ("decision-altered", 6)


def damage_of_lines(lines: list[bytes]) -> tuple[str, int]:
    """As ``damage``, of lines that no file would yield."""
    with pytest.raises(DamagedLog) as caught:
        verify_lines(lines)
    return caught.value.code, caught.value.index


def test_a_file_needs_its_header() -> None:
    """Empty files, files torn within the header, and files that begin with something else."""
    assert damage(b"") == ("decision-header", 0)
    assert damage(LINES[0][:-1]) == ("decision-header", 0)
    assert damage(append(Head(-1, bytes(32)), {"format": "other"}).data) == ("decision-header", 0)
    assert damage(b"{}\n") == ("decision-altered", 0)


def test_a_line_whose_chain_holds_must_still_be_numbered_json() -> None:
    """A writer gone wrong is found too: other numbers, no number, or no JSON at all behind a good chain value."""
    import hashlib

    from certauth.encoding import b64url

    for body, code in [(b'{"seq":8}', "decision-gap"), (b'{"a":1}', "decision-gap"), (b"{oops}", "decision-altered")]:
        value = hashlib.sha256(b"certauth/v1 decisions\x00" + HEADS[6].chain + body).digest()
        line = b'{"_chain":"' + b64url(value).encode() + b'",' + body[1:] + b"\n"
        assert damage(FILE + line) == (code, 7)


def test_a_rotated_file_names_the_one_before() -> None:
    """The header holds the head of its predecessor, so a removed file in the middle is missed."""
    lines, _ = made(2, after=HEADS[6])
    header = verify_lines(lines).header
    previous = json.loads(LINES[6])
    assert header["after"] == {"count": 6, "chain": previous["_chain"]}


@pytest.mark.parametrize(
    "members",
    [{"seq": 1}, {"_chain": "x"}, {"Upper": 1}, {"": 1}, {"é": 1}, {"a": 1.5}, {"a": "\ud800"}, {"a": b"x"}, {"a": 2**53}],
)
def test_members_that_would_break_the_format_are_refused(members: dict[str, object]) -> None:
    """Our own names, names that would sort before the chain value, and values without canonical form."""
    with pytest.raises(LogError, match="decision-malformed"):
        append(HEADS[0], members)


def test_a_record_too_long_is_refused_before_it_is_written() -> None:
    """The limit of a line counts its newline and is exact."""
    room = MAX_LINE - len(append(HEADS[0], {"a": ""}).data)
    longest = append(HEADS[0], {"a": "x" * room})
    assert len(longest.data) == MAX_LINE
    assert verify_lines([LINES[0], longest.data]).head == longest.head
    with pytest.raises(LogError, match="decision-malformed"):
        append(HEADS[0], {"a": "x" * (room + 1)})


def test_a_header_needs_a_time_with_a_zone() -> None:
    """A naive time would mean another moment on another machine."""
    with pytest.raises(LogError, match="decision-malformed"):
        begin(file_id="f", at=datetime(2026, 3, 1), program="p")  # noqa: DTZ001 - the mistake under test
    assert begin(file_id="f", at=datetime(1970, 1, 1, tzinfo=UTC), program="p").head.count == 0


@settings(max_examples=200)
@given(st.lists(st.dictionaries(st.from_regex("[a-z]{1,6}", fullmatch=True), st.text(max_size=20), max_size=4), max_size=8))
def test_any_records_make_a_file_that_verifies(records: list[dict[str, object]]) -> None:
    """Whatever text decisions hold, line ends included, the file reads back whole."""
    line = begin(file_id="f", at=NOW, program="p")
    data, head = line.data, line.head
    for members in records:
        if "seq" in members:
            continue
        line = append(head, members)
        data, head = data + line.data, line.head
    result = verify_lines(io.BytesIO(data))
    assert isinstance(result, DecisionFile)
    assert result.head == head


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 6))
def test_reading_raises_log_errors_only(data: bytes, keep: int) -> None:
    """Arbitrary bytes after any number of good lines are a torn line or a LogError."""
    start = b"".join(LINES[:keep])
    try:
        result = verify_lines(io.BytesIO(start + data))
    except LogError:
        return
    assert result.torn == len(data)
