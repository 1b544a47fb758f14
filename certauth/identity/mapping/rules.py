"""Rules, in order: the first that takes a login decides who it becomes; without one, nobody is admitted.

``admit`` and ``explain`` are one evaluation: the explanation is how the decision was taken, not a second opinion about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations, product
from typing import Final

from certauth.errors import ConfigError
from certauth.identity.mapping.claims import MAX_VALUES, Claims, Identity, Unmappable
from certauth.identity.mapping.conditions import ConditionReport, Outcome, When
from certauth.identity.mapping.memberships import FixedName, prefix_of
from certauth.identity.mapping.outputs import Admission, NotAdmitted, Outputs
from certauth.identity.mapping.templates import Template

MAX_RULES: Final = 64
MAX_RULE_NAME: Final = 80
NO_RULES: Final = "no rules"
"""What an admission calls its rule where an issuer has none: everybody it vouches for, and nothing else said."""
_VALUES = (1, 1000)
_MAX_REASON = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Whom it takes, and who they become. ``max_values`` caps what is read of one claim, and the names it may make."""

    name: str
    when: When
    outputs: Outputs = field(default_factory=Outputs)
    max_values: int = MAX_VALUES

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for a name or a cap that cannot be."""
        if not 0 < len(self.name) <= MAX_RULE_NAME or not self.name.isprintable() or self.name == NO_RULES:
            raise ConfigError(
                "rule-invalid",
                f"{self.name[:MAX_RULE_NAME]!r} is not a name for a rule",
                hint=f"1 to {MAX_RULE_NAME} printable characters; the log calls the rule so",
            )
        if not _VALUES[0] <= self.max_values <= _VALUES[1]:
            raise ConfigError(
                "rule-invalid", f"max_values: {self.max_values} cannot be", hint=f"from {_VALUES[0]} to {_VALUES[1]}"
            )

    def prefixes(self, issuer_id: str) -> Iterator[str]:
        """The namespaces in which claims of ``issuer_id`` make names by this rule."""
        outputs = self.outputs
        for source in (*outputs.groups, *outputs.roles, *outputs.projects, *outputs.entitlements):
            if not isinstance(source, FixedName):
                yield prefix_of(issuer_id, source.prefix)


class Verdict(StrEnum):
    """What a rule says to a login."""

    ADMITS = "admits"
    PASSES = "does not take this login"
    REFUSES = "refuses"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleReport:
    """One rule, decided."""

    rule: str
    verdict: Verdict
    conditions: tuple[ConditionReport, ...] = ()
    why: str | None = None

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"rule {self.rule!r}: {self.verdict}{f': {self.why}' if self.why else ''}"
        yield from (f"  {condition}" for condition in self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a decision was taken, rule by rule; ``decision`` is what ``admit`` returns."""

    rules: tuple[RuleReport, ...]
    decision: Admission | NotAdmitted

    def lines(self) -> Iterator[str]:
        """For people: printable text without anything of the claims but what conditions compare."""
        for rule in self.rules:
            yield from rule.lines()
        if isinstance(self.decision, Admission):
            yield f"admitted by {self.decision.rule!r}"
        else:
            yield f"not admitted: {self.decision.reason}"
            yield f"hint: {self.decision.hint}"


def admit(rules: Sequence[Rule], identity: Identity) -> Admission | NotAdmitted:
    """Who ``identity`` becomes by the first rule that takes it; without rules, everybody verified, nothing else said."""
    return explain(rules, identity).decision


def explain(rules: Sequence[Rule], identity: Identity) -> Explanation:
    """The same decision, with what became of every condition that was looked at."""
    if not rules:
        return Explanation(rules=(), decision=Admission(rule=NO_RULES))
    reports: list[RuleReport] = []
    decision: Admission | NotAdmitted | None = None
    for rule in rules:
        if decision is not None:
            reports.append(RuleReport(rule=rule.name, verdict=Verdict.NOT_REACHED))
            continue
        report, decision = _decide(rule, Claims(identity, max_values=rule.max_values))
        reports.append(report)
    return Explanation(rules=tuple(reports), decision=_nobody(reports) if decision is None else decision)


def check_rules(rules: Mapping[str, Sequence[Rule]]) -> None:
    """Raise ``ConfigError`` (``rule-invalid``) unless the rules of all issuers, by the issuers' ids, are sound together.

    1. At most 64 rules for an issuer, each with a name of its own.
    2. No issuer's claims make names in the namespace of another issuer; two that share one agree on it to the letter, and it
       is the id of neither.
    3. No principal can come out of the rules of two issuers: the same name from another provider is somebody else.
    """
    spaces: dict[str, frozenset[str]] = {}
    for issuer_id, own in rules.items():
        names = [rule.name for rule in own]
        if len(names) > MAX_RULES or len(set(names)) != len(names):
            raise ConfigError(
                "rule-invalid",
                f"issuer {issuer_id!r} has over {MAX_RULES} rules, or two of one name",
                hint="give each rule a name of its own; any and match take several values in one rule",
            )
        spaces[issuer_id] = frozenset(prefix for rule in own for prefix in rule.prefixes(issuer_id))
    for first, second in combinations(rules, 2):
        for prefix, foreign in product(spaces[first] | {f"{first}:"}, spaces[second] | {f"{second}:"}):
            shared = prefix == foreign and prefix not in {f"{first}:", f"{second}:"}
            if not shared and (prefix.startswith(foreign) or foreign.startswith(prefix)):
                raise ConfigError(
                    "rule-invalid",
                    f"issuers {first!r} and {second!r} would both make names under {max(prefix, foreign)!r}",
                    hint="give each its own prefix; only a prefix that is the id of neither can be shared",
                )
        for one, other in product(_subjects(rules[first]), _subjects(rules[second])):
            if one.meets(other):
                raise ConfigError(
                    "rule-invalid",
                    f"issuers {first!r} and {second!r} could both name the same principal: {one.text!r}, {other.text!r}",
                    hint="begin the names of each with a part of its own, user/campus-{claim:/uid}, or use {sub|hash}",
                )


def _subjects(rules: Sequence[Rule]) -> list[Template]:
    return [rule.outputs.subject for rule in rules if rule.outputs.subject is not None]


def _decide(rule: Rule, claims: Claims) -> tuple[RuleReport, Admission | NotAdmitted | None]:
    """What one rule says; ``None`` if it does not take the login."""
    conditions = rule.when.decide(claims)
    taken = When.combined(conditions)
    if taken is Outcome.FAILS:
        return RuleReport(rule=rule.name, verdict=Verdict.PASSES, conditions=conditions), None
    if taken is Outcome.UNREADABLE:
        # It is unknown whether this rule takes the login, and a later one may give what this one was there to withhold.
        unreadable = next(report for report in conditions if report.outcome is Outcome.UNREADABLE)
        return _refusal(rule, conditions, f"rule {rule.name!r}: {unreadable.why}", unreadable.hint)
    try:
        admission = rule.outputs.admission(rule.name, claims, most=rule.max_values)
    except Unmappable as error:
        return _refusal(rule, conditions, f"rule {rule.name!r} takes this login, but {error.why}", error.hint)
    return RuleReport(rule=rule.name, verdict=Verdict.ADMITS, conditions=conditions, why=_capped(rule, admission)), admission


def _refusal(rule: Rule, conditions: tuple[ConditionReport, ...], reason: str, hint: str) -> tuple[RuleReport, NotAdmitted]:
    return (
        RuleReport(rule=rule.name, verdict=Verdict.REFUSES, conditions=conditions, why=reason),
        NotAdmitted(reason, hint, rule.name),
    )


def _capped(rule: Rule, admission: Admission) -> str | None:
    stated = rule.outputs.assurance
    lowered = isinstance(stated, int) and admission.assurance is not None and admission.assurance < stated
    return f"assurance {stated} lowered to {admission.assurance}, which is what the login is worth" if lowered else None


def _nobody(reports: Sequence[RuleReport]) -> NotAdmitted:
    """What each rule was missing, cut to 1000 characters."""
    lacking = [(report.rule, _lacking(report.conditions)) for report in reports]
    said = [f"{rule!r}: {', '.join(dict.fromkeys(map(_lack, conditions)))}" for rule, conditions in lacking]
    reason = f"no rule takes this login ({'; '.join(said)})"
    hint = next(
        (condition.hint for _, conditions in lacking for condition in conditions if condition.hint),
        "the facility's administrator sees why with: certauth signer issuer explain",
    )
    return NotAdmitted(reason if len(reason) <= _MAX_REASON else f"{reason[: _MAX_REASON - 4]} ...", hint)


def _lacking(conditions: Sequence[ConditionReport]) -> list[ConditionReport]:
    """The conditions for which a rule did not take the login; alternatives only if none of them holds."""
    satisfied = any(report.place == "any" and report.outcome is Outcome.HOLDS for report in conditions)
    return [
        report
        for report in conditions
        if report.outcome is not (Outcome.FAILS if report.place == "none" else Outcome.HOLDS)
        and not (report.place == "any" and satisfied)
    ]


def _lack(report: ConditionReport) -> str:
    """One of them: what is missing by its name, what is there and wrong as it was asked for."""
    return report.why or f"{report.place} {report.condition}"
