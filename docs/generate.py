"""The parts of the reference that are made from the code: settings and error codes."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from signer import admission
from signer.settings import GrantSettings, IssuerSettings, Limits, Settings

ROOT = Path(__file__).resolve().parent.parent
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def write_all(target: Path) -> None:
    """Write every generated page into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "settings.md").write_text(settings_page(), encoding="utf-8")
    (target / "errors.md").write_text(errors_page(), encoding="utf-8")


TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("Top level", Settings),
    ("`[limits]`", Limits),
    ("`[[issuer]]`", IssuerSettings),
    ("`[[issuer.rule]]`", admission.RuleSettings),
    ("`when` of a rule", admission.WhenSettings),
    ("`all`, `any` and `none` of `when`", admission.ConditionSettings),
    ("`groups`, `roles` and `projects` of a rule", admission.NamesSettings),
    ("`entitlements` of a rule", admission.EntitlementSettings),
    ("`rights` of a rule", admission.RightSettings),
    ("`capabilities` of a rule", admission.CapabilitySettings),
    ("`scopes` of a rule", admission.ScopeSettings),
    ("`assurance` of a rule", admission.AssuranceSettings),
    ("`[[grant]]`", GrantSettings),
)


def settings_page() -> str:
    """Every key of ``signer.toml``, from the model that reads it."""
    only_file = [f"`{name}`" for name in Settings.model_fields if f"SIGNER_{name.upper()}" not in environment_variables()]
    parts = [
        "# Settings of the signer\n",
        "`signer.toml`, read by `certauth signer serve`.",
        "A top-level key with a single value may also be given as an environment variable, which then wins over the file:",
        "`SIGNER_` and the key in capitals.",
        f"These are {', '.join(f'`{name}`' for name in environment_variables())}.",
        f"The lists and tables {', '.join(only_file)} can only be set in the file.",
        "An unknown key or an unknown `SIGNER_` variable is named and refused.",
        "Durations are a whole number and a unit: `90s`, `10m`, `8h`, `7d`.",
        "What the parts of a rule mean is in the [specification of admission rules](../../specification/admission-rules.md).",
    ]
    for title, model in TABLES:
        parts.append(f"\n## {title}\n")
        parts.extend(_field(name, about) for name, about in model.model_fields.items() if not _is_section(about))
    return "\n".join(parts) + "\n"


def environment_variables() -> list[str]:
    """The variables that the signer reads: one for each top-level key that is neither a list nor a table."""
    scalars = (name for name, about in Settings.model_fields.items() if not isinstance(about.default, BaseModel | tuple))
    return [f"SIGNER_{name.upper()}" for name in scalars]


def _is_section(about: FieldInfo) -> bool:
    return isinstance(about.default, BaseModel | tuple) and about.description is None


def _field(name: str, about: FieldInfo) -> str:
    default = "required" if about.default is PydanticUndefined else f"default `{_shown(about.default)}`"
    return f"`{name}`\n: {about.description} ({default})\n"


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case timedelta():
            seconds = int(value.total_seconds())
            size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
            return f"{seconds // size}{unit}"
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(map(repr, value))}]"
        case _:
            return str(value) or "''"


@dataclass
class ErrorCode:
    """A code, and what is said with it: who says it, and in which sentences (values in braces), each with its hint."""

    modules: dict[str, None] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)


SAID_LATER: Mapping[str, str] = {
    "address-unusable": "cannot listen on {host} port {port}: {strerror}",
    "failed": "{what the command line could not do}",
    "path-ambiguous": "{what gives the path two readings}",
    "revocation-invalid": "{what is wrong with the value or the reason}",
    "system": "{filename}: {strerror}",
}
"""Sentences that are put together where no reader of the sources sees it."""


def error_codes() -> dict[str, ErrorCode]:
    """Every code the code can raise or answer with, and what goes with it, found in the sources."""
    found: dict[str, ErrorCode] = {}
    for package in ("certauth", "policy", "signer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            module = _Module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), tree)
            for node in ast.walk(tree):
                code = _code_of(node)
                if code and isinstance(node, ast.Call):
                    module.note(node, found.setdefault(code, ErrorCode()))
    for code, sentence in SAID_LATER.items():
        if not found[code].sentences:
            found[code].sentences[sentence] = ""
    return found


_SPEAKS = re.compile(
    r"Error$|Log$|Check$|Guard$|^_?[Dd]en|^_?[Rr]efus|LoginRequired|Conflict|^_?moved$|^_invalid$|^_malformed$"
)
"""Names of what takes a code: the errors, the refusals, and the small functions that make them."""
_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _code_of(node: ast.AST) -> str | None:
    """The code in a call: the first word among its first two arguments, or the one called ``code``."""
    if not isinstance(node, ast.Call) or not _SPEAKS.search(_name(node)) or hasattr(builtins, _name(node)):
        return None
    given = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
    words = (value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str))
    return next((word for word in words if _CODE.fullmatch(word)), None)


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


class _Module:
    """A module's constants and functions, by which a sentence can be read that is put together elsewhere in it."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name = name
        self._texts = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant | ast.JoinedStr)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
        self._imported = {alias.name: str(node.module) for node in imports for alias in node.names if alias.name.isupper()}
        self._functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def note(self, call: ast.Call, about: ErrorCode) -> None:
        """Add what this call says."""
        about.modules[self._name] = None
        sentence, hint = self._said(call, {})
        if sentence:
            about.sentences[sentence] = about.sentences.get(sentence) or hint

    def _said(self, call: ast.Call, bound: Mapping[str, ast.expr]) -> tuple[str, str]:
        helper = self._functions.get(_name(call))
        if helper is not None and not bound:
            names = [argument.arg for argument in helper.args.args if argument.arg != "self"]
            given = dict(zip(names, call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}
            inner = next(
                (node for node in ast.walk(helper) if isinstance(node, ast.Call) and _SPEAKS.search(_name(node))), None
            )
            if inner is not None:
                return self._said(inner, given)
        words = [self._text(node, bound) for node in call.args]
        place = next((index for index, word in enumerate(words) if _CODE.fullmatch(word or "")), None)
        if place is None:  # the code is named, or bound to a name
            place = next((index for index, node in enumerate(call.args) if getattr(node, "id", "") == "code"), -1)
        named = {keyword.arg: self._text(keyword.value, bound) for keyword in call.keywords}
        rest = [word for word in words[place + 1 :] if word]
        sentence = next(filter(None, map(named.get, ("message", "reason", "reasons", "words"))), None) or next(iter(rest), "")
        return sentence, named.get("hint") or ("" if len(rest) < 2 else rest[1]) or _made_elsewhere(call, place)

    def _text(self, node: ast.expr, bound: Mapping[str, ast.expr]) -> str:
        """The text of an expression, values that are only known later in braces; nothing if it is no text."""
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=values):
                return "".join(self._piece(value, bound) for value in values)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self._text(left, bound) + self._text(right, bound)
            case ast.IfExp(body=body, orelse=orelse):
                return " / ".join(filter(None, (self._text(body, bound), self._text(orelse, bound))))
            case ast.Tuple(elts=[first]):
                return self._text(first, bound)
            case ast.Name(id=name) if name in bound:
                return self._text(bound[name], {})
            case ast.Name(id=name) if name in self._texts:
                return self._text(self._texts[name], {})
            case ast.Name(id=name) if name in self._imported:
                value = getattr(importlib.import_module(self._imported[name]), name)
                return value if isinstance(value, str) else ""
            case _:
                return ""

    def _piece(self, node: ast.expr, bound: Mapping[str, ast.expr]) -> str:
        match node:
            case ast.Constant(value=value):
                return str(value)
            case ast.FormattedValue(value=ast.Name(id=name) | ast.Attribute(attr=name) as value):
                return self._text(value, bound) or f"{{{name}}}"
            case ast.FormattedValue(value=ast.Call(args=[ast.Name(id=name) | ast.Attribute(attr=name), *_])):
                return f"{{{name}}}"
            case _:
                return "{…}"


def _made_elsewhere(call: ast.Call, place: int) -> str:
    """A hint that is a value, e.g. the command that logs in again, by the value's name."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "hint"] + call.args[place + 2 : place + 3]
    names = [getattr(value, "attr", getattr(value, "id", "")) for value in given]
    return next((f"{{{name}}}" for name in names if name), "")


AREAS = (
    ("Identity proofs and providers", ("certauth.identity", "signer.jwks")),
    ("Requests and grants", ("certauth.requests", "certauth.names", "certauth.issuance", "certauth.profiles")),
    (
        "Certificates and trust bundles",
        ("certauth.certificates", "certauth.bundles", "certauth.trust_bundle"),
    ),
    ("Tokens", ("certauth.tokens",)),
    ("Revocation", ("certauth.revocation", "policy.feeds")),
    ("The log, receipts and decision files", ("certauth.audit",)),
    ("The user's program", ("certauth.client", "certauth.cli")),
    ("Requests at a protected service", ("policy",)),
    ("The signer", ("signer",)),
    ("Keys, files and everything else", ("certauth",)),
)


def _area(code: ErrorCode) -> int:
    """Where a code belongs: the first area in which a module says it."""
    return min(
        index for index, (_, prefixes) in enumerate(AREAS) for module in code.modules if f"{module}.".startswith(prefixes)
    )


def errors_page() -> str:
    """One heading per stable code, below the part of the system it comes from."""
    codes = error_codes()
    parts = [
        "# Error codes\n",
        "Codes are stable: scripts may depend on them.",
        "The sentence that comes with a code, and the hint, are for people and may change.",
        "Words in braces stand for a value.\n",
    ]
    for index, (title, _) in enumerate(AREAS):
        parts.append(f"## {title}\n")
        for code, said in sorted(codes.items()):
            if _area(said) == index:
                parts.append(f"### {code}\n")
                parts += [_item(sentence, hint) for sentence, hint in said.sentences.items()]
                parts.append(f"\nRaised by {', '.join(f'`{module}`' for module in said.modules)}.\n")
    return "\n".join(parts)


def _item(sentence: str, hint: str) -> str:
    return f"- {_literal(sentence)}" + (f"\\\n  *hint:* {_literal(hint)}" if hint else "")


def _literal(text: str) -> str:
    """``text`` as Markdown that shows it and nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", text)
