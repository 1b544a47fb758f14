"""A file of people to enrol, read completely and strictly before anybody is.

Spreadsheets change what they are given: long numbers become 2.48E+11, texts that begin with = are computed, letters arrive in
another encoding. What looks like any of that is an error with its line number, and never somebody else's login.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certauth.clock import parse_duration
from certauth.enrolment import Terms
from certauth.errors import CertauthError, UsageError
from signer.cli.terms import names, rights

REQUIRED: Final = ("name", "subject")
COLUMNS: Final = (*REQUIRED, "issuer", "display", "group", "role", "project", "right", "assurance", "max_lifetime")
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_PEOPLE: Final = 10_000
_SHOWN: Final = 20
_MANGLED: Final = re.compile(r"\d([.,]\d+)?E\+?\d+")
_FORMULA: Final = ("=", "+", "@", "\t")
_LONGEST_DISPLAY: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One person of the file."""

    number: int
    name: str
    issuer: str | None
    subject: str
    display: str
    terms: Terms


class Faults:
    """What is wrong with a file, line by line; said together, so that one run finds everything."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def add(self, number: int, what: str) -> None:
        """Note what is wrong with line ``number``."""
        self._found.append((number, what))

    def check(self, path: Path) -> None:
        """Raise ``UsageError`` (``import-invalid``) if anything is wrong."""
        if not self._found:
            return
        found = sorted(self._found)
        lines = [f"line {number}: {what}" for number, what in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"and {len(found) - _SHOWN} more")
        raise UsageError(
            "import-invalid",
            f"{path} cannot be imported, and nobody was enrolled:\n" + "\n".join(lines),
            hint="mend the lines and run it again; --dry-run only checks",
        )


def read(path: Path, faults: Faults) -> list[Line]:
    """The people in ``path``; what is wrong with single lines goes to ``faults``.

    Raises ``UsageError`` (``import-invalid``, ``import-too-large``) for a file that is no such file at all.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(
            "import-too-large", f"{path} has more than {MAX_BYTES // 1024 // 1024} MiB", hint="split it; each part on its own"
        )
    rows = _rows(path, data)
    _, header = next(rows, (1, []))
    columns = _columns(path, header)
    found: list[Line] = []
    for number, cells in rows:
        if not any(cells):
            continue
        if len(found) == MAX_PEOPLE:
            raise UsageError("import-too-large", f"{path} has more than {MAX_PEOPLE} people", hint="split it")
        try:
            found.append(_line(number, columns, cells))
        except CertauthError as error:
            faults.add(number, f"{error.message}; {error.hint}" if error.hint else error.message)
    _distinct(found, faults)
    return found


def _rows(path: Path, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """The rows with the number of the line on which each begins."""
    try:
        text = data.decode("utf-8-sig")  # spreadsheets put a byte order mark in front
    except UnicodeDecodeError as error:
        raise UsageError(
            "import-invalid", f"{path} is not UTF-8: byte {error.start}", hint="save it as 'CSV UTF-8' (comma separated)"
        ) from error
    if "\x00" in text:
        raise UsageError("import-invalid", f"{path} holds NUL characters", hint="save it as 'CSV UTF-8' (comma separated)")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for cells in reader:
            yield number, [cell.strip(" ") for cell in cells]
            number = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(
            "import-invalid", f"{path}, line {number}: {error}", hint="cells with commas or quotes stand in double quotes"
        ) from error


def _columns(path: Path, header: list[str]) -> list[str]:
    strangers = [column for column in header if column not in COLUMNS]
    missing = [column for column in REQUIRED if column not in header]
    if strangers or missing or len(set(header)) != len(header):
        what = f"line 1 does not name the columns: {', '.join(header)[:200]!r}"
        separated = " separated by commas" if len(header) <= 1 else ""
        raise UsageError(
            "import-invalid",
            f"{path}, {what}",
            hint=f"the first line names columns{separated}, each once: {', '.join(REQUIRED)}, and of "
            f"{', '.join(COLUMNS[len(REQUIRED) :])} those you need",
        )
    return header


def _line(number: int, columns: list[str], cells: list[str]) -> Line:
    if len(cells) != len(columns):
        raise UsageError("import-invalid", f"{len(cells)} cells, where the first line names {len(columns)} columns")
    of = dict(zip(columns, cells, strict=True))
    for column, cell in of.items():
        if not cell.isprintable():
            raise UsageError("import-invalid", f"{column} holds characters that cannot be seen")
        if cell.startswith(_FORMULA):
            raise UsageError("import-invalid", f"{column} begins with {cell[0]!r}, as formulas do")
    subject, assurance, lifetime = of["subject"], of.get("assurance"), of.get("max_lifetime")
    if not of["name"] or not subject:
        raise UsageError("import-invalid", "name and subject are needed")
    if _MANGLED.fullmatch(subject):
        raise UsageError("import-invalid", "subject looks like a number that a spreadsheet has rounded")
    display = of.get("display", "")
    if len(display) > _LONGEST_DISPLAY:
        raise UsageError("import-invalid", f"display has more than {_LONGEST_DISPLAY} characters")
    if assurance and assurance not in {"1", "2", "3"}:
        raise UsageError("import-invalid", "assurance is 1, 2 or 3")
    return Line(
        number=number,
        name=of["name"],
        issuer=of.get("issuer") or None,
        subject=subject,
        display=display,
        terms=Terms(
            groups=names(_several(of.get("group")), "a group"),
            roles=names(_several(of.get("role")), "a role"),
            projects=names(_several(of.get("project")), "a project"),
            rights=rights(_several(of.get("right"))),
            assurance=int(assurance) if assurance else 3,
            max_lifetime=parse_duration(lifetime) if lifetime else None,
        ),
    )


def _several(cell: str | None) -> tuple[str, ...]:
    """What a cell lists, separated by semicolons."""
    return tuple(part.strip() for part in (cell or "").split(";") if part.strip())


def _distinct(lines: list[Line], faults: Faults) -> None:
    first: dict[str, int] = {}
    for line in lines:
        before = first.setdefault(line.name, line.number)
        if before != line.number:
            faults.add(line.number, f"the same name as on line {before}")
