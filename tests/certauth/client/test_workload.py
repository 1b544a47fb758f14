"""Programs without users: GitHub Actions and Kubernetes, played by the simulator over TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from certauth.client.attempt import Method, Situation
from certauth.client.workload import GITHUB, find
from certauth.encoding import b64url, from_b64url
from certauth.errors import AnswerError, CertauthError, Refused, UsageError
from certauth.identity.binding import BoundKey
from tests.certauth.client.conftest import LogIn
from tests.simulator.hostile_signer import HostileSigner, Raw

ACTIONS, REQUEST = "/actions/token", "/api/v1/namespaces/beam/serviceaccounts/mover/token"


def claims_of(proof: dict[str, Any]) -> dict[str, Any]:
    """What a token says."""
    claims: dict[str, Any] = json.loads(from_b64url(proof["token"].split(".")[1]))
    return claims


def github(signer: HostileSigner, **changes: str) -> Situation:
    """A job that may ask for ID tokens."""
    environment = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{signer.url}{ACTIONS}?api-version=2",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
    }
    return Situation(environment=environment | changes, terminal=False)


def pod(signer: HostileSigner, directory: Path, *, subject: str = "system:serviceaccount:beam:mover") -> Situation:
    """A pod with its service account mounted."""
    account = directory / "kubernetes.io" / "serviceaccount"
    account.mkdir(parents=True)
    (account / "ca.crt").write_bytes(signer.ca_file.read_bytes())
    (account / "token").write_text(signer.workload_token(f"{signer.url}/idp", ["api"], subject))
    port = str(urlsplit(signer.url).port)
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
    return Situation(environment=environment, terminal=False, secrets=directory)


@pytest.fixture(autouse=True)
def workloads(signer: HostileSigner) -> None:
    """The signer believes a platform, and binds its tokens to keys."""
    signer.offers = {"kinds": ["workload"], "flows": [], "bindings": ["audience"]}


def test_a_job_asks_for_a_token_for_its_key_at_this_signer(signer: HostileSigner, log_me_in: LogIn):
    """Nobody says anything: the audience is the signer and the hash of the key; the job's credential goes nowhere else."""
    done = log_me_in(situation=github(signer))
    (proof,) = signer.proofs
    assert proof["type"] == "workload"
    assert claims_of(proof)["aud"] == [BoundKey(signer_id=signer.url, spki=done.peer.spki).audience()]
    assert done.profile.signer().issuer == "campus"
    told = [path for _, path, headers, body in signer.seen if "of-the-job" in str(headers) or b"of-the-job" in body]
    assert [urlsplit(path).path for path in told] == [ACTIONS]


def test_a_job_without_permission(signer: HostileSigner, log_me_in: LogIn):
    """A refusal names the line that is missing in the workflow, and not the credential."""
    signer.lies[ACTIONS] = lambda _: Raw(status=403, pieces=(b"no",))
    with pytest.raises(Refused) as caught:
        log_me_in(situation=github(signer))
    assert caught.value.code == "workload-refused"
    assert "id-token: write" in str(caught.value.hint)
    assert "of-the-job" not in f"{caught.value}{caught.value.hint}"
    signer.lies[ACTIONS] = lambda _: {"count": 1}
    with pytest.raises(AnswerError):
        log_me_in(situation=github(signer))


def test_a_pod_asks_the_api_server(signer: HostileSigner, log_me_in: LogIn, tmp_path: Path):
    """TokenRequest under the cluster's own CA, with the pod's own token, for the audience that names the key."""
    situation = pod(signer, tmp_path / "pod")
    done = log_me_in(situation=situation)
    assert claims_of(signer.proofs[0])["aud"] == [BoundKey(signer_id=signer.url, spki=done.peer.spki).audience()]
    body = next(json.loads(body) for _, path, _, body in signer.seen if path == REQUEST)
    assert body["kind"] == "TokenRequest"
    assert body["spec"]["expirationSeconds"] == 600


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Raw(status=403, pieces=(b"{}",)), Refused, "workload-refused"),
        ({"kind": "Status"}, AnswerError, "bad-answer"),
        ({"status": {"token": ""}}, AnswerError, "bad-answer"),
    ],
)
def test_an_api_server_that_makes_no_token(
    signer: HostileSigner, log_me_in: LogIn, tmp_path: Path, answer: Any, kind: type[CertauthError], code: str
):
    """Without the right to ask, the hint names it."""
    signer.lies[REQUEST] = lambda _: answer
    with pytest.raises(kind) as caught:
        log_me_in(situation=pod(signer, tmp_path / "pod"))
    assert caught.value.code == code
    if kind is Refused:
        assert "serviceaccounts/token" in str(caught.value.hint)
    assert signer.proofs == []


@pytest.mark.parametrize("subject", ["alice", "system:serviceaccount:beam:../../x", "system:serviceaccount:beam"])
def test_a_pod_whose_account_is_no_service_account(signer: HostileSigner, log_me_in: LogIn, tmp_path: Path, subject: str):
    """The account's name becomes part of an address: only a name that is one does."""
    with pytest.raises(Refused) as caught:
        log_me_in(situation=pod(signer, tmp_path / "pod", subject=subject))
    assert caught.value.code == "workload-refused"
    assert not any(path.startswith("/api") for _, path, _, _ in signer.seen)


def test_a_pod_without_its_account(signer: HostileSigner, log_me_in: LogIn, tmp_path: Path):
    """A pod that mounts nothing, or a damaged token, can prove nothing."""
    situation = pod(signer, tmp_path / "pod")
    token = tmp_path / "pod" / "kubernetes.io" / "serviceaccount" / "token"
    for content in ("x", f"a.{b64url(b'[]')}.c", ""):
        token.write_text(content)
        with pytest.raises(Refused):
            log_me_in(situation=situation)
    token.unlink()
    with pytest.raises(Refused):
        log_me_in(situation=situation)


def test_a_projected_token_where_unbound_ones_are_taken(signer: HostileSigner, log_me_in: LogIn, tmp_path: Path):
    """The pod specification can mount a token for the facility's audience; it is used only where the facility takes it."""
    signer.offers |= {"bindings": ["none"]}
    situation = pod(signer, tmp_path / "pod")
    with pytest.raises(Refused) as caught:
        log_me_in(situation=situation)
    assert "certauth/token" in str(caught.value.hint)
    (tmp_path / "pod" / "certauth").mkdir()
    text = signer.workload_token(f"{signer.url}/idp", ["cli"], "system:serviceaccount:beam:mover")
    (tmp_path / "pod" / "certauth" / "token").write_text(text + "\n")
    log_me_in(situation=situation)
    assert signer.proofs == [{"type": "workload", "token": text}]
    assert not any(path.startswith("/api") for _, path, _, _ in signer.seen)


def test_no_job_asks_for_a_token_that_is_bound_to_no_key(signer: HostileSigner, log_me_in: LogIn):
    """A signer that wants one could have itself given a token that is good somewhere else; nothing is asked of the platform."""
    address = f"{signer.url}{ACTIONS}"
    log_me_in(situation=github(signer, ACTIONS_ID_TOKEN_REQUEST_URL=address))
    signer.offers |= {"bindings": ["none"]}
    signer.seen.clear()
    with pytest.raises(Refused) as caught:
        log_me_in(situation=github(signer, ACTIONS_ID_TOKEN_REQUEST_URL=address))
    assert caught.value.code == "workload-refused"
    assert not any(path.startswith(ACTIONS) for _, path, _, _ in signer.seen)


def test_of_several_platforms_the_one_this_runs_on_is_meant(signer: HostileSigner, log_me_in: LogIn, tmp_path: Path):
    """The issuer is found by what its tokens say; where that is not known beforehand the user is asked."""
    other = signer.issuer() | signer.offers | {"id": "other", "url": "https://other.example"}
    signer.lies["/.well-known/certauth"] = lambda answer: answer | {"issuers": [other, *answer["issuers"]]}
    assert log_me_in(situation=pod(signer, tmp_path / "pod")).profile.signer().issuer == "campus"
    with pytest.raises(UsageError) as caught:
        log_me_in(situation=github(signer))
    assert caught.value.code == "several-issuers"
    assert log_me_in(situation=github(signer), issuer="campus").profile.signer().issuer == "campus"
    other["url"] = GITHUB
    assert log_me_in(situation=github(signer)).profile.signer().issuer == "other"


def test_where_no_platform_vouches(log_me_in: LogIn):
    """On a laptop there is no workload, named or not."""
    with pytest.raises(UsageError) as caught:
        log_me_in(method=Method.WORKLOAD)
    assert caught.value.code == "no-workload-identity"
    assert find(Situation(environment={"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"})) is None


def test_credentials_of_the_platform_are_in_no_repr(signer: HostileSigner):
    """The environment of a job holds its credential."""
    situation = github(signer)
    assert "of-the-job" not in repr(situation)
    assert "of-the-job" not in repr(find(situation))


def test_ipv6_and_ports_of_the_api_server(signer: HostileSigner, log_me_in: LogIn, tmp_path: Path):
    """An address with colons is written as one; the https port is preferred, 443 is usual."""
    situation = pod(signer, tmp_path / "pod")
    for environment, address in (
        ({"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT_HTTPS": "1"}, "https://[::1]:1"),
        ({"KUBERNETES_SERVICE_HOST": "127.0.0.9"}, "https://127.0.0.9"),
    ):
        with pytest.raises(CertauthError) as caught:
            log_me_in(situation=Situation(environment=environment, terminal=False, secrets=situation.secrets))
        assert address in str(caught.value)
