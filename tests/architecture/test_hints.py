"""What bad input gets: a stable code, a sentence, and a hint that says what to do. Found in the sources, for every place."""

from __future__ import annotations

import ast
from functools import cache
from types import ModuleType

import pytest

from tests.architecture.test_sources import ROOT, generate

BAD_INPUT = {
    "csr-too-large": "an oversized certification request",
    "csr-malformed": "a malformed one",
    "csr-signature": "one that its key did not sign",
    "csr-weak-key": "one for a key too weak",
    "proof-too-large": "an oversized proof",
    "proof-malformed": "a malformed one",
    "wrong-type": "another kind of token than an ID token",
    "alg-not-allowed": "a proof signed in a way its issuer never does",
    "unknown-issuer": "a proof of a foreign issuer",
    "unknown-key": "one under a key its issuer does not publish",
    "bad-signature": "one that was changed",
    "missing-claim": "one that does not say what it must",
    "bad-claim": "one that says it wrongly",
    "wrong-audience": "one made for somebody else",
    "key-not-bound": "one that is bound to another key",
    "proof-expired": "one that has run out",
    "proof-not-yet-valid": "one from the future",
    "proof-too-old": "one of a login long ago",
    "lifetime-invalid": "a lifetime that is none",
    "not-enrolled": "a login nobody enrolled",
    "bad-name": "a name with dots and slashes",
    "bad-path": "a path that is none",
    "domain-unknown": "a certificate of an unknown domain",
    "name-not-accepted": "one whose name is not accepted here",
    "chain-invalid": "one that leads to no root",
    "certificate-expired": "one that has run out",
    "certificate-usage": "one for another purpose",
    "token-too-large": "an oversized token",
    "token-malformed": "a malformed one",
    "token-unknown-key": "one of a stranger",
    "token-wrong-holder": "a delegation by somebody else than the holder",
    "too-many-blocks": "a token derived too often",
    "lint-rule": "a hostile one",
    "unreachable": "a server that is not there",
    "unknown-variable": "a misspelt variable",
}
"""Codes of ``certauth``, and the input each answers."""


@cache
def reference() -> ModuleType:
    """``docs/generate.py``: what it reads from the sources is what the reference shows."""
    return generate()


@cache
def sentences() -> dict[str, list[tuple[str, str, str]]]:
    """For each code of ``BAD_INPUT``: module, sentence and hint of each place in ``certauth`` that raises it."""
    docs = reference()
    found: dict[str, list[tuple[str, str, str]]] = {code: [] for code in BAD_INPUT}
    for path in sorted((ROOT / "certauth").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = docs._Module(path.stem, tree)
        for node in ast.walk(tree):
            if (code := docs._code_of(node)) in found:
                said = docs.ErrorCode()
                module.note(node, said)
                found[code] += ((str(path.relative_to(ROOT)), sentence, hint) for sentence, hint in said.sentences.items())
    return found


HINTLESS = {
    "certauth/cli/output.py": {"failed", "system"},
    "certauth/tokens/authorizer.py": {"decision-limit"},
    "policy/chained_file.py": {"locked"},
    "policy/decision_log.py": {"decision-log-failed"},
    "policy/server.py": {"address-unusable"},
    "policy/token.py": {"token-not-yet-valid", "token-user"},
    "signer/cli/people_file.py": {"import-invalid"},
    "signer/cli/service.py": {"bad-key"},
    "signer/cli/setup.py": {"already-initialised"},
    "signer/writer.py": {"log-entry-altered", "log-head", "principal-disabled", "tile-malformed"},
}
"""Where errors are raised whose sentence is all there is to say. The list may get shorter and not longer."""


def errors_without_a_hint() -> dict[str, set[str]]:
    """Codes of errors that are raised without a hint, by module."""
    docs, found = reference(), {}
    for package in ("certauth", "policy", "signer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                code = docs._code_of(node)
                if code is None or not isinstance(node, ast.Call) or any(word.arg in ("hint", None) for word in node.keywords):
                    continue
                if docs._name(node).endswith("Error") or docs._name(node) in ("Refused", "LoginRequired"):
                    found.setdefault(str(path.relative_to(ROOT)), set()).add(code)
    return found


def test_errors_come_with_a_hint() -> None:
    """Whoever meets an error is told what to do about it; the exceptions are few and known."""
    found = errors_without_a_hint()
    assert {place: more for place, codes in found.items() if (more := codes - HINTLESS.get(place, set()))} == {}


@pytest.mark.parametrize("code", BAD_INPUT)
def test_bad_input_gets_a_sentence_and_a_hint(code: str) -> None:
    """Wherever the code is raised, somebody is told what is wrong and what to do about it."""
    found = sentences()[code]
    assert found, f"{code} is raised nowhere"
    assert [(place, sentence) for place, sentence, hint in found if not hint] == []


def test_the_reference_shows_sentence_and_hint() -> None:
    """The generated page has every code below its area, with what is said, values in braces; Markdown in it is harmless."""
    page = reference().errors_page()
    entry = page.partition("### csr-too-large\n")[2].partition("### ")[0]
    assert "a certification request has at most" in entry
    assert "*hint:* ask for no names or extensions: the signer decides them" in entry
    assert "`certauth.requests`" in entry
    lint = page.partition("### lint-rule\n")[2].partition("### ")[0]
    assert r"the token is refused unread: \{place\} holds rules" in lint
    codes = reference().error_codes()
    assert page.count("\n### ") == len(codes)
    assert [code for code, about in codes.items() if not about.sentences] == []


def test_the_reference_names_the_variables_that_are_read() -> None:
    """Every variable the settings page lists is taken, and those of lists and tables are refused, as the page says."""
    from signer import settings

    names = reference().environment_variables()
    assert set(settings._from_environment(dict.fromkeys(names, "x"))) == {
        name.removeprefix("SIGNER_").lower() for name in names
    }
    page = reference().settings_page()
    for name in ("ADMINS", "LIMITS", "ISSUER"):
        assert f"SIGNER_{name}" not in page
        with pytest.raises(settings.ConfigError, match=f"SIGNER_{name}"):
            settings._from_environment({f"SIGNER_{name}": "x"})
