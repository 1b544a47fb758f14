"""Forms sent to a provider's endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from joserfc import jws

from certauth.client.dpop import Prover
from certauth.client.http import Client, trust
from certauth.client.provider import Denial, discover, send_form
from certauth.clock import system_clock
from certauth.errors import AnswerError, UnavailableError
from certauth.keys import Algorithm, generate
from tests.simulator.hostile_signer import HostileSigner, Raw

TOKEN = "/idp/token"


@pytest.fixture
def client(signer: HostileSigner) -> Iterator[Client]:
    """A client that trusts the simulator."""
    with Client(trust(roots=signer.ca_file.read_bytes(), system=False)) as made:
        yield made


def test_the_device_endpoint_is_known_only_if_it_is_https(signer: HostileSigner, client: Client):
    """Where it is missing there is no device login; where it is not https nothing is believed."""
    document = "/idp/.well-known/openid-configuration"
    assert discover(client, f"{signer.url}/idp").device_authorization == f"{signer.url}/idp/device_authorization"
    signer.lies[document] = lambda answer: {name: value for name, value in answer.items() if not name.startswith("device")}
    assert discover(client, f"{signer.url}/idp").device_authorization is None
    signer.lies[document] = lambda answer: answer | {"device_authorization_endpoint": "http://127.0.0.1/x"}
    with pytest.raises(AnswerError) as caught:
        discover(client, f"{signer.url}/idp")
    assert caught.value.code == "wrong-issuer"


def test_a_provider_that_asks_for_a_nonce_gets_one_more_request(signer: HostileSigner, client: Client):
    """RFC 9449 §8: the request is made again with the nonce, once; the nonce of an answer is used from then on."""
    wants = Raw(status=400, headers={"dpop-nonce": "n1"}, pieces=(b'{"error":"use_dpop_nonce"}',))
    good = Raw(headers={"dpop-nonce": "n2"}, pieces=(b'{"access_token":"t"}',))
    answers = [wants, good, good]
    signer.lies[TOKEN] = lambda _: answers.pop(0)
    prover = Prover(generate(Algorithm.P256), system_clock)
    for _ in range(2):
        assert send_form(client, signer.url + TOKEN, {"a": "b"}, prover=prover) == {"access_token": "t"}
    proofs = [headers["dpop"] for _, path, headers, _ in signer.seen if path == TOKEN]
    nonces = [json.loads(jws.extract_compact(proof.encode()).payload).get("nonce") for proof in proofs]
    assert nonces == [None, "n1", "n2"]


def test_a_provider_that_asks_for_nonces_without_end_is_left(signer: HostileSigner, client: Client):
    """Never more than one more request, also if each answer names another nonce, and none for the nonce just used."""
    numbers = iter(range(100))
    signer.lies[TOKEN] = lambda _: Raw(
        status=400, headers={"dpop-nonce": f"n{next(numbers)}"}, pieces=(b'{"error":"use_dpop_nonce"}',)
    )
    prover = Prover(generate(Algorithm.P256), system_clock)
    assert send_form(client, signer.url + TOKEN, {}, prover=prover) == Denial(error="use_dpop_nonce", said="use_dpop_nonce")
    assert sum(path == TOKEN for _, path, _, _ in signer.seen) == 2
    signer.lies[TOKEN] = lambda _: Raw(status=400, headers={"dpop-nonce": "n1"}, pieces=(b'{"error":"use_dpop_nonce"}',))
    assert isinstance(send_form(client, signer.url + TOKEN, {}, prover=prover), Denial)
    assert sum(path == TOKEN for _, path, _, _ in signer.seen) == 3


@pytest.mark.parametrize(
    ("body", "denial"),
    [
        (b'{"error":"slow_down","error_description":"wait"}', Denial(error="slow_down", said="wait")),
        (b'{"error":"slow_down"}', Denial(error="slow_down", said="slow_down")),
        (b"<html>no</html>", Denial(error="", said="")),
        (b'{"error":["x"]}', Denial(error="", said="")),
    ],
)
def test_what_a_denial_says(signer: HostileSigner, client: Client, body: bytes, denial: Denial):
    """The standard's code and a sentence, or nothing at all if the answer is none."""
    signer.lies[TOKEN] = lambda _: Raw(status=400, pieces=(body,))
    assert send_form(client, signer.url + TOKEN, {}) == denial


def test_a_busy_provider_is_not_a_refusal(signer: HostileSigner, client: Client):
    """Whoever cannot answer now has not said no; how long to wait is passed on."""
    signer.lies[TOKEN] = lambda _: Raw(status=503, headers={"retry-after": "7"}, pieces=(b"later",))
    with pytest.raises(UnavailableError) as caught:
        send_form(client, signer.url + TOKEN, {"client_secret": "hidden"})
    assert (caught.value.code, caught.value.retry_after) == ("provider-busy", 7)
    assert "hidden" not in str(caught.value)
