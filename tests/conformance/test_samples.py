"""The command that reads the specification's samples, tried on a directory of the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from biscuit_auth import Algorithm

from certauth.errors import TokenError
from certauth.tokens.codec import Token, decode
from tests.conformance.agreement import key_text
from tests.conformance.corpus import readable, root
from tests.conformance.kinds import KINDS
from tests.conformance.samples import main


def directory(where: Path, **spoiled: Any) -> Path:
    """Samples of every kind with their description, of which ``spoiled`` says something else."""
    described = []
    usual = root(Algorithm.Ed25519)[1]
    for number, kind in enumerate(KINDS.values()):
        data, key = readable(kind.make)[0]
        if key != usual:
            continue  # the specification's samples have one root key
        (where / f"{number}.bc").write_bytes(data)
        try:
            token = decode(data)
        except TokenError:
            token = Token(root_key_id=None, blocks=(), contents=(), sealed=False, proof=b"")
        keys = [None if link.external is None else key_text(link.external.key) for link in token.blocks]
        blocks = [{"version": block.version, "external_key": key} for block, key in zip(token.contents, keys, strict=True)]
        result = {"Ok": 0} if kind.verifies else {"Err": {"Format": "it does not verify"}}
        outcome = {"result": result, "revocation_ids": [link.signature.hex() for link in token.blocks]}
        described.append({"filename": f"{number}.bc", "token": blocks, "validations": {"": {**outcome, **spoiled}}})
    (where / "samples.json").write_text(json.dumps({"root_public_key": usual.key.hex(), "testcases": described}))
    return where


def test_agreement_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples that are what their description says are agreed on, each in its row."""
    assert main(directory(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "37 samples, 0 with differences"


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ({"revocation_ids": ["00"]}, "revocation ids"),
        ({"result": {"Err": {"Format": {"Signature": "invalid"}}}}, "its form"),
    ],
)
def test_differences_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], spoiled: dict[str, Any], words: str) -> None:
    """A description that says otherwise is not agreed with."""
    assert main(directory(tmp_path, **spoiled)) == 1
    assert words in capsys.readouterr().out


def test_no_samples_are_no_agreement(tmp_path: Path) -> None:
    """An empty directory proves nothing."""
    (tmp_path / "samples.json").write_text(json.dumps({"root_public_key": "00" * 32, "testcases": []}))
    assert main(tmp_path) == 1
