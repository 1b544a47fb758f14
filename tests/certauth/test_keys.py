"""Keys: kinds, names, files, silence, and the published examples that every program refuses."""

from __future__ import annotations

import copy
import hashlib
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certauth import keys
from certauth.bundles import TrustBundle
from certauth.certificates import fingerprint, load_chain, principal_of
from certauth.errors import KeyMaterialError
from certauth.example_keys import EXAMPLE_KEYS
from certauth.files import PRIVATE, write_atomic
from certauth.keys import Algorithm, SigningKey, SoftwareKey, generate, load_private, save_private
from certauth.revocation import open_feed
from certauth.tokens import TrustedTokenKey, describe
from certauth.tokens import verify as verify_token


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_each_algorithm_makes_a_key_that_signs(algorithm: Algorithm) -> None:
    """The signature verifies over the data and over nothing else."""
    key: SigningKey = generate(algorithm)
    assert key.algorithm is algorithm
    signature = key.sign(b"data")
    verify(key, signature, b"data")
    with pytest.raises(InvalidSignature):
        verify(key, signature, b"Data")


def verify(key: SigningKey, signature: bytes, data: bytes) -> None:
    """Check a signature with the library directly."""
    match key.public_key:
        case ed25519.Ed25519PublicKey() as public:
            public.verify(signature, data)
        case ec.EllipticCurvePublicKey() as public:
            public.verify(signature, data, ec.ECDSA(keys.hash_for(key.algorithm)))


def test_hashes_go_with_their_curves() -> None:
    """P-384 signs SHA-384, the others SHA-256."""
    assert keys.hash_for(Algorithm.P384).name == "sha384"
    assert keys.hash_for(Algorithm.P256).name == "sha256"


@pytest.mark.parametrize(
    "public",
    [
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        "not a key",
    ],
    ids=["RSA", "P-521", "secp256k1", "text"],
)
def test_we_sign_with_no_other_kind(public: object) -> None:
    """Other kinds of key have no algorithm here."""
    with pytest.raises(KeyMaterialError, match="bad-key"):
        keys.algorithm_of(public)


def test_names_of_keys() -> None:
    """An id is four bytes of SHA-256, over the raw bytes of Ed25519 and the SPKI of others; a fingerprint is all of one."""
    edwards, curve = generate(Algorithm.ED25519).public_key, generate(Algorithm.P256).public_key
    assert isinstance(edwards, ed25519.Ed25519PublicKey)
    assert keys.key_id(edwards) == hashlib.sha256(keys.raw(edwards)).hexdigest()[:8]
    assert len(keys.raw(edwards)) == 32
    assert keys.key_id(curve) == hashlib.sha256(keys.spki(curve)).hexdigest()[:8]
    assert keys.fingerprint(curve) == hashlib.sha256(keys.spki(curve)).hexdigest()
    assert serialization.load_der_public_key(keys.spki(curve)) == curve


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_key_never_shows_itself(algorithm: Algorithm) -> None:
    """Its texts are its algorithm and id; it cannot be pickled or copied by accident."""
    key = generate(algorithm)
    assert repr(key) == str(key) == f"<SoftwareKey {algorithm} {keys.key_id(key.public_key)}>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leak(key)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_key_survives_its_file(tmp_path: Path, algorithm: Algorithm, passphrase: bytes | None) -> None:
    """PKCS#8, mode 0600, encrypted iff there is a passphrase; OpenSSL reads it too."""
    path, key = tmp_path / "a.key", generate(algorithm)
    save_private(path, key, passphrase=passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == PRIVATE
    assert (b"ENCRYPTED" in path.read_bytes()) == (passphrase is not None)
    assert load_private(path, passphrase=passphrase).public_key == key.public_key
    command = ["openssl", "pkey", "-in", str(path), "-pubout", "-passin", f"pass:{(passphrase or b'').decode()}"]
    result = subprocess.run(command, capture_output=True, check=True, timeout=20)
    assert serialization.load_pem_public_key(result.stdout) == key.public_key


def test_a_passphrase_that_is_not_needed_does_no_harm(tmp_path: Path) -> None:
    """One passphrase setting serves several files."""
    path, key = tmp_path / "a.key", generate(Algorithm.P256)
    save_private(path, key, passphrase=None)
    assert load_private(path, passphrase=b"other").public_key == key.public_key


def test_an_empty_passphrase_is_not_silently_none(tmp_path: Path) -> None:
    """A variable that was not set must not write an open key."""
    with pytest.raises(KeyMaterialError, match="empty-passphrase"):
        save_private(tmp_path / "a.key", generate(Algorithm.P256), passphrase=b"")
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    """None and a wrong one have different codes, and neither error quotes anything."""
    path = tmp_path / "a.key"
    save_private(path, generate(Algorithm.P256), passphrase=b"right")
    with pytest.raises(KeyMaterialError, match="key-locked"):
        load_private(path, passphrase=None)
    with pytest.raises(KeyMaterialError, match="bad-key") as caught:
        load_private(path, passphrase=b"wrong-passphrase")
    assert "wrong-passphrase" not in str(caught.value)


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    """The check of ``read_private`` stands before every key."""
    path = tmp_path / "a.key"
    save_private(path, generate(Algorithm.P256), passphrase=None)
    path.chmod(0o640)
    with pytest.raises(KeyMaterialError, match="key-file-open"):
        load_private(path, passphrase=None)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as any tool writes it."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP521R1())),
    ],
    ids=["empty", "garbage", "RSA", "P-521"],
)
def test_a_file_without_a_key_of_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    """The error names the file and quotes nothing of it."""
    path = tmp_path / "a.key"
    write_atomic(path, data, mode=PRIVATE)
    with pytest.raises(KeyMaterialError, match="bad-key") as caught:
        load_private(path, passphrase=None)
    assert "AAAA" not in str(caught.value)


# --- the published examples ---------------------------------------------------------------------------------------------

NAMES = ("root", "intermediate", "service", "alice", "token", "log", "feed")


@pytest.fixture(scope="module")
def examples(pytestconfig: pytest.Config) -> Path:
    """The directory whose keys everybody has."""
    return pytestconfig.rootpath / "keys-example"


def example_key(directory: Path, name: str) -> SoftwareKey:
    """Read one without any check, as an attacker would."""
    private = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), None)
    assert isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey)
    return SoftwareKey(private)


def test_the_list_of_published_keys_is_complete(examples: Path) -> None:
    """Each private key in the directory, and each key of each certificate there, is listed."""
    assert sorted(path.stem for path in examples.glob("*.key")) == sorted(NAMES)
    published = {keys.fingerprint(example_key(examples, name).public_key) for name in NAMES}
    assert published == EXAMPLE_KEYS
    for path in examples.glob("*.pem"):
        for certificate in load_chain(path.read_bytes()):
            public = certificate.public_key()
            assert isinstance(public, ec.EllipticCurvePublicKey)
            assert keys.fingerprint(public) in EXAMPLE_KEYS


@pytest.mark.parametrize("name", NAMES)
def test_a_published_key_is_refused_unless_that_is_wanted(examples: Path, tmp_path: Path, name: str) -> None:
    """Copied, renamed and encrypted, it is the same key."""
    path, key = tmp_path / "mine.key", example_key(examples, name)
    save_private(path, key, passphrase=b"x")
    with pytest.raises(KeyMaterialError, match="example-key"):
        load_private(path, passphrase=b"x")
    assert load_private(path, passphrase=b"x", allow_example_keys=True).public_key == key.public_key
    with pytest.raises(KeyMaterialError, match="example-key"):
        keys.refuse_example(key.public_key, allow_example_keys=False)
    keys.refuse_example(generate(Algorithm.P256).public_key, allow_example_keys=False)


def test_the_example_facility_is_regenerated_byte_for_byte(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """What is committed is what the script writes, so a reviewer need not believe it."""
    root = pytestconfig.rootpath
    command = [sys.executable, "-W", "error", str(root / "keys-example" / "regenerate.py"), "--into", str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    written = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) > 10
    for name, path in written.items():
        assert path.read_bytes() == (root / name).read_bytes(), name
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)


def test_openssl_verifies_the_example_facility(examples: Path) -> None:
    """The committed files are a working hierarchy, for the right purposes only."""

    def verdict(purpose: str, name: str) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
        command += ["-CAfile", "root.pem", "-untrusted", "intermediate.pem", name]
        return subprocess.run(command, cwd=examples, capture_output=True, check=False, timeout=20).returncode == 0

    assert verdict("sslclient", "alice.pem")
    assert not verdict("sslserver", "alice.pem")
    assert verdict("sslserver", "service.pem")
    (leaf, *_) = load_chain((examples / "service.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_the_example_token_is_alices(examples: Path) -> None:
    """The committed token verifies under the committed bundle and is bound to the committed certificate."""
    bundle = TrustBundle.parse((examples / "bundle.json").read_bytes(), allow_example_keys=True)
    roots = {
        root.kid: TrustedTokenKey(kid=root.kid, key=root.key, issuer=f"spiffe://{bundle.domain}", domain=bundle.domain)
        for root in bundle.believed_token_roots
    }
    token = verify_token((examples / "alice.token").read_text().strip(), roots)
    (leaf, *_) = load_chain((examples / "alice.pem").read_bytes())
    assert token.user == str(principal_of(leaf))
    described = describe((examples / "alice.token").read_text().strip(), now=leaf.not_valid_before_utc)
    assert fingerprint(leaf) in str(described)


def test_the_example_feed_opens(examples: Path) -> None:
    """The committed feed is signed by the committed key and revokes nothing."""
    bundle = TrustBundle.parse((examples / "bundle.json").read_bytes(), allow_example_keys=True)
    data = (examples / "feed.json").read_bytes()
    feed = open_feed(data, key=bundle.feed_key, domain=bundle.domain, newest_sequence=0, now=bundle.issued_at)
    assert feed.entries == ()
