"""Decision files: what an enforcement point decided, one JSON line each, chained.

Theory of operation. A line is ``{"_chain":"<base64url>",<members>}``. Its chain value is SHA-256 over a prefix, the chain value
of the line before (zeros before the header, line 0), and the line's own canonical JSON *without* ``_chain``. So reading the
file alone shows every altered byte and every line removed, added or moved, except a tail that was cut off or whose chain was
computed anew. That is seen by whoever kept a ``Head`` from earlier: pass it as ``known``.

A crash can leave the last line incomplete, without its newline. Nobody was answered on the strength of such a line, so a
writer cuts exactly those bytes off (``torn``) and goes on; anything else amiss is damage and must not be repaired silently.
Files are created with their header in one atomic step; a file without one is damaged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from certauth.audit.chain import DamagedLog
from certauth.encoding import b64url, canonical_json, strict_json
from certauth.errors import LogError

MAX_LINE = 65_536
"""Bytes of a line, newline included."""
_STEP = b"certauth/v1 decisions\x00"
_OPENING = b'{"_chain":"'
_DIGEST = slice(len(_OPENING), len(_OPENING) + 43)
_BODY = _DIGEST.stop + 2
_MEMBER = re.compile(r"[a-z][a-z0-9_]*")
_FORMAT = "certauth/v1 decisions"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a file goes: how many records (the header is not one) and the chain value after the last. Worth keeping."""

    count: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """The bytes to append, newline included, and the head once they are durable."""

    data: bytes
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFile:
    """A file that verified. ``size``: bytes of its whole lines; ``torn``: bytes of an incomplete line after them, else 0."""

    header: Mapping[str, object]
    head: Head
    size: int
    torn: int


def begin(*, file_id: str, at: datetime, program: str, after: Head | None = None) -> Line:
    """The header of a new file; ``after`` is the head of the file it takes over from, so that a rotation leaves no gap."""
    if at.tzinfo is None:
        raise LogError(
            "decision-malformed",
            "a time without a zone cannot be recorded",
            hint="leave out or shorten what cannot be recorded",
        )
    members: dict[str, object] = {
        "format": _FORMAT,
        "file": file_id,
        "created": (at - _EPOCH) // timedelta(microseconds=1),
        "program": program,
    }
    if after is not None:
        members["after"] = {"count": after.count, "chain": b64url(after.chain)}
    return append(Head(-1, bytes(32)), members)


def append(head: Head, members: Mapping[str, object]) -> Line:
    """The line that records ``members`` after ``head``; its number ``seq`` is added here.

    Raises ``LogError`` (``decision-malformed``) for members that are not canonical JSON, are named like ours, or are too long.
    """
    if "seq" in members or not all(map(_is_member, members)):
        raise LogError(
            "decision-malformed",
            "members have names of a-z, 0-9 and _, beginning with a letter, and not seq",
            hint="leave out or shorten what cannot be recorded",
        )
    count = head.count + 1
    try:
        body = canonical_json({**members, "seq": count})
    except (TypeError, ValueError) as error:
        raise LogError(
            "decision-malformed",
            "a decision record holds something that is not canonical JSON",
            hint="leave out or shorten what cannot be recorded",
        ) from error
    chain = _chain(head.chain, body)
    # "_" sorts before every letter, so the line as a whole is canonical JSON too.
    data = _OPENING + b64url(chain).encode() + b'",' + body[1:] + b"\n"
    if len(data) > MAX_LINE:
        raise LogError(
            "decision-malformed",
            f"a decision record has at most {MAX_LINE} bytes",
            hint="leave out or shorten what cannot be recorded",
        )
    return Line(data, Head(count, chain))


@lru_cache(maxsize=256)  # the few names that records have
def _is_member(name: str) -> bool:
    return _MEMBER.fullmatch(name) is not None


def verify_lines(lines: Iterable[bytes], *, known: Head | None = None) -> DecisionFile:
    """Establish that ``lines`` (as a binary file yields them) are an unbroken file, passing through ``known`` if given.

    1. every line but an incomplete last one has the form of a chained line (``decision-altered``);
    2. its chain value follows from its bytes and the line before (``decision-altered``: this line, or the joint before it);
    3. line n carries ``seq`` n (``decision-gap``), and line 0 is a header (``decision-header``);
    4. after ``known.count`` records the chain value is ``known.chain`` (``decision-rewritten``), and there are that many
       (``decision-truncated``).

    Raises ``DamagedLog`` whose ``index`` is the line: 0 the header, n the n-th record.
    """
    header: Mapping[str, object] = {}
    head = Head(-1, bytes(32))
    size = torn = 0
    for line in lines:
        index = head.count + 1
        # 1
        if torn or len(line) > MAX_LINE:
            raise DamagedLog("decision-altered", f"line {index} has no end where it should", index=index)
        if not line.endswith(b"\n"):
            torn = len(line)
            continue
        if not line.startswith(_OPENING):
            raise DamagedLog("decision-altered", f"line {index} is not a chained record", index=index)
        # 2
        head = Head(index, _chain(head.chain, b"{" + line[_BODY:-1]))
        if b64url(head.chain).encode() != line[_DIGEST]:
            raise DamagedLog("decision-altered", f"line {index} is not as written, or not the next one", index=index)
        size += len(line)
        # 3
        members = _numbered(line, index)
        if index == 0:
            header = members
            if header.get("format") != _FORMAT:
                raise DamagedLog("decision-header", "the file does not begin with a header of this format", index=0)
        # 4
        if known is not None and known.count == index and known.chain != head.chain:
            raise DamagedLog("decision-rewritten", f"up to line {index} this is not the file it was", index=index)
    if head.count < 0:
        raise DamagedLog("decision-header", "the file has no header", index=0)
    if known is not None and known.count > head.count:
        raise DamagedLog("decision-truncated", f"there were {known.count} records, {head.count} are left", index=head.count + 1)
    return DecisionFile(header=header, head=head, size=size, torn=torn)


def _numbered(line: bytes, index: int) -> Mapping[str, object]:
    try:
        members = strict_json(line)
    except ValueError as error:
        raise DamagedLog("decision-altered", f"line {index} is not JSON", index=index) from error
    if not isinstance(members, dict) or members.get("seq") != index:
        raise DamagedLog("decision-gap", f"line {index} does not carry the number {index}", index=index)
    return members


def _chain(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(_STEP + previous + body).digest()
