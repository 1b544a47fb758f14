"""What an installation gets: the three packages, whole, and marked as typed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.demo.stage import ROOT


def test_the_wheel_is_typed_and_complete(tmp_path: Path) -> None:
    """Each package ships its ``py.typed`` (PEP 561), and the signer the rules of its own door; tests are not shipped."""
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
    assert {"certauth/py.typed", "policy/py.typed", "signer/py.typed", "signer/policy.toml"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"certauth", "policy", "signer", "iri_certauth"}
