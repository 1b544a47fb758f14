"""Services, hosts and agents: how they prove themselves, what their power costs them, and how it ends."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, rsa

from certauth import keys
from certauth.certificates import load_chain, principal_of
from certauth.encoding import b64url
from certauth.enrolment import EnrolledRight
from certauth.errors import KeyMaterialError, UsageError
from certauth.identity import BoundKey, jwk_thumbprint
from certauth.identity.binding import jwk_of
from certauth.keys import Algorithm
from signer.cli import group
from signer.client_keys import MAX_KEY_FILE, read_client_key
from signer.power import BOUNDS, Power, check_power, least_power
from tests.demo.stage import ROOT
from tests.signer.agent_kit import make
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr
from tests.signer.test_enrolment import act, admin, configure, refused, with_code
from tests.simulator.hostile_provider import ProviderKey

SERVICE = f"spiffe://{DOMAIN}/service/ingest"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh facility."""
    with facility(tmp_path) as made:
        yield made


class Machine:
    """A machine with a key for assertions, enrolled with its public half."""

    def __init__(self, site: Site, tmp_path: Path, alg: str = "ES256") -> None:
        self.site = site
        self.signing = ProviderKey(alg, kid="x")
        self.file = tmp_path / f"{secrets.token_hex(4)}.pub"
        public = self.signing.private.public_key()
        self.file.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        self.signing.kid = jwk_thumbprint(jwk_of(public))

    def ask(self, principal: str = SERVICE, **claims: object) -> httpx2.Response:
        """Ask for a certificate with an assertion; claims changed or (``...``) left out."""
        key = keys.generate(Algorithm.P256)
        now = int(self.site.clock().timestamp())
        thumbprint = BoundKey(signer_id=self.site.url, spki=keys.spki(key.public_key)).thumbprint()
        members: dict[str, object] = {
            "iss": principal,
            "sub": principal,
            "aud": self.site.url,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "cnf": {"jkt": thumbprint},
        }
        members |= claims
        token = self.signing.sign({name: value for name, value in members.items() if value is not ...})
        body = {"csr": make_csr(key), "proof": {"type": "client_assertion", "token": token}}
        with self.site.client() as client:
            answer = client.post("/v1/certificates", json=body)
        if answer.status_code == 201:
            self.identity = Identity(key=key, chain=load_chain(answer.json()["certificate_chain"].encode()))
        return answer


def pem(key: Any) -> bytes:
    """A public key as PEM."""
    made: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return made


# --- proving -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "RS256"])
def test_an_enrolled_key_leads_to_a_certificate_with_the_enrolled_names(site: Site, tmp_path: Path, alg: str) -> None:
    """A service signs for itself and gets its certificate, for its hosts, and only with the key that was enrolled."""
    machine, thief = Machine(site, tmp_path, alg), Machine(site, tmp_path, alg)
    given = ("--host", "Ingest.als.example", "--host", "192.0.2.7", "--key", machine.file)
    made = act(site, "service", "enroll", "ingest", *given)
    assert (made["kid"], made["power"], made["hosts"]) == (machine.signing.kid, "low", ["ingest.als.example", "192.0.2.7"])
    with site.serving():
        answer = machine.ask()
        assert answer.status_code == 201, answer.text
        leaf = machine.identity.chain[0]
        assert str(principal_of(leaf)) == SERVICE
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["ingest.als.example"]
        refused(thief.ask(), "unknown-key", 401)
        refused(machine.ask(f"spiffe://{DOMAIN}/service/other"), "unknown-issuer", 401)
        refused(machine.ask(cnf=...), "key-not-bound", 401)


def test_a_code_is_the_first_proof_and_only_once(site: Site, tmp_path: Path) -> None:
    """A host with nothing yet shows its code, once; it is no proof any more when it has run out."""
    first = act(site, "service", "enroll", "node-7", "--kind", "host", "--code")["code"]
    second = act(site, "service", "code", "node-7", "--kind", "host", "--code-for", "1h", "--output", tmp_path / "c")
    assert second["code"] is None
    with site.serving():
        answer = with_code(site, first)
        assert answer.json()["principal"] == f"spiffe://{DOMAIN}/host/node-7"
        refused(with_code(site, first), "replayed", 409)
        site.clock.offset = timedelta(hours=1, seconds=1)
        refused(with_code(site, (tmp_path / "c").read_text().strip()), "code-invalid", 401)
    for period in ("8d", "0s"):
        assert act(site, "service", "code", "node-7", "--kind", "host", "--code-for", period, expect=2)["error"]["code"] == (
            "bad-duration"
        )


def test_a_disabled_or_ended_machine_gets_nothing(site: Site, tmp_path: Path) -> None:
    """Neither key nor code leads anywhere for a machine that is disabled, whose time is over, or that asks from elsewhere."""
    machine = Machine(site, tmp_path)
    code = act(site, "service", "enroll", "ingest", "--key", machine.file, "--for", "1d", "--code")["code"]
    with site.serving():
        assert machine.ask().status_code == 201
        act(site, "service", "disable", "ingest")
        refused(machine.ask(), "principal-disabled")
        refused(with_code(site, code), "principal-disabled")
        with site.client(machine.identity) as client:
            site.clock.offset += timedelta(seconds=1)
            assert client.post("/v1/tokens", json={"audience": "files"}).json()["code"] == "certificate-revoked"
        act(site, "service", "enable", "ingest")
        site.clock.offset += timedelta(seconds=2)
        assert machine.ask().status_code == 201
        act(site, "service", "enroll", "ingest", "--network", "192.0.2.0/24")
        refused(machine.ask(), "address-not-allowed")
        act(site, "service", "enroll", "ingest", "--network", "127.0.0.0/8", "--for", "1d")
        assert machine.ask().status_code == 201
        site.clock.offset += timedelta(days=1, seconds=5)
        refused(machine.ask(), "enrolment-ended")


def test_a_removed_key_proves_nothing(site: Site, tmp_path: Path) -> None:
    """Keys change one by one; a compromised one takes with it what it could have led to."""
    old, new = Machine(site, tmp_path), Machine(site, tmp_path)
    act(site, "service", "enroll", "ingest", "--key", old.file)
    added = act(site, "service", "key", "add", "ingest", new.file)
    assert admin(site, "service", "show", "ingest")["keys"] == sorted([old.signing.kid or "", added["kid"]])
    assert act(site, "service", "key", "add", "ingest", new.file, expect=2)["error"]["code"] == "key-present"
    with site.serving():
        assert old.ask().status_code == 201
        act(site, "service", "key", "remove", "ingest", old.signing.kid, "--compromised")
        refused(old.ask(), "unknown-key", 401)
        with site.client(old.identity) as client:
            site.clock.offset += timedelta(seconds=1)
            assert client.post("/v1/tokens", json={"audience": "files"}).json()["code"] == "certificate-revoked"
        site.clock.offset += timedelta(seconds=1)
        assert new.ask().status_code == 201
        act(site, "service", "key", "remove", "ingest", new.signing.kid)
        refused(new.ask(), "unknown-issuer", 401)
    assert act(site, "service", "key", "remove", "ingest", "x", expect=2)["error"]["code"] == "key-unknown"


def test_a_machine_has_so_many_keys(site: Site, tmp_path: Path) -> None:
    """The number of keys is bounded, and enrolling again with the same key is no second one."""
    machine = Machine(site, tmp_path)
    for _ in range(2):
        act(site, "service", "enroll", "ingest", "--key", machine.file)
    for _ in range(7):
        act(site, "service", "key", "add", "ingest", Machine(site, tmp_path).file)
    error = act(site, "service", "key", "add", "ingest", Machine(site, tmp_path).file, expect=2)["error"]
    assert error["code"] == "too-many-keys"


# --- power ---------------------------------------------------------------------------------------------------------------


def test_more_power_means_less_time_and_fewer_networks(site: Site) -> None:
    """Through the command: what a machine may do decides how long and from where, and cannot be talked down."""
    writing = ("--right", "data:write:/raw/")

    def code(*words: object) -> str:
        return str(act(site, "service", "enroll", "ingest", *words, expect=2)["error"]["code"])

    assert act(site, "service", "enroll", "reader", "--right", "data:read:/raw/")["power"] == "low"
    assert code(*writing) == "power-networks"
    assert code(*writing, "--power", "low") == "power-too-low"
    assert code(*writing, "--network", "0.0.0.0/0") == "power-networks"
    assert code(*writing, "--network", "192.0.2.0/28", "--for", "15d") == "power-too-long"
    many = [word for i in range(9) for word in ("--network", f"192.0.{i}.0/28")]
    assert code(*writing, *many) == "power-networks"
    assert code("--power", "high", "--network", "192.0.2.1/24") == "bad-network", "with bits of a host"
    assert code("--power", "high", "--network", "192.0.0.0/16") == "power-networks"
    assert code("--network", "elsewhere") == "bad-network"
    assert code("--for", "61d") == "power-too-long"
    assert code("--for", "forever") == "bad-duration"
    made = act(site, "service", "enroll", "ingest", *writing, "--network", "192.0.2.0/28")
    assert (made["power"], made["networks"]) == ("medium", ["192.0.2.0/28"])
    many = [word for i in range(65) for word in ("--network", f"192.0.{i}.0/28")]
    assert code(*many) == "bad-network"
    hosts = [word for i in range(65) for word in ("--host", f"h{i}.example")]
    assert code(*hosts) == "bad-name"


def test_power_counts_what_comes_with_a_group_and_with_the_settings(site: Site) -> None:
    """A right that a group brings is a right; an administrator by the settings is one, whatever its rights."""
    grant = '[[grant]]\ngroup = "writers"\nservice = "data"\noperations = ["write"]\npath = "/raw/"'
    configure(site, issuer=grant, top=f'admins = ["{SERVICE}"]')
    error = act(site, "service", "enroll", "other", "--group", "writers", "--power", "low", expect=2)["error"]
    assert error["code"] == "power-too-low"
    error = act(site, "service", "enroll", "ingest", "--power", "medium", expect=2)["error"]
    assert (error["code"], "high" in error["message"]) == ("power-too-low", True)
    made = act(site, "service", "enroll", "ingest", "--network", "192.0.2.0/24")
    assert made["power"] == "high"


@pytest.mark.parametrize("power", list(Power))
def test_the_table_is_kept_to_its_edges(power: Power) -> None:
    """At the bound it is granted, one step beyond it is refused; and the more power, the tighter every bound."""
    bounds = BOUNDS[power]
    inside = ip_network(f"10.0.0.0/{bounds.prefix_v4}") if bounds.prefix_v4 else ip_network("0.0.0.0/0")
    inside6 = ip_network(f"2001:db8::/{bounds.prefix_v6}") if bounds.prefix_v6 else ip_network("::/0")
    most = (inside, inside6)
    check_power(power, least=Power.LOW, lifetime=bounds.longest, networks=most)
    with pytest.raises(UsageError) as caught:
        check_power(power, least=Power.LOW, lifetime=bounds.longest + timedelta(seconds=1), networks=most)
    assert caught.value.code == "power-too-long"
    if bounds.most is not None:
        wide: list[list[Any]] = [[inside.supernet()], [inside6.supernet()], [], [inside] * (bounds.most + 1)]
        for networks in wide:
            with pytest.raises(UsageError) as caught:
                check_power(power, least=Power.LOW, lifetime=bounds.longest, networks=tuple(networks))
            assert caught.value.code == "power-networks"
    if power is not Power.HIGH:
        above = BOUNDS[Power(power + 1)]
        assert above.longest < bounds.longest
        assert (above.prefix_v4, above.prefix_v6) > (bounds.prefix_v4, bounds.prefix_v6)


def test_reading_is_the_only_low_power() -> None:
    """Any operation that is not known to change nothing counts as one that changes something."""
    read, other = EnrolledRight("s", "read", "/"), EnrolledRight("s", "readd", "/")
    assert least_power([], is_admin=False) is Power.LOW
    assert least_power([read], is_admin=False) is Power.LOW
    assert least_power([read, other], is_admin=False) is Power.MEDIUM
    assert least_power([read], is_admin=True) is Power.HIGH


# --- keys that are handed in ---------------------------------------------------------------------------------------------


def test_a_key_is_stored_in_one_form_whatever_it_came_in() -> None:
    """PEM and JWK of one key are one key, under its thumbprint; what stood next to it is dropped."""
    for alg in ("ES256", "ES384", "EdDSA", "RS256"):
        key = ProviderKey(alg)
        from_pem = read_client_key(pem(key.private.public_key()))
        from_jwk = read_client_key(json.dumps({**key.jwk, "kid": "mine", "use": "enc", "x5u": "http://x"}).encode())
        assert from_pem == from_jwk
        assert json.loads(from_pem.jwk)["kid"] == from_pem.kid == jwk_thumbprint(key.jwk)
        assert set(json.loads(from_pem.jwk)) <= {"crv", "e", "kty", "n", "x", "y", "kid"}


@cache
def bad_keys() -> dict[str, tuple[bytes, str]]:
    """Files that hold no key of a machine, and what each is called."""
    key = ProviderKey("ES256")
    private = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    weak = rsa.generate_private_key(65537, 1024).public_key()
    example: Any = serialization.load_pem_private_key((ROOT / "keys-example" / "alice.key").read_bytes(), password=None)
    return {
        "private": (private, "private-key"),
        "private jwk": (json.dumps({**key.jwk, "d": b64url(b"1" * 32)}).encode(), "private-key"),
        "secret jwk": (json.dumps({"kty": "oct", "k": b64url(b"1" * 32)}).encode(), "private-key"),
        "weak": (pem(weak), "bad-key"),
        "dsa": (pem(dsa.generate_private_key(1024).public_key()), "bad-key"),
        "off the curve": (json.dumps({**key.jwk, "x": b64url(b"1" * 32)}).encode(), "bad-key"),
        "no type": (b'{"x": "y"}', "bad-key"),
        "not text": (json.dumps({**key.jwk, "e": 7}).encode(), "bad-key"),
        "a list": (b"[]", "bad-key"),
        "twice": (b'{"kty": "EC", "kty": "RSA"}', "bad-key"),
        "text": (b"hello", "bad-key"),
        "empty": (b"", "bad-key"),
        "large": (b" " * (MAX_KEY_FILE + 1), "bad-key"),
        "example": (pem(example.public_key()), "example-key"),
    }


@pytest.mark.parametrize("name", sorted(bad_keys()))
def test_what_is_no_public_key_of_a_machine_is_refused(name: str) -> None:
    """Private, secret, weak, foreign, published and broken keys are refused with a hint and never stored."""
    data, code = bad_keys()[name]
    with pytest.raises(KeyMaterialError) as caught:
        read_client_key(data)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


# --- the commands --------------------------------------------------------------------------------------------------------


def test_a_machine_is_listed_shown_and_changed(site: Site) -> None:
    """What is enrolled is shown, in JSON and in columns; a change is an entry and keeps the machine disabled."""
    act(site, "service", "enroll", "ingest", "--display", "Ingest of beamline 7")
    act(site, "service", "disable", "ingest")
    act(site, "service", "enroll", "ingest", "--right", "data:read:/", "--for", "1h")
    shown = admin(site, "service", "show", "ingest")
    assert (shown["disabled"], len(shown["rights"]), shown["keys"]) == (True, 1, [])
    assert [one["principal"] for one in admin(site, "service", "list")["machines"]] == [SERVICE]
    assert admin(site, "user", "list")["people"] == []
    settings = ["--settings", str(site.settings_file)]
    runner = CliRunner()
    assert "disabled" in runner.invoke(group, ["service", "list", *settings]).output
    act(site, "service", "enable", "ingest")
    assert "enabled" in runner.invoke(group, ["service", "list", *settings]).output
    assert "read / at data" in runner.invoke(group, ["service", "show", "ingest", *settings]).output
    made = runner.invoke(group, ["service", "enroll", "ingest", "--code", "--reason", "r", *settings])
    assert "shown this once" in made.output


def test_machines_have_names_that_are_labels(site: Site, tmp_path: Path) -> None:
    """Names that climb, hosts that are none and options that mean nothing are refused."""
    assert act(site, "service", "enroll", "../x", expect=2)["error"]["code"] == "bad-name"
    assert act(site, "service", "enroll", "x", "--host", "*.example", expect=2)["error"]["code"] == "bad-name"
    assert act(site, "service", "enroll", "x", "--output", tmp_path / "o", expect=2)["error"]["code"] == "usage"
    assert act(site, "service", "disable", "x", expect=2)["error"]["code"] == "not-enrolled"
    assert admin(site, "service", "list")["machines"] == []


def test_the_agent_of_a_person_is_theirs_to_change(site: Site) -> None:
    """An administrator can end somebody's agent, and neither widen nor revive it nor take it over with a code."""
    site.enroll("alice", "files:read:/alice/")
    with site.serving():
        name = make(site, site.log_in("alice"), "job").principal.rpartition("/")[2]
    agent = ("--kind", "agent")
    for words in (("enroll", name, *agent), ("code", name, *agent), ("enable", name, *agent)):
        assert act(site, "service", *words, expect=2)["error"]["code"] == "owned-agent"
    assert act(site, "service", "disable", name, *agent)["disabled"] is True
