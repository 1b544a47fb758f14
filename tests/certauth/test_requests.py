"""Certification and token requests: what is read, what is refused, and that wishes stay wishes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from certauth import keys
from certauth.errors import CertauthError, KeyMaterialError, RequestError
from certauth.keys import Algorithm, generate
from certauth.requests import (
    MAX_CSR,
    MAX_PATH,
    MAX_RIGHTS,
    Right,
    TokenRequest,
    canonical_path,
    general_name,
    parse_csr,
    path_covers,
    shown,
)

KEY = generate(Algorithm.P256).private_key
RSA_2048 = rsa.generate_private_key(65537, 2048)


def request(
    key: object = KEY,
    *,
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    extensions: Sequence[x509.ExtensionType] = (),
    algorithm: hashes.HashAlgorithm | None = None,
    encoding: Encoding = Encoding.DER,
) -> bytes:
    """A certification request, honest or not."""
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    no_hash = isinstance(key, ed25519.Ed25519PrivateKey)
    csr = builder.sign(key, None if no_hash else algorithm or hashes.SHA256())  # type: ignore[arg-type]  # any kind of key
    return csr.public_bytes(encoding)


def refused(data: bytes | str) -> str:
    """The code with which a request is refused."""
    with pytest.raises(RequestError) as caught:
        parse_csr(data)
    return caught.value.code


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_request_gives_its_key_and_nothing_else(encoding: Encoding) -> None:
    """PEM and DER, bytes and text, give the same key, SPKI and DER."""
    data = request(encoding=encoding)
    parsed = parse_csr(data)
    assert parsed.public_key == KEY.public_key()
    assert parsed.spki == keys.spki(KEY.public_key())
    assert parsed.der == x509.load_der_x509_csr(parsed.der).public_bytes(Encoding.DER)
    assert parsed.asked == ()
    if encoding is Encoding.PEM:
        assert parse_csr(data.decode()) == parsed
        assert parse_csr(data.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")) == parsed


@pytest.mark.parametrize(
    "key",
    [generate(Algorithm.P384).private_key, RSA_2048, rsa.generate_private_key(65537, 3072)],
    ids=["P-384", "RSA-2048", "RSA-3072"],
)
def test_every_accepted_kind_of_key(key: object) -> None:
    """P-384 and RSA from 2048 bits are accepted beside P-256, also with the larger hashes."""
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        assert parse_csr(request(key, algorithm=algorithm)).public_key == key.public_key()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(1024),
    ],
    ids=["RSA-1024", "RSA-e3", "Ed25519", "P-521", "secp256k1", "DSA"],
)
def test_other_keys_are_refused(key: object) -> None:
    """Weak keys, and keys that our path validator would not accept later, are refused now."""
    assert refused(request(key)) == "csr-weak-key"


def test_too_large_an_rsa_key_is_refused() -> None:
    """A 4104-bit modulus costs every verifier; the request is refused by size of key before its signature is checked."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << 4103) + 1)
    template = request(RSA_2048)
    modulus = RSA_2048.public_key().public_bytes(Encoding.DER, keys.serialization.PublicFormat.SubjectPublicKeyInfo)
    larger = numbers.public_key().public_bytes(Encoding.DER, keys.serialization.PublicFormat.SubjectPublicKeyInfo)
    body = template[template.index(modulus) - 7 :].replace(modulus, larger)
    info = b"\x02\x01\x00\x30\x00" + larger + b"\xa0\x00"
    rest = body[body.index(larger) + len(larger) + 2 :]
    info = b"\x30\x82" + len(info).to_bytes(2) + info
    whole = info + rest
    assert refused(b"\x30\x82" + len(whole).to_bytes(2) + whole) == "csr-weak-key"


def test_the_largest_rsa_key_is_accepted() -> None:
    """4096 bits are fine."""
    assert parse_csr(request(rsa.generate_private_key(65537, 4096))).asked == ()


def test_a_request_without_possession_of_its_key_is_refused() -> None:
    """Every bit of the signature counts, and a signature by another key is none."""
    data = request()
    for position in range(len(data) - 40, len(data)):
        mutated = bytearray(data)
        mutated[position] ^= 1
        assert refused(bytes(mutated)) == "csr-signature"
    other = generate(Algorithm.P256)
    own, foreign = keys.spki(KEY.public_key()), keys.spki(other.public_key)
    assert refused(data.replace(own, foreign)) == "csr-signature"


def test_a_changed_bit_anywhere_is_refused() -> None:
    """No bit outside the signature can change either; the wishes are signed too."""
    data = request(subject=[(NameOID.COMMON_NAME, "alice")])
    genuine = parse_csr(data)
    for position in range(len(data)):
        mutated = bytearray(data)
        mutated[position] ^= 1 << position % 8
        try:
            parsed = parse_csr(bytes(mutated))
        except RequestError:
            continue
        # Only the count of unused bits of the signature is outside what is signed, and nothing is derived from it.
        assert (parsed.spki, parsed.asked) == (genuine.spki, genuine.asked)


@pytest.mark.parametrize("algorithm", [hashes.SHA224(), hashes.SHA3_256()])
def test_a_signature_with_an_unusual_hash_is_refused(algorithm: hashes.HashAlgorithm) -> None:
    """Only the SHA-2 hashes of 256 bits and more prove possession here."""
    assert refused(request(algorithm=algorithm)) == "csr-signature"


def test_a_pss_signature_proves_possession_too() -> None:
    """RSA-PSS requests are as good as PKCS#1 ones."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
    csr = builder.sign(RSA_2048, hashes.SHA256(), rsa_padding=pss)
    assert parse_csr(csr.public_bytes(Encoding.DER)).public_key == RSA_2048.public_key()


PEM = request(encoding=Encoding.PEM)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x30\x00",
        request()[:-1],
        request() + b"\x00",
        PEM + PEM,
        PEM.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"),
        PEM.replace(b"CERTIFICATE REQUEST", b"EC PRIVATE KEY"),
        PEM[:-40],
        PEM.replace(b"\n", b"?\n", 2),
        "ä",
        "\ud800",
    ],
)
def test_what_is_not_exactly_one_request_is_refused(data: bytes | str) -> None:
    """Nothing, garbage, truncated, trailing bytes, two requests, another PEM type."""
    assert refused(data) == "csr-malformed"


def test_size_is_checked_before_anything_is_parsed() -> None:
    """One byte above the limit is too large, whatever it holds; at the limit it is merely malformed."""
    assert refused(b"\x30" * (MAX_CSR + 1)) == "csr-too-large"
    assert refused("ä" * (MAX_CSR // 2 + 1)) == "csr-too-large"
    assert refused(b"\x30" * MAX_CSR) == "csr-malformed"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """A stranger's bytes end in a RequestError."""
    with pytest.raises(RequestError):
        parse_csr(data)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_no_damaged_request_raises_anything_else(position: int, patch: bytes) -> None:
    """A damaged request is refused or, if the damage undid itself, understood."""
    data = request(subject=[(NameOID.COMMON_NAME, "a")], extensions=[x509.SubjectAlternativeName([x509.DNSName("a")])])
    damaged = data[:position] + patch + data[position + len(patch) :]
    try:
        parsed = parse_csr(damaged)
    except CertauthError:
        return
    assert parsed.asked == ("CN=a", "DNS:a")


def test_a_request_for_a_published_key_is_refused(pytestconfig: pytest.Config) -> None:
    """A certificate for an example key would be everybody's."""
    path = pytestconfig.rootpath / "keys-example" / "alice.key"
    alice = keys.serialization.load_pem_private_key(path.read_bytes(), None)
    with pytest.raises(KeyMaterialError, match="example-key"):
        parse_csr(request(alice))
    assert parse_csr(request(alice), allow_example_keys=True).asked == ()


def test_every_wish_is_reported() -> None:
    """Names of every form, usages, CA and foreign extensions come back as text; ordinary key usage does not."""
    wishes = parse_csr(
        request(
            subject=[(NameOID.COMMON_NAME, "root"), (NameOID.USER_ID, "0"), (NameOID.ORGANIZATION_NAME, "als")],
            extensions=[
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName("evil.example"),
                        x509.UniformResourceIdentifier("spiffe://als.example/user/root"),
                        x509.IPAddress(IPv4Address("10.0.0.1")),
                        x509.RFC822Name("root@als.example"),
                        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])),
                        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
                    ]
                ),
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, x509.ObjectIdentifier("1.2.3.4")]),
                x509.BasicConstraints(ca=True, path_length=None),
                x509.KeyUsage(True, False, False, False, False, True, False, False, False),
                x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.5"), b"\x05\x00"),
            ],
        )
    ).asked
    assert wishes == (
        "CN=root",
        "UID=0",
        "O=als",
        "DNS:evil.example",
        "URI:spiffe://als.example/user/root",
        "IP:10.0.0.1",
        "email:root@als.example",
        "DN:CN=other",
        "other:RegisteredID",
        "EKU:serverAuth",
        "EKU:1.2.3.4",
        "CA:true",
        "extension:2.25.5",
    )


def test_what_every_tool_writes_is_no_wish() -> None:
    """Not being a CA, and key usage, are not reported: they would hide what matters."""
    data = request(extensions=[x509.BasicConstraints(ca=False, path_length=None)])
    assert parse_csr(data).asked == ()


def test_a_binary_attribute_is_shown_as_hex() -> None:
    """A subject attribute that is not text is still reported."""
    name = x509.Name([x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\x01\x02", x509.name._ASN1Type.BitString)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(KEY, hashes.SHA256())  # type: ignore[arg-type]
    assert parse_csr(csr.public_bytes(Encoding.DER)).asked == ("2.5.4.45=0102",)


def test_wishes_are_bounded_and_printable() -> None:
    """A request cannot flood the record, break its lines or hide text in it."""
    names = [x509.UniformResourceIdentifier(f"https://x/{i}" + "y" * 200) for i in range(50)]
    asked = parse_csr(
        request(subject=[(NameOID.COMMON_NAME, "a\n\x1b[2Jü\u202e")], extensions=[x509.SubjectAlternativeName(names)])
    ).asked
    assert asked[0] == "CN=a\\n\\x1b[2J\\xfc\\u202e"
    assert len(asked) == 33
    assert asked[-1] == "and 19 more"
    assert all(len(wish) <= 160 for wish in asked)


def test_shown_text_is_short_and_printable_whatever_comes_in() -> None:
    """Text that grows by escaping is cut as well."""
    assert shown("plain") == "plain"
    assert len(shown("\u202e" * 300)) == 160
    assert shown("\u202e" * 300).endswith("...")
    assert shown("a\\nb\n") == "a\\\\nb\\n"  # a backslash cannot pose as an escape
    assert general_name(x509.DNSName("a")) == "DNS:a"


# --- rights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/data", "/data/", "/data/x y/ü", "/a.b/..c", "/data/@home~", "/" + "x" * (MAX_PATH - 1)]
)
def test_canonical_paths_are_kept(path: str) -> None:
    """A path with one reading comes back unchanged."""
    assert canonical_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data",
        "//",
        "//data",
        "/data//x",
        "/.",
        "/..",
        "/../",
        "/data/../x",
        "/data/./x",
        "/data/..",
        "/data/%2e%2e/x",
        "/data?x",
        "/data#x",
        "/data/*",
        "/data\\x",
        "/da\x00ta",
        "/da\nta",
        "/\u202edata",
        "/\ud800",
        "/" + "x" * MAX_PATH,
    ],
)
def test_ambiguous_paths_are_refused(path: str) -> None:
    """What two programs could read differently is refused."""
    with pytest.raises(RequestError, match="bad-path"):
        canonical_path(path)


def test_a_right_is_validated() -> None:
    """Operations are labels and paths canonical."""
    assert Right.make("read", "/data/") == Right("read", "/data/")
    with pytest.raises(RequestError, match="bad-name"):
        Right.make("READ", "/data/")
    with pytest.raises(RequestError, match="bad-path"):
        Right.make("read", "data")


@pytest.mark.parametrize(
    ("holder", "wish", "covered"),
    [
        ("/data/", "/data/", True),
        ("/data/", "/data/x", True),
        ("/data/", "/data/x/", True),
        ("/", "/data", True),
        ("/data", "/data", True),
        ("/data", "/data/", False),
        ("/data", "/data2", False),
        ("/data", "/data/x", False),
        ("/data/", "/data", False),
        ("/data/", "/data2", False),
        ("/data/x/", "/data/", False),
        ("/data/x", "/data/x/", False),
    ],
)
def test_paths_cover_at_segment_boundaries(holder: str, wish: str, covered: bool) -> None:
    """A subtree covers what is below it; an exact path covers itself."""
    assert path_covers(holder, wish) is covered
    assert Right("read", holder).covers(Right("read", wish)) is covered
    assert not Right("write", holder).covers(Right("read", wish))


SEGMENT = st.sampled_from(["a", "b", "ab", "data", "data2"])
PATHS = st.builds(
    lambda segments, slash: "/" + "/".join(segments) + ("/" if slash and segments else ""),
    st.lists(SEGMENT, max_size=4),
    st.booleans(),
)


@given(PATHS, PATHS, PATHS)
def test_covering_is_a_partial_order(a: str, b: str, c: str) -> None:
    """Reflexive, antisymmetric, transitive: narrowing twice is narrowing."""
    assert path_covers(a, a)
    if path_covers(a, b) and path_covers(b, a):
        assert a == b
    if path_covers(a, b) and path_covers(b, c):
        assert path_covers(a, c)


@given(PATHS, PATHS)
def test_covering_means_the_same_as_comparing_segments(holder: str, wish: str) -> None:
    """An independent definition by lists of segments agrees."""
    held, wished = holder.split("/"), wish.split("/")
    below = len(wished) >= len(held) and wished[: len(held) - 1] == held[:-1]
    expected = below if held[-1] == "" else held == wished
    assert path_covers(holder, wish) is expected


def test_a_token_request_is_validated() -> None:
    """The service is a label, rights are few, repeated ones counted once, and none is not all."""
    read = Right.make("read", "/")
    made = TokenRequest.make(audience="files", rights=[read, read], lifetime=timedelta(minutes=5), delegations=2)
    assert made == TokenRequest(audience="files", rights=(read,), lifetime=timedelta(minutes=5), delegations=2)
    assert TokenRequest.make(audience="files") == TokenRequest(audience="files", rights=None, lifetime=None, delegations=1)
    with pytest.raises(RequestError, match="bad-name"):
        TokenRequest.make(audience="../files")
    with pytest.raises(RequestError, match="no-rights"):
        TokenRequest.make(audience="files", rights=())
    many = [Right("read", f"/{i}") for i in range(MAX_RIGHTS + 1)]
    with pytest.raises(RequestError, match="too-many-rights"):
        TokenRequest.make(audience="files", rights=many)
    assert len(TokenRequest.make(audience="files", rights=many[1:]).rights or ()) == MAX_RIGHTS
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.audience = "other"  # type: ignore[misc]  # that is the point
