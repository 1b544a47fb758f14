"""Decisions: each refusal, each clamp, and the properties that hold for every input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from certauth import certificates, keys
from certauth.bundles import VerifiedPeer
from certauth.enrolment import EnrolledRight, Enrolment, Entitlement, Login, Terms, common_rights, held_rights
from certauth.identity import Binding, ProofKind, VerifiedIdentity
from certauth.issuance import CertificateGrant, Clamp, Refusal, TokenGrant, decide_certificate, decide_renewal, decide_token
from certauth.keys import Algorithm, generate
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import AGENT, BACKDATE, MIN_LIFETIME, SERVICE, TOKEN_DEFAULT, TOKEN_MAX, USER
from certauth.requests import CertificationRequest, Right, TokenRequest, parse_csr, path_covers
from tests.certauth.facility import Facility

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
START = NOW.replace(microsecond=0)
ALS = TrustDomain.parse("als.example")
ALICE = Principal.make(ALS, Kind.USER, "alice")
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
KEY = generate(Algorithm.P256)
PUBLIC = KEY.public_key
REQUEST = CertificationRequest(public_key=PUBLIC, spki=keys.spki(PUBLIC), der=b"", asked=("CN=root",))
IDENTITY = VerifiedIdentity(
    issuer_id="idp",
    issuer="https://idp.example",
    subject="sub-1",
    kind=ProofKind.ID_TOKEN,
    binding=Binding.NONCE,
    assurance=2,
    auth_time=None,
    acr=None,
    amr=(),
    email=None,
    name=None,
    issued_at=NOW,
    expires_at=NOW + HOUR,
    proof_digest=b"d" * 32,
    replay_until=NOW + HOUR,
    claims={},
)
RIGHTS = (
    EnrolledRight("files", "read", "/data/"),
    EnrolledRight("files", "read", "/data/public/"),
    EnrolledRight("files", "write", "/data/alice/"),
    EnrolledRight("jobs", "submit", "/queue"),
)
ENROLMENT = Enrolment(
    principal=ALICE,
    logins=(Login("https://idp.example", "sub-1"),),
    groups=("beamline-7",),
    roles=("pi",),
    projects=("p-1",),
    rights=RIGHTS,
)
PEER = VerifiedPeer(
    principal=ALICE,
    fingerprint="f" * 64,
    serial=5,
    not_before=NOW - HOUR,
    not_after=NOW + 8 * HOUR,
    assurance=2,
    public_key=PUBLIC,
    spki=keys.spki(PUBLIC),
    issuer_fingerprint="e" * 64,
)


def certificate(**changes: object) -> CertificateGrant | Refusal:
    """Decide on a certificate, with some arguments other than ordinary."""
    arguments: dict[str, object] = {
        "identity": IDENTITY,
        "enrolment": ENROLMENT,
        "terms": Terms(),
        "request": REQUEST,
        "lifetime": None,
        "issuer_not_after": NOW + timedelta(days=365),
        "max_lifetime": timedelta(hours=24),
        "address": None,
        "now": NOW,
    }
    return decide_certificate(**arguments | changes)  # type: ignore[arg-type]  # the names are the function's


def renewal(**changes: object) -> CertificateGrant | Refusal:
    """Decide on a renewal, with some arguments other than ordinary."""
    arguments: dict[str, object] = {
        "peer": PEER,
        "enrolment": ENROLMENT,
        "terms": Terms(rule="staff", max_lifetime=12 * HOUR),
        "issuer_id": "idp",
        "session_ends": NOW + 20 * HOUR,
        "request": REQUEST,
        "lifetime": None,
        "issuer_not_after": NOW + timedelta(days=365),
        "max_lifetime": timedelta(hours=24),
        "address": None,
        "now": NOW,
    }
    return decide_renewal(**arguments | changes)  # type: ignore[arg-type]  # the names are the function's


def token(**changes: object) -> TokenGrant | Refusal:
    """Decide on a token, with some arguments other than ordinary; the rights are the enrolment's unless given."""
    arguments: dict[str, object] = {
        "peer": PEER,
        "enrolment": ENROLMENT,
        "terms": Terms(),
        "request": TokenRequest(audience="files"),
        "max_lifetime": timedelta(hours=12),
        "address": None,
        "now": NOW,
    }
    arguments |= changes
    enrolment = arguments["enrolment"]
    arguments.setdefault("rights", held_rights(enrolment, Terms(), ()) if isinstance(enrolment, Enrolment) else ())
    return decide_token(**arguments)  # type: ignore[arg-type]  # the names are the function's


def granted(decision: CertificateGrant | TokenGrant | Refusal) -> CertificateGrant | TokenGrant:
    """The grant; a refusal fails the test with its words."""
    assert not isinstance(decision, Refusal), decision
    return decision


def code(decision: CertificateGrant | TokenGrant | Refusal) -> str:
    """The code of a refusal; a grant fails the test."""
    assert isinstance(decision, Refusal), decision
    assert decision.reason
    return decision.code


def enrolled(**changes: object) -> Enrolment:
    """Alice's enrolment with some members changed."""
    return dataclasses.replace(ENROLMENT, **changes)  # type: ignore[arg-type]  # the names are the enrolment's


def test_decisions_have_no_truth_value() -> None:
    """``if decision:`` would take a refusal for a grant, so it raises."""
    for decision in (certificate(), token(), Refusal("x", "y")):
        with pytest.raises(TypeError, match="match on the type"):
            bool(decision)


# --- certificates -------------------------------------------------------------------------------------------------------


def test_a_certificate_is_granted_from_enrolment_identity_profile_and_clock() -> None:
    """Every member of the grant has its one source; the request gives the key."""
    assert certificate() == CertificateGrant(
        principal=ALICE,
        profile=USER,
        public_key=PUBLIC,
        spki=keys.spki(PUBLIC),
        not_before=START - BACKDATE,
        not_after=START + USER.default_lifetime,
        assurance=2,
        issuer_id="idp",
        ignored=("CN=root",),
        clamped=None,
        rule="enrolled",
    )


def test_the_same_subject_at_another_issuer_is_somebody_else() -> None:
    """An enrolment counts for exactly its (issuer, subject), even if a store should hand out the wrong one."""
    assert code(certificate(enrolment=None)) == "not-enrolled"
    stranger = dataclasses.replace(IDENTITY, issuer="https://evil.example", issuer_id="evil")
    assert code(certificate(identity=stranger)) == "not-enrolled"
    assert code(certificate(identity=dataclasses.replace(IDENTITY, subject="sub-2"))) == "not-enrolled"
    namesake = enrolled(logins=(Login("https://evil.example", "sub-1"),), principal=Principal.make(ALS, Kind.USER, "alice2"))
    theirs = granted(certificate(identity=stranger, enrolment=namesake))
    assert theirs.principal != granted(certificate()).principal


def test_a_disabled_principal_gets_nothing() -> None:
    """Disabling takes effect at the next request, for certificates and tokens."""
    assert code(certificate(enrolment=enrolled(disabled=True))) == "principal-disabled"
    assert code(token(enrolment=enrolled(disabled=True))) == "principal-disabled"


def test_every_linked_login_leads_to_the_same_person() -> None:
    """A second provider that was linked is as good as the first; one that was not is nobody's."""
    second = Login("https://second.example", "a")
    linked = enrolled(logins=(*ENROLMENT.logins, second))
    identity = dataclasses.replace(IDENTITY, issuer=second.issuer, subject=second.subject)
    assert granted(certificate(identity=identity, enrolment=linked)).principal == ALICE
    assert code(certificate(identity=identity)) == "not-enrolled"


@pytest.mark.parametrize("kind", [Kind.SERVICE, Kind.HOST])
def test_no_login_makes_a_service(kind: Kind) -> None:
    """A certificate that can be a server's is never the result of a login, but of an enrolled key, a code or a workload."""
    enrolment = enrolled(principal=Principal.make(ALS, kind, "files"), hosts=("files.als.example",))
    for proof in (ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN):
        identity = dataclasses.replace(IDENTITY, kind=proof)
        assert code(certificate(identity=identity, enrolment=enrolment)) == "profile-not-available"
    for proof in (ProofKind.CLIENT_ASSERTION, ProofKind.CODE, ProofKind.WORKLOAD):
        grant = granted(certificate(identity=dataclasses.replace(IDENTITY, kind=proof), enrolment=enrolment))
        assert isinstance(grant, CertificateGrant)
        assert (grant.profile, grant.hosts) == (SERVICE, ("files.als.example",))


@pytest.mark.parametrize("proof", [ProofKind.CLIENT_ASSERTION, ProofKind.CODE, ProofKind.WORKLOAD, ProofKind.CERTIFICATE])
def test_no_machines_proof_makes_a_person(proof: ProofKind) -> None:
    """A CI job whose token was enrolled as a person's login is still not that person."""
    assert code(certificate(identity=dataclasses.replace(IDENTITY, kind=proof))) == "profile-not-available"


def test_an_enrolment_that_ended_gives_nothing() -> None:
    """To the second: at its end everything is refused, and nothing granted before lasts beyond it."""
    assert code(certificate(enrolment=enrolled(expires_at=NOW))) == "enrolment-ended"
    assert code(token(enrolment=enrolled(expires_at=NOW))) == "enrolment-ended"
    assert code(renewal(enrolment=enrolled(expires_at=NOW))) == "enrolment-ended"
    grant = granted(certificate(enrolment=enrolled(expires_at=START + HOUR), lifetime=2 * HOUR))
    assert isinstance(grant, CertificateGrant)
    assert grant.not_after == START + HOUR
    assert grant.clamped is not None
    assert grant.clamped.by == "the end of the enrolment"


@pytest.mark.parametrize("address", [None, "192.0.2.1", "::1", "11.0.0.1"])
def test_a_request_from_elsewhere_is_refused(address: str | None) -> None:
    """With networks in the enrolment, a request from outside them, or from nowhere, gets nothing."""
    limited = enrolled(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
    elsewhere = None if address is None else ip_address(address)
    for decide in (certificate, token, renewal):
        assert code(decide(enrolment=limited, address=elsewhere)) == "address-not-allowed"
        for inside in ("10.1.2.3", "2001:db8::1"):
            assert granted(decide(enrolment=limited, address=ip_address(inside))).principal == ALICE


def test_the_rule_of_a_login_narrows_what_it_is_worth() -> None:
    """Its assurance and lifetime are caps, and its name is what the record will say."""
    grant = granted(certificate(terms=Terms(rule="visitors", assurance=1, max_lifetime=HOUR), lifetime=2 * HOUR))
    assert isinstance(grant, CertificateGrant)
    assert (grant.rule, grant.assurance, grant.not_after) == ("visitors", 1, START + HOUR)
    assert grant.clamped is not None
    assert grant.clamped.by == "the rule 'visitors'"
    assert granted(certificate(terms=Terms(assurance=3))).assurance == IDENTITY.assurance


# --- renewals -----------------------------------------------------------------------------------------------------------


def test_a_renewal_keeps_the_name_and_the_assurance() -> None:
    """What the login was worth stays; the request brings a key and nothing else."""
    grant = granted(renewal())
    assert isinstance(grant, CertificateGrant)
    assert (grant.principal, grant.assurance, grant.issuer_id, grant.rule) == (ALICE, 2, "idp", "staff")
    assert (grant.not_after, grant.spki) == (START + 8 * HOUR, keys.spki(PUBLIC))


def test_a_session_is_not_renewed_past_its_end() -> None:
    """However often it is renewed, a person's certificate ends with the session; just before its end nothing is left."""
    grant = granted(renewal(session_ends=START + 2 * HOUR, lifetime=5 * HOUR))
    assert isinstance(grant, CertificateGrant)
    assert grant.not_after == START + 2 * HOUR
    assert grant.clamped is not None
    assert grant.clamped.by == "the end of the session"
    assert code(renewal(session_ends=START + MIN_LIFETIME - SECOND)) == "session-ended"
    assert code(renewal(session_ends=START)) == "session-ended"


def test_an_agents_renewal_ends_with_its_enrolment_only() -> None:
    """A machine logs in nowhere; its enrolment is the limit."""
    agent = Principal.make(ALS, Kind.AGENT, "job")
    peer = dataclasses.replace(PEER, principal=agent)
    grant = granted(renewal(peer=peer, enrolment=enrolled(principal=agent, expires_at=START + 9 * HOUR), session_ends=None))
    assert isinstance(grant, CertificateGrant)
    assert (grant.profile, grant.not_after) == (AGENT, START + 8 * HOUR)


def test_a_renewal_needs_the_enrolment_of_its_own_principal() -> None:
    """None, somebody else's or a disabled one: no renewal."""
    assert code(renewal(enrolment=None)) == "not-enrolled"
    assert code(renewal(enrolment=enrolled(principal=Principal.make(ALS, Kind.USER, "bob")))) == "not-enrolled"
    assert code(renewal(enrolment=enrolled(disabled=True))) == "principal-disabled"
    assert code(renewal(enrolment=enrolled(assurance=0))) == "assurance-too-low"
    assert code(renewal(lifetime=SECOND)) == "lifetime-invalid"


def test_an_agent_gets_the_agents_profile() -> None:
    """The profile follows from the kind of the principal."""
    enrolment = enrolled(principal=Principal.make(ALS, Kind.AGENT, "pipeline"))
    for proof in ProofKind:
        decision = certificate(enrolment=enrolment, identity=dataclasses.replace(IDENTITY, kind=proof))
        assert isinstance(decision, Refusal) == (proof is ProofKind.CERTIFICATE)
    grant = granted(certificate(enrolment=enrolment))
    assert isinstance(grant, CertificateGrant)
    assert grant.profile is AGENT


@pytest.mark.parametrize(("proved", "ceiling", "seen"), [(3, 3, 3), (2, 3, 2), (3, 1, 1)])
def test_assurance_is_the_lesser_of_login_and_enrolment(proved: int, ceiling: int, seen: int) -> None:
    """A strong login of somebody enrolled without care is not more certain than the enrolment."""
    identity = dataclasses.replace(IDENTITY, assurance=proved)
    assert granted(certificate(identity=identity, enrolment=enrolled(assurance=ceiling))).assurance == seen
    assert (
        granted(token(peer=dataclasses.replace(PEER, assurance=proved), enrolment=enrolled(assurance=ceiling))).assurance
        == seen
    )


def test_an_assurance_of_nothing_is_refused() -> None:
    """Assurance 0 means that nobody looked, which is not enough for a person."""
    assert code(certificate(identity=dataclasses.replace(IDENTITY, assurance=0))) == "assurance-too-low"
    assert code(certificate(enrolment=enrolled(assurance=0))) == "assurance-too-low"
    assert code(token(peer=dataclasses.replace(PEER, assurance=0))) == "assurance-too-low"


def hostile_request() -> CertificationRequest:
    """A request by a genuine key that asks to be the administrator, a server and an authority."""
    names = [
        x509.UniformResourceIdentifier("spiffe://als.example/user/admin"),
        x509.DNSName("signer.als.example"),
        x509.RFC822Name("admin@als.example"),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin"), x509.NameAttribute(NameOID.USER_ID, "root")])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return parse_csr(builder.sign(KEY.private_key, hashes.SHA256()).public_bytes(Encoding.DER))  # type: ignore[arg-type]


def test_what_a_request_asks_for_is_reported_and_never_granted() -> None:
    """Another's name, SAN, EKU and CA: ignored, said, and absent from the certificate that is made."""
    grant = certificate(request=hostile_request())
    assert isinstance(grant, CertificateGrant)
    assert grant.principal == ALICE
    assert set(grant.ignored) == {
        "CN=admin",
        "UID=root",
        "URI:spiffe://als.example/user/admin",
        "DNS:signer.als.example",
        "email:admin@als.example",
        "EKU:serverAuth",
        "EKU:codeSigning",
        "CA:true",
    }
    als = Facility()
    made = certificates.make_leaf(grant=grant, issuer=als.issuer, issuer_key=als.issuer_key, serial=9)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(str(ALICE))]
    usages = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    der = made.public_bytes(Encoding.DER)
    assert all(word not in der for word in (b"admin", b"root", b"signer"))


def test_a_lifetime_above_a_cap_is_shortened_and_said() -> None:
    """The clamp names what was asked, what was given and whose limit it was."""
    grant = granted(certificate(lifetime=timedelta(hours=30)))
    assert grant.clamped == Clamp(
        what="certificate lifetime", requested=timedelta(hours=30), granted=timedelta(hours=24), by="the user profile"
    )
    assert str(grant.clamped) == "certificate lifetime of 1 d 6 h shortened to 1 d by the user profile"
    for changes, by, hours in (
        ({"max_lifetime": 2 * HOUR}, "the signer's settings", 2),
        ({"enrolment": enrolled(max_lifetime=3 * HOUR)}, "the enrolment", 3),
        ({"issuer_not_after": START + HOUR}, "the end of the issuing authority", 1),
    ):
        grant = granted(certificate(lifetime=10 * HOUR, **changes))
        assert isinstance(grant, CertificateGrant)
        assert grant.not_after == START + hours * HOUR
        assert grant.clamped is not None
        assert (grant.clamped.by, grant.clamped.granted) == (by, hours * HOUR)


def test_a_default_lifetime_is_cut_silently_because_nobody_asked() -> None:
    """Without a wish there is nothing to report; the end is in the certificate."""
    grant = granted(certificate(max_lifetime=2 * HOUR))
    assert isinstance(grant, CertificateGrant)
    assert (grant.not_after, grant.clamped) == (START + 2 * HOUR, None)


def test_a_lifetime_at_the_cap_is_no_clamp() -> None:
    """Exactly the limit is granted as asked."""
    assert granted(certificate(lifetime=timedelta(hours=24))).clamped is None


@pytest.mark.parametrize("lifetime", [timedelta(0), -HOUR, MIN_LIFETIME - SECOND, timedelta.min])
def test_a_lifetime_that_makes_no_sense_is_refused(lifetime: timedelta) -> None:
    """Zero, negative and too short wishes are mistakes, not wishes."""
    assert code(certificate(lifetime=lifetime)) == "lifetime-invalid"
    assert code(token(request=TokenRequest(audience="files", lifetime=lifetime))) == "lifetime-invalid"


@pytest.mark.parametrize("left", [-HOUR, timedelta(0), MIN_LIFETIME - SECOND])
def test_an_ending_authority_issues_nothing(left: timedelta) -> None:
    """Nothing is granted past, or just before, the end of what it depends on."""
    assert code(certificate(issuer_not_after=START + left)) == "lifetime-exhausted"
    assert code(token(peer=dataclasses.replace(PEER, not_after=START + left))) == "lifetime-exhausted"
    assert granted(certificate(issuer_not_after=START + MIN_LIFETIME)).assurance == 2


SPANS = st.timedeltas(min_value=timedelta(days=-2), max_value=timedelta(days=400))
LONG = st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=40000))


@given(wish=st.none() | LONG, signer=SPANS, personal=st.none() | SPANS, left=SPANS, micro=st.integers(0, 999_999))
def test_no_certificate_outlives_any_cap(
    wish: timedelta | None, signer: timedelta, personal: timedelta | None, left: timedelta, micro: int
) -> None:
    """For every wish, clock and configuration: at most every cap, at least the minimum, in whole seconds, clamped iff cut."""
    now = START.replace(microsecond=micro)
    end = START + left
    decision = certificate(
        lifetime=wish, max_lifetime=signer, enrolment=enrolled(max_lifetime=personal), issuer_not_after=end, now=now
    )
    caps = [USER.max_lifetime, signer, left] + ([personal] if personal is not None else [])
    if isinstance(decision, Refusal):
        assert min([*caps, wish or USER.default_lifetime]) < MIN_LIFETIME
        return
    assert isinstance(decision, CertificateGrant)
    lifetime = decision.not_after - START
    assert MIN_LIFETIME <= lifetime <= min(caps)
    assert decision.not_after <= end
    assert (decision.not_after.microsecond, decision.not_before.microsecond) == (0, 0)
    assert lifetime <= (wish or USER.default_lifetime)
    assert (decision.clamped is not None) == (wish is not None and wish > min(caps))
    if decision.clamped is not None:
        assert (decision.clamped.requested, decision.clamped.granted) == (wish, lifetime)


# --- rights -------------------------------------------------------------------------------------------------------------

RUN7 = EnrolledRight("files", "read", "/runs/7/")


@pytest.mark.parametrize(("holder", "name"), [("group", "beamline-7"), ("role", "pi"), ("project", "p-1")])
def test_rights_come_from_groups_roles_and_projects(holder: str, name: str) -> None:
    """Only to their members, and a role's name is not a group's."""
    for other in ("group", "role", "project"):
        entitlement = Entitlement(holder=other, name=name, right=RUN7)  # type: ignore[arg-type]  # one of the three
        assert (RUN7 in held_rights(ENROLMENT, Terms(), [entitlement])) == (other == holder)
    assert RUN7 not in held_rights(ENROLMENT, Terms(), [Entitlement(holder="group", name="beamline-8", right=RUN7)])


def test_rights_come_from_the_login_too() -> None:
    """Groups that the rules made of a login count like enrolled ones, and so do its own rights."""
    entitlement = Entitlement(holder="group", name="campus:staff", right=RUN7)
    assert RUN7 in held_rights(ENROLMENT, Terms(groups=("campus:staff",)), [entitlement])
    assert RUN7 in held_rights(ENROLMENT, Terms(rights=(RUN7,)), [])
    grant = granted(token(terms=Terms(groups=("campus:staff", "beamline-7"), roles=("r",), projects=("q",))))
    assert isinstance(grant, TokenGrant)
    assert grant.groups == ("beamline-7", "campus:staff")
    assert (grant.roles, grant.projects) == (("pi", "r"), ("p-1", "q"))


def test_an_agent_has_what_both_it_and_its_owner_have() -> None:
    """The lesser of both, right by right; nothing at a service where one of them has nothing."""
    agent = (
        EnrolledRight("files", "read", "/"),
        EnrolledRight("files", "write", "/data/alice/x"),
        EnrolledRight("db", "read", "/"),
    )
    assert common_rights(agent, RIGHTS) == (
        EnrolledRight("files", "read", "/data/"),
        EnrolledRight("files", "write", "/data/alice/x"),
    )
    assert common_rights(agent, ()) == ()


# --- tokens -------------------------------------------------------------------------------------------------------------


def test_a_token_is_granted_from_the_enrolment_as_it_is_now() -> None:
    """All rights at the service, without those that another includes, bound to the peer's certificate and key."""
    assert token() == TokenGrant(
        principal=ALICE,
        audience="files",
        rights=(EnrolledRight("files", "read", "/data/"), EnrolledRight("files", "write", "/data/alice/")),
        groups=("beamline-7",),
        roles=("pi",),
        projects=("p-1",),
        assurance=2,
        not_before=START - BACKDATE,
        expires_at=START + TOKEN_DEFAULT,
        peer_fingerprint="f" * 64,
        delegate_key=PUBLIC,
        delegations=1,
        clamped=None,
        rule="enrolled",
    )


def test_a_token_needs_the_enrolment_of_its_own_principal() -> None:
    """No enrolment, or somebody else's, is a refusal, whatever the certificate says."""
    assert code(token(enrolment=None)) == "not-enrolled"
    for other in (
        Principal.make(ALS, Kind.USER, "bob"),
        Principal.make(ALS, Kind.AGENT, "alice"),
        Principal.make(TrustDomain.parse("ornl.example"), Kind.USER, "alice"),
    ):
        assert code(token(peer=dataclasses.replace(PEER, principal=other))) == "not-enrolled"


def test_a_service_may_have_a_token_without_a_login() -> None:
    """Assurance is about people; an enrolled service has none and needs none."""
    files = Principal.make(ALS, Kind.SERVICE, "files")
    peer = dataclasses.replace(PEER, principal=files, assurance=0)
    assert granted(token(peer=peer, enrolment=enrolled(principal=files))).assurance == 0


def test_a_service_without_rights_is_unknown() -> None:
    """A token that permits nothing is not made."""
    assert code(token(request=TokenRequest(audience="other"))) == "audience-unknown"
    assert code(token(enrolment=enrolled(rights=()))) == "audience-unknown"


def asked(*rights: tuple[str, str]) -> TokenRequest:
    """A request for these operations and paths."""
    return TokenRequest(audience="files", rights=tuple(Right.make(*right) for right in rights))


@pytest.mark.parametrize(
    ("wishes", "rights"),
    [
        ([("read", "/data/x")], [("read", "/data/x")]),
        ([("read", "/data/x/")], [("read", "/data/x/")]),
        ([("read", "/data/")], [("read", "/data/")]),
        ([("read", "/")], [("read", "/data/")]),
        ([("write", "/data/")], [("write", "/data/alice/")]),
        ([("write", "/data/alice/f"), ("read", "/data/f")], [("read", "/data/f"), ("write", "/data/alice/f")]),
        ([("read", "/data/a/"), ("read", "/data/a/b")], [("read", "/data/a/")]),
    ],
)
def test_a_wish_narrows_to_what_both_contain(wishes: list[tuple[str, str]], rights: list[tuple[str, str]]) -> None:
    """The granted rights are the intersection of held and wished."""
    grant = granted(token(request=asked(*wishes)))
    assert isinstance(grant, TokenGrant)
    assert grant.rights == tuple(EnrolledRight("files", *right) for right in rights)


@pytest.mark.parametrize(
    "wishes",
    [
        [("write", "/data/bob/")],
        [("write", "/data/alice")],
        [("read", "/data")],
        [("read", "/data2")],
        [("read", "/data2/")],
        [("delete", "/data/x")],
        [("submit", "/queue")],
        [("read", "/data/x"), ("write", "/etc/passwd")],
    ],
)
def test_a_wish_for_what_is_not_held_is_refused(wishes: list[tuple[str, str]]) -> None:
    """Also if another wish of the request could be met, and also if it is held at another service."""
    assert code(token(request=asked(*wishes))) == "right-not-held"


def test_only_a_p256_key_can_delegate() -> None:
    """Others get a token that cannot be handed on, if they say so."""
    for key in (generate(Algorithm.P384).public_key, rsa.generate_private_key(65537, 2048).public_key()):
        peer = dataclasses.replace(PEER, public_key=key)
        assert code(token(peer=peer)) == "key-cannot-delegate"
        grant = granted(token(peer=peer, request=TokenRequest(audience="files", delegations=0)))
        assert isinstance(grant, TokenGrant)
        assert grant.delegate_key is None
    grant = granted(token(request=TokenRequest(audience="files", delegations=0)))
    assert isinstance(grant, TokenGrant)
    assert grant.delegate_key is None


SEGMENT = st.sampled_from(["a", "b", "ab", "data", "data2"])
PATHS = st.builds(
    lambda segments, slash: "/" + "/".join(segments) + ("/" if slash and segments else ""),
    st.lists(SEGMENT, max_size=3),
    st.booleans(),
)
OPERATIONS = st.sampled_from(["read", "write"])
HELD = st.lists(st.builds(EnrolledRight, st.sampled_from(["files", "jobs"]), OPERATIONS, PATHS), max_size=6)
WISHED = st.none() | st.lists(st.builds(Right, OPERATIONS, PATHS), min_size=1, max_size=4).map(tuple)


@given(held=HELD, others=HELD, path=PATHS, operation=OPERATIONS)
def test_common_rights_permit_what_both_sides_do(
    held: list[EnrolledRight], others: list[EnrolledRight], path: str, operation: str
) -> None:
    """For every path and service: exactly if both sides permit it."""

    def permits(rights: Iterable[EnrolledRight], service: str) -> bool:
        return any((r.service, r.operation) == (service, operation) and path_covers(r.path, path) for r in rights)

    for service in ("files", "jobs"):
        both = permits(held, service) and permits(others, service)
        assert permits(common_rights(held, others), service) == both


@given(held=HELD, wished=WISHED, path=PATHS, operation=OPERATIONS)
def test_a_token_never_permits_what_is_not_held_and_wished(
    held: list[EnrolledRight], wished: tuple[Right, ...] | None, path: str, operation: str
) -> None:
    """For every path: the token permits it only if the enrolment does and, if there was a wish, the wish names it too."""
    decision = token(enrolment=enrolled(rights=tuple(held)), request=TokenRequest(audience="files", rights=wished))
    mine = [right for right in held if right.service == "files"]
    if isinstance(decision, Refusal):
        assert not mine or wished is not None
        return
    assert isinstance(decision, TokenGrant)

    def permits(rights: object) -> bool:
        return any(right.operation == operation and path_covers(right.path, path) for right in rights)  # type: ignore[attr-defined]

    assert permits(decision.rights) == (permits(mine) and (wished is None or permits(wished)))
    assert all(right.service == "files" for right in decision.rights)
    assert decision.rights


@given(wish=st.none() | LONG, signer=SPANS, personal=st.none() | SPANS, left=SPANS)
def test_no_token_outlives_any_cap_or_its_certificate(
    wish: timedelta | None, signer: timedelta, personal: timedelta | None, left: timedelta
) -> None:
    """For every wish: at most the profile, the signer, the enrolment and the peer's certificate allow."""
    peer = dataclasses.replace(PEER, not_after=START + left)
    decision = token(
        peer=peer,
        request=TokenRequest(audience="files", lifetime=wish),
        max_lifetime=signer,
        enrolment=enrolled(max_lifetime=personal),
    )
    caps = [TOKEN_MAX, signer, left] + ([personal] if personal is not None else [])
    if isinstance(decision, Refusal):
        assert min([*caps, wish or TOKEN_DEFAULT]) < MIN_LIFETIME
        return
    assert isinstance(decision, TokenGrant)
    assert MIN_LIFETIME <= decision.expires_at - START <= min([*caps, wish or TOKEN_DEFAULT])
    assert decision.expires_at <= peer.not_after
    assert (decision.clamped is not None) == (wish is not None and wish > min(caps))
