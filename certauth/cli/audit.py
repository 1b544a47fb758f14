"""``certauth audit``: what anybody can check about a log, offline."""

from __future__ import annotations

import contextlib
import glob
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import click

from certauth.audit import receipt as receipts
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.decisions import MAX_LINE, Head, verify_lines
from certauth.audit.receipt import MAX_RECEIPT, CheckedReceipt, Receipt
from certauth.audit.verify import StoredEntry, verify_log
from certauth.cli import options
from certauth.cli.output import Result, command, fields, load
from certauth.cli.output import group as make_group
from certauth.client.sources import is_file
from certauth.clock import from_timestamp, rfc3339
from certauth.encoding import b64url, from_b64url, strict_json
from certauth.errors import LogError, LoginRequired, UsageError
from certauth.files import PUBLIC, write_atomic

_SQLITE = b"SQLite format 3\x00"
_KNOWN = re.compile(r"([0-9]{1,12}):([A-Za-z0-9_-]{43})")

group = make_group("audit", help="Verify logs, prove entries, check receipts.")


class StoredLog(Protocol):
    """What the signer's reader of a database offers here."""

    def checkpoint(self) -> str | None: ...
    def checkpoints(self) -> Iterator[str]: ...
    def entries(self) -> Iterator[StoredEntry]: ...
    def receipt(self, index: int) -> Receipt: ...
    def disclosures(self, index: int) -> tuple[str, ...]: ...


def _open(path: Path) -> contextlib.AbstractContextManager[StoredLog]:
    """The log in a signer's database. Reading it takes the signer's own code, which only a facility installs."""
    opened: contextlib.AbstractContextManager[StoredLog] = load("signer.log_reader:open_offline", extra="signer")(path)
    return opened


def _key_options(function: options.Function) -> options.Function:
    for option in (
        click.option("--bundle", type=options.READABLE, help="Trust bundle that names the log's key."),
        click.option("--vkey", metavar="KEY|FILE", help="The log's verifier key, name+hash+base64, or a file with it."),
        options.example_keys_option,
        options.profile_option,
    ):
        function = option(function)
    return function


def _verifier_key(vkey: str | None, bundle: Path | None, profile_name: str | None, *, allow_example_keys: bool) -> VerifierKey:
    """The log's key: named, or from a bundle file, or from the active profile's bundle."""
    if vkey is not None:
        path = Path(vkey)
        return VerifierKey.parse(path.read_text(encoding="utf-8").strip() if is_file(path) else vkey)
    if bundle is not None:
        return VerifierKey.parse(options.read_bundle(bundle, allow_example_keys=allow_example_keys).log_vkey)
    try:
        return VerifierKey.parse(options.active(profile_name).bundle().log_vkey)
    except LoginRequired as error:
        raise UsageError("no-log-key", "whose log is this?", hint="name the log's key with --vkey or --bundle") from error


@command(
    group,
    example="certauth audit verify signer.db --bundle bundle.json\ncertauth audit verify decisions.jsonl",
)
@click.argument("file", type=click.Path(path_type=Path))
@_key_options
@click.option(
    "--checkpoint", "kept", type=options.READABLE, multiple=True, help="Checkpoint kept from earlier; may be repeated."
)
@click.option(
    "--head", metavar="COUNT:CHAIN", help="Head of a decision file kept from earlier; detects a cut or rewritten tail."
)
def verify(
    *,
    file: Path,
    vkey: str | None,
    bundle: Path | None,
    allow_example_keys: bool,
    profile_name: str | None,
    kept: tuple[Path, ...],
    head: str | None,
) -> Result:
    """Verify a whole log: a signer's database, or the decisions of a service.

    Every entry is hashed again; a database's tree must have the root that the log's key signed, at its newest checkpoint
    and at all earlier ones. Exit status 3 names the first entry that is not as it was written.

    A service writes one decision file for each of its processes: decisions-0.jsonl, decisions-1.jsonl and so on where
    policy.toml says decisions.jsonl. Name one of them, or the path of policy.toml for all.

    JSON: for a database kind "log", origin, entries, root, chain, checkpoints; for a decision file kind "decisions", path,
    file, program, records, head, torn; for the path of policy.toml kind "decision-files", files (a list of these).
    """
    if not file.is_file():
        return _all_decisions(_decision_files(file), kept, head)
    with file.open("rb") as stream:
        is_database = stream.read(len(_SQLITE)) == _SQLITE
    if is_database:
        if head is not None:
            raise UsageError(
                "usage", "--head is for decision files; a database has checkpoints", hint="see the same command with --help"
            )
        key = _verifier_key(vkey, bundle, profile_name, allow_example_keys=allow_example_keys)
        return _verify_log(file, key, [path.read_bytes() for path in kept])
    _no_checkpoint(kept)
    return _decisions(file, head)


def _decision_files(configured: Path) -> list[Path]:
    """The files of all processes, for the path in a policy.toml; ``UsageError`` (``file-missing``) if there are none."""
    found = sorted(configured.parent.glob(f"{glob.escape(configured.stem)}-*{glob.escape(configured.suffix)}"))
    files = [path for path in found if path.is_file()]
    if not files:
        first = f"{configured.stem}-0{configured.suffix}"
        raise UsageError(
            "file-missing",
            f"there is no file {configured}, nor one of a process ({first})",
            hint="[record] path in policy.toml says where a service writes its decisions",
        )
    return files


def _all_decisions(files: list[Path], kept: tuple[Path, ...], head: str | None) -> Result:
    _no_checkpoint(kept)
    if head is not None:
        raise UsageError("usage", "--head is of one decision file", hint=f"name that file, e.g. {files[0]}")
    found = [_decisions(file, None) for file in files]
    return Result(
        data={"kind": "decision-files", "files": [one.data for one in found]}, text="\n\n".join(one.text for one in found)
    )


def _no_checkpoint(kept: tuple[Path, ...]) -> None:
    if kept:
        raise UsageError(
            "usage",
            "--checkpoint is for a signer's database; a decision file has a --head",
            hint="see the same command with --help",
        )


def _verify_log(file: Path, vkey: VerifierKey, kept: list[bytes]) -> Result:
    with _open(file) as log:
        note = log.checkpoint()
        if note is None:
            raise LogError(
                "log-unsigned",
                f"{file} holds no checkpoint: nothing in it is signed",
                hint="ask the facility for the log together with its checkpoint",
            )
        earlier: list[str | bytes] = [text for text in log.checkpoints() if text != note]
        report = verify_log(log.entries(), note, vkey, older=[*earlier, *kept])
    checkpoint = report.checkpoint
    data: dict[str, object] = {
        "kind": "log",
        "origin": checkpoint.origin,
        "entries": checkpoint.size,
        "root": b64url(checkpoint.root),
        "chain": b64url(report.chain),
        "checkpoints": report.older_checkpoints + 1,
    }
    text = fields(
        [
            ("verified", f"{checkpoint.size} entries, every byte as it was signed"),
            ("log", checkpoint.origin),
            ("checkpoints", f"{report.older_checkpoints + 1}, all consistent"),
            ("root", data["root"]),
        ]
    )
    return Result(data=data, text=text)


def _bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines, none much longer than a record may be: a file without line ends must not fill the memory."""
    while line := stream.readline(MAX_LINE + 1):
        yield line


def _head(text: str | None) -> Head | None:
    if text is None:
        return None
    found = _KNOWN.fullmatch(text)
    try:
        if found:
            return Head(int(found[1]), from_b64url(found[2]))
    except ValueError:
        pass
    raise UsageError(
        "usage", "--head is COUNT:CHAIN, as 'certauth audit verify' printed it", hint="see the same command with --help"
    )


def _decisions(file: Path, known: str | None) -> Result:
    with file.open("rb") as stream:
        try:
            found = verify_lines(_bounded_lines(stream), known=_head(known))
        except LogError as error:
            raise LogError(error.code, f"{file}: {error.message}", hint=error.hint) from error
    head = f"{found.head.count}:{b64url(found.head.chain)}"
    data = {
        "kind": "decisions",
        "path": str(file),
        "file": found.header["file"],
        "program": found.header["program"],
        "records": found.head.count,
        "head": head,
        "torn": found.torn,
    }
    text = fields(
        [
            ("verified", f"{file}, an unbroken chain"),
            ("decisions", found.head.count),
            ("written by", found.header["program"]),
            ("head", f"{head}  (keep it: --head then detects a cut or rewritten tail)"),
            (
                "incomplete",
                f"{found.torn} bytes of a record that was being written when its program stopped" if found.torn else None,
            ),
        ]
    )
    return Result(data=data, text=text)


@command(group, example="certauth audit prove signer.db 17 --output entry17.receipt.json")
@click.argument("database", type=options.READABLE)
@click.argument("index", type=click.IntRange(min=0))
@_key_options
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the receipt to this file.")
def prove(
    *,
    database: Path,
    index: int,
    vkey: str | None,
    bundle: Path | None,
    allow_example_keys: bool,
    profile_name: str | None,
    output: Path | None,
) -> Result:
    """Make the receipt of one entry: proof, for anybody and offline, that the log holds it.

    The receipt is checked before it is given out. Without --output it goes to standard output.

    JSON: index, size, receipt, output.
    """
    key = _verifier_key(vkey, bundle, profile_name, allow_example_keys=allow_example_keys)
    with _open(database) as log:
        receipt = log.receipt(index)
    checked = receipts.check(receipt, key)
    text = receipt.to_json().decode()
    if output is not None:
        write_atomic(output, receipt.to_json(), mode=PUBLIC)
        text = f"The receipt of entry {index} is in {output}."
    shown = None if output is None else str(output)
    data = {"index": index, "size": checked.checkpoint.size, "receipt": receipt.to_dict(), "output": shown}
    return Result(data=data, text=text)


@command(group, name="check-receipt", example="certauth audit check-receipt entry17.receipt.json --bundle bundle.json")
@click.argument("file", type=options.READABLE)
@_key_options
def check_receipt(
    *, file: Path, vkey: str | None, bundle: Path | None, allow_example_keys: bool, profile_name: str | None
) -> Result:
    """Check, offline, that the log holds the entry of a receipt, and say what it records.

    Exit status 3 if it does not prove anything.

    JSON: index, size, origin, at, record.
    """
    key = _verifier_key(vkey, bundle, profile_name, allow_example_keys=allow_example_keys)
    checked = receipts.check(_receipt(file), key)
    at = _recorded_at(checked)
    data = {
        "index": checked.index,
        "size": checked.checkpoint.size,
        "origin": checked.checkpoint.origin,
        "at": at,
        "record": checked.record,
    }
    members = [
        ("the log", checked.checkpoint.origin),
        ("holds entry", f"{checked.index} of {checked.checkpoint.size}"),
        ("written", at),
    ]
    return Result(data=data, text=fields([*members, *_flat(checked.record)]))


def _receipt(file: Path) -> Receipt:
    """The receipt in a file, in any spelling of its JSON: a ``jq .receipt`` of what some command printed will do."""
    with file.open("rb") as stream:
        data = stream.read(MAX_RECEIPT + 1)
    try:
        value = strict_json(data) if len(data) <= MAX_RECEIPT else None
    except ValueError as error:
        raise LogError(
            "receipt-malformed", f"{file} is not JSON", hint="name a receipt, as a login or 'certauth audit prove' made it"
        ) from error
    return Receipt.from_dict(value)


def _recorded_at(checked: CheckedReceipt) -> str | None:
    micros = checked.record.get("ts")
    return rfc3339(from_timestamp(micros / 1_000_000)) if isinstance(micros, int) else None


def _flat(record: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """The members of a record that people ask for, one per line."""
    yield "kind", str(record.get("kind"))
    for section in ("actor", "proof", "decision", "grant", "revoke", "enrolment", "service", "issuer", "key"):
        members = record.get(section)
        if isinstance(members, dict):
            for name, value in members.items():
                yield f"{section} {name}", value if isinstance(value, str) else json.dumps(value)
