"""Rules in order: who is admitted by which, what is said to those who are not, and what the rules of issuers may not share."""

from __future__ import annotations

import pytest

from certauth.errors import ConfigError
from certauth.identity.mapping import (
    NO_RULES,
    Admission,
    EntitlementSource,
    FixedName,
    NamesFromClaim,
    NotAdmitted,
    Outputs,
    Pointer,
    Rule,
    Template,
    Verdict,
    When,
    admit,
    check_rules,
    explain,
)
from tests.certauth.identity.logins import EVERYONE, Login, condition, login, rule

STAFF = rule("staff", When(all=(condition("/groups", "any", "staff"),)), groups=(FixedName("staff"),), assurance=3)
MFA = rule("mfa", When(all=(condition("/acr", "equals", "mfa"),)), assurance=2)
REST = rule("rest", EVERYONE, assurance=1)


@pytest.mark.parametrize(
    ("claims", "by"),
    [
        ({"groups": ["staff"], "acr": "mfa"}, "staff"),
        ({"groups": ["guest"], "acr": "mfa"}, "mfa"),
        ({"acr": "pwd"}, "rest"),
        ({}, "rest"),
    ],
)
def test_the_first_rule_that_takes_a_login_decides(claims: dict[str, object], by: str) -> None:
    """Rules do not add up: what a later one would have given is not given."""
    decision = admit([STAFF, MFA, REST], login(**claims))
    assert isinstance(decision, Admission)
    assert decision.rule == by
    assert decision.groups == (("staff",) if by == "staff" else ())


def test_without_rules_everybody_verified_is_admitted_and_nothing_said() -> None:
    """What the issuer's other settings say decides; no rule can call itself so."""
    assert admit([], login(groups=["admins"])) == Admission(rule=NO_RULES)
    assert explain([], login()).rules == ()
    with pytest.raises(ConfigError):
        rule(NO_RULES)


def test_nobody_is_admitted_without_a_rule_that_takes_them() -> None:
    """The reason says for each rule what was missing and what was otherwise, and holds no value."""
    decision = admit([STAFF, MFA], login(acr="secret-level"))
    assert decision == NotAdmitted(
        "no rule takes this login ('staff': the proof has no /groups; 'mfa': all /acr equals \"mfa\")",
        "ask the provider to send /groups, or log in with its scope",
    )
    assert "secret" not in str(decision)


def test_the_reason_of_a_refusal() -> None:
    """Alternatives are named only if none holds, what is under ``none`` if it is there; or else where to look."""
    alternatives = When(
        any=(condition("/a", "present"), condition("/b", "equals", 1)),
        none=(condition("/c", "any", "x"), condition("/d", "any", "y")),
    )
    lacking = 'any /a present, the proof has no /b, none /c any "x"'
    asked = "ask the provider to send /b, or log in with its scope"
    decision = admit([rule("r", alternatives)], login(c="x", d="n"))
    assert decision == NotAdmitted(f"no rule takes this login ('r': {lacking})", asked)
    decision = admit([rule("r", alternatives)], login(a=1, c="x", d="n"))
    assert decision == NotAdmitted(
        "no rule takes this login ('r': none /c any \"x\")",
        "the facility's administrator sees why with: certauth signer issuer explain",
    )
    kinds = admit([rule("r", When(kinds=frozenset({"workload"})))], login())
    assert isinstance(kinds, NotAdmitted)
    assert kinds.reason == "no rule takes this login ('r': kinds the proof is workload)"


def test_the_reason_is_bounded() -> None:
    """Sixty-four rules with long names are a reason of at most 1000 characters."""
    rules = [rule(f"{n:02}" + "x" * 70, When(all=(condition(f"/{'c' * 80}{n}", "present"),))) for n in range(64)]
    decision = admit(rules, login())
    assert isinstance(decision, NotAdmitted)
    assert len(decision.reason) == 1000
    assert decision.reason.endswith(" ...")


def test_an_unreadable_claim_ends_the_search() -> None:
    """Whether the first rule would have taken the login is unknown, so no later and perhaps wider one is asked."""
    kept_low = rule("guests", When(all=(condition("/groups", "any", "guests"),)), assurance=1)
    for claims in ({"hasgroups": True}, {"groups": {"a": 1}}, {"groups": ["x"] * 201}):
        decision = admit([kept_low, REST], login(**claims))
        assert isinstance(decision, NotAdmitted)
        assert decision.reason.startswith("rule 'guests': ")
        assert "/groups" in decision.reason
        assert decision.hint
    assert isinstance(admit([kept_low, REST], login()), Admission)


def test_an_unreadable_claim_of_a_rule_for_others_is_nothing() -> None:
    """A rule that does not take the login anyway does not refuse it."""
    for when in (
        When(kinds=frozenset({"workload"}), all=(condition("/groups", "any", "x"),)),
        When(all=(condition("/groups", "any", "x"), condition("/idp", "equals", "other"))),
    ):
        decision = admit([rule("other", when), REST], login(hasgroups=True, idp="this"))
        assert isinstance(decision, Admission)


def test_a_rule_that_takes_a_login_and_cannot_make_it_anybody_refuses_it() -> None:
    """A missing claim in an output is no reason to try the next rule."""
    named = rule("named", EVERYONE, subject=Template.parse("user/{claim:/uid}"))
    decision = admit([named, REST], login())
    assert decision == NotAdmitted(
        "rule 'named' takes this login, but subject: the proof has no /uid",
        "ask the provider to send /uid, or log in with its scope",
        rule="named",
    )


def test_an_explanation_is_how_the_decision_was_taken() -> None:
    """Rule by rule, condition by condition, values only where they were compared."""
    explanation = explain([STAFF, MFA, REST], Login(assurance=1, claims={"acr": "mfa", "ssn": "078-05-1120"}))
    assert [report.verdict for report in explanation.rules] == [Verdict.PASSES, Verdict.ADMITS, Verdict.NOT_REACHED]
    assert list(explanation.lines()) == [
        "rule 'staff': does not take this login",
        '  all /groups any "staff" missing: the proof has no /groups',
        "rule 'mfa': admits: assurance 2 lowered to 1, which is what the login is worth",
        '  all /acr equals "mfa" holds: "mfa"',
        "rule 'rest': not reached",
        "admitted by 'mfa'",
    ]
    assert "078" not in repr(explanation)


def test_an_explanation_of_a_refusal() -> None:
    """The rule that refused says why; the last lines are what the user hears."""
    refused = list(explain([STAFF], login(hasgroups=True)).lines())
    assert refused[0].startswith("rule 'staff': refuses: rule 'staff': the provider left /groups out")
    assert refused[-2].startswith("not admitted: rule 'staff': ")
    assert refused[-1].startswith("hint: let the provider send fewer")
    nobody = list(explain([MFA], login(acr="x")).lines())
    assert nobody[-1] == "hint: the facility's administrator sees why with: certauth signer issuer explain"


def test_an_explanation_is_safe_to_print() -> None:
    """Neither a claim nor a rule can write to the terminal of the administrator who asks."""
    hostile = login(acr=["\x1b[2J\x07" * 30, "\u202ex"], groups=["\r\nadmitted by 'staff'"])
    for line in explain([STAFF, MFA], hostile).lines():
        assert line.isprintable()
        assert len(line) < 600


@pytest.mark.parametrize(
    "settings", [{"name": ""}, {"name": "a\nb"}, {"name": "x" * 81}, {"max_values": 0}, {"max_values": 1001}]
)
def test_what_is_no_rule(settings: dict[str, object]) -> None:
    """Names are printed and logged; a cap is a cap."""
    with pytest.raises(ConfigError) as error:
        Rule(**({"name": "one", "when": EVERYONE, "outputs": Outputs()} | settings))  # type: ignore[arg-type]
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)


# --- the rules of several issuers ----------------------------------------------------------------------------------------


def groups(prefix: str | None) -> list[Rule]:
    """A rule whose groups stand behind ``prefix``."""
    return [rule(groups=(NamesFromClaim(claim=Pointer.parse("/groups"), prefix=prefix),))]


@pytest.mark.parametrize(
    ("mine", "yours", "apart"),
    [
        (None, None, True),
        ("a:", "b:", True),
        ("a:x:", "b:y:", True),
        ("shared:", "shared:", True),
        ("shared:", "b:", True),
        ("b:", None, False),
        ("b:x:", None, False),
        ("shared:", "shared:x:", False),
        ("a:", "a:", False),
        ("a:", "a:x:", False),
    ],
)
def test_no_issuer_names_in_the_namespace_of_another(mine: str | None, yours: str | None, apart: bool) -> None:
    """Two may agree on one that is the id of neither; everything else is one provider speaking for the other's people."""
    for rules in ({"a": groups(mine), "b": groups(yours)}, {"b": groups(yours), "a": groups(mine)}):
        if apart:
            check_rules(rules)
        else:
            with pytest.raises(ConfigError, match="both make names under"):
                check_rules(rules)


def test_every_output_with_a_prefix_counts() -> None:
    """Roles, projects and entitlements as well as groups; an issuer without rules keeps its namespace; constants are free."""
    source = NamesFromClaim(claim=Pointer.parse("/x"), prefix="b:")
    entitlement = EntitlementSource(claim=Pointer.parse("/x"), authority="y", prefix="b:")
    for outputs in ({"roles": (source,)}, {"projects": (source,)}, {"entitlements": (entitlement,)}):
        with pytest.raises(ConfigError):
            check_rules({"a": [rule(**outputs)], "b": []})
    check_rules({"a": [rule(groups=(FixedName("b:admins"),))], "b": []})


def named(subject: str) -> list[Rule]:
    """A rule that makes this principal."""
    return [rule(subject=Template.parse(subject))]


def test_no_two_issuers_name_one_principal() -> None:
    """The alice of another provider is somebody else; a provider whose users choose their names could take any."""
    check_rules({"a": named("user/{sub|hash}"), "b": named("user/{sub|hash}"), "c": [rule()]})
    check_rules({"a": named("user/a-{claim:/uid}"), "b": named("user/b-{claim:/uid}")})
    check_rules(
        {"a": [*named("user/{claim:/uid}"), Rule(name="two", when=EVERYONE, outputs=Outputs(subject=Template.parse("user/x")))]}
    )
    for mine, yours in (("user/{claim:/uid}", "user/{claim:/nick}"), ("user/{sub|hash}", "user/{claim:/nick}")):
        with pytest.raises(ConfigError, match="same principal"):
            check_rules({"a": named(mine), "b": named(yours)})


def test_rules_of_an_issuer_are_few_and_told_apart() -> None:
    """Sixty-four, each with its own name: the name is what the log holds."""
    many = [rule(f"rule {n}") for n in range(65)]
    check_rules({"a": many[:64], "b": many[:64]})
    for rules in (many, [many[0], many[0]]):
        with pytest.raises(ConfigError) as error:
            check_rules({"a": rules})
        assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)
