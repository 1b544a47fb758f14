"""What must hold of the sources themselves: no assert, no heavy import, nothing undocumented, nothing of this machine."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module, resources
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from certauth import errors
from certauth.errors import CertauthError
from policy.rules import Policy
from signer import admission
from signer.settings import GrantSettings, IssuerSettings, Limits, Settings
from tests.demo.stage import ROOT

PACKAGES = ("certauth", "policy", "signer")
CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the product, parsed."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Every file of the tree that is not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_check_is_an_assert() -> None:
    """``python -O`` removes asserts, and with them whatever they guarded."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_modules_are_short_enough_to_be_read() -> None:
    """Nobody reviews what does not fit in a head; a few lines over is a sign, much more is a second module."""
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path, _ in modules()}
    assert {name: lines for name, lines in long.items() if lines > 410} == {}


# --- imports ---------------------------------------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """The modules that are loaded after ``statement`` in a fresh process."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    # Without the measuring of coverage, which imports the packages it measures.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return set(json.loads(done.stdout))


def test_a_door_loads_no_database_and_no_issuing_side() -> None:
    """Whoever protects an app carries neither SQL nor the signer, nor what verifies logins, nor the user's program."""
    names = loaded_by("import policy.middleware, policy.server")
    heads = {name.partition(".")[0] for name in names}
    assert heads.isdisjoint({"sqlmodel", "sqlalchemy", "sqlite3", "signer", "jwt", "prometheus_client", "structlog"})
    assert not [name for name in names if name.startswith(("certauth.identity", "certauth.client", "certauth.cli"))]


def test_the_command_line_loads_nothing_it_does_not_need() -> None:
    """Help and completion are immediate: no cryptography, network, web, database or engine."""
    heads = {name.partition(".")[0] for name in loaded_by("import certauth.cli")}
    heavy = {
        "cryptography",
        "httpx2",
        "pydantic",
        "starlette",
        "uvicorn",
        "sqlmodel",
        "sqlalchemy",
        "biscuit_auth",
        "jwt",
        "structlog",
    }
    assert heads.isdisjoint(heavy | {"asyncio", "ssl", "signer", "policy"})


def test_importing_the_core_starts_nothing() -> None:
    """No module of the product starts a thread, opens a socket or reads the environment when it is imported."""
    names = [found.name for package in PACKAGES for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")]
    code = f"import threading, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


# --- what is documented ------------------------------------------------------------------------------------------------


SECTIONS = {"issuer", "limits", "grant", "rule"}
"""Tables of settings, which describe themselves through their members."""


RULES = [kind for kind in vars(admission).values() if inspect.isclass(kind) and kind.__name__.endswith("Settings")]
"""The tables of an admission rule."""


@pytest.mark.parametrize("model", [Settings, Limits, IssuerSettings, GrantSettings, *RULES])
def test_every_setting_says_what_it_is_for(model: type[BaseModel]) -> None:
    """A setting without a description is one nobody can use; sections describe themselves through their members."""
    undescribed = [
        name
        for name, field in model.model_fields.items()
        if not field.description and not isinstance(field.default, BaseModel) and name not in SECTIONS
    ]
    assert undescribed == []


def api_routes() -> set[tuple[str, str]]:
    """Method and path of every route: those of ``signer/api/`` are added, those of ``signer/login_api.py`` are made."""
    found = set()
    for module in [*(ROOT / "signer" / "api").glob("*.py"), ROOT / "signer" / "login_api.py"]:
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "attr", "") == "add" and len(node.args) == 4:
                method, path = (ast.literal_eval(argument) for argument in node.args[:2])
                found.add((method, path))
            elif getattr(node.func, "id", "") == "route":
                named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
                found.add((named.get("method", "GET"), ast.literal_eval(node.args[0])))
    return found


def test_the_signers_routes_and_its_rules_are_the_same() -> None:
    """No route without a rule, which would be dead, and no rule without a route, which would be a door to nowhere."""
    policy = Policy.parse(resources.files("signer").joinpath("policy.toml").read_bytes())
    text = resources.files("signer").joinpath("policy.toml").read_text()
    ruled = {(method, table["path"]) for table in tomllib.loads(text)["route"] for method in table.get("methods", ["GET"])}
    assert {("POST", "/v1/certificates"), ("POST", "/token"), ("POST", "/login"), ("GET", "/login")} < api_routes()
    assert len(api_routes()) >= 26
    assert ruled == api_routes()
    assert len(policy.routes) == len(tomllib.loads(text)["route"])


def test_only_what_must_be_is_open_to_everybody() -> None:
    """A certificate is asked for without one, and a login that leads to it is begun and finished without one; whatever else
    changes anything asks who is there.
    """
    tables = tomllib.loads(resources.files("signer").joinpath("policy.toml").read_text())["route"]
    public = {
        (method, table["path"]) for table in tables for method in table.get("methods", ["GET"]) if table["access"] == "public"
    }
    logins = {"/v1/logins", "/v1/logins/{login}", "/login", "/login/confirm"}
    assert {path for method, path in public if method != "GET"} == {"/v1/certificates", *logins}


def test_every_route_is_in_the_reference() -> None:
    """``docs/reference/http-api.md`` has a heading for each, and none for what is not there."""
    text = (ROOT / "docs" / "reference" / "http-api.md").read_text()
    assert sorted(re.findall(r"^#+ (GET|POST) (/\S+)$", text, re.MULTILINE)) == sorted(api_routes())


def test_every_page_can_be_reached() -> None:
    """Each page of the documentation is in a table of contents, so that Sphinx shows it and warns of it."""
    docs = ROOT / "docs"
    listed = set()
    for page in docs.rglob("*.md"):
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            entries = (line for line in tree.splitlines() if line and not line.startswith(":"))
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    generated = {docs / "reference" / "generated" / name for name in ("settings.md", "errors.md")}
    written = {page for page in docs.rglob("*.md") if "_build" not in page.parts} - {docs / "index.md"} | generated
    assert {str(page.relative_to(docs)) for page in written ^ listed} == set()


def generate() -> ModuleType:
    """``docs/generate.py``, which is no package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    if spec is None or spec.loader is None:
        raise AssertionError("docs/generate.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def raising_names() -> set[str]:
    """What a code is given to: every error class, also those defined elsewhere, and what becomes an error or a denial."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            import_module(found.name)

    def below(kind: type) -> Iterator[str]:
        yield kind.__name__
        for each in kind.__subclasses__():
            yield from below(each)

    return {*below(CertauthError), "Refusal", "Deny", "_Denied", "FailedCheck", "Guard", "_refuse"}


def codes_in_the_sources() -> dict[str, str]:
    """Every stable code and where it is, found in another way than ``docs/generate.py`` does."""
    names, found = raising_names(), {}
    for path, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
            values = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            if called in names:
                found |= {value: where for value in values if CODE.fullmatch(value)}
    return found


def test_there_is_an_error_class_for_each_name() -> None:
    """The list above is not empty by accident."""
    classes = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, CertauthError)}
    assert {"TokenError", "ChainError"} < classes < raising_names()
    assert {"token-binding", "no-route", "log-truncated", "lint-rule", "key-not-bound"} <= codes_in_the_sources().keys()


def test_every_code_is_in_the_reference() -> None:
    """A code that a user meets can be looked up: the generated page knows every one that the sources can raise."""
    known = generate().error_codes()
    assert {code: where for code, where in codes_in_the_sources().items() if code not in known} == {}


# --- secrets and strangers ---------------------------------------------------------------------------------------------


def test_no_registry_is_named_in_the_lock() -> None:
    """The lock pins by hash; where the files come from is each installation's own business."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert text.count("--hash=sha256:") > 50
    pins = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert all("==" in line for line in pins)


_HERE = re.compile(rb"(?<![\w.}])(?<!storage\.modify:)(?:/work/|/root/|/Users/|/tmp/|%s/)" % re.escape(str(ROOT)).encode())
_CREDIT = re.compile(rb"\b(?i:generated|assisted|co-authored)[- ](?i:by|with):? [A-Z]")
_NOTES = re.compile(rb"(?i)\bshared/(?:design|research)|\bcontracts\.md\b|\bresearch/[a-z]+\.md\b|\bissues show\b")


def test_nothing_of_this_machine_or_its_notes_is_in_the_tree() -> None:
    """No absolute path of somebody's disk, no credit to a tool, no reference to notes that readers do not have."""
    allowed = Path(__file__).resolve()
    found = []
    for path in tracked():
        if path == allowed:
            continue
        data = path.read_bytes()
        for pattern in (_HERE, _CREDIT, _NOTES):
            found += [f"{path.relative_to(ROOT)}: {match[0]!r}" for match in pattern.finditer(data)]
    assert found == []


def test_private_keys_are_in_the_example_only() -> None:
    """No key material anywhere but where a README says that it is everybody's."""
    marker = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}")
    found = [path for path in tracked() if marker.search(path.read_bytes())]
    assert {path.parent.name for path in found} <= {"keys-example"}
