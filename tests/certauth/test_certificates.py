"""Certificates as made: what each profile says, what real OpenSSL thinks of it, and reading it back."""

from __future__ import annotations

import json
import secrets
import subprocess
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certauth import certificates, profiles
from certauth.certificates import PROVENANCE
from certauth.errors import ChainError, KeyMaterialError, RequestError
from certauth.keys import Algorithm, SoftwareKey, generate
from certauth.names import Kind
from certauth.profiles import BACKDATE
from tests.certauth.facility import CA_USAGE, END, NOW, START, Facility, der, uri


@pytest.fixture(scope="module")
def als() -> Facility:
    """The facility whose certificates are looked at."""
    return Facility()


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> tuple[object, bool]:
    """An extension's value and criticality."""
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def assert_sound(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """What RFC 5280 asks of every certificate."""
    assert certificate.version is x509.Version.v3
    assert 0 < certificate.serial_number < 2**159
    certificate.verify_directly_issued_by(issuer)
    ski = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    assert extension(certificate, x509.SubjectKeyIdentifier) == (ski, False)
    aki, critical = extension(certificate, x509.AuthorityKeyIdentifier)
    assert isinstance(aki, x509.AuthorityKeyIdentifier)
    assert aki.key_identifier == extension(issuer, x509.SubjectKeyIdentifier)[0].digest  # type: ignore[attr-defined]
    assert (aki.authority_cert_issuer, aki.authority_cert_serial_number, critical) == (None, None, False)
    assert certificate.not_valid_after_utc <= issuer.not_valid_after_utc
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    if isinstance(certificate.signature_hash_algorithm, certificates.hash_for(Algorithm.P256).__class__):
        assert decode_dss_signature(certificate.signature)[1] <= order // 2


def assert_is_ca(certificate: x509.Certificate, issuer: x509.Certificate, *, path_length: int) -> None:
    """An authority: signs certificates and lists, nothing else, and says how deep."""
    assert_sound(certificate, issuer)
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    assert extension(certificate, x509.BasicConstraints) == (constraints, True)
    assert extension(certificate, x509.KeyUsage) == (CA_USAGE, True)
    assert {found.oid for found in certificate.extensions if found.critical} == {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
    }
    assert x509.ExtendedKeyUsage.oid not in {found.oid for found in certificate.extensions}


def assert_is_leaf(certificate: x509.Certificate, issuer: x509.Certificate, *, ekus: set[x509.ObjectIdentifier]) -> None:
    """A leaf: signs handshakes, nothing else, for exactly these usages."""
    assert_sound(certificate, issuer)
    assert extension(certificate, x509.BasicConstraints) == (x509.BasicConstraints(ca=False, path_length=None), True)
    assert extension(certificate, x509.KeyUsage) == (profiles.USER.key_usage, True)
    usages, critical = extension(certificate, x509.ExtendedKeyUsage)
    assert isinstance(usages, x509.ExtendedKeyUsage)
    assert (set(usages), critical) == (ekus, False)
    names, critical = extension(certificate, x509.SubjectAlternativeName)
    assert isinstance(names, x509.SubjectAlternativeName)
    assert len(names.get_values_for_type(x509.UniformResourceIdentifier)) == 1
    assert critical == (not certificate.subject.rdns)


def service(facility: Facility, **changes: object) -> x509.Certificate:
    """A service's certificate for TLS on this machine."""
    arguments: dict[str, object] = {
        "principal": facility.principal("files", Kind.SERVICE),
        "public_key": generate(Algorithm.P256).public_key,
        "dns_names": ("localhost",),
        "ip_addresses": (IPv4Address("127.0.0.1"), IPv6Address("::1")),
        "issuer": facility.issuer,
        "issuer_key": facility.issuer_key,
        "serial": 3,
        "not_before": START,
        "not_after": END,
    }
    return certificates.make_service(**arguments | changes)  # type: ignore[arg-type]  # the names are the function's


def test_authorities_have_their_profile(als: Facility) -> None:
    """Root and intermediate lint clean and name their trust domain."""
    assert_is_ca(als.root, als.root, path_length=1)
    assert_is_ca(als.issuer, als.root, path_length=0)
    for authority in (als.root, als.issuer):
        names, _ = extension(authority, x509.SubjectAlternativeName)
        assert list(names) == [uri("spiffe://als.example")]  # type: ignore[call-overload]  # a SAN is iterable
        assert authority.not_valid_before_utc == NOW - BACKDATE
    assert als.root.not_valid_after_utc == NOW + profiles.ROOT.default_lifetime


def test_two_generations_of_an_authority_have_two_names(als: Facility) -> None:
    """The name of an authority follows its key."""
    other = Facility()
    assert other.root.subject != als.root.subject
    assert other.issuer.subject != als.issuer.subject


def test_an_intermediate_ends_with_its_root(als: Facility) -> None:
    """However long a life is asked for."""
    made = certificates.make_intermediate(
        domain=als.domain,
        public_key=generate(Algorithm.P256).public_key,
        issuer=als.root,
        issuer_key=als.root_key,
        serial=5,
        now=NOW,
        lifetime=timedelta(days=36500),
    )
    assert_is_ca(made, als.root, path_length=0)
    assert made.not_valid_after_utc == als.root.not_valid_after_utc


def test_a_users_certificate_has_its_profile(als: Facility) -> None:
    """Client authentication, one URI name, provenance, the grant's dates, and a qualified display name."""
    leaf = als.leaf()
    assert_is_leaf(leaf, als.issuer, ekus={ExtendedKeyUsageOID.CLIENT_AUTH})
    names, _ = extension(leaf, x509.SubjectAlternativeName)
    assert list(names) == [uri("spiffe://als.example/user/alice")]  # type: ignore[call-overload]  # a SAN is iterable
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (START, END)
    assert leaf.subject.rfc4514_string() == "CN=alice,OU=user,DC=als,DC=example"
    assert certificates.provenance_of(leaf) == (2, "idp")


def test_a_services_certificate_has_its_profile(als: Facility) -> None:
    """Both usages, its addresses, its name, and no statement about a login."""
    made = service(als)
    assert_is_leaf(made, als.issuer, ekus={ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH})
    names, _ = extension(made, x509.SubjectAlternativeName)
    assert [certificates.general_name(name) for name in names] == [  # type: ignore[attr-defined]  # a SAN is iterable
        "URI:spiffe://als.example/service/files",
        "DNS:localhost",
        "IP:127.0.0.1",
        "IP:::1",
    ]
    assert certificates.provenance_of(made) is None
    assert certificates.assurance_of(made) == 0


@pytest.mark.parametrize("kind", [Kind.USER, Kind.AGENT])
def test_a_person_never_gets_a_servers_certificate(als: Facility, kind: Kind) -> None:
    """``make_service`` refuses people: their certificates must not serve."""
    with pytest.raises(ChainError, match="certificate-name"):
        service(als, principal=als.principal("alice", kind))


def test_a_name_too_long_to_display_is_not_displayed(als: Facility) -> None:
    """Instead of a cut name, which would be another's, the subject is empty and the URI name critical (RFC 5280 §4.2.1.6)."""
    long = als.principal("a" * 65)
    leaf = als.leaf(principal=long)
    assert not leaf.subject.rdns
    assert_is_leaf(leaf, als.issuer, ekus={ExtendedKeyUsageOID.CLIENT_AUTH})
    assert certificates.principal_of(leaf) == long
    made = service(als, principal=als.principal("a" * 65, Kind.SERVICE))
    assert not made.subject.rdns


def test_p384_authorities_work_and_ed25519_ones_are_refused() -> None:
    """The hash follows the curve; a chain that nobody could verify is not made."""
    facility = Facility("p384.example")
    facility.__dict__["root_key"] = generate(Algorithm.P384)
    assert_is_ca(facility.root, facility.root, path_length=1)
    assert_is_ca(facility.issuer, facility.root, path_length=0)
    with pytest.raises(KeyMaterialError, match="bad-key"):
        certificates.make_root(domain=facility.domain, key=generate(Algorithm.ED25519), serial=1, now=NOW)


def test_the_same_grant_gives_the_same_bytes(als: Facility) -> None:
    """Signatures are deterministic: no randomness at signing time can leak the key."""
    key = generate(Algorithm.P256).public_key
    assert der(als.leaf(key)) == der(als.leaf(key))


# --- what others think --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(als: Facility, tmp_path: Path) -> Path:
    """A directory with PEM files of one facility."""
    for name, chain in {
        "root": [als.root],
        "issuer": [als.issuer],
        "alice": [als.leaf()],
        "empty": [als.leaf(principal=als.principal("a" * 65))],
        "service": [service(als)],
        "server-user": [als.forged(ekus=[ExtendedKeyUsageOID.SERVER_AUTH])],
    }.items():
        (tmp_path / f"{name}.pem").write_bytes(certificates.dump_chain(chain))
    return tmp_path


def openssl(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real thing."""
    return subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize(
    ("name", "purpose", "accepted"),
    [
        ("alice", "sslclient", True),
        ("alice", "sslserver", False),
        ("empty", "sslclient", True),
        ("service", "sslclient", True),
        ("service", "sslserver", True),
        ("server-user", "sslclient", False),
        ("issuer", "sslclient", False),
    ],
)
def test_openssl_agrees_about_purposes(files: Path, name: str, purpose: str, accepted: bool) -> None:
    """A user's certificate cannot be a server's, for OpenSSL in strict mode as for us."""
    result = openssl(
        files, "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW.timestamp())),
        "-CAfile", "root.pem", "-untrusted", "issuer.pem", f"{name}.pem",
    )  # fmt: skip
    assert (result.returncode == 0) is accepted, result.stdout + result.stderr
    if not accepted:
        assert "unsuitable certificate purpose" in result.stderr


def test_openssl_prints_a_certificate_and_its_extension(files: Path) -> None:
    """Administrators can read our certificates with the tool they know."""
    result = openssl(files, "x509", "-noout", "-text", "-in", "alice.pem")
    assert result.returncode == 0
    for line in (
        "URI:spiffe://als.example/user/alice",
        "TLS Web Client Authentication",
        f"{PROVENANCE.dotted_string}:",
        "CA:FALSE",
        "DC = example, DC = als, OU = user, CN = alice",
    ):
        assert line in result.stdout
    parsed = openssl(files, "asn1parse", "-in", "alice.pem")
    assert "UTF8STRING" in parsed.stdout


# --- reading back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assurance", [0, 1, 2, 3])
def test_provenance_survives(als: Facility, assurance: int) -> None:
    """Every level and a longest issuer id come back."""
    issuer = "i" * 64
    leaf = als.leaf(assurance=assurance, issuer_id=issuer)
    assert certificates.provenance_of(leaf) == (assurance, issuer)
    assert certificates.assurance_of(leaf) == assurance


@pytest.mark.parametrize("assurance", [-1, 4, 256])
def test_provenance_outside_its_range_is_not_made(als: Facility, assurance: int) -> None:
    """Nor is one with an issuer id that is not a label."""
    with pytest.raises(ChainError, match="certificate-provenance"):
        als.leaf(assurance=assurance)
    with pytest.raises(RequestError, match="bad-name"):
        als.leaf(issuer_id="../idp")


GENUINE = b"\x30\x08\x02\x01\x02\x0c\x03idp"


def test_the_encoding_of_provenance_is_the_specified_one(als: Facility) -> None:
    """The bytes of the specification's example."""
    value = als.leaf().extensions.get_extension_for_oid(PROVENANCE)
    assert (value.value, value.critical) == (x509.UnrecognizedExtension(PROVENANCE, GENUINE), False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05\x00",
        GENUINE + b"\x00",
        GENUINE[:-1],
        b"\x30\x09" + GENUINE[2:],
        GENUINE.replace(b"\x02\x01\x02", b"\x02\x01\x04"),
        GENUINE.replace(b"\x02\x01\x02", b"\x02\x01\xff"),
        GENUINE.replace(b"\x0c\x03", b"\x0c\x04"),
        GENUINE.replace(b"\x0c\x03", b"\x13\x03"),
        GENUINE.replace(b"idp", b"IDP"),
        GENUINE.replace(b"idp", b"i\xffp"),
        GENUINE.replace(b"idp", b"i\np"),
        b"\x30\x05\x02\x01\x02\x0c\x00",
        b"\x30\x81\x08" + GENUINE[2:],
    ],
)
def test_any_other_encoding_of_provenance_is_refused(als: Facility, data: bytes) -> None:
    """There is one encoding of each statement; everything else is malformed, never "no statement"."""
    leaf = als.forged(extra=[(x509.UnrecognizedExtension(PROVENANCE, data), False)])
    with pytest.raises(ChainError, match="certificate-provenance"):
        certificates.provenance_of(leaf)


@pytest.mark.parametrize("names", [[], [x509.DNSName("a.example")], [uri("spiffe://a.example/user/a")] * 2, [uri("https://a")]])
def test_a_principal_is_read_from_exactly_one_uri(als: Facility, names: list[x509.GeneralName]) -> None:
    """No name, two names, and a name of another scheme are errors."""
    with pytest.raises(ChainError, match="certificate-name"):
        certificates.principal_of(als.forged(names=names))


def test_a_subject_is_never_a_name(als: Facility) -> None:
    """A CN that looks like a principal does not count."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spiffe://als.example/user/root")])
    assert certificates.principal_of(als.forged(subject=subject)) == als.principal()


def test_a_serial_number_is_random_positive_and_short_enough() -> None:
    """159 bits of the given entropy; too little or no entropy is an error."""
    assert certificates.random_serial(b"\xff" * 20) == 2**159 - 1
    assert certificates.random_serial(b"\x00" * 19 + b"\x02") == 1
    assert certificates.random_serial(b"\xff" * 32) == 2**159 - 1
    assert len({certificates.random_serial(secrets.token_bytes(20)) for _ in range(100)}) == 100
    for entropy in (b"", b"\xff" * 19, b"\x00" * 20, b"\x00" * 19 + b"\x01"):
        with pytest.raises(KeyMaterialError, match="bad-entropy"):
            certificates.random_serial(entropy)


def test_the_largest_serial_number_fits(als: Facility) -> None:
    """A certificate with 159 bits of serial is sound."""
    serial = certificates.random_serial(b"\xff" * 20)
    made = service(als, serial=serial)
    assert_is_leaf(made, als.issuer, ekus=set(profiles.SERVICE.ekus))
    assert made.serial_number == serial


def test_a_fingerprint_is_the_sha256_of_the_der(files: Path) -> None:
    """OpenSSL computes the same."""
    (leaf,) = certificates.load_chain((files / "alice.pem").read_bytes())
    result = openssl(files, "x509", "-noout", "-fingerprint", "-sha256", "-in", "alice.pem")
    assert result.stdout.strip().split("=")[1].replace(":", "").lower() == certificates.fingerprint(leaf)


def test_a_chain_survives_its_file(als: Facility) -> None:
    """Order and content come back."""
    chain = [als.leaf(), als.issuer, als.root]
    assert certificates.load_chain(certificates.dump_chain(chain)) == chain


def test_a_file_that_is_no_chain_is_refused(als: Facility) -> None:
    """Nothing, garbage, too many certificates, too many bytes."""
    one = certificates.dump_chain([als.root])
    for data in (b"", b"x", one[:-60], one * 9, b"\n" * 65537 + one, one.replace(b"MII", b"MIJ", 1)):
        with pytest.raises(ChainError, match="chain-malformed"):
            certificates.load_chain(data)
    assert len(certificates.load_chain(one * 8)) == 8


@pytest.mark.parametrize("bit", [7, 0])
def test_a_serial_number_that_is_not_positive_is_refused(als: Facility, bit: int) -> None:
    """RFC 5280 §4.1.2.2; also where warnings of the library are not errors."""
    (data,) = der(als.leaf())
    serial = data.index(b"\x02\x01\x63")  # 99
    mutated = bytearray(data)
    mutated[serial + 2] = 0x80 if bit else 0
    with pytest.raises(ChainError, match="chain-malformed"):
        certificates.load_der(bytes(mutated))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_negative_serial_number_is_refused_where_it_is_only_warned_about(als: Facility) -> None:
    """Production does not turn warnings into errors."""
    data = bytearray(der(als.leaf())[0])
    data[data.index(b"\x02\x01\x63") + 2] = 0x80
    with pytest.raises(ChainError, match="chain-malformed"):
        certificates.load_der(bytes(data))


def test_a_certificate_is_described_in_facts(als: Facility) -> None:
    """Everything a person or program asks of a certificate, as JSON."""
    leaf = als.leaf()
    facts = certificates.describe(leaf, now=NOW)
    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "principal": "spiffe://als.example/user/alice",
        "kind": "user",
        "profile": "user",
        "names": ["URI:spiffe://als.example/user/alice"],
        "issuer": als.issuer.subject.rfc4514_string(),
        "serial": "63",
        "fingerprint": certificates.fingerprint(leaf),
        "not_before": "2026-03-04T05:05:07Z",
        "not_after": "2026-03-04T13:06:07Z",
        "state": "valid",
        "seconds_left": 8 * 3600,
        "assurance": 2,
        "identity_provider": "idp",
    }
    assert certificates.describe(leaf, now=END)["state"] == "expired"
    assert certificates.describe(leaf, now=END + timedelta(days=1))["seconds_left"] == 0
    assert certificates.describe(leaf, now=START - BACKDATE)["state"] == "not yet valid"
    stranger = certificates.describe(service(als), now=NOW)
    assert (stranger["assurance"], stranger["identity_provider"]) == (None, None)


def test_a_certificate_is_described_in_words(als: Facility) -> None:
    """Who, until when, how proved; for a service, the addresses it serves."""
    leaf = als.leaf()
    text = certificates.describe_text(leaf, now=NOW)
    assert "spiffe://als.example/user/alice\n" in text
    assert "8 h left" in text
    assert "login at idp, assurance 2" in text
    assert "serves as" not in text
    assert "expired 1 d ago" in certificates.describe_text(leaf, now=END + timedelta(days=1))
    assert "not yet valid" in certificates.describe_text(leaf, now=START - BACKDATE)
    text = certificates.describe_text(service(als), now=NOW)
    assert "DNS:localhost, IP:127.0.0.1, IP:::1" in text
    assert "login" not in text


def test_der_is_read_completely_or_not_at_all(als: Facility) -> None:
    """A certificate with an unreadable extension, or one extension twice, is refused when it is loaded, not later."""
    bad = x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x05\x00")
    (data,) = der(als.forged(usage=None, extra=[(bad, True)]))
    with pytest.raises(ChainError, match="chain-malformed"):
        certificates.load_der(data)
    assert certificates.load_der(als.root.public_bytes(Encoding.DER)) == als.root
    assert isinstance(als.root_key, SoftwareKey)
