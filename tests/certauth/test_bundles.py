"""Trust bundles, trust entries, and the verification of a peer's chain with the attacks it must withstand."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certauth import certificates, keys
from certauth.audit.checkpoint import VerifierKey
from certauth.bundles import MAX_BUNDLE, MAX_CERTIFICATE, KeyState, TokenRoot, TrustBundle, TrustEntry, verify_peer
from certauth.encoding import b64url, canonical_json
from certauth.errors import ChainError, ConfigError, KeyMaterialError
from certauth.keys import Algorithm, generate, key_id, raw
from certauth.names import Kind, TrustDomain
from tests.certauth.facility import CA_USAGE, CLIENT, END, NOW, START, Facility, der, uri

SECOND = timedelta(seconds=1)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def als() -> Facility:
    """The facility whose door is tested."""
    return Facility("als.example")


@pytest.fixture(scope="module")
def ornl() -> Facility:
    """A partner, trusted for its own names."""
    return Facility("ornl.example")


def refused(chain: tuple[bytes, ...], entries: dict[TrustDomain, TrustEntry], *, now=NOW) -> str:
    """The code with which a chain is refused."""
    with pytest.raises(ChainError) as caught:
        verify_peer(chain, entries, now=now)
    return caught.value.code


def test_a_genuine_chain_becomes_a_peer_with_everything_the_certificate_says(als: Facility) -> None:
    """The verified peer carries name, dates, key, assurance and both fingerprints of exactly the presented leaf."""
    key = generate(Algorithm.P256).public_key
    leaf = als.leaf(key)
    peer = verify_peer(der(leaf, als.issuer), als.entries, now=NOW)
    assert peer.principal == als.principal()
    assert peer.fingerprint == certificates.fingerprint(leaf)
    assert (peer.serial, peer.not_before, peer.not_after) == (99, START, END)
    assert (peer.assurance, peer.public_key, peer.spki) == (2, key, keys.spki(key))
    assert peer.issuer_fingerprint == certificates.fingerprint(als.issuer)


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.P384])
def test_each_elliptic_curve_of_a_subject_is_accepted(als: Facility, algorithm: Algorithm) -> None:
    """P-256 and P-384 subjects verify."""
    leaf = als.leaf(generate(algorithm).public_key)
    assert verify_peer(der(leaf), als.entries, now=NOW).principal == als.principal()


def test_an_rsa_subject_is_accepted(als: Facility) -> None:
    """RSA 2048 subjects verify, although they cannot delegate."""
    leaf = als.leaf(rsa.generate_private_key(65537, 2048).public_key())
    assert verify_peer(der(leaf), als.entries, now=NOW).principal == als.principal()


def test_a_leaf_alone_verifies_because_the_bundle_holds_the_issuers(als: Facility) -> None:
    """Clients that do not send their intermediate are served."""
    assert verify_peer(der(als.leaf()), als.entries, now=NOW).principal == als.principal()


def test_a_presented_intermediate_suffices_when_the_bundle_has_only_the_root(als: Facility) -> None:
    """A new intermediate works before the bundle names it; without either the path is broken."""
    entries = {als.domain: TrustEntry(bundle=dataclasses.replace(als.bundle, x509_issuers=()))}
    leaf = als.leaf()
    assert verify_peer(der(leaf, als.issuer), entries, now=NOW).principal == als.principal()
    assert refused(der(leaf), entries) == "chain-invalid"


def test_another_facility_cannot_speak_for_this_one(als: Facility, ornl: Facility) -> None:
    """A trusted partner's authority that names our principal is refused, whatever intermediates are presented."""
    entries = als.entries | ornl.entries
    impostor = ornl.forged(names=[uri(str(als.principal()))])
    assert verify_peer(der(ornl.leaf()), entries, now=NOW).principal == ornl.principal()
    for chain in (der(impostor), der(impostor, ornl.issuer), der(impostor, ornl.issuer, ornl.root, als.issuer, als.root)):
        assert refused(chain, entries) == "chain-invalid"


def test_a_presented_root_is_not_a_trust_anchor(als: Facility) -> None:
    """A self-made authority of the same names does not become trusted by being sent along."""
    fake = Facility("als.example")
    assert refused(der(fake.leaf(), fake.issuer, fake.root), als.entries) == "chain-invalid"


def test_a_root_from_the_system_store_counts_for_nothing(als: Facility) -> None:
    """Only the entry's bundle is consulted: an entry filed under the wrong domain gives no trust."""
    assert refused(der(als.leaf()), {}) == "domain-unknown"
    other = Facility("other.example")
    assert refused(der(als.leaf()), {als.domain: other.entry}) == "domain-unknown"


def test_validity_ends_to_the_second(als: Facility) -> None:
    """A leaf is valid from its first second up to, and without, its notAfter."""
    chain = der(als.leaf())
    assert verify_peer(chain, als.entries, now=START).not_before == START
    assert verify_peer(chain, als.entries, now=END - SECOND).not_after == END
    assert refused(chain, als.entries, now=START - SECOND) == "certificate-not-yet-valid"
    assert refused(chain, als.entries, now=END) == "certificate-expired"


def test_the_time_of_validation_is_taken_anew_each_time(als: Facility) -> None:
    """A verification that succeeded does not make a later one, after the end, succeed."""
    chain = der(als.leaf())
    verify_peer(chain, als.entries, now=NOW)
    assert refused(chain, als.entries, now=END + SECOND) == "certificate-expired"


def test_an_expired_intermediate_or_root_breaks_the_path(als: Facility) -> None:
    """A leaf that outlives its authorities does not help."""
    far = als.root.not_valid_after_utc + timedelta(days=1)
    leaf = als.forged(not_after=far + timedelta(days=1))
    assert refused(der(leaf, als.issuer), als.entries, now=far) == "chain-invalid"
    between = als.issuer.not_valid_after_utc + SECOND
    assert between < als.root.not_valid_after_utc
    assert refused(der(leaf, als.issuer), als.entries, now=between) == "chain-invalid"


@pytest.mark.parametrize(
    "ekus",
    [
        None,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING],
    ],
)
def test_only_exactly_client_authentication_makes_a_user(als: Facility, ekus: list[x509.ObjectIdentifier] | None) -> None:
    """No usage, another usage, or one usage more than the profile's is refused."""
    assert refused(der(als.forged(ekus=ekus)), als.entries) == "certificate-usage"


def test_a_service_that_is_only_a_server_is_no_client(als: Facility) -> None:
    """Services may have both usages, but not without client authentication."""
    names = [uri(str(als.principal("files", Kind.SERVICE)))]
    assert refused(der(als.forged(names=names, ekus=[ExtendedKeyUsageOID.SERVER_AUTH])), als.entries) == "certificate-usage"


def test_a_leaf_that_may_not_sign_handshakes_is_refused(als: Facility) -> None:
    """The usage digitalSignature must be there, keyCertSign and cRLSign must not."""
    assert refused(der(als.forged(usage=None)), als.entries) == "certificate-usage"
    flags = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"],
        False,
    )
    for sign, cert, crl in ((False, False, False), (True, True, False), (True, False, True)):
        usage = x509.KeyUsage(digital_signature=sign, key_cert_sign=cert, crl_sign=crl, **flags)
        assert refused(der(als.forged(usage=usage)), als.entries) == "certificate-usage"


def test_an_authority_is_not_a_client(als: Facility) -> None:
    """A certificate with CA:true is refused as a leaf even with a user's name and usages; so are the authorities."""
    assert refused(der(als.forged(ca=True)), als.entries) == "chain-invalid"
    assert refused(der(als.forged(ca=True, usage=CA_USAGE)), als.entries) == "certificate-usage"
    assert refused(der(als.issuer), als.entries) == "certificate-name"
    assert refused(der(als.root), als.entries) == "certificate-name"


def test_a_user_certificate_does_not_issue_others(als: Facility) -> None:
    """A leaf used as an issuer: the classic missing basicConstraints check."""
    mallory = generate(Algorithm.P256)
    above = als.leaf(mallory.public_key)
    below = als.forged(issuer=above, issuer_key=mallory)
    assert refused(der(below, above, als.issuer), als.entries) == "chain-invalid"


def test_path_length_is_enforced(als: Facility) -> None:
    """An authority below an intermediate of pathlen 0 signs nothing that is believed."""
    sub_key = generate(Algorithm.P256)
    sub = als.forged(
        ca=True,
        usage=CA_USAGE,
        ekus=None,
        names=[uri("spiffe://als.example")],
        public_key=sub_key.public_key,
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sub")]),
    )
    leaf = als.forged(issuer=sub, issuer_key=sub_key)
    assert refused(der(leaf, sub, als.issuer), als.entries) == "chain-invalid"


def test_a_long_path_is_refused_even_where_no_authority_limits_it() -> None:
    """At most two intermediates are followed, whatever the authorities allow."""
    facility = Facility("deep.example")
    above, key = facility.root, facility.root_key
    above = facility.forged(
        ca=True,
        usage=CA_USAGE,
        ekus=None,
        names=[],
        issuer=above,
        issuer_key=key,
        subject=above.subject,
        public_key=key.public_key,
    )  # the root's name and key again, without a path length
    entries = {facility.domain: TrustEntry(bundle=dataclasses.replace(facility.bundle, x509_roots=(above,), x509_issuers=()))}
    chain: list[x509.Certificate] = []
    codes = []
    for level in range(4):
        leaf = facility.forged(issuer=above, issuer_key=key)
        try:
            verify_peer(der(leaf, *chain), entries, now=NOW)
            codes.append("ok")
        except ChainError as error:
            codes.append(error.code)
        next_key = generate(Algorithm.P256)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"level {level}")])
        above = facility.forged(
            ca=True,
            usage=CA_USAGE,
            ekus=None,
            names=[],
            issuer=above,
            issuer_key=key,
            subject=name,
            public_key=next_key.public_key,
        )
        key = next_key
        chain.insert(0, above)
    assert codes == ["ok", "ok", "ok", "chain-invalid"]


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("als.example")],
        [uri("spiffe://als.example/user/alice"), uri("spiffe://als.example/user/root")],
        [uri("spiffe://als.example/user/alice"), uri("https://als.example/alice")],
        [uri("spiffe://als.example/user/alice"), x509.DNSName("door.als.example")],
        [uri("spiffe://als.example/user/alice"), x509.IPAddress(IPv4Address("127.0.0.1"))],
        [uri("spiffe://als.example/user/alice"), x509.RFC822Name("root@als.example")],
        [uri("spiffe://als.example/service/files"), x509.RFC822Name("root@als.example")],
        [uri("spiffe://als.example/user/../root")],
        [uri("spiffe://als.example/user/a%2e")],
        [uri("spiffe://ALS.example/user/alice")],
        [uri("spiffe://als.example/root/alice")],
    ],
)
def test_a_certificate_has_one_name_and_nothing_anybody_could_take_for_another(
    als: Facility, names: list[x509.GeneralName]
) -> None:
    """No name, several URI names, malformed ones, and extra forms beside a user's are refused, though our authority signed."""
    assert refused(der(als.forged(names=names)), als.entries) == "certificate-name"


def test_a_service_may_have_addresses_and_both_usages(als: Facility) -> None:
    """A service's certificate identifies it as a client, with assurance 0: nobody logged in."""
    principal = als.principal("files", Kind.SERVICE)
    certificate = certificates.make_service(
        principal=principal,
        public_key=generate(Algorithm.P256).public_key,
        dns_names=("files.als.example",),
        ip_addresses=(IPv4Address("127.0.0.1"),),
        issuer=als.issuer,
        issuer_key=als.issuer_key,
        serial=5,
        not_before=START,
        not_after=END,
    )
    peer = verify_peer(der(certificate), als.entries, now=NOW)
    assert (peer.principal, peer.assurance) == (principal, 0)


@pytest.mark.parametrize("where", ["leaf", "issuer"])
def test_ed25519_in_a_chain_has_its_own_code(als: Facility, where: str) -> None:
    """Somebody who brings an Ed25519 chain learns why it cannot work."""
    key = generate(Algorithm.ED25519)
    if where == "leaf":
        chain = der(als.forged(public_key=key.public_key))
    else:
        above = als.forged(ca=True, usage=CA_USAGE, ekus=None, public_key=key.public_key)
        chain = der(als.forged(issuer=above, issuer_key=key), above)
    assert refused(chain, als.entries) == "chain-algorithm"


def test_a_changed_bit_anywhere_in_the_leaf_is_noticed(als: Facility) -> None:
    """No single-bit change of a genuine certificate verifies, the unsigned bytes around the signature included."""
    (leaf,) = der(als.leaf())
    for position in range(len(leaf)):
        mutated = bytearray(leaf)
        mutated[position] ^= 1 << position % 8
        with pytest.raises(ChainError):
            verify_peer((bytes(mutated),), als.entries, now=NOW)


def signature_value(leaf: bytes) -> bytes:
    """The signature of a certificate."""
    return x509.load_der_x509_certificate(leaf).signature


def test_a_mirrored_signature_gives_no_second_fingerprint(als: Facility) -> None:
    """(r, n-s) is as valid a signature as (r, s): with it a revoked holder would present an unlisted fingerprint."""
    leaf = der(als.leaf())[0]
    r, s = decode_dss_signature(signature_value(leaf))
    assert s <= P256_ORDER // 2
    mirrored = rebuilt(leaf, b"\x00" + encode_dss_signature(r, P256_ORDER - s))
    als.issuer_key.public_key.verify(  # type: ignore[union-attr, call-arg]  # the control: the signature itself is valid
        signature_value(mirrored), x509.load_der_x509_certificate(mirrored).tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
    )
    assert refused((mirrored,), als.entries) == "certificate-not-canonical"


def test_unused_bits_give_no_second_fingerprint(als: Facility) -> None:
    """A signature that ends in zero bits may be said to be shorter by them; the parser accepts that, we do not."""
    leaf = next(leaf for leaf in (der(als.leaf())[0] for _ in range(64)) if signature_value(leaf)[-1] % 2 == 0)
    assert rebuilt(leaf, b"\x00" + signature_value(leaf)) == leaf
    shorter = rebuilt(leaf, b"\x01" + signature_value(leaf))
    assert signature_value(shorter) == signature_value(leaf)
    assert refused((shorter,), als.entries) == "certificate-not-canonical"


def test_the_algorithm_outside_the_signature_cannot_be_respelt(als: Facility) -> None:
    """Null parameters and another hash in the outer signatureAlgorithm, which no signature covers, are refused."""
    leaf = der(als.leaf())[0]
    ecdsa = bytes.fromhex("300a06082a8648ce3d040302")
    start = leaf.rindex(ecdsa)
    for other in (b"\x30\x0c" + ecdsa[2:] + b"\x05\x00", ecdsa[:-1] + b"\x03"):
        body = leaf[4:start] + other + leaf[start + len(ecdsa) :]
        assert refused((b"\x30\x82" + len(body).to_bytes(2) + body,), als.entries) in {"chain-malformed", "chain-invalid"}


def rebuilt(leaf: bytes, bit_string: bytes) -> bytes:
    """``leaf`` with another signature BIT STRING."""
    body = leaf[4 : -len(signature_value(leaf)) - 3] + b"\x03" + bytes([len(bit_string)]) + bit_string
    return b"\x30\x82" + len(body).to_bytes(2) + body


def test_an_unknown_critical_extension_is_refused(als: Facility) -> None:
    """RFC 5280 §4.2: what is critical and not understood invalidates the path."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.1"), b"\x05\x00")
    assert refused(der(als.forged(extra=[(unknown, True)])), als.entries) == "chain-invalid"
    assert verify_peer(der(als.forged(extra=[(unknown, False)])), als.entries, now=NOW).assurance == 0


def test_a_chain_is_bounded_before_it_is_parsed(als: Facility) -> None:
    """Nothing, too many, too large, and garbage are one code."""
    leaf = der(als.leaf())
    assert refused((), als.entries) == "chain-malformed"
    assert refused(leaf * 9, als.entries) == "chain-malformed"
    assert refused((*leaf, b"\x30" * (MAX_CERTIFICATE + 1)), als.entries) == "chain-malformed"
    for size, accepted in ((MAX_CERTIFICATE - 1024, True), (MAX_CERTIFICATE, False)):
        padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.1"), b"\x04" * size)
        chain = der(als.forged(extra=[(padding, False)]))
        if accepted:
            assert verify_peer(chain, als.entries, now=NOW).principal == als.principal()
        else:
            assert refused(chain, als.entries) == "chain-malformed"
    assert refused((b"\x30\x00",), als.entries) == "chain-malformed"
    assert refused((leaf[0] + b"\x00",), als.entries) == "chain-malformed"


def test_an_entry_narrows_kinds_and_ids(als: Facility) -> None:
    """Names outside the entry are refused although the chain is genuine."""
    chain = der(als.leaf())

    def code(**limits: object) -> str:
        return refused(chain, {als.domain: TrustEntry(bundle=als.bundle, **limits)})  # type: ignore[arg-type]  # by name

    assert code(kinds=frozenset({Kind.SERVICE})) == "name-not-accepted"
    assert code(ids=()) == "name-not-accepted"
    assert code(ids=("bob", "ali", "lice", "ALICE", "alice-*")) == "name-not-accepted"
    for pattern in ("alice", "al*", "*ce", "*"):
        entry = TrustEntry(bundle=als.bundle, ids=("bob", pattern))
        assert verify_peer(chain, {als.domain: entry}, now=NOW).principal.id == "alice"


@pytest.mark.parametrize("pattern", ["", "[a-z]*", "a?ice", "a/b", "a" * 129, "al\n*"])
def test_a_pattern_that_would_surprise_is_refused(als: Facility, pattern: str) -> None:
    """Only ``*`` is special; every other special character of other pattern languages is an error."""
    with pytest.raises(ConfigError, match="entry-malformed"):
        TrustEntry(bundle=als.bundle, ids=(pattern,))


@pytest.mark.parametrize("ceiling", [-1, 4])
def test_an_assurance_ceiling_is_a_level(als: Facility, ceiling: int) -> None:
    """A ceiling outside 0 to 3 is a configuration error."""
    with pytest.raises(ConfigError, match="entry-malformed"):
        TrustEntry(bundle=als.bundle, assurance_ceiling=ceiling)


@pytest.mark.parametrize(("stated", "ceiling", "seen"), [(3, 1, 1), (1, 3, 1), (2, 0, 0)])
def test_assurance_is_lowered_to_the_entrys_ceiling(als: Facility, stated: int, ceiling: int, seen: int) -> None:
    """A partner cannot state more than we believe of it; less stays less."""
    entry = TrustEntry(bundle=als.bundle, assurance_ceiling=ceiling)
    assert verify_peer(der(als.leaf(assurance=stated)), {als.domain: entry}, now=NOW).assurance == seen


def test_a_malformed_statement_of_assurance_is_refused(als: Facility) -> None:
    """An unreadable provenance extension does not count as none."""
    bad = x509.UnrecognizedExtension(certificates.PROVENANCE, b"\x30\x03\x02\x01\x03")
    assert refused(der(als.forged(extra=[(bad, False)])), als.entries) == "certificate-provenance"


def test_certificates_made_for_too_long_are_refused(als: Facility) -> None:
    """The cap is on the granted lifetime; the back-dated minute does not count against it."""
    chain = der(als.leaf())

    def entry(cap: timedelta) -> dict[TrustDomain, TrustEntry]:
        return {als.domain: TrustEntry(bundle=als.bundle, max_certificate_lifetime=cap)}

    assert verify_peer(chain, entry(timedelta(hours=8)), now=NOW).not_after == END
    assert refused(chain, entry(timedelta(hours=8) - SECOND)) == "lifetime-too-long"


def test_a_uri_constrained_intermediate_fails_closed(als: Facility) -> None:
    """The path validator knows no URI constraints and refuses, instead of ignoring them."""
    key = generate(Algorithm.P256)
    constraint = x509.NameConstraints([uri(".als.example")], None)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "constrained")])
    above = als.forged(
        ca=True,
        path_length=0,
        usage=CA_USAGE,
        ekus=None,
        names=[],
        public_key=key.public_key,
        issuer=als.root,
        issuer_key=als.root_key,
        subject=subject,
        extra=[(constraint, True)],
    )
    assert refused(der(als.forged(issuer=above, issuer_key=key), above), als.entries) == "chain-invalid"


# --- the document -------------------------------------------------------------------------------------------------------


def parse(data: bytes) -> TrustBundle:
    """Parse as every program does unless told that examples are fine."""
    return TrustBundle.parse(data, allow_example_keys=False)


def changed(bundle: TrustBundle, **members: object) -> bytes:
    """The document of ``bundle`` with members replaced; ``None`` removes one."""
    document = json.loads(bundle.to_json()) | members
    return canonical_json({name: value for name, value in document.items() if value is not None})


def test_a_bundle_survives_its_document(als: Facility) -> None:
    """What is written is read back equal, and the bytes are canonical."""
    data = als.bundle.to_json()
    assert parse(data) == als.bundle
    assert parse(data).to_json() == data


def test_tainted_token_keys_are_published_and_not_believed(als: Facility) -> None:
    """A key's state says whether its signatures count; only taint ends that."""
    roots = []
    for state in KeyState:
        key = generate(Algorithm.ED25519).public_key
        roots.append(TokenRoot(kid=keys.key_id(key), key=key, state=state))  # type: ignore[arg-type]  # Ed25519
    bundle = parse(dataclasses.replace(als.bundle, token_roots=tuple(roots)).to_json())
    assert bundle.token_roots == tuple(roots)
    assert {root.state for root in bundle.believed_token_roots} == {KeyState.PREPARED, KeyState.ACTIVE, KeyState.RETIRED}
    assert bundle.tainted_kids == tuple(root.kid for root in roots if root.state is KeyState.TAINTED)


def member(facility: Facility, name: str) -> object:
    """One member of a facility's document."""
    return json.loads(facility.bundle.to_json())[name]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"extra": 1}, "unknown or missing member extra"),
        ({"sequence": None}, "unknown or missing member sequence"),
        ({"v": 2}, "version"),
        ({"v": True}, "v is not"),
        ({"domain": "Not A Domain"}, "not a trust domain"),
        ({"domain": 5}, "domain is not a string"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"issued_at": "now"}, "issued_at"),
        ({"issued_at": 253402300800}, "issued_at"),
        ({"refresh_hint": [300]}, "refresh_hint"),
        ({"x509_roots": []}, "no root"),
        ({"x509_roots": "x"}, "x509_roots"),
        ({"x509_roots": [5]}, "something else than certificates"),
        ({"x509_roots": ["AAAA"]}, "not an X.509 certificate"),
        ({"x509_roots": ["=="]}, "base64url"),
        ({"x509_roots": ["AAAA"] * 33}, "at most 32"),
        ({"token_roots": [{"kid": "00000000"}]}, "kid, key and state"),
        ({"token_roots": ["x"]}, "kid, key and state"),
        ({"feed_key": "AAAA"}, "32 bytes"),
        ({"log_vkey": "als.example/audit+00000000+AAAA"}, "verifier key"),
        ({"signer_url": "http://signer.als.example"}, "signer_url is not an https address"),
        ({"signer_url": "https://user@signer.als.example"}, "https"),
        ({"signer_url": "https:///x"}, "https"),
        ({"signer_url": "https://[x"}, "trust bundle"),
        ({"signer_url": "https://ä.example"}, "https"),
        ({"feed_url": "https://signer.als.example/#x"}, "feed_url is not an https address"),
        ({"feed_url": "file:///etc/passwd"}, "feed_url is not an https address"),
    ],
)
def test_a_document_that_is_not_a_bundle_is_refused_with_the_member_named(
    als: Facility, members: dict[str, object], words: str
) -> None:
    """Unknown, missing, mistyped and impossible members have one code and a sentence that names them."""
    with pytest.raises(ConfigError, match="bundle-malformed") as caught:
        parse(changed(als.bundle, **members))
    assert words in str(caught.value)


def test_a_bundle_is_bounded(als: Facility) -> None:
    """One byte too many is refused, though it is only white space."""
    data = als.bundle.to_json()
    assert parse(data.ljust(MAX_BUNDLE)) == als.bundle
    with pytest.raises(ConfigError, match="bundle-malformed"):
        parse(data.ljust(MAX_BUNDLE + 1))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"v":1,"v":1}', b"\xff"])
def test_bytes_that_are_no_json_object_are_refused(data: bytes) -> None:
    """Whatever the bytes, the answer is one code."""
    with pytest.raises(ConfigError, match="bundle-malformed"):
        parse(data)


def test_a_bundle_holds_authorities_of_usable_keys_only(als: Facility) -> None:
    """A leaf, a certificate without basicConstraints, and an Ed25519 authority are not authorities."""
    key = generate(Algorithm.ED25519)
    ed25519 = als.forged(ca=True, usage=CA_USAGE, ekus=None, public_key=key.public_key)
    for certificate, words in (
        (als.leaf(), "not an authority"),
        (als.forged(ca=None), "not an authority"),
        (ed25519, "neither elliptic-curve nor RSA"),
    ):
        for where in ("x509_roots", "x509_issuers"):
            with pytest.raises(ConfigError, match=words):
                parse(changed(als.bundle, **{where: [b64url(der(certificate)[0])]}))


def test_a_token_key_bears_its_own_id_and_each_id_once(als: Facility) -> None:
    """A key under a foreign id, an unknown state, and a repeated id are refused."""
    (root,) = member(als, "token_roots")  # type: ignore[misc]  # one entry
    for wrong, words in (
        ([root | {"kid": "00000000"}], "not its own"),
        ([root | {"state": "perhaps"}], "perhaps"),
        ([root | {"more": 1}], "kid, key and state"),
        ([root, root], "one id"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(changed(als.bundle, token_roots=wrong))


def test_no_key_is_one_that_anybody_can_sign_for(als: Facility) -> None:
    """Under a point of small order one signature, made without any secret, is good for every feed, token or checkpoint."""
    everybodys = Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    everybodys.verify(b"\x01" + bytes(63), b"anything")  # the control: this is the attack
    root = {"kid": key_id(everybodys), "key": b64url(raw(everybodys)), "state": "retired"}
    for members, words in (
        ({"feed_key": b64url(raw(everybodys))}, "anybody can sign for"),
        ({"token_roots": [*member(als, "token_roots"), root]}, "anybody can sign for"),
        ({"log_vkey": str(VerifierKey.make("als.example/certauth/log", everybodys))}, "verifier key"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse(changed(als.bundle, **members))


def test_published_example_keys_are_refused_wherever_they_stand(als: Facility, example: TrustBundle) -> None:
    """Each place of a bundle that can hold a key is checked against the published keys."""
    published = json.loads(example.to_json())
    for name in ("x509_roots", "x509_issuers", "token_roots", "feed_key", "log_vkey"):
        data = changed(als.bundle, **{name: published[name]})
        with pytest.raises(KeyMaterialError, match="example-key"):
            parse(data)
        assert TrustBundle.parse(data, allow_example_keys=True).domain == als.domain


@pytest.fixture(scope="module")
def example(pytestconfig: pytest.Config) -> TrustBundle:
    """The published example bundle."""
    data = (pytestconfig.rootpath / "keys-example" / "bundle.json").read_bytes()
    return TrustBundle.parse(data, allow_example_keys=True)


def test_the_client_usage_alone_is_what_these_tests_start_from(als: Facility) -> None:
    """The hand-made leaf of these tests is accepted when nothing is wrong with it: each refusal above has one cause."""
    assert verify_peer(der(als.forged(ekus=CLIENT)), als.entries, now=NOW).principal == als.principal()
