"""What a rule makes of a login: names, rights, assurance, accounts - and what no claim can make it make."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certauth.enrolment import EnrolledRight
from certauth.errors import ConfigError
from certauth.identity.mapping import (
    Admission,
    AssuranceTable,
    CapabilitySource,
    EntitlementSource,
    FixedName,
    Glob,
    MappedRight,
    NamesFromClaim,
    NotAdmitted,
    Outputs,
    Pointer,
    RightTemplate,
    Rule,
    ScopeSource,
    Template,
    Use,
    admit,
)
from certauth.identity.mapping.outputs import RESERVED_USERNAMES
from certauth.names import Principal
from tests.certauth.identity.logins import EVERYONE, Login, levels, login, rule

GROUPS = Pointer.parse("/groups")
ENTITLEMENTS = Pointer.parse("/eduperson_entitlement")
NAMESPACE = "urn:geant:lab.example"


def admitted(identity: Login, max_values: int = 200, **outputs: object) -> Admission:
    """The admission by a rule for everybody."""
    one = Rule(name="one", when=EVERYONE, outputs=Outputs(**outputs), max_values=max_values)  # type: ignore[arg-type]
    decision = admit([one], identity)
    if isinstance(decision, NotAdmitted):
        pytest.fail(decision.reason)
    return decision


def refused(identity: Login, max_values: int = 200, **outputs: object) -> str:
    """Why the rule refuses, for a login whose claims hold the word ``secret``: the reason never does."""
    one = Rule(name="one", when=EVERYONE, outputs=Outputs(**outputs), max_values=max_values)  # type: ignore[arg-type]
    decision = admit([one], identity)
    if isinstance(decision, Admission):
        pytest.fail(f"admitted: {decision}")
    assert "secret" not in f"{decision.reason}{decision.hint}"
    assert decision.hint
    assert decision.reason.startswith("rule 'one' takes this login, but ")
    return decision.reason.removeprefix("rule 'one' takes this login, but ")


def unloadable(make: object, **settings: object) -> str:
    """Why a part of a rule cannot be made."""
    with pytest.raises(ConfigError) as error:
        make(**settings)  # type: ignore[operator]
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)
    return error.value.message


# --- groups, roles, projects ---------------------------------------------------------------------------------------------


def test_names_from_claims_stand_behind_a_prefix() -> None:
    """No provider can name a group of the facility or of another provider: not by its name, nor by writing its prefix."""
    source = NamesFromClaim(claim=GROUPS)
    forged = login(groups=["admins", "other:admins", ":admins", "campus:x", "a:b"])
    assert admitted(forged, groups=(source,)).groups == (
        "campus:admins",
        "campus:other:admins",
        "campus::admins",
        "campus:campus:x",
        "campus:a:b",
    )
    assert admitted(forged, roles=(NamesFromClaim(claim=GROUPS, prefix="kc:hpc:"),)).roles[0] == "kc:hpc:admins"
    assert all(
        name.startswith("p:") for name in admitted(forged, projects=(NamesFromClaim(claim=GROUPS, prefix="p:"),)).projects
    )


def test_names_of_the_administrator_stand_alone() -> None:
    """A constant is the administrator's word; it comes in the order written, each name once."""
    sources = (FixedName("staff"), NamesFromClaim(claim=GROUPS, match=(Glob("stf*"), Glob("hpc"))), FixedName("staff"))
    identity = login(groups=["stf1", "other", "hpc", "stf1"])
    assert admitted(identity, groups=sources).groups == ("staff", "campus:stf1", "campus:hpc")


def test_a_missing_list_of_names_is_a_refusal_unless_it_may_be_missing() -> None:
    """A rule that reads a claim says what its absence means; an unreadable claim is never none."""
    assert refused(login(), groups=(NamesFromClaim(claim=GROUPS),)) == "groups: the proof has no /groups"
    optional = NamesFromClaim(claim=GROUPS, optional=True)
    assert admitted(login(), groups=(optional,)).groups == ()
    assert "left /groups out" in refused(login(hasgroups=True), groups=(optional,))
    assert "has 3 values" in refused(login(groups=["secret"] * 3), max_values=2, groups=(optional,))


@pytest.mark.parametrize("value", ["", "secret\n", "secret\u202e", "secret" * 21, 7, True, {"secret": 1}])
def test_what_cannot_be_a_name_is_a_refusal(value: object) -> None:
    """Not left out, which would be a cut list."""
    source = NamesFromClaim(claim=GROUPS)
    assert refused(login(groups=["fine", value]), groups=(source,)).startswith("groups: /groups")


def test_names_are_capped_together() -> None:
    """Two sources of names that are each within the cap are refused if they are not together."""
    sources = (NamesFromClaim(claim=GROUPS), NamesFromClaim(claim=Pointer.parse("/more")))
    identity = login(groups=["a", "b"], more=["c", "b"])
    assert len(admitted(identity, max_values=3, groups=sources).groups) == 3
    assert "4 groups are more than 3" in refused(login(groups=["a", "b"], more=["c", "d"]), max_values=3, groups=sources)
    assert "roles" in refused(login(groups=["a", "b"], more=["c", "d"]), max_values=3, roles=sources)
    assert "projects" in refused(login(groups=["a", "b"], more=["c", "d"]), max_values=3, projects=sources)


@pytest.mark.parametrize("prefix", ["", "campus", ":", "Campus:", "a b:", "a::", "a:b", "-a:", "a:" * 5, "x" * 65 + ":"])
def test_a_prefix_is_a_namespace(prefix: str) -> None:
    """It ends in a colon, so that it is the beginning of no other name; empty would be every name."""
    assert "prefix" in unloadable(NamesFromClaim, claim=GROUPS, prefix=prefix)
    assert "prefix" in unloadable(EntitlementSource, claim=GROUPS, authority="a", prefix=prefix)


def test_patterns_and_names_are_bounded() -> None:
    """As what a token can hold, and what can be read in a moment."""
    assert "patterns" in unloadable(NamesFromClaim, claim=GROUPS, match=(Glob("a"),) * 17)
    for name in ("", "a\nb", "x" * 129):
        assert "not a name" in unloadable(FixedName, name=name)


def test_wlcg_groups_are_what_they_say() -> None:
    """Membership in a child is none in its parent (WLCG profile §2.2.2)."""
    source = NamesFromClaim(claim=Pointer.parse("/wlcg.groups"), match=(Glob("/cms/**"),), prefix="cms:")
    assert admitted(login(**{"wlcg.groups": ["/cms/uscms", "/dteam"]}), groups=(source,)).groups == ("cms:/cms/uscms",)


# --- entitlements --------------------------------------------------------------------------------------------------------


HELD = [
    f"{NAMESPACE}:group:hpc#aai.lab.example",
    f"{NAMESPACE}:group:hpc:beam#aai.lab.example",
    f"{NAMESPACE}:group:hpc:role=manager#aai.lab.example",
    f"{NAMESPACE}:group:ops:role=member#aai.lab.example",
    f"{NAMESPACE}:group:only:role=manager#aai.lab.example",
    f"{NAMESPACE}:group:forged#evil.example",
    f"{NAMESPACE}:group:unsigned",
    "urn:geant:evil.example:group:hpc#aai.lab.example",
    "urn:mace:dir:entitlement:common-lib-terms",
]


def test_memberships_become_groups_and_roles() -> None:
    """Of one namespace, by one authority: the forged, the foreign and the unrelated are left out."""
    source = EntitlementSource(claim=ENTITLEMENTS, namespace=NAMESPACE.upper(), authority="aai.lab.example")
    made = admitted(login(eduperson_entitlement=HELD), entitlements=(source,), groups=(FixedName("all"),))
    assert made.groups == ("all", "campus:hpc", "campus:hpc:beam", "campus:ops")
    assert made.roles == ("campus:hpc:role=manager", "campus:ops:role=member", "campus:only:role=manager")


def test_without_a_namespace_groups_keep_theirs() -> None:
    """Two groups of one name in two namespaces stay two."""
    source = EntitlementSource(claim=ENTITLEMENTS, authority="aai.lab.example", prefix="aai:")
    groups = admitted(login(eduperson_entitlement=HELD), entitlements=(source,)).groups
    assert f"aai:{NAMESPACE}:group:hpc" in groups
    assert "aai:urn:geant:evil.example:group:hpc" in groups
    assert not [name for name in groups if "forged" in name or "unsigned" in name]


def test_without_an_authority_everybody_in_the_namespace_counts() -> None:
    """G069 has deprecated the authority: then the provider is believed about the namespace."""
    source = EntitlementSource(claim=ENTITLEMENTS, namespace=NAMESPACE)
    assert {"campus:forged", "campus:unsigned"} <= set(
        admitted(login(eduperson_entitlement=HELD), entitlements=(source,)).groups
    )


def test_a_child_group_does_not_imply_its_parent() -> None:
    """Who is in hpc:beam is not in hpc unless somebody says so."""
    source = EntitlementSource(claim=ENTITLEMENTS, namespace=NAMESPACE)
    held = f"{NAMESPACE}:group:hpc:beam"
    assert admitted(login(eduperson_entitlement=held), entitlements=(source,)).groups == ("campus:hpc:beam",)


def test_missing_entitlements() -> None:
    """As for any claim."""
    assert refused(login(), entitlements=(EntitlementSource(claim=ENTITLEMENTS, authority="a"),)).startswith("entitlements: ")
    assert admitted(login(), entitlements=(EntitlementSource(claim=ENTITLEMENTS, authority="a", optional=True),)).groups == ()


def test_somebodys_entitlements() -> None:
    """A source that names neither namespace nor authority would believe everybody."""
    for settings in ({}, {"namespace": "geant"}, {"namespace": "urn:a:b:group:c"}, {"authority": "a b"}, {"authority": ""}):
        unloadable(EntitlementSource, claim=ENTITLEMENTS, **settings)


# --- rights --------------------------------------------------------------------------------------------------------------


def right(path: str, *operations: str, service: str = "data") -> RightTemplate:
    """A right of the administrator."""
    return RightTemplate(service=service, operations=operations or ("read",), path=Template.parse(path))


def test_rights_are_the_administrators_with_a_claim_as_a_segment() -> None:
    """Service and operations are constants; the path names the person."""
    rights = admitted(login(uid="alice"), rights=(right("/home/{claim:/uid}/", "read", "write"), right("/public/"))).rights
    assert rights == (
        MappedRight("data", "read", "/home/alice/"),
        MappedRight("data", "write", "/home/alice/"),
        MappedRight("data", "read", "/public/"),
    )
    assert EnrolledRight(rights[0].service, rights[0].operation, rights[0].path).path == "/home/alice/"


@pytest.mark.parametrize("uid", ["..", ".", "", "a/b", "a/../../etc", "alice/", "/etc", "%2e%2e", "*", "a?b"])
def test_a_claim_cannot_widen_a_path(uid: str) -> None:
    """Neither the parent, nor somebody else's directory, nor everybody's."""
    assert refused(login(uid=uid), rights=(right("/home/{claim:/uid}/"),)).startswith("rights: ")


def test_long_paths_and_many_rights_are_refusals() -> None:
    """Bounded as tokens are, and never cut."""
    assert "512" in refused(login(uid="a" * 120), rights=(right("/" + "{claim:/uid}" * 5),))
    many = tuple(right(f"/{n}", *(f"op{m}" for m in range(16))) for n in range(9))
    assert len(admitted(login(), rights=many[:8]).rights) == 128
    assert "144 rights" in refused(login(), rights=many)


@pytest.mark.parametrize("path", ["home", "/a/../b", "/a//b", "/{claim:/x}/..", "/a*", "//{claim:/x}", "/a%20b"])
def test_what_is_no_path_for_a_right(path: str) -> None:
    """Seen when the rule is loaded, not when somebody logs in."""
    assert "not a path" in unloadable(right, path=path)


def test_what_is_no_right() -> None:
    """Services and operations are labels, each operation once."""
    path = Template.parse("/x")
    for settings in (
        {"service": "Data", "operations": ("read",)},
        {"service": "data", "operations": ()},
        {"service": "data", "operations": ("read", "read")},
        {"service": "data", "operations": ("read it",)},
        {"service": "data", "operations": tuple(f"o{n}" for n in range(17))},
    ):
        unloadable(RightTemplate, path=path, **settings)


def capabilities(**changes: object) -> CapabilitySource:
    """Rights from capabilities for one cluster."""
    settings: dict[str, object] = {
        "claim": ENTITLEMENTS,
        "namespace": NAMESPACE,
        "authority": "aai.lab.example",
        "resource": "hpc:cluster",
        "actions": {"submit": ("write",), "view": ("read",)},
        "service": "jobs",
        "path": "/cluster/",
    }
    return CapabilitySource(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("hpc:cluster:act:submit", {"write"}),
        ("hpc:cluster:act:submit,view", {"read", "write"}),
        ("hpc:cluster", {"read", "write"}),
        ("hpc:cluster:act:delete", set()),
        ("hpc:act:submit", set()),
        ("hpc:cluster:queue:act:submit", set()),
        ("hpc:clusters:act:submit", set()),
    ],
)
def test_capabilities_choose_among_the_administrators_operations(text: str, operations: set[str]) -> None:
    """An action that the rule does not know gives nothing; neither does a parent or a child of the resource."""
    held = [f"{NAMESPACE}:res:{text}#aai.lab.example", f"{NAMESPACE}:group:hpc:cluster#aai.lab.example"]
    rights = admitted(login(eduperson_entitlement=held), rights=(capabilities(),)).rights
    assert {each.operation for each in rights} == operations
    assert {(each.service, each.path) for each in rights} <= {("jobs", "/cluster/")}


def test_capabilities_of_somebody_else() -> None:
    """By another authority, or in another namespace, they give nothing."""
    held = [f"{NAMESPACE}:res:hpc:cluster#evil.example", "urn:geant:evil.example:res:hpc:cluster#aai.lab.example"]
    assert admitted(login(eduperson_entitlement=held), rights=(capabilities(),)).rights == ()
    assert admitted(login(), rights=(capabilities(optional=True),)).rights == ()
    assert "has no /eduperson_entitlement" in refused(login(), rights=(capabilities(),))


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": None, "authority": None},
        {"resource": ""},
        {"path": "cluster"},
        {"actions": {}},
        {"actions": {"submit": ()}},
        {"actions": {f"a{n}": ("read",) for n in range(17)}},
        {"service": "no service"},
    ],
)
def test_what_is_no_source_of_capabilities(changes: dict[str, object]) -> None:
    """It must say whose count, for what, and which rights they are."""
    unloadable(capabilities, **changes)


def scopes(**changes: object) -> ScopeSource:
    """Rights from the scopes of an access token."""
    settings: dict[str, object] = {
        "claim": Pointer.parse("/scope"),
        "operations": {"storage.read": ("read",), "storage.modify": ("read", "write")},
        "service": "store",
        "base": "/cms/",
    }
    return ScopeSource(**(settings | changes))  # type: ignore[arg-type]


def test_scopes_lie_below_their_base() -> None:
    """The provider manages what is below, and nothing else; ``/`` is all of that."""
    rights = admitted(login(scope="openid storage.read:/data storage.modify:/tmp/"), rights=(scopes(),)).rights
    assert rights == (
        MappedRight("store", "read", "/cms/data"),
        MappedRight("store", "read", "/cms/data/"),
        MappedRight("store", "read", "/cms/tmp/"),
        MappedRight("store", "write", "/cms/tmp/"),
    )
    assert admitted(login(scope=["storage.read:/"]), rights=(scopes(),)).rights == (MappedRight("store", "read", "/cms/"),)
    jobs = scopes(operations={"compute.create": ("write",)}, service="jobs", base="/")
    assert admitted(login(scope="compute.create"), rights=(jobs,)).rights == (MappedRight("jobs", "write", "/"),)


@pytest.mark.parametrize(
    "scope", ["storage.read:/../atlas", "storage.read:atlas", "storage.read", "storage.read:/" + "a" * 508]
)
def test_scopes_that_would_leave_their_base_are_refusals(scope: str) -> None:
    """Climbing, relative, without a path, or too long below the base: not the scope is refused, but the login."""
    assert refused(login(scope=scope), rights=(scopes(),)).startswith("rights: /scope holds")


def test_missing_scopes() -> None:
    """As for any claim."""
    assert "has no /scope" in refused(login(), rights=(scopes(),))
    assert admitted(login(), rights=(scopes(optional=True),)).rights == ()


@pytest.mark.parametrize(
    "changes", [{"base": "/cms"}, {"base": "cms/"}, {"operations": {"a:b": ("read",)}}, {"operations": {}}]
)
def test_what_is_no_source_of_scopes(changes: dict[str, object]) -> None:
    """A base that is no subtree, scopes that are none."""
    unloadable(scopes, **changes)


# --- assurance -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worth", [0, 1, 2, 3])
def test_a_rule_never_raises_what_a_login_is_worth(worth: int) -> None:
    """The proof's binding and the issuer are a ceiling for every rule, whatever the claims say."""
    mfa = {"https://refeds.org/profile/mfa": 3}
    identity = Login(assurance=worth, claims={"acr": "https://refeds.org/profile/mfa"})
    assert admitted(identity, assurance=3).assurance == worth
    assert admitted(identity, assurance=AssuranceTable(claim=Pointer.parse("/acr"), levels=mfa)).assurance == worth
    assert admitted(identity, assurance=1).assurance == min(1, worth)
    assert admitted(identity).assurance is None


def test_assurance_by_what_the_provider_says() -> None:
    """The highest of the values in the table; others do not count; ``otherwise`` is for the rest, and for no claim at all."""
    table = levels("/amr", pwd=1, otp=2, hwk=3)
    lenient = levels("/amr", 1, otp=2)
    assert admitted(login(amr=["pwd", "otp", "face"]), assurance=table).assurance == 2
    assert admitted(login(amr="pwd"), assurance=table).assurance == 1
    assert "no value of /amr is in the table" in refused(login(amr=["face"]), assurance=table)
    assert refused(login(), assurance=table) == "assurance: the proof has no /amr"
    assert [admitted(identity, assurance=lenient).assurance for identity in (login(), login(amr=["face"]))] == [1, 1]
    assert admitted(login(), assurance=levels("/amr", 0, otp=2)).assurance == 0
    assert "assurance" in refused(login(amr={"otp": 1}), assurance=lenient)


def test_levels_that_do_not_exist() -> None:
    """0 to 3, and no booleans."""
    for level in (-1, 4, True):
        unloadable(Outputs, assurance=level)
        unloadable(levels, claim="/acr", x=level)
        unloadable(levels, claim="/acr", x=1, otherwise=level)
    unloadable(levels, claim="/acr")
    unloadable(levels, claim="/acr", **{f"v{n}": 1 for n in range(65)})


# --- names of people -----------------------------------------------------------------------------------------------------


def subject(text: str) -> Template:
    """A template of a principal."""
    return Template.parse(text)


@pytest.mark.parametrize(
    ("template", "made"),
    [("user/{claim:/uid}", "user/alice"), ("agent/ci-{claim:/uid}", "agent/ci-alice"), ("agent/nightly", "agent/nightly")],
)
def test_subjects(template: str, made: str) -> None:
    """A user or an agent of the facility's own domain."""
    name = admitted(login(uid="alice"), subject=subject(template)).subject
    assert name == made
    assert str(Principal.parse(f"spiffe://lab.example/{name}")).endswith(made)


@pytest.mark.parametrize(
    "template",
    [
        "{claim:/kind}/x",
        "{sub}",
        "service/{sub}",
        "host/a",
        "user/",
        "user/a/{sub}",
        "user/.{sub}",
        "User/{sub}",
        "users/{sub}",
    ],
)
def test_what_is_no_subject(template: str) -> None:
    """The kind is the administrator's word, and only people and agents log in."""
    assert "subject" in unloadable(Outputs, subject=subject(template))


def test_a_subject_that_grows_too_long_is_a_refusal() -> None:
    """Two claims that are each a name need not be one together."""
    assert refused(login(a="x" * 100), subject=subject("user/{claim:/a}-{claim:/a}")).startswith("subject: ")
    assert refused(login(a="x."), subject=subject("user/{claim:/a}.y")).startswith("subject: ")


@pytest.mark.parametrize("uid", ["root", "daemon", "sshd", "Alice", "1abc", "a.b", "a" * 33, "slurm", "-a"])
def test_no_login_becomes_a_system_account(uid: str) -> None:
    """Whoever chooses their own user name at a provider does not choose to be root here."""
    assert refused(login(uid=uid), local_username=Template.parse("{claim:/uid}")).startswith("local_username: ")


def test_local_usernames() -> None:
    """Plain account names; the list of those that are nobody's holds what every machine has."""
    assert admitted(login(uid="alice_2"), local_username=Template.parse("{claim:/uid}")).local_username == "alice_2"
    assert {"root", "nobody", "www-data", "sshd", "admin"} <= RESERVED_USERNAMES


def test_the_rest_is_the_administrators() -> None:
    """Hosts and lifetimes hold no claims; the display name is only for people."""
    made = admitted(
        login(name="Ada Lovelace"),
        hosts=("*.hpc.lab.example",),
        max_lifetime=timedelta(hours=12),
        display=Template.parse("{claim:/name}", Use.DISPLAY),
    )
    assert (made.hosts, made.max_lifetime, made.display) == (("*.hpc.lab.example",), timedelta(hours=12), "Ada Lovelace")
    assert made.rule == "one"
    assert refused(login(), display=Template.parse("{claim:/name}", Use.DISPLAY)) == "display: the proof has no /name"


def test_outputs_are_bounded() -> None:
    """Lifetimes that are none, hosts that are anybody's, lists without end."""
    for lifetime in (timedelta(0), timedelta(seconds=59), timedelta(days=32), timedelta(hours=-1)):
        assert "max_lifetime" in unloadable(Outputs, max_lifetime=lifetime)
    assert "hosts" in unloadable(Outputs, hosts=("*.com",))
    for sort in ("groups", "roles", "projects", "entitlements", "rights", "hosts"):
        assert "too long" in unloadable(Outputs, **{sort: (FixedName("a"),) * 65})


def test_a_decision_is_not_a_boolean() -> None:
    """Tested for truth, a refusal would admit."""
    for decision in (Admission(rule="x"), NotAdmitted("no", "ask")):
        with pytest.raises(TypeError):
            bool(decision)


def test_an_unverified_address_never_becomes_a_name() -> None:
    """R15: with an address that the provider did not verify there is no subject, no group, and no right."""
    identity = login(email="alice@lab.example", email_verified=False)
    template = Template.parse("user/{email|local:lab.example}")
    assert "verified" in refused(identity, subject=template)
    assert "verified" in refused(identity, groups=(NamesFromClaim(claim=Pointer.parse("/email")),))
    assert "verified" in refused(identity, rights=(right("/home/{claim:/email|local:lab.example}/"),))
    verified = Login(email="alice@lab.example", claims=identity.claims)
    assert admitted(verified, subject=template).subject == "user/alice"
    assert admit([rule(when=EVERYONE, subject=template)], verified) == Admission(rule="one", subject="user/alice")
