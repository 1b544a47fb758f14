"""The threat model speaks of tests and modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = re.findall(
    r"^\| (.+?) \| (.+?) \| `(.+?)::(.+?)` \|$", (ROOT / "docs/security/threat-model.md").read_text(), re.MULTILINE
)


def test_the_table_is_read() -> None:
    """A change of the page's form would empty the next test without this one."""
    assert len(ROWS) > 50


@pytest.mark.parametrize(("threat", "modules", "path", "test"), ROWS)
def test_each_threat_has_its_module_and_its_test(threat: str, modules: str, path: str, test: str) -> None:
    """Each row names modules and a test that are there."""
    for module in re.findall(r"`(.+?)`", modules):
        base = ROOT / module.replace(".", "/")
        assert base.with_suffix(".py").is_file() or base.is_dir(), f"{threat}: no module {module}"
    assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), f"{threat}: no test {test}"
