"""Admission, for any claims and any rules: what nobody asked about decides nothing, and what is explained is what is decided.

The second opinion is an evaluator of a few lines that knows nothing of reports, verdicts or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from certauth.identity.mapping import (
    Admission,
    Condition,
    FixedName,
    MappedRight,
    NamesFromClaim,
    NotAdmitted,
    Operator,
    Outputs,
    Pointer,
    RightTemplate,
    Rule,
    Template,
    Verdict,
    When,
    admit,
    explain,
)
from tests.certauth.identity.logins import Login

NAMES = ("groups", "acr", "uid", "nested", "email", "other")
SCALARS = st.sampled_from(["a", "b", "", "a/b", "..", 1, 1.0, True, False, 0, None])
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(["x", "a"]), inner, max_size=2),
    max_leaves=4,
)
CLAIMS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
UNNAMED = st.dictionaries(st.sampled_from(["new", "roles", "admin", "hasgroup", "a", "x"]), VALUES, min_size=1, max_size=3)
OVERAGE = st.sampled_from([{"hasgroups": True}, {"_claim_names": {"groups": "s"}}, {"_claim_names": {"acr": "s", "uid": "s"}}])
POINTERS = st.sampled_from(["/groups", "/acr", "/uid", "/nested/x", "/nested/a/x", "/email", "/groups/0"]).map(Pointer.parse)
OPERANDS = st.lists(
    st.sampled_from(["a", "b", 1, True, False]), min_size=1, max_size=2, unique_by=lambda value: (type(value), value)
)
CONDITIONS = st.one_of(
    st.builds(lambda claim, operands: Condition(claim, Operator.EQUALS, tuple(operands[:1])), POINTERS, OPERANDS),
    st.builds(lambda claim, operator, operands: Condition(claim, operator, tuple(operands)), POINTERS,
              st.sampled_from([Operator.ANY, Operator.ALL]), OPERANDS),
    st.builds(lambda claim, glob: Condition(claim, Operator.MATCH, (glob,)), POINTERS, st.sampled_from(["*", "a*", "**b"])),
    st.builds(Condition, POINTERS, st.sampled_from([Operator.PRESENT, Operator.ABSENT])),
)  # fmt: skip
SOME = st.lists(CONDITIONS, max_size=2).map(tuple)
WHENS = st.builds(lambda first, a, b, c: When(all=(first, *a), any=b, none=c), CONDITIONS, SOME, SOME, SOME) | st.just(
    When(everyone=True)
)
OUTPUTS = st.builds(
    Outputs,
    subject=st.sampled_from([None, "user/{sub|hash}", "user/{claim:/uid}"]).map(lambda text: text and Template.parse(text)),
    groups=st.lists(
        st.builds(FixedName, st.sampled_from(["staff", "guest"]))
        | st.builds(NamesFromClaim, claim=POINTERS, optional=st.booleans()),
        max_size=2,
    ).map(tuple),
    rights=st.sampled_from(
        [(), (RightTemplate(service="data", operations=("read",), path=Template.parse("/home/{claim:/uid}/")),)]
    ),
    assurance=st.sampled_from([None, 0, 1, 2, 3]),
)
RULES = st.lists(st.tuples(WHENS, OUTPUTS), max_size=4).map(
    lambda made: [Rule(name=f"rule {number}", when=when, outputs=outputs) for number, (when, outputs) in enumerate(made)]
)
LOGINS = st.builds(Login, claims=CLAIMS, assurance=st.integers(0, 3), email=st.sampled_from([None, "a@x.example"]))


def heads(rules: Sequence[Rule]) -> set[str]:
    """The claims that rules name."""
    found = set()
    for rule in rules:
        for each in (*rule.when.all, *rule.when.any, *rule.when.none):
            found.add(each.claim.tokens[0])
        found |= {source.claim.tokens[0] for source in rule.outputs.groups if isinstance(source, NamesFromClaim)}
    return found | {"uid", "sub"}


def powers(decision: Admission | NotAdmitted) -> tuple[frozenset[str], frozenset[MappedRight], int]:
    """What somebody can do with a decision."""
    if isinstance(decision, NotAdmitted):
        return frozenset(), frozenset(), -1
    return frozenset(decision.groups), frozenset(decision.rights), 4 if decision.assurance is None else decision.assurance


@given(rules=RULES, login=LOGINS, extra=UNNAMED)
def test_a_claim_that_no_rule_names_changes_nothing(rules: list[Rule], login: Login, extra: Mapping[str, object]) -> None:
    """R16: adding a claim never widens, nor narrows, unless a rule names it."""
    added = {name: value for name, value in extra.items() if name not in heads(rules)}
    assert admit(rules, replace(login, claims={**added, **login.claims})) == admit(rules, login)


@given(rules=RULES, login=LOGINS, overage=OVERAGE)
def test_a_list_left_out_for_its_length_never_widens(rules: list[Rule], login: Login, overage: Mapping[str, object]) -> None:
    """What the provider says about claims that are elsewhere can refuse, and gives nothing."""
    before, after = admit(rules, login), admit(rules, replace(login, claims={**login.claims, **overage}))
    assert after == before or isinstance(after, NotAdmitted)


@given(rules=RULES, login=LOGINS)
def test_the_explanation_is_the_decision(rules: list[Rule], login: Login) -> None:
    """Its decision is that of ``admit``: one rule decides, those behind it are not reached, and every line can be printed."""
    explanation = explain(rules, login)
    assert explanation.decision == admit(rules, login)
    verdicts = [report.verdict for report in explanation.rules]
    decisive = [verdict for verdict in verdicts if verdict in {Verdict.ADMITS, Verdict.REFUSES}]
    assert len(decisive) <= 1
    assert verdicts == sorted(verdicts, key=lambda verdict: {Verdict.PASSES: 0, Verdict.NOT_REACHED: 2}.get(verdict, 1))
    assert isinstance(explanation.decision, Admission) == (Verdict.ADMITS in verdicts or not rules)
    assert all(line.isprintable() for line in explanation.lines())


@given(rules=RULES, login=LOGINS)
def test_no_rule_gives_more_than_the_login_is_worth(rules: list[Rule], login: Login) -> None:
    """And every group of a claim stands behind the issuer's prefix, every path in its place."""
    decision = admit(rules, login)
    if isinstance(decision, NotAdmitted):
        return
    assert decision.assurance is None or decision.assurance <= login.assurance
    assert all(name in {"staff", "guest"} or name.startswith("campus:") for name in decision.groups)
    assert all(right.path.count("/") == 3 and ".." not in right.path for right in decision.rights)


@given(rules=RULES, login=LOGINS)
def test_rules_do_not_add_up(rules: list[Rule], login: Login) -> None:
    """What several rules give is what one of them gives by itself."""
    whole = powers(admit(rules, login))
    if rules:
        assert whole in [powers(admit([rule], login)) for rule in rules] + [powers(NotAdmitted("", ""))]


# --- a second opinion ----------------------------------------------------------------------------------------------------


class Unknown(Exception):
    """A claim that is not as the rule expects."""


def value_of(login: Login, pointer: Pointer) -> object:
    """What is at ``pointer``, or ``None``."""
    document: object = {**login.claims, "email": login.email, "sub": login.subject}
    for token in pointer.tokens:
        if isinstance(document, Mapping):
            document = document.get(token)
        elif isinstance(document, list) and token.isdigit() and int(token) < len(document):
            document = document[int(token)]
        else:
            return None
    return document if document or isinstance(document, bool | int | float) else None


def values_of(login: Login, pointer: Pointer) -> list[tuple[bool, bool, object]] | None:
    """The values at ``pointer``, each with its type."""
    found = value_of(login, pointer)
    if found is None:
        return None
    values = found if isinstance(found, list) else [found]
    if any(isinstance(value, Mapping | list) or value is None for value in values):
        raise Unknown
    return [(isinstance(value, bool), isinstance(value, str), value) for value in values]


def holds(condition: Condition, login: Login) -> bool | None:
    """Yes, no, or nobody knows."""
    if condition.operator in {Operator.PRESENT, Operator.ABSENT}:
        return (value_of(login, condition.claim) is not None) == (condition.operator is Operator.PRESENT)
    values = values_of(login, condition.claim)
    wanted = [(isinstance(value, bool), isinstance(value, str), value) for value in condition.operands]
    if values is None:
        return None
    match condition.operator:
        case Operator.EQUALS:
            return values == wanted
        case Operator.ANY:
            return any(value in wanted for value in values)
        case Operator.ALL:
            return all(value in values for value in wanted)
        case _:
            texts = [str(value) for _, is_text, value in values if is_text]
            return any(GLOBS[str(condition.operands[0])](text) for text in texts)


GLOBS: Mapping[str, Callable[[str], bool]] = {
    "*": lambda text: "/" not in text,
    "a*": lambda text: text[:1] == "a" and "/" not in text,
    "**b": lambda text: text.endswith("b"),
}


@given(rules=RULES, login=LOGINS)
def test_who_decides_by_a_second_opinion(rules: list[Rule], login: Login) -> None:
    """Which rule admits, computed in another way: first that takes the login, missing is neither yes nor no."""
    by = None
    for rule in rules:
        try:
            lines = [holds(each, login) is True for each in rule.when.all]
            lines += [holds(each, login) is False for each in rule.when.none]
            options = [holds(each, login) is True for each in rule.when.any]
        except Unknown:
            return  # whether it matters is what the table in test_mapping_conditions is about
        if all(lines) and (not options or any(options)):
            by = rule.name
            break
    decision = admit(rules, login)
    match decision:
        case Admission():
            assert decision.rule == (by if rules else "no rules")
        case NotAdmitted():
            assert by is None or decision.reason.startswith(f"rule {by!r} takes this login, but ")
