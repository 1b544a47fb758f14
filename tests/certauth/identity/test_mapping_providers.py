"""The claim sets that facilities meet, and the rules an administrator writes for them: who becomes whom, and who does not."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace

import pytest

from certauth.identity.mapping import Admission, NotAdmitted, Rule, admit
from signer.admission import RuleSettings
from tests.certauth.identity.logins import Login

MFA = "https://refeds.org/profile/mfa"


def rules(text: str) -> list[Rule]:
    """The rules of an issuer, as they stand in ``signer.toml``."""
    return [RuleSettings.model_validate(table).rule() for table in tomllib.loads(text)["rule"]]


CILOGON = Login(
    issuer_id="cilogon",
    issuer="https://cilogon.org",
    subject="http://cilogon.org/serverA/users/4711",
    email="ada@lab.example",
    assurance=2,
    claims={
        "sub": "http://cilogon.org/serverA/users/4711",
        "idp": "https://idp.lab.example/shibboleth",
        "idp_name": "The Lab",
        "eppn": "ada@lab.example",
        "affiliation": "staff@lab.example;member@lab.example",
        "acr": MFA,
        "isMemberOf": ["CO:members:active", "CO:COU:beamline7:members:active"],
        "email": "ada@lab.example",
        "name": "Ada Lovelace",
    },
)
CILOGON_RULES = """
[[rule]]
name = "lab staff"
when.all = [{claim = "/idp", equals = "https://idp.lab.example/shibboleth"}, {claim = "/acr", equals = "https://refeds.org/profile/mfa"}]
subject = "user/{claim:/eppn|local:lab.example}"
groups = {claim = "/isMemberOf", match = "CO:COU:*:members:active", optional = true}
display = "{claim:/name}"
"""

GLOBUS = Login(
    issuer_id="globus",
    issuer="https://auth.globus.org",
    subject="9d437146-f150-42c2-be88-9d625d9e7cf9",
    claims={
        "sub": "9d437146-f150-42c2-be88-9d625d9e7cf9",
        "preferred_username": "ada@lab.example",
        "identity_set": [{"sub": "9d437146-f150-42c2-be88-9d625d9e7cf9", "username": "ada@lab.example"}],
        "organization": "The Lab",
        "identity_provider": "ef2f4e6d-0000-4c1c-9c9d-a3bd4d5a3b3b",
    },
)
GLOBUS_RULES = """
[[rule]]
name = "through the lab"
when.all = [{claim = "/identity_provider", equals = "ef2f4e6d-0000-4c1c-9c9d-a3bd4d5a3b3b"}]
subject = "user/globus-{sub}"
"""

ENTRA = Login(
    issuer_id="entra",
    issuer="https://login.microsoftonline.com/833ced3d/v2.0",
    subject="3OBtLXUC2ZrN_ADLNjW9X4o0lcd61py7lgHw3Skh77s",
    claims={
        "oid": "cb7eda1b-d09a-40ae-b8bb-37836ebc6abd",
        "tid": "833ced3d-cb2e-41de-92f1-29e2af035ddc",
        "preferred_username": "ada@lab.example",
        "roles": ["Beamline.User"],
        "groups": ["0760b6cf-170e-4a14-91b3-4b78e0739963", "3b2b0c93-acd8-4208-8eba-7a48db1cd4c0"],
        "amr": ["pwd", "mfa"],
        "xms_edov": True,
    },
)
ENTRA_RULES = """
[[rule]]
name = "our tenant"
when.all = [{claim = "/tid", equals = "833ced3d-cb2e-41de-92f1-29e2af035ddc"}]
when.none = [{claim = "/roles", any = ["Suspended"]}]
subject = "user/{claim:/oid}"
groups = {claim = "/groups"}
roles = {claim = "/roles"}
assurance = {claim = "/amr", levels = {mfa = 3}, otherwise = 1}
"""

KEYCLOAK = Login(
    issuer_id="kc",
    issuer="https://kc.lab.example/realms/lab",
    subject="f3a1c9e0-9d9f-4f3e-8f53-5a0c7b3a3b11",
    claims={
        "preferred_username": "ada",
        "email_verified": False,
        "email": "ada@lab.example",
        "groups": ["/staff", "/staff/admins"],
        "realm_access": {"roles": ["offline_access", "hpc-user"]},
        "resource_access": {"signer": {"roles": ["operator"]}},
        "acr": "1",
    },
)
KEYCLOAK_RULES = """
[[rule]]
name = "hpc users"
when.kinds = ["id_token"]
when.all = [{claim = "/realm_access/roles", any = ["hpc-user"]}]
subject = "user/{claim:/preferred_username}"
local_username = "{claim:/preferred_username}"
groups = {claim = "/groups", match = "/staff/**"}
roles = ["member", {claim = "/resource_access/signer/roles", prefix = "kc:signer:", optional = true}]
rights = {service = "data", operations = ["read", "write"], path = "/home/{claim:/preferred_username}/"}
"""

GITHUB = Login(
    issuer_id="github",
    issuer="https://token.actions.githubusercontent.com",
    subject="repo:lab/pipeline:ref:refs/heads/main",
    kind="workload",
    binding="audience",
    claims={
        "sub": "repo:lab/pipeline:ref:refs/heads/main",
        "repository": "lab/pipeline",
        "repository_id": "424242",
        "repository_owner_id": "2020",
        "ref": "refs/heads/main",
        "ref_protected": "true",
        "job_workflow_ref": "lab/shared/.github/workflows/run.yml@refs/heads/main",
        "runner_environment": "github-hosted",
        "environment": "production",
        "event_name": "push",
    },
)
GITHUB_RULES = """
[[rule]]
name = "pipeline"
when.kinds = ["workload"]
when.bindings = ["audience"]
when.all = [
  {claim = "/repository_id", equals = "424242"},
  {claim = "/repository_owner_id", equals = "2020"},
  {claim = "/ref", equals = "refs/heads/main"},
  {claim = "/job_workflow_ref", match = "lab/shared/.github/workflows/*@refs/heads/main"},
]
when.none = [{claim = "/event_name", any = ["pull_request", "pull_request_target"]}]
subject = "agent/github-{claim:/repository_id}"
max_lifetime = "15m"
"""

KUBERNETES = Login(
    issuer_id="k8s",
    issuer="https://kubernetes.default.svc",
    subject="system:serviceaccount:batch:reducer",
    kind="workload",
    binding="audience",
    claims={
        "sub": "system:serviceaccount:batch:reducer",
        "kubernetes.io": {
            "namespace": "batch",
            "pod": {"name": "reducer-0", "uid": "5fd0-aa"},
            "serviceaccount": {"name": "reducer", "uid": "14ee-bb"},
        },
    },
)
KUBERNETES_RULES = """
[[rule]]
name = "reducer"
when.all = [
  {claim = "/sub", match = "system:serviceaccount:batch:*"},
  {claim = "/kubernetes.io/serviceaccount/uid", equals = "14ee-bb"},
]
subject = "agent/reducer"
"""

WLCG = Login(
    issuer_id="cms",
    issuer="https://cms-auth.example",
    subject="e1eb758b-b73c-4761-bfff-adc793da409c",
    kind="access_token",
    binding="dpop",
    assurance=3,
    claims={
        "wlcg.ver": "1.0",
        "scope": "openid storage.read:/ storage.create:/store/temp compute.read",
        "wlcg.groups": ["/cms/uscms", "/cms/ALARM"],
        "acr": "https://refeds.org/profile/sfa",
        "eduperson_assurance": ["https://refeds.org/assurance/profile/cappuccino", "https://refeds.org/assurance/IAP/medium"],
    },
)
WLCG_RULES = """
[[rule]]
name = "cms"
when.all = [{claim = "/wlcg.ver", equals = "1.0"}, {claim = "/wlcg.groups", any = ["/cms/uscms"]}]
subject = "user/cms-{sub|hash}"
groups = {claim = "/wlcg.groups", match = "/cms/**"}
assurance = {claim = "/eduperson_assurance", levels = {"https://refeds.org/assurance/profile/cappuccino" = 2}}
[[rule.scopes]]
service = "storage"
base = "/cms/"
operations = {"storage.read" = ["read"], "storage.create" = ["create"]}
[[rule.scopes]]
service = "jobs"
base = "/cms/"
operations = {"compute.read" = ["read"]}
"""

AARC = Login(
    issuer_id="egi",
    issuer="https://aai.egi.example/auth/realms/egi",
    subject="f4b1@egi.eu",
    claims={
        "eduperson_entitlement": [
            "urn:mace:egi.eu:group:vo.example.org:role=member#aai.egi.eu",
            "urn:mace:egi.eu:group:vo.example.org:role=vm_operator#aai.egi.eu",
            "urn:mace:egi.eu:group:vo.example.org:admins#evil.example",
            "urn:mace:egi.eu:res:cluster:act:submit#aai.egi.eu",
        ]
    },
)
AARC_RULES = """
[[rule]]
name = "vo"
when.all = [{claim = "/eduperson_entitlement", match = "urn:mace:egi.eu:group:vo.example.org:role=member#aai.egi.eu"}]
entitlements = {claim = "/eduperson_entitlement", namespace = "urn:mace:egi.eu", authority = "aai.egi.eu"}
[[rule.capabilities]]
claim = "/eduperson_entitlement"
namespace = "urn:mace:egi.eu"
authority = "aai.egi.eu"
resource = "cluster"
actions = {submit = ["write"], view = ["read"]}
service = "jobs"
path = "/queue/"
"""

PROVIDERS = {
    "cilogon": (CILOGON, CILOGON_RULES),
    "globus": (GLOBUS, GLOBUS_RULES),
    "entra": (ENTRA, ENTRA_RULES),
    "keycloak": (KEYCLOAK, KEYCLOAK_RULES),
    "github": (GITHUB, GITHUB_RULES),
    "kubernetes": (KUBERNETES, KUBERNETES_RULES),
    "wlcg": (WLCG, WLCG_RULES),
    "aarc": (AARC, AARC_RULES),
}


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("cilogon", {"subject": "user/ada", "groups": ("cilogon:CO:COU:beamline7:members:active",), "display": "Ada Lovelace"}),
        ("globus", {"subject": "user/globus-9d437146-f150-42c2-be88-9d625d9e7cf9", "groups": ()}),
        (
            "entra",
            {
                "subject": "user/cb7eda1b-d09a-40ae-b8bb-37836ebc6abd",
                "groups": ("entra:0760b6cf-170e-4a14-91b3-4b78e0739963", "entra:3b2b0c93-acd8-4208-8eba-7a48db1cd4c0"),
                "roles": ("entra:Beamline.User",),
                "assurance": 3,
            },
        ),
        (
            "keycloak",
            {
                "subject": "user/ada",
                "local_username": "ada",
                "groups": ("kc:/staff/admins",),
                "roles": ("member", "kc:signer:operator"),
                "rights": (("data", "read", "/home/ada/"), ("data", "write", "/home/ada/")),
            },
        ),
        ("github", {"subject": "agent/github-424242"}),
        ("kubernetes", {"subject": "agent/reducer"}),
        (
            "wlcg",
            {
                "groups": ("cms:/cms/uscms", "cms:/cms/ALARM"),
                "assurance": 2,
                "rights": (
                    ("storage", "read", "/cms/"),
                    ("storage", "create", "/cms/store/temp"),
                    ("storage", "create", "/cms/store/temp/"),
                    ("jobs", "read", "/cms/"),
                ),
            },
        ),
        (
            "aarc",
            {
                "groups": ("egi:vo.example.org",),
                "roles": ("egi:vo.example.org:role=member", "egi:vo.example.org:role=vm_operator"),
                "rights": (("jobs", "write", "/queue/"),),
            },
        ),
    ],
)
def test_who_becomes_whom(provider: str, expected: Mapping[str, object]) -> None:
    """The claims of each kind of provider, by rules as an administrator writes them."""
    identity, text = PROVIDERS[provider]
    decision = admit(rules(text), identity)
    assert isinstance(decision, Admission), decision
    got = {name: getattr(decision, name) for name in expected}
    if "rights" in got:
        got["rights"] = tuple((right.service, right.operation, right.path) for right in decision.rights)
    assert got == expected


MISSING = object()


@pytest.mark.parametrize(
    ("provider", "changes", "because"),
    [
        ("cilogon", {"idp": "https://idp.other.example"}, "/idp"),
        ("cilogon", {"acr": MISSING}, "has no /acr"),
        ("cilogon", {"eppn": MISSING}, "subject: the proof has no /eppn"),
        ("cilogon", {"eppn": "ada@other.example"}, "not within lab.example"),
        ("globus", {"identity_provider": "41143743-0000-0000-0000-000000000000"}, "/identity_provider"),
        ("entra", {"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"}, "/tid"),
        ("entra", {"groups": MISSING, "_claim_names": {"groups": "src1"}}, "left /groups out"),
        ("entra", {"groups": MISSING, "hasgroups": True}, "left /groups out"),
        ("entra", {"groups": [f"g{n}" for n in range(201)]}, "201 values"),
        ("entra", {"groups": MISSING}, "groups: the proof has no /groups"),
        ("entra", {"roles": ["Suspended"]}, "none /roles"),
        ("entra", {"roles": MISSING}, "has no /roles"),
        ("keycloak", {"realm_access": {"roles": ["offline_access"]}}, "/realm_access/roles"),
        ("keycloak", {"realm_access": MISSING}, "has no /realm_access/roles"),
        ("keycloak", {"preferred_username": "root"}, "local_username"),
        ("keycloak", {"preferred_username": "../root"}, "subject: /preferred_username cannot be part of a name"),
        ("github", {"repository_id": "424243"}, "/repository_id"),
        ("github", {"ref": "refs/pull/1/merge"}, "/ref"),
        ("github", {"job_workflow_ref": "lab/shared/.github/workflows/x/run.yml@refs/heads/main"}, "/job_workflow_ref"),
        ("github", {"job_workflow_ref": "evil/lab/shared/.github/workflows/run.yml@refs/heads/main"}, "/job_workflow_ref"),
        ("github", {"event_name": "pull_request_target"}, "/event_name"),
        ("kubernetes", {"kubernetes.io": {"serviceaccount": {"uid": "recreated"}}}, "/kubernetes.io/serviceaccount/uid"),
        ("wlcg", {"wlcg.groups": ["/cms/uscms/x"]}, "/wlcg.groups"),
        ("wlcg", {"wlcg.groups": ["/cms"]}, "/wlcg.groups"),
        ("wlcg", {"scope": "storage.read"}, "without a path"),
        ("wlcg", {"scope": "storage.read:/../atlas"}, "not canonical"),
        ("wlcg", {"eduperson_assurance": ["https://refeds.org/assurance/IAP/low"]}, "/eduperson_assurance"),
        ("wlcg", {"wlcg.ver": 1.0}, "/wlcg.ver"),
        (
            "aarc",
            {"eduperson_entitlement": "urn:mace:egi.eu:group:vo.example.org:role=member#evil.example"},
            "/eduperson_entitlement",
        ),
    ],
)
def test_who_becomes_nobody(provider: str, changes: Mapping[str, object], because: str) -> None:
    """One claim that is otherwise, missing, or elsewhere, and the reason names it."""
    identity, text = PROVIDERS[provider]
    claims = {name: value for name, value in {**identity.claims, **changes}.items() if value is not MISSING}
    decision = admit(rules(text), replace(identity, claims=claims))
    assert isinstance(decision, NotAdmitted), decision
    assert because in decision.reason


@pytest.mark.parametrize(
    ("provider", "changes"),
    [
        ("keycloak", {"kind": "access_token"}),
        ("github", {"binding": "none"}),
        ("github", {"kind": "id_token"}),
        ("kubernetes", {"subject": "system:serviceaccount:batch:x:y"}),
        ("kubernetes", {"subject": "system:serviceaccount:kube-system:reducer"}),
    ],
)
def test_the_same_claims_of_another_proof(provider: str, changes: Mapping[str, str]) -> None:
    """The claims may be right and the proof of another kind, unbound, or about somebody else."""
    identity, text = PROVIDERS[provider]
    assert isinstance(admit(rules(text), replace(identity, **changes)), NotAdmitted)  # type: ignore[arg-type]


def test_an_unverified_address_at_keycloak_is_nobodys() -> None:
    """The claim is there, ``email_verified`` is false: no rule can use it."""
    text = '[[rule]]\nname = "a"\nwhen.all = [{claim = "/email", match = "*@lab.example"}]\n'
    decision = admit(rules(text), KEYCLOAK)
    assert isinstance(decision, NotAdmitted)
    assert "does not say that it verified it" in decision.reason
    assert isinstance(admit(rules(text), replace(KEYCLOAK, email="ada@lab.example")), Admission)
