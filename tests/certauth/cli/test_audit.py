"""``certauth audit``: a real facility's log, a decision file, receipts; and each of them damaged."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certauth.audit import decisions
from certauth.bundles import TrustBundle
from certauth.encoding import b64url
from tests.certauth.cli.conftest import Run, run_in
from tests.demo.stage import ROOT
from tests.simulator.hostile_signer import HostileSigner


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A facility as ``certauth signer init`` makes it: its log has an entry for each of its keys."""
    directory = tmp_path_factory.mktemp("facility")
    run = run_in(directory / "nobody")
    done = run("signer", "init", "--directory", directory, "--trust-domain", "als.example", "--public-url", "https://x.example")
    assert done.status == 0, done.err
    return directory


@pytest.fixture
def database(facility: Path, tmp_path: Path) -> Path:
    """A copy of the facility's database, without the guards against changing entries."""
    copy = Path(shutil.copy(facility / "signer.db", tmp_path / "copy.db"))
    with sqlite3.connect(copy) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
    connection.close()
    return copy


def change(database: Path, statement: str) -> None:
    """Do to the log what somebody with full access to it could."""
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


def test_a_log_verifies(facility: Path, stranger: Run, tmp_path: Path):
    """Every entry is checked against every checkpoint; the key comes from a bundle, as text, or from a file."""
    database, bundle = facility / "signer.db", facility / "bundle.json"
    done = stranger("audit", "verify", database, "--bundle", bundle, "--json")
    assert done.status == 0
    assert (done.data["kind"], done.data["origin"]) == ("log", "als.example/certauth/log")
    assert isinstance(done.data["entries"], int)
    assert done.data["entries"] > 3
    assert "every byte as it was signed" in stranger("audit", "verify", database, "--bundle", bundle).text
    vkey = TrustBundle.parse(bundle.read_bytes(), allow_example_keys=False).log_vkey
    (tmp_path / "vkey").write_text(vkey + "\n")
    assert stranger("audit", "verify", database, "--vkey", vkey).status == 0
    assert stranger("audit", "verify", database, "--vkey", tmp_path / "vkey").status == 0


def test_whose_log_must_be_known(facility: Path, run: Run, stranger: Run, tmp_path: Path):
    """Without a key nothing is verified; under another facility's key the log does not verify."""
    database = facility / "signer.db"
    assert stranger("audit", "verify", database, "--json").error["code"] == "no-log-key"
    assert run("audit", "verify", database).status == 3
    assert stranger("audit", "verify", database, "--vkey", "nonsense").status == 3
    (tmp_path / "bundle.json").write_text("{}")
    assert stranger("audit", "verify", database, "--bundle", tmp_path / "bundle.json").status == 1


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE log_entry SET body = replace(body, 'key.add', 'key.bad') WHERE seq = 2", "log-entry-altered"),
        ("DELETE FROM log_entry WHERE seq = 1", "log-gap"),
        ("DELETE FROM log_entry WHERE seq = (SELECT max(seq) FROM log_entry)", "log-truncated"),
        ("DELETE FROM log_checkpoint WHERE size = (SELECT max(size) FROM log_checkpoint)", "log-unsigned-entries"),
        ("DELETE FROM log_checkpoint", "log-unsigned"),
    ],
)
def test_a_changed_log_is_found_out(facility: Path, database: Path, stranger: Run, statement: str, code: str):
    """One changed, missing or cut entry, or missing signatures: exit status 3 and what is wrong."""
    assert stranger("audit", "verify", database, "--bundle", facility / "bundle.json").status == 0
    change(database, statement)
    done = stranger("audit", "verify", database, "--bundle", facility / "bundle.json", "--json")
    assert (done.status, done.error["code"]) == (3, code)


def test_a_rolled_back_log_is_found_out_by_a_kept_checkpoint(facility: Path, database: Path, stranger: Run, tmp_path: Path):
    """A log cut together with its checkpoints looks whole, except to whoever kept one."""
    with sqlite3.connect(database) as connection:
        (newest,) = connection.execute("SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    connection.close()
    (tmp_path / "kept").write_text(newest)
    arguments = ("audit", "verify", database, "--bundle", facility / "bundle.json")
    assert stranger(*arguments, "--checkpoint", tmp_path / "kept").status == 0
    change(database, "DELETE FROM log_checkpoint WHERE size = (SELECT max(size) FROM log_checkpoint)")
    change(database, "DELETE FROM log_entry WHERE seq >= (SELECT max(size) FROM log_checkpoint)")
    assert stranger(*arguments).status == 0
    done = stranger(*arguments, "--checkpoint", tmp_path / "kept", "--json")
    assert (done.status, done.error["code"]) == (3, "log-rolled-back")


def test_receipts_are_made_and_checked_offline(facility: Path, stranger: Run, tmp_path: Path):
    """A proved entry can be checked with the receipt and the bundle alone; a changed receipt proves nothing."""
    database, bundle, receipt = facility / "signer.db", facility / "bundle.json", tmp_path / "r.json"
    made = stranger("audit", "prove", database, "1", "--bundle", bundle, "--output", receipt, "--json")
    assert (made.status, made.data["index"], made.data["output"]) == (0, 1, str(receipt))
    assert str(receipt) in stranger("audit", "prove", database, "1", "--bundle", bundle, "--output", receipt).text
    assert json.loads(receipt.read_bytes()) == made.data["receipt"]
    printed = stranger("audit", "prove", database, "1", "--bundle", bundle)
    (tmp_path / "printed").write_bytes(printed.out)
    for file in (receipt, tmp_path / "printed"):
        checked = stranger("audit", "check-receipt", file, "--bundle", bundle, "--json")
        assert (checked.status, checked.data["index"]) == (0, 1)
        assert checked.data["record"]["kind"] == "key.add"  # type: ignore[index]  # an object
    assert "key.add" in stranger("audit", "check-receipt", receipt, "--bundle", bundle).text
    assert stranger("audit", "prove", database, "999", "--bundle", bundle).status == 3
    changed = bytearray(receipt.read_bytes())
    place = changed.index(b'"entry":"') + 30
    changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
    receipt.write_bytes(changed)
    assert stranger("audit", "check-receipt", receipt, "--bundle", bundle).status == 3


def test_the_users_own_receipts_check_under_the_stored_bundle(signer: HostileSigner, run: Run, home: Path):
    """Receipts of a login and a mint are files that check offline, without naming any key."""
    receipts = sorted((home / "hostile.example" / "receipts").iterdir())
    assert len(receipts) == 2
    for receipt in receipts:
        done = run("audit", "check-receipt", receipt)
        assert done.status == 0
        assert "grant" in done.text


def lines_of(count: int) -> list[decisions.Line]:
    """A decision file with ``count`` records, line by line."""
    lines = [decisions.begin(file_id="f1", at=datetime.now(UTC), program="test")]
    for number in range(count):
        lines.append(decisions.append(lines[-1].head, {"n": number}))
    return lines


def test_decision_files_verify_and_damage_is_named(stranger: Run, tmp_path: Path):
    """A service's decision file needs no key; a changed line, a cut tail and a torn write are told apart."""
    lines = lines_of(3)
    file = tmp_path / "d.jsonl"
    file.write_bytes(b"".join(line.data for line in lines))
    done = stranger("audit", "verify", file, "--json")
    head = f"3:{b64url(lines[-1].head.chain)}"
    members = {"file": "f1", "program": "test", "records": 3, "head": head, "torn": 0}
    assert done.data == {"kind": "decisions", "path": str(file)} | members
    assert "unbroken" in stranger("audit", "verify", file).text
    assert stranger("audit", "verify", file, "--head", head).status == 0
    file.write_bytes(b"".join(line.data for line in lines[:-1]) + lines[-1].data[:10])
    assert "10 bytes of a record" in stranger("audit", "verify", file).text
    assert stranger("audit", "verify", file, "--head", head, "--json").error["code"] == "decision-truncated"
    file.write_bytes(b"".join(line.data for line in lines).replace(b'"n":1', b'"n":7'))
    done = stranger("audit", "verify", file, "--json")
    assert (done.status, done.error["code"]) == (3, "decision-altered")
    assert "line 2" in str(done.error["message"])
    file.write_bytes(b"x" * 200_000)
    assert stranger("audit", "verify", file).status == 3


def test_the_path_in_a_policy_stands_for_the_files_of_all_processes(stranger: Run, tmp_path: Path):
    """``decisions.jsonl`` of policy.toml means each ``decisions-<slot>.jsonl``; one that was changed is named."""
    lines, configured = lines_of(2), tmp_path / "decisions[1].jsonl"
    for slot, count in ((0, 3), (1, 2)):
        configured.with_stem(f"decisions[1]-{slot}").write_bytes(b"".join(line.data for line in lines[:count]))
    configured.with_suffix(".lock").touch()
    done = stranger("audit", "verify", configured, "--json")
    assert (done.status, done.data["kind"]) == (0, "decision-files")
    files = done.data["files"]
    assert isinstance(files, list)
    assert [(Path(one["path"]).name, one["records"]) for one in files] == [
        ("decisions[1]-0.jsonl", 2),
        ("decisions[1]-1.jsonl", 1),
    ]
    assert stranger("audit", "verify", configured).text.count("an unbroken chain") == 2
    assert stranger("audit", "verify", configured, "--head", files[0]["head"]).status == 2
    assert stranger("audit", "verify", configured, "--checkpoint", files[0]["path"]).status == 2
    altered = configured.with_stem("decisions[1]-1")
    altered.write_bytes(altered.read_bytes().replace(b'"n":0', b'"n":7'))
    done = stranger("audit", "verify", configured, "--json")
    assert (done.status, done.error["code"]) == (3, "decision-altered")
    assert str(altered) in str(done.error["message"])
    assert stranger("audit", "verify", tmp_path / "others.jsonl", "--json").error["code"] == "file-missing"


def test_a_bundle_of_example_keys_is_refused_unless_asked_for(facility: Path, stranger: Run, tmp_path: Path):
    """Whoever has the published keys signs whatever log they like, so their word counts only where somebody says so."""
    database, receipt = facility / "signer.db", tmp_path / "r.json"
    assert stranger("audit", "prove", database, "1", "--bundle", facility / "bundle.json", "--output", receipt).status == 0
    example = ROOT / "keys-example" / "bundle.json"
    for words in (("verify", database), ("prove", database, "1"), ("check-receipt", receipt)):
        refused = stranger("audit", *words, "--bundle", example, "--json")
        assert (refused.status, refused.error["code"]) == (1, "example-key"), words
        asked = stranger("audit", *words, "--bundle", example, "--insecure-example-keys", "--json")
        assert asked.status == 3, "the keys are believed, but this log is another facility's"
        assert asked.error["code"] != "example-key"


def test_usage(facility: Path, stranger: Run, tmp_path: Path):
    """Options that belong to the other kind of file are refused, and so are malformed heads and missing files."""
    file = tmp_path / "d.jsonl"
    file.write_bytes(lines_of(0)[0].data)
    database = facility / "signer.db"
    assert stranger("audit", "verify", file, "--checkpoint", file).status == 2
    assert stranger("audit", "verify", database, "--head", "1:x").status == 2
    for head in ("x", "1:" + "_" * 43, "1:" + "A" * 42):
        assert stranger("audit", "verify", file, "--head", head).status == 2
    assert stranger("audit", "verify", tmp_path / "missing").status == 2
    for content in (file.read_bytes(), b"not JSON", b" " * 300_000):
        file.write_bytes(content)
        assert stranger("audit", "check-receipt", file, "--bundle", facility / "bundle.json").status == 3
