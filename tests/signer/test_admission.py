"""``[[issuer.rule]]``: what is written, what it means, and what is said about rules that are wrong."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from certauth.errors import ConfigError
from certauth.identity import Binding, ProofKind
from certauth.identity.mapping import (
    MAX_VALUES,
    Admission,
    AssuranceTable,
    CapabilitySource,
    EntitlementSource,
    FixedName,
    NamesFromClaim,
    NotAdmitted,
    Operator,
    Outputs,
    RightTemplate,
    Rule,
    ScopeSource,
    When,
    admit,
    check_rules,
)
from signer import admission
from signer.admission import RuleSettings
from tests.certauth.identity.logins import Login, condition
from tests.demo.stage import ROOT

SKETCH = """
name = "staff with MFA"
when.all = [
    {claim = "/acr", equals = "https://refeds.org/profile/mfa"},
    {claim = "/eduperson_scoped_affiliation", any = ["staff@ornl.gov"]},
]
subject = "user/{sub|hash}"
groups = {claim = "/groups", match = "stf*", prefix = "ornl:"}
entitlements = {claim = "/eduperson_entitlement", authority = "idp.ornl.gov"}
assurance = 2
max_lifetime = "12h"
hosts = ["*.olcf.ornl.gov"]
"""
EVERYTHING = """
name = "everything"
when.kinds = ["access_token"]
when.bindings = ["dpop", "cnf"]
when.all = [{claim = "/a", equals = true}, {claim = "/b", all = ["x", 1]}, {claim = "/c", present = true}]
when.any = [{claim = "/d", match = ["x*", "y*"]}, {claim = "/d", match = "z"}]
when.none = [{claim = "/e", any = [1.5]}, {claim = "/f", absent = true}]
subject = "agent/{claim:/uid}"
groups = ["staff", {claim = "/groups", optional = true}, {name = "more"}]
roles = "reader"
projects = [{claim = "/projects", match = ["p1", "p2"]}]
rights = [{service = "data", operations = "read", path = "/x/"}]
capabilities = {claim = "/ent", namespace = "urn:a:b", resource = "r", actions = {act = "write"}, service = "s", path = "/q"}
scopes = {service = "store", base = "/", operations = {"storage.read" = ["read", "list"]}}
assurance = {claim = "/acr", levels = {silver = 2}, otherwise = 1}
local_username = "{claim:/uid}"
display = "{claim:/name}"
max_values = 10
"""


def settings(text: str) -> RuleSettings:
    """A rule as it is written."""
    return RuleSettings.model_validate(tomllib.loads(text))


def complaint(text: str) -> str:
    """What is said about a rule that is wrong."""
    with pytest.raises(ValidationError) as error:
        settings(text)
    (problem,) = error.value.errors()
    assert "hunter2" not in problem["msg"]
    return problem["msg"].removeprefix("Value error, ")


def test_a_rule_as_an_administrator_writes_it() -> None:
    """The shape of the document, and what it becomes."""
    rule = settings(SKETCH).rule()
    assert rule.name == "staff with MFA"
    assert rule.when.all[0] == condition("/acr", "equals", "https://refeds.org/profile/mfa")
    assert rule.outputs.max_lifetime == timedelta(hours=12)
    assert rule.outputs.hosts == ("*.olcf.ornl.gov",)
    claims: dict[str, object] = {
        "acr": "https://refeds.org/profile/mfa",
        "eduperson_scoped_affiliation": "staff@ornl.gov",
        "groups": ["stf007", "csc1"],
        "eduperson_entitlement": ["urn:geant:ornl.gov:group:hpc#idp.ornl.gov", "urn:geant:ornl.gov:group:hpc#evil.example"],
    }
    decision = admit([rule], Login(issuer_id="ornl", claims=claims))
    assert isinstance(decision, Admission)
    assert decision.groups == ("ornl:stf007", "ornl:urn:geant:ornl.gov:group:hpc")
    assert decision.assurance == 2
    assert isinstance(admit([rule], Login(issuer_id="ornl", claims=claims | {"acr": "sfa"})), NotAdmitted)


def test_everything_that_can_be_written() -> None:
    """Every member, also where one entry stands for a list."""
    rule = settings(EVERYTHING).rule()
    assert rule.when == When(
        kinds=frozenset({"access_token"}),
        bindings=frozenset({"dpop", "cnf"}),
        all=(condition("/a", "equals", True), condition("/b", "all", "x", 1), condition("/c", "present")),
        any=(condition("/d", "match", "x*", "y*"), condition("/d", "match", "z")),
        none=(condition("/e", "any", 1.5), condition("/f", "absent")),
    )
    outputs = rule.outputs
    assert [type(source) for source in outputs.groups] == [FixedName, NamesFromClaim, FixedName]
    assert outputs.roles == (FixedName("reader"),)
    assert [type(source) for source in outputs.rights] == [RightTemplate, CapabilitySource, ScopeSource]
    assert isinstance(outputs.assurance, AssuranceTable)
    assert outputs.local_username is not None
    assert outputs.display is not None
    assert rule.max_values == 10
    with_entitlements = EVERYTHING + 'entitlements = [{claim = "/ent", authority = "a", prefix = "p:", optional = true}]\n'
    assert [type(each) for each in settings(with_entitlements).rule().outputs.entitlements] == [EntitlementSource]


def test_what_is_not_written_is_left_to_others() -> None:
    """A name and whom it takes are enough."""
    assert settings('name = "all"\nwhen.everyone = true').rule() == Rule(
        name="all", when=When(everyone=True), outputs=Outputs(), max_values=MAX_VALUES
    )


BASE = 'name = "mine"\nwhen.everyone = true\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "mine"', "rule 'mine': when: Field required"),
        ("when.everyone = true", "rule 'None': name: Field required"),
        ('name = "mine"\nwhen = {}', "rule 'mine': when: it does not say whom the rule is for"),
        ('name = "mine"\nwhen.everyone = false', "rule 'mine': when.everyone: "),
        ('name = "mine"\nwhen.evryone = true', "rule 'mine': unknown key when.evryone"),
        ('name = "mine"\nwhen.all = []', "rule 'mine': when.all: "),
        ('name = "mine"\nwhen.kinds = ["certificate"]', "rule 'mine': when.kinds[1]: "),
        ('name = "mine"\nwhen.bindings = ["possession"]', "rule 'mine': when.bindings[1]: "),
        ('name = "mine"\nwhen.all = [{claim = "/a"}]', "rule 'mine': when: all[1]: the condition on /a has 0 comparisons"),
        (
            'name = "mine"\nwhen.any = [{claim = "/a", equals = 1, any = [1]}]',
            "rule 'mine': when: any[1]: the condition on /a",
        ),
        ('name = "mine"\nwhen.none = [{claim = "a", present = true}]', "rule 'mine': when: none[1]: 'a' is not a JSON pointer"),
        ('name = "mine"\nwhen.all = [{claim = "/a", present = false}]', "rule 'mine': when.all[1].present: "),
        ('name = "mine"\nwhen.all = [{claim = "/a", equals = 2024-01-01}]', "rule 'mine': when: all[1]: equals of /a compares"),
        ('name = "mine"\nwhen.all = [{claim = "/a", equals = ["x"]}]', "rule 'mine': when: all[1]: equals of /a compares"),
        ('name = "mine"\nwhen.all = [{claim = "/a", any = "x"}]', "rule 'mine': when.all[1].any: "),
        ('name = "mine"\nwhen.all = [{claim = "/a", match = 1}]', "rule 'mine': when.all[1].match[1]: "),
        ('name = "mine"\nwhen.all = [{claim = "/a", match = "a***"}]', "rule 'mine': when: all[1]: 'a***' is not a pattern"),
        (BASE + "colour = 1", "rule 'mine': unknown key colour"),
        (BASE + 'groups = [{claim = "/g", prefx = "x:"}]', "rule 'mine': unknown key groups[1].prefx"),
        (BASE + 'groups = ["a", {claim = "/g", prefix = "x"}]', "rule 'mine': groups[2]: 'x' is not a prefix"),
        (BASE + 'groups = [{match = "x"}]', "rule 'mine': groups[1]: it is neither a name nor a claim"),
        (BASE + 'roles = [{name = "x", claim = "/r"}]', "rule 'mine': roles[1]: it is neither a name nor a claim"),
        (BASE + 'roles = [{name = "x", optional = true}]', "rule 'mine': roles[1]: it is neither a name nor a claim"),
        (BASE + 'projects = [""]', "rule 'mine': projects[1]: '' is not a name"),
        (BASE + 'entitlements = {claim = "/e"}', "rule 'mine': entitlements[1]: it does not say whose"),
        (BASE + 'rights = {service = "data", operations = [], path = "/"}', "rule 'mine': rights[1]: a right has no operation"),
        (BASE + 'rights = {service = "data", operations = ["read"], path = "/{sub}/../"}', "rule 'mine': rights[1]: "),
        (BASE + 'capabilities = {claim = "/e"}', "rule 'mine': capabilities[1].resource: Field required; "),
        (
            BASE + 'scopes = {service = "s", base = "/a", operations = {x = "read"}}',
            "rule 'mine': scopes[1]: '/a' is not",
        ),
        (BASE + "assurance = 4", "rule 'mine': assurance: 4 is no level"),
        (BASE + "assurance = true", "rule 'mine': assurance.level: "),
        (BASE + 'assurance = "2"', "rule 'mine': assurance: "),
        (BASE + "assurance = {levels = {x = 1}}", "rule 'mine': assurance: it is neither a level nor a table"),
        (BASE + 'assurance = {level = 2, claim = "/acr"}', "rule 'mine': assurance: it is neither a level nor a table"),
        (BASE + 'assurance = {claim = "/acr", levels = {x = 9}}', "rule 'mine': assurance: assurance: 9 is no level"),
        (BASE + 'subject = "root"', "rule 'mine': subject: 'root' is not a user"),
        (BASE + 'subject = "user/{mail}"', "rule 'mine': subject: '{mail}' does not name a claim"),
        (BASE + 'local_username = "{"', "rule 'mine': local_username: "),
        (BASE + 'display = ""', "rule 'mine': display: "),
        (BASE + 'max_lifetime = "1 year"', "rule 'mine': max_lifetime: '1 year' is not a duration"),
        (BASE + 'max_lifetime = "5s"', "rule 'mine': max_lifetime: 5 s is not a lifetime"),
        (BASE + "max_lifetime = 5", "rule 'mine': max_lifetime: "),
        (BASE + 'hosts = ["*"]', "rule 'mine': hosts: '*' is not a pattern"),
        (BASE + "max_values = 0", "rule 'mine': max_values: 0 cannot be"),
        (BASE + 'max_values = "many"', "rule 'mine': max_values: "),
        ('name = ""\nwhen.everyone = true', "rule '': '' is not a name for a rule"),
    ],
)
def test_a_wrong_rule_is_refused_by_name_and_member(text: str, said: str) -> None:
    """When the document is read, with the rule and the member to look at."""
    assert complaint(text).startswith(said)


def test_what_is_wrong_comes_with_what_to_do() -> None:
    """The hint stands behind the sentence."""
    assert complaint(BASE + 'subject = "root"').endswith("and a name of letters, digits and . _ @ + -)")
    with pytest.raises(ConfigError) as error:
        settings(BASE).model_copy(update={"subject": "root"}).rule()
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)
    assert error.value.message.startswith("rule 'mine': subject: ")


def test_every_wrong_member_is_named_at_once() -> None:
    """One run of the program shows all that has the wrong shape."""
    said = complaint(BASE + 'colour = 1\nmax_lifetime = 5\nrights = [{service = "s", operations = ["r"], path = 7}]')
    assert [part in said for part in ("unknown key colour", "max_lifetime", "rights[1].path")] == [True] * 3


@pytest.mark.parametrize("value", [7, "rule", [], None])
def test_a_rule_is_a_table(value: object) -> None:
    """Also what is no rule at all is said, and not a crash."""
    with pytest.raises(ValidationError, match="rule 'None'"):
        RuleSettings.model_validate(value)


def models() -> list[type[BaseModel]]:
    """Every table of a rule."""
    return [each for name, each in vars(admission).items() if name.endswith("Settings") and issubclass(each, BaseModel)]


@pytest.mark.parametrize("model", models())
def test_every_setting_says_what_it_is_for(model: type[BaseModel]) -> None:
    """The reference is made of these descriptions."""
    assert len(models()) == 9
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_kinds_and_bindings_are_those_of_proofs() -> None:
    """What can be written is what a login through an issuer can be."""
    assert set(get_args(admission.Kind)) < {kind.value for kind in ProofKind}
    assert set(get_args(admission.Binding)) < {binding.value for binding in Binding}
    assert set(admission.ConditionSettings.model_fields) == {"claim", *Operator}


# --- the pages -----------------------------------------------------------------------------------------------------------

HOW_TO = ROOT / "docs" / "how-to" / "write-admission-rules.md"
SPECIFICATION = ROOT / "docs" / "specification" / "admission-rules.md"
_TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: Path) -> list[dict[str, Any]]:
    """Every TOML block of a page."""
    return [tomllib.loads(block) for block in _TOML.findall(page.read_text(encoding="utf-8"))]


def rules_in(document: dict[str, Any]) -> dict[str, list[Rule]]:
    """The rules in it, by the id of their issuer."""
    return {
        issuer["id"]: [RuleSettings.model_validate(table).rule() for table in issuer.get("rule", ())]
        for issuer in document.get("issuer", ())
    }


@pytest.mark.parametrize("page", [HOW_TO, SPECIFICATION], ids=lambda page: page.stem)
def test_every_example_on_a_page_can_be_loaded(page: Path) -> None:
    """Nobody copies a rule from the documentation that the program refuses."""
    found = [rules_in(document) for document in examples(page)]
    assert sum(len(rules) for each in found for rules in each.values()) >= 2
    for each in found:
        check_rules(each)


STAFF = {
    "sub": "4711",
    "groups": ["hpc-users", "hpc-admins", "canteen"],
    "acr": "https://refeds.org/profile/mfa",
    "uid": "ada",
    "name": "Ada Lovelace",
}


@pytest.mark.parametrize(
    ("claims", "rule", "expected"),
    [
        (STAFF, "staff", {"subject": "user/ada", "groups": ("campus:hpc-users", "campus:hpc-admins"), "assurance": 3}),
        (STAFF | {"acr": "https://refeds.org/profile/sfa"}, "staff", {"assurance": 2}),
        (
            STAFF | {"groups": ["canteen"]},
            "guests",
            {"groups": ("guests",), "assurance": 1, "max_lifetime": timedelta(hours=2)},
        ),
        (STAFF | {"groups": ["hpc-users", "suspended"]}, None, "none /groups"),
        ({"sub": "4711"}, None, "has no /groups"),
        (STAFF | {"uid": "../ada"}, None, "/uid cannot be part of a name"),
    ],
)
def test_the_example_of_the_page_does_what_the_page_says(claims: dict[str, object], rule: str | None, expected: Any) -> None:
    """The first example of the how-to page, on the logins that it talks about."""
    rules = rules_in(examples(HOW_TO)[0])["campus"]
    decision = admit(rules, replace(Login(assurance=3), claims=claims))
    if isinstance(decision, NotAdmitted):
        assert rule is None
        assert expected in decision.reason
    else:
        assert decision.rule == rule
        assert {name: getattr(decision, name) for name in expected} == expected


def test_the_explanation_on_the_page_is_what_is_printed() -> None:
    """The page shows the lines for a login without groups, to the letter."""
    from certauth.identity.mapping import explain

    rules = rules_in(examples(HOW_TO)[0])["campus"]
    lines = "\n".join(explain(rules, replace(Login(assurance=3), claims={"sub": "4711", "acr": "mfa"})).lines())
    assert lines in HOW_TO.read_text(encoding="utf-8")
