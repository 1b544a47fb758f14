"""Conditions: what each comparison means, and what becomes of a rule whose conditions are missing or unreadable."""

from __future__ import annotations

import math
from itertools import product

import pytest

from certauth.errors import ConfigError
from certauth.identity.mapping import Condition, Operator, Outcome, Pointer, When
from certauth.identity.mapping.claims import Claims, Scalar
from certauth.identity.mapping.conditions import ConditionReport
from tests.certauth.identity.logins import Login, claims, condition

HOLDS, FAILS, MISSING, UNREADABLE = Outcome
ABSENT = object()


@pytest.mark.parametrize(
    ("operator", "operands", "value", "outcome"),
    [
        ("equals", ("a",), "a", HOLDS),
        ("equals", ("a",), ["a"], HOLDS),
        ("equals", ("a",), ["a", "b"], FAILS),
        ("equals", ("a",), "A", FAILS),
        ("equals", ("a",), "a ", FAILS),
        ("equals", (True,), True, HOLDS),
        ("equals", (True,), 1, FAILS),
        ("equals", (True,), "true", FAILS),
        ("equals", (1,), True, FAILS),
        ("equals", (1,), 1.0, HOLDS),
        ("equals", (1,), "1", FAILS),
        ("equals", (0,), False, FAILS),
        ("equals", ("1",), 1, FAILS),
        ("any", ("a", "b"), "b", HOLDS),
        ("any", ("a", "b"), ["c", "b"], HOLDS),
        ("any", ("a", "b"), ["c"], FAILS),
        ("any", ("a", 1), [1], HOLDS),
        ("any", ("a", 1), [True], FAILS),
        ("all", ("a", "b"), ["b", "a", "c"], HOLDS),
        ("all", ("a", "b"), ["a"], FAILS),
        ("all", ("a",), "a", HOLDS),
        ("match", ("stf*", "*-x"), ["no", "hpc-x"], HOLDS),
        ("match", ("stf*",), ["no", 7], FAILS),
        ("match", ("1*",), 12, FAILS),
        ("present", (), False, HOLDS),
        ("present", (), {"a": 1}, HOLDS),
        ("present", (), ABSENT, FAILS),
        ("present", (), "", FAILS),
        ("absent", (), ABSENT, HOLDS),
        ("absent", (), None, HOLDS),
        ("absent", (), "x", FAILS),
        ("equals", ("a",), ABSENT, MISSING),
        ("any", ("a",), [], MISSING),
        ("match", ("**",), None, MISSING),
        ("equals", ("a",), {"a": 1}, UNREADABLE),
        ("any", ("a",), ["a", {}], UNREADABLE),
        ("all", ("a",), ["a"] * 201, UNREADABLE),
    ],
)
def test_what_a_comparison_means(operator: str, operands: tuple[Scalar, ...], value: object, outcome: Outcome) -> None:
    """Values are compared with their types; a claim that is not there is not a claim that differs."""
    document = {} if value is ABSENT else {"c": value}
    assert condition("/c", operator, *operands).decide(claims(**document), "all").outcome is outcome


@pytest.mark.parametrize("operator", ["present", "absent"])
def test_presence_of_what_is_elsewhere_is_unknown(operator: str) -> None:
    """Groups that the provider left out for their number are neither there nor not there."""
    report = condition("/groups", operator).decide(claims(hasgroups=True), "all")
    assert (report.outcome, "left /groups out" in str(report.why)) == (UNREADABLE, True)


@pytest.mark.parametrize(
    ("operator", "operands"),
    [
        ("equals", ()),
        ("equals", ("a", "b")),
        ("any", ()),
        ("any", ("",)),
        ("any", ("a",) * 65),
        ("any", (math.nan,)),
        ("any", (math.inf,)),
        ("all", (None,)),
        ("match", (1,)),
        ("match", ("a",) * 17),
        ("match", ("a***",)),
        ("present", ("a",)),
        ("absent", (True,)),
    ],
)
def test_what_is_no_comparison_is_refused(operator: str, operands: tuple[Scalar, ...]) -> None:
    """A condition that could never hold, or would mean something else than written, is not loaded."""
    with pytest.raises(ConfigError) as error:
        condition("/c", operator, *operands)
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)


@pytest.mark.parametrize(
    ("when", "outcome"),
    [
        ({"all": "h"}, HOLDS),
        ({"all": "hh"}, HOLDS),
        ({"all": "hf"}, FAILS),
        ({"all": "hm"}, FAILS),
        ({"all": "hu"}, UNREADABLE),
        ({"all": "fu"}, FAILS),
        ({"any": "fh"}, HOLDS),
        ({"any": "ff"}, FAILS),
        ({"any": "mh"}, HOLDS),
        ({"any": "m"}, FAILS),
        ({"any": "uh"}, HOLDS),
        ({"any": "um"}, UNREADABLE),
        ({"none": "f"}, HOLDS),
        ({"none": "fh"}, FAILS),
        ({"none": "fm"}, FAILS),
        ({"none": "fu"}, UNREADABLE),
        ({"all": "h", "any": "fh", "none": "f"}, HOLDS),
        ({"all": "h", "any": "fm", "none": "f"}, FAILS),
        ({"all": "f", "any": "u", "none": "u"}, FAILS),
    ],
)
def test_how_conditions_combine(when: dict[str, str], outcome: Outcome) -> None:
    """Missing is never a yes, nor a no under ``none``; unreadable decides only where nothing else does."""
    outcomes = {"h": HOLDS, "f": FAILS, "m": MISSING, "u": UNREADABLE}
    reports = tuple(
        ConditionReport(place=place, condition="c", outcome=outcomes[letter]) for place, text in when.items() for letter in text
    )
    assert When.combined(reports) is outcome


def test_leaving_a_claim_out_opens_nothing() -> None:
    """Who is kept out by a claim cannot get in by asking the provider not to send it."""
    kept_out = When(none=(condition("/groups", "any", "suspended"),))
    verdicts = [
        When.combined(kept_out.decide(claims(**document)))
        for document in ({"groups": ["staff"]}, {"groups": ["suspended"]}, {})
    ]
    assert verdicts == [HOLDS, FAILS, FAILS]


def test_kinds_and_bindings() -> None:
    """An access token is not an ID token, and an unbound proof not a bound one, whatever their claims."""
    when = When(kinds=frozenset({"id_token"}), bindings=frozenset({"nonce", "cnf"}))
    for kind, binding in product(("id_token", "access_token"), ("nonce", "cnf", "none")):
        outcome = When.combined(when.decide(Claims(Login(kind=kind, binding=binding))))
        assert outcome is (HOLDS if kind == "id_token" and binding != "none" else FAILS)
    report = when.decide(Claims(Login(binding="none")))[1]
    assert str(report) == 'bindings the proof is cnf or nonce fails: "none"'


def test_everyone_is_said() -> None:
    """A rule without conditions takes nobody by accident."""
    assert When.combined(When(everyone=True).decide(claims())) is HOLDS
    for when in (
        {},
        {"everyone": True, "kinds": frozenset({"id_token"})},
        {"everyone": True, "all": (condition("/a", "present"),)},
    ):
        with pytest.raises(ConfigError, match="whom the rule is for"):
            When(**when)  # type: ignore[arg-type]


def test_conditions_are_bounded() -> None:
    """Over 32 conditions are more than one rule."""
    conditions = (condition("/a", "present"),) * 33
    When(all=conditions[:32])
    with pytest.raises(ConfigError, match="too many"):
        When(all=conditions[:20], none=conditions[20:])


def test_a_report_shows_what_was_compared() -> None:
    """The first values of the claim, and how many more; for a missing claim why; never a value in ``why``."""
    groups = condition("/groups", "any", "staff", 7, True)
    report = groups.decide(claims(groups=[f"g{n}" for n in range(7)], other="secret"), "all")
    assert str(report) == 'all /groups any "staff", 7, true fails: "g0", "g1", "g2", "g3", "g4", and 2 more'
    assert str(groups.decide(claims(), "any")) == 'any /groups any "staff", 7, true missing: the proof has no /groups'
    assert str(condition("/acr", "present").decide(claims(acr="x"), "all")) == "all /acr present holds"
    assert groups.decide(claims(groups=["secret", {}]), "all").seen == ()


def test_conditions_are_equal_by_what_they_say() -> None:
    """Two that say the same are the same; what they compile to does not count."""
    assert condition("/a", "any", "x") == Condition(Pointer.parse("/a"), Operator.ANY, ("x",))
    assert condition("/a", "any", "x") != condition("/a", "all", "x")
