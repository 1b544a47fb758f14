"""Sessions as a user sees them: each ``*.txt`` beside this file is run, line by line, in real processes.

    # a comment
    $ certauth whoami                       a command; words are split as a shell does
    {"some": "output"}                      its standard output, in order
    ! certauth: error: …                    its standard error, in order
    ? 4                                     its exit status, if not 0

In expected lines ``…`` stands for anything. In commands ``$SIGNER`` is the address of a simulated signer, ``$CA`` its roots,
``$BUNDLE`` its trust bundle, ``$EXAMPLE`` that of the published example, ``$BROWSER`` a browser command that logs in,
``$JOB`` another certificate; ``< FILE`` is standard input. Each session begins in an
empty directory, which is also the user's home.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.audit import decisions
from certauth.certificates import dump_chain
from certauth.clock import from_timestamp
from certauth.keys import Algorithm, generate, save_private
from tests.simulator.hostile_signer import HostileSigner, hostile_signer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SESSIONS = sorted(path.stem for path in HERE.glob("*.txt"))


@dataclass
class Step:
    """One command and what it must do."""

    command: str
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    status: int = 0


def steps_of(text: str) -> Iterator[Step]:
    """The steps of a session."""
    step: Step | None = None
    for line in text.splitlines():
        if line.startswith("$ "):
            if step:
                yield step
            step = Step(line[2:])
        elif line.startswith("#") or step is None:
            continue
        elif line.startswith("!"):
            step.err.append(line[2:])
        elif line.startswith("? "):
            step.status = int(line[2:])
        else:
            step.out.append(line)
    if step:
        yield step


def matches(expected: list[str], actual: str) -> bool:
    """Whether the output is as expected, ``…`` standing for anything within a line."""
    while expected and not expected[-1]:
        expected = expected[:-1]
    pattern = r"\n".join(".*".join(map(re.escape, line.split("…"))) for line in expected)
    return re.fullmatch(pattern, actual.rstrip("\n")) is not None


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileSigner]:
    """An honest signer on loopback."""
    with hostile_signer(tmp_path_factory.mktemp("signer")) as running:
        yield running


def prepare(directory: Path, signer: HostileSigner) -> dict[str, str]:
    """The files a session may name, and its variables."""
    header = decisions.begin(file_id="f1", at=from_timestamp(1_790_000_000), program="policy 0.1.0")
    lines = [header, decisions.append(header.head, {"decision": "permit"})]
    (directory / "decisions.jsonl").write_bytes(b"".join(line.data for line in lines))
    (directory / "altered.jsonl").write_bytes(b"".join(line.data for line in lines).replace(b"permit", b"denied"))
    (directory / "service-0.jsonl").write_bytes(b"".join(line.data for line in lines))
    (directory / "service-1.jsonl").write_bytes(header.data)
    (directory / "bundle.json").write_bytes(signer.bundle().to_json())
    job = signer.leaf(generate(Algorithm.P256).public_key, principal="spiffe://hostile.example/user/job")
    (directory / "job.crt").write_bytes(dump_chain([job]))
    group = generate(Algorithm.ED25519)
    save_private(directory / "group-key.pem", group, passphrase=None)
    (directory / "group.pub").write_bytes(group.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return {
        "SIGNER": signer.url,
        "CA": str(signer.ca_file),
        "BUNDLE": "bundle.json",
        "EXAMPLE": str(ROOT / "keys-example" / "bundle.json"),
        "BROWSER": f"'{sys.executable} -m tests.simulator.hostile_signer'",
        "JOB": "job.crt",
    }


@pytest.mark.parametrize("session", SESSIONS)
def test_the_session_goes_as_written(session: str, signer: HostileSigner, tmp_path: Path):
    """Every command of the session prints, and exits with, exactly what the transcript says."""
    variables = prepare(tmp_path, signer)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "CERTAUTH_HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    for step in steps_of((HERE / f"{session}.txt").read_text(encoding="utf-8")):
        command = re.sub(r"\$([A-Z]+)", lambda found: variables[found[1]], step.command)
        command, _, source = command.partition(" < ")
        words = shlex.split(command)
        given = dict(environment)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            given[name] = value
        assert words[0] == "certauth", step
        with open(tmp_path / source if source else os.devnull, "rb") as stdin:
            done = subprocess.run(
                [Path(sys.executable).with_name("certauth"), *words[1:]],
                cwd=tmp_path,
                env=given,
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        said = f"$ {step.command}\n{done.stdout}---\n{done.stderr}? {done.returncode}"
        assert done.returncode == step.status, said
        assert matches(step.err, done.stderr), said
        assert matches(step.out, done.stdout), said


def test_the_comparison_can_fail():
    """The matcher is not satisfied by anything."""
    assert matches(["a…c", "d"], "abc\nd\n")
    assert not matches(["a…c"], "abc\nd\n")
    assert not matches([], "x")
    assert not matches(["a…"], "b")
