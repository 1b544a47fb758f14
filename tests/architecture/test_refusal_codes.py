"""The specification of identity proofs names every refusal there is, and none that there is not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from certauth.errors import ProofError, UnavailableError
from signer.problems import status_of

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = (ROOT / "docs" / "specification" / "identity-proof.md").read_text(encoding="utf-8")
KINDS = {error.__name__: error for error in (ProofError, UnavailableError)}


def raised(package: str, *, kinds: frozenset[str] = frozenset({"ProofError"})) -> set[tuple[str, str]]:
    """The errors of these kinds that a package raises, each with its code."""
    found = set()
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds and node.args:
                match node.args[0]:
                    case ast.Constant(value=str(code)):
                        found.add((node.func.id, code))
                    case other:  # then this test would not see it
                        assert node.func.id != "ProofError", f"{path}:{other.lineno}: a code that is no text"
    return found


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its first two lines."""
    section = re.split(r"^#", SPECIFICATION.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_verifiers_refusals_are_all_specified() -> None:
    """Each code of ``certauth.identity`` has one row, and each row a code."""
    specified = [row[0] for row in rows("8. Refusals")]
    assert len(set(specified)) == len(specified)
    assert set(specified) == {code for _, code in raised("certauth/identity")}


def test_what_a_signer_adds_is_specified_with_its_status() -> None:
    """What a proof can meet beyond the verifier, and which HTTP status it then is."""
    table = rows("8.1 At the signer")
    codes = raised("certauth/identity") | raised("signer", kinds=frozenset(KINDS))
    for code, status, _ in table:
        kinds = [KINDS[kind] for kind, found in codes if found == code]
        assert int(status) in {status_of(kind(code, "x", hint="y")) for kind in kinds}, code
    beyond = {code for _, code in raised("signer")} - {code for _, code in raised("certauth/identity")}
    assert beyond <= {row[0] for row in table}
