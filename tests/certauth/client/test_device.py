"""The device grant with DPoP, and providers that do it wrongly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from certauth.client.attempt import Method
from certauth.client.browser import Browser
from certauth.errors import AnswerError, CertauthError, Refused, UnavailableError, UsageError
from certauth.identity.binding import BoundKey, jwk_thumbprint
from certauth.requests import parse_csr
from tests.certauth.client.conftest import HandWatch, LogIn
from tests.simulator.hostile_signer import HostileSigner, Raw

AUDIENCE = "https://signer.hostile.example"
BEGIN, TOKEN = "/idp/device_authorization", "/idp/token"


@pytest.fixture
def device(signer: HostileSigner, log_me_in: LogIn, hand: HandWatch) -> Callable[..., Any]:
    """Log in at a provider that has the grant, by hand; the user finishes after 3 seconds unless told otherwise."""
    signer.offers = {"flows": ["device"], "bindings": ["dpop"], "kinds": ["access_token"], "access_token_audience": AUDIENCE}

    def log(**wishes: Any) -> Any:
        hand.at.setdefault(3, signer.finish_logins)
        return log_me_in(**{"method": Method.DEVICE, "by_hand": True, "browser": Browser(enabled=False, timeout=60)} | wishes)

    return log


def forms(signer: HostileSigner, wanted: str) -> list[dict[str, str]]:
    """The forms that an endpoint was sent."""
    return [
        {name: values[0] for name, values in parse_qs(body.decode()).items()}
        for _, path, _, body in signer.seen
        if path == wanted
    ]


def test_the_token_is_bound_to_the_key_being_certified(signer: HostileSigner, device: Callable[..., Any]):
    """Every request for the token proves the key of the certification request; the audience is the signer's; PKCE is there."""
    said: list[str] = []
    done = device(tell=said.append)
    assert signer.proofs == [{"type": "access_token", "token": "an.access.token"}]
    begun = forms(signer, BEGIN)[0]
    assert begun["resource"] == AUDIENCE
    assert begun["code_challenge_method"] == "S256"
    asked = forms(signer, TOKEN)
    assert {form["resource"] for form in asked} == {AUDIENCE}
    assert {form["grant_type"] for form in asked} == {"urn:ietf:params:oauth:grant-type:device_code"}
    csr = next(json.loads(body)["csr"] for _, path, _, body in signer.seen if path == "/v1/certificates")
    key = BoundKey(signer_id=signer.url, spki=parse_csr(csr).spki)
    proofs = [headers["dpop"] for _, path, headers, _ in signer.seen if path == TOKEN]
    assert len(proofs) == len(set(proofs)) == len(asked)
    for proof in proofs:
        header = jws.extract_compact(proof.encode()).protected
        jws.deserialize_compact(proof, ECKey.import_key(header["jwk"]), algorithms=["ES256"])
        assert jwk_thumbprint(header["jwk"]) == key.thumbprint()
    assert key.spki == done.peer.spki
    assert f"{signer.url}/idp/device" in said[0]
    assert "WDJB-MJHT" in said[0]


def test_an_opaque_token_says_whose_it_is(signer: HostileSigner, device: Callable[..., Any]):
    """Without an audience the provider makes a token that only it can explain: bound as well, its issuer beside it."""
    signer.offers |= {"access_token_audience": None}
    signer.lies[TOKEN] = lambda answer: answer | {"access_token": "opaque"} if isinstance(answer, dict) else answer
    device()
    assert signer.proofs == [{"type": "access_token", "token": "opaque", "issuer": "campus"}]
    assert "resource" not in forms(signer, BEGIN)[0]
    assert all("dpop" in headers for _, path, headers, _ in signer.seen if path == TOKEN)


def test_without_access_tokens_only_where_unbound_proofs_are_taken(signer: HostileSigner, device: Callable[..., Any]):
    """A device login that cannot be bound is not begun, unless the facility takes it: then as an ID token, without a salt."""
    signer.offers = {"flows": ["device"], "bindings": ["nonce"], "kinds": ["id_token"]}
    with pytest.raises(UsageError) as caught:
        device()
    assert caught.value.code == "flow-not-offered"
    assert forms(signer, BEGIN) == []
    signer.offers |= {"bindings": ["none"]}
    device()
    assert signer.proofs == [{"type": "id_token", "token": "an.id.token"}]


def test_an_unbound_access_token_where_it_is_taken(signer: HostileSigner, device: Callable[..., Any]):
    """Where the facility says that it takes unbound ones and knows no DPoP, no proof is made."""
    signer.offers |= {"bindings": ["none"]}
    device()
    assert signer.proofs == [{"type": "access_token", "token": "an.access.token"}]
    assert not any("dpop" in headers for _, path, headers, _ in signer.seen if path == TOKEN)


def test_a_provider_that_ignores_the_key_is_noticed(signer: HostileSigner, device: Callable[..., Any]):
    """A token of type Bearer, from a provider that does not know DPoP, is not sent on."""
    hidden: list[Any] = []

    def lie(answer: Any) -> Any:
        hidden.append(answer)
        return answer | {"token_type": "Bearer"} if isinstance(answer, dict) else answer

    signer.lies[TOKEN] = lie
    with pytest.raises(AnswerError) as caught:
        device()
    assert caught.value.code == "token-not-bound"
    assert "an.access.token" not in f"{caught.value!r}{caught.value}{caught.value.hint}"
    assert signer.proofs == []


def test_the_rhythm_of_rfc_8628(signer: HostileSigner, device: Callable[..., Any], hand: HandWatch):
    """slow_down adds five seconds, for good; a busy provider or a broken connection doubles the wait, or as it says."""
    answers = [
        Raw(status=400, pieces=(b'{"error":"slow_down"}',)),
        Raw(status=400, pieces=(b'{"error":"authorization_pending"}',)),
        Raw(hang_up="before"),
        Raw(status=429, headers={"retry-after": "40"}),
    ]
    signer.lies[TOKEN] = lambda answer: answers.pop(0) if answers else answer
    device(browser=Browser(enabled=False, timeout=600))
    assert hand.seconds == 1 + 6 + 6 + 12 + 40


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Raw(status=400, pieces=(b'{"error":"access_denied"}',)), Refused, "login-refused"),
        (Raw(status=400, pieces=(b'{"error":"expired_token"}',)), UnavailableError, "login-timeout"),
        (Raw(status=400, pieces=(b"?",)), Refused, "login-refused"),
        ({"token_type": "DPoP"}, AnswerError, "bad-answer"),
        ({"token_type": "DPoP", "access_token": "x" * 20_000}, AnswerError, "bad-answer"),
    ],
)
def test_a_grant_that_ends_badly(
    signer: HostileSigner, device: Callable[..., Any], answer: Any, kind: type[CertauthError], code: str
):
    """Denied, too late or without a token: nothing is sent to the signer."""
    signer.lies[TOKEN] = lambda _: answer
    with pytest.raises(kind) as caught:
        device()
    assert caught.value.code == code
    assert signer.proofs == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"verification_uri": "http://127.0.0.1/device"}, "wrong-issuer"),
        ({"verification_uri_complete": "javascript:alert(1)"}, "wrong-issuer"),
        ({"verification_uri": None}, "bad-answer"),
        ({"user_code": None}, "bad-answer"),
        ({"device_code": None}, "bad-answer"),
        ({"expires_in": None}, "bad-answer"),
        ({"interval": -5}, "bad-answer"),
    ],
)
def test_a_grant_begun_wrongly(signer: HostileSigner, device: Callable[..., Any], change: dict[str, Any], code: str):
    """A page that is not https is not shown; an answer without its parts is none."""
    signer.lies[BEGIN] = lambda answer: answer | change
    said: list[str] = []
    with pytest.raises(AnswerError) as caught:
        device(tell=said.append)
    assert caught.value.code == code
    assert said == []


def test_a_grant_that_is_not_begun(signer: HostileSigner, device: Callable[..., Any]):
    """A provider that refuses the client, or has no such endpoint."""
    signer.lies[BEGIN] = lambda _: Raw(status=401, pieces=(b'{"error":"invalid_client","error_description":"who?"}',))
    with pytest.raises(Refused) as caught:
        device()
    assert caught.value.message.endswith(": who?")
    signer.lies = {
        "/idp/.well-known/openid-configuration": lambda answer: {
            name: value for name, value in answer.items() if not name.startswith("device")
        }
    }
    with pytest.raises(AnswerError) as missing:
        device()
    assert missing.value.code == "flow-not-offered"


def test_a_usual_interval_and_a_browser_command(signer: HostileSigner, log_me_in: LogIn, device: Callable[..., Any]):
    """Without an interval five seconds are usual; when the browser command ended, the first question is asked at once."""
    signer.lies[BEGIN] = lambda answer: (
        {name: value for name, value in answer.items() if name != "interval"}
        | {"verification_uri_complete": f"{signer.url}/idp/device?user_code=WDJB-MJHT"}
    )
    visit = f"{sys.executable} -m tests.simulator.hostile_signer"
    log_me_in(method=Method.DEVICE, browser=Browser(command=visit, timeout=60))
    assert len(forms(signer, TOKEN)) == 1
    assert any(path == "/idp/device?user_code=WDJB-MJHT" for _, path, _, _ in signer.seen)


def test_no_page_of_the_grant_shows_the_device_code(signer: HostileSigner, device: Callable[..., Any]):
    """The device code is the client's secret; the user reads only the user code."""
    said: list[str] = []
    device(tell=said.append)
    assert forms(signer, TOKEN)[0]["device_code"] not in "".join(said)
    assert forms(signer, TOKEN)[0]["code_verifier"] not in "".join(said)
