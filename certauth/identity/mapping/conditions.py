"""When a rule takes a login: conditions on claims, combined by words that say how.

A condition *holds*, *fails*, or reads a claim that is *missing* or *unreadable*. Missing is never a yes: under ``all`` and
``any`` it does not hold, and under ``none`` it does not fail either, because whoever logs in may choose which scopes to ask for
and could otherwise leave out the claim that keeps them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from certauth.errors import ConfigError
from certauth.identity.mapping.claims import ClaimMissing, Claims, ClaimUnreadable, Pointer, Scalar, shown, typed
from certauth.identity.mapping.globs import Glob

MAX_CONDITIONS: Final = 32
MAX_OPERANDS: Final = 64
MAX_PATTERNS: Final = 16
_MAX_SHOWN = 5


class Operator(StrEnum):
    """What a condition asks of the values of a claim."""

    EQUALS = "equals"
    """There is one value, and it is this."""
    ANY = "any"
    """One of the values is one of these."""
    ALL = "all"
    """Each of these is one of the values."""
    MATCH = "match"
    """One of the values is a text that matches one of these globs."""
    PRESENT = "present"
    ABSENT = "absent"


class Outcome(StrEnum):
    """What became of a condition."""

    HOLDS = "holds"
    FAILS = "fails"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionReport:
    """One condition, decided. ``seen`` are the first values of its claim, printable and cut; ``why`` never holds a value."""

    place: str
    condition: str
    outcome: Outcome
    seen: tuple[str, ...] = ()
    why: str = ""
    hint: str = ""

    def __str__(self) -> str:
        seen = f": {', '.join(self.seen)}" if self.seen else f": {self.why}" if self.why else ""
        return f"{self.place} {self.condition} {self.outcome}{seen}"


@dataclass(frozen=True, slots=True)
class Condition:
    """``claim``, compared by ``operator`` with ``operands`` (none for ``present`` and ``absent``)."""

    claim: Pointer
    operator: Operator
    operands: tuple[Scalar, ...] = ()
    _test: Callable[[tuple[Scalar, ...]], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) for operands that are not what the operator compares with."""
        operator, operands = self.operator, self.operands
        bare = operator in {Operator.PRESENT, Operator.ABSENT}
        if bare == bool(operands) or len(operands) > MAX_OPERANDS or (operator is Operator.EQUALS and len(operands) != 1):
            raise ConfigError(
                "rule-invalid",
                f"{operator} of {self.claim} has {len(operands)} values",
                hint=f"equals takes one value, any, all and match 1 to {MAX_OPERANDS}, present and absent none",
            )
        if not all(_comparable(operand) for operand in operands):
            raise ConfigError(
                "rule-invalid",
                f"{operator} of {self.claim} compares with something else than texts, numbers and booleans",
                hint="an empty text is never seen: write absent = true",
            )
        object.__setattr__(self, "_test", _match(self) if operator is Operator.MATCH else _comparison(operator, operands))

    def decide(self, claims: Claims, place: str) -> ConditionReport:
        """What becomes of it with these claims; ``place`` is how the report calls it."""
        try:
            if self.operator in {Operator.PRESENT, Operator.ABSENT}:
                return self._presence(claims, place)
            values = claims.values(self.claim)
        except ClaimMissing as missing:
            return self._report(place, Outcome.MISSING, why=missing.why, hint=missing.hint)
        except ClaimUnreadable as unreadable:
            return self._report(place, Outcome.UNREADABLE, why=unreadable.why, hint=unreadable.hint)
        seen = [shown(value) for value in values[:_MAX_SHOWN]]
        if len(values) > _MAX_SHOWN:
            seen.append(f"and {len(values) - _MAX_SHOWN} more")
        return self._report(place, Outcome.HOLDS if self._test(values) else Outcome.FAILS, seen=tuple(seen))

    def _presence(self, claims: Claims, place: str) -> ConditionReport:
        try:
            claims.find(self.claim)
            found = True
        except ClaimMissing:
            found = False
        holds = found == (self.operator is Operator.PRESENT)
        return self._report(place, Outcome.HOLDS if holds else Outcome.FAILS)

    def _report(
        self, place: str, outcome: Outcome, *, seen: tuple[str, ...] = (), why: str = "", hint: str = ""
    ) -> ConditionReport:
        return ConditionReport(place=place, condition=str(self), outcome=outcome, seen=seen, why=why, hint=hint)

    def __str__(self) -> str:
        return " ".join((str(self.claim), self.operator, *([", ".join(map(shown, self.operands))] if self.operands else ())))


def _comparable(operand: object) -> bool:
    return math.isfinite(operand) if isinstance(operand, float) else isinstance(operand, str | int) and operand != ""


def _comparison(operator: Operator, operands: tuple[Scalar, ...]) -> Callable[[tuple[Scalar, ...]], bool]:
    wanted = frozenset(map(typed, operands))
    match operator:
        case Operator.EQUALS:
            return lambda values: len(values) == 1 and typed(values[0]) in wanted
        case Operator.ALL:
            return lambda values: wanted <= frozenset(map(typed, values))
        case _:
            return lambda values: not wanted.isdisjoint(map(typed, values))


def _match(condition: Condition) -> Callable[[tuple[Scalar, ...]], bool]:
    texts = [operand for operand in condition.operands if isinstance(operand, str)]
    if len(texts) != len(condition.operands) or len(texts) > MAX_PATTERNS:
        raise ConfigError(
            "rule-invalid",
            f"match of {condition.claim} takes up to {MAX_PATTERNS} texts",
            hint="a number or a boolean is compared with equals or any",
        )
    globs = [Glob(text) for text in texts]
    return lambda values: any(glob.matches(value) for value in values if isinstance(value, str) for glob in globs)


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Which logins a rule takes: those for which every line that is given holds. ``everyone`` is said, never implied.

    ``kinds`` and ``bindings`` are those of the proof (``certauth.identity.ProofKind`` and ``Binding``).
    """

    everyone: bool = False
    kinds: frozenset[str] = frozenset()
    bindings: frozenset[str] = frozenset()
    all: tuple[Condition, ...] = ()
    any: tuple[Condition, ...] = ()
    none: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``rule-invalid``) if nothing is said, or too much."""
        conditions = len(self.all) + len(self.any) + len(self.none)
        if self.everyone == bool(conditions or self.kinds or self.bindings):
            raise ConfigError(
                "rule-invalid",
                "it does not say whom the rule is for",
                hint="write conditions under when.all, when.any or when.none, or when.everyone = true, not both",
            )
        if conditions > MAX_CONDITIONS:
            raise ConfigError(
                "rule-invalid", f"{conditions} conditions are too many", hint=f"at most {MAX_CONDITIONS}; make two rules"
            )

    def decide(self, claims: Claims) -> tuple[ConditionReport, ...]:
        """Every condition, decided, in the order written."""
        return tuple(self._reports(claims))

    def _reports(self, claims: Claims) -> Iterator[ConditionReport]:
        identity = claims.identity
        for place, wanted, actual in (("kinds", self.kinds, identity.kind), ("bindings", self.bindings, identity.binding)):
            if wanted:
                outcome = Outcome.HOLDS if actual in wanted else Outcome.FAILS
                among = f"the proof is {' or '.join(sorted(wanted))}"
                yield ConditionReport(place=place, condition=among, outcome=outcome, seen=(shown(str(actual)),))
        for place, conditions in (("all", self.all), ("any", self.any), ("none", self.none)):
            for condition in conditions:
                yield condition.decide(claims, place)

    @staticmethod
    def combined(reports: tuple[ConditionReport, ...]) -> Outcome:
        """Whether the conditions, so decided, take the login: ``HOLDS``, ``FAILS``, or ``UNREADABLE`` if it hangs on those."""
        alternatives = {report.outcome for report in reports if report.place == "any"}
        lines = {_line(report) for report in reports if report.place != "any"}
        if alternatives:
            lines.add(next((best for best in (Outcome.HOLDS, Outcome.UNREADABLE) if best in alternatives), Outcome.FAILS))
        return next((worst for worst in (Outcome.FAILS, Outcome.UNREADABLE) if worst in lines), Outcome.HOLDS)


def _line(report: ConditionReport) -> Outcome:
    """What a condition is worth where it stands: under ``none`` a failure is what is wanted, and missing never is."""
    match report.outcome:
        case Outcome.UNREADABLE:
            return Outcome.UNREADABLE
        case outcome:
            wanted = Outcome.FAILS if report.place == "none" else Outcome.HOLDS
            return Outcome.HOLDS if outcome is wanted else Outcome.FAILS
