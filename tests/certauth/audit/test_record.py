"""Records: exact bytes, and nothing but what the schema says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.audit import commitments, record
from certauth.audit.record import MAX_ENTRY, Commitment, commit, decode, encode, open_commitment
from certauth.audit.schema import KINDS
from certauth.errors import LogError
from certauth.names import Principal
from tests.certauth.audit.making import (
    CERTIFICATE,
    DENIED,
    ENROLLED,
    EVENTS,
    ISSUER_ADDED,
    KEY_ADDED,
    KEY_CHANGED,
    NOW,
    ORIGIN,
    REVOKED,
    SOURCE,
    STARTED,
    SUBJECT,
    TOKEN,
    Clamp,
    entry,
    mutations,
)

SALT = b"0123456789abcdef"


def encoded(event: record.Event, **changes: object) -> bytes:
    """The bytes of an event, with some of the common members replaced."""
    arguments: dict[str, object] = {"origin": ORIGIN, "request_id": "request-1", "at": NOW, "source": SOURCE}
    return encode(event, **{**arguments, **changes})


def altered(body: dict[str, object], path: str, value: object) -> bytes:
    """A record's canonical bytes with the member at ``path`` replaced; ``...`` removes it."""
    copy = json.loads(json.dumps(body))
    *sections, last = path.split(".")
    place = copy
    for name in sections:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(copy, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_HEAD = '"log":"signer.demo.example/audit",'
_TAIL = '"rid":"request-1",'
_SRC = '"src":{"cfg":"' + "cf" * 32 + '","replica":"signer-1","ver":"0.1.0"},"ts":1772366400123456,"v":1}'
_CE, _5F = "ce" * 32, "5f" * 32
_SUB = SUBJECT.digest
_SPIFFE = "spiffe://demo.example/user/alice"

GOLDEN = [
    (
        CERTIFICATE,
        (
            f'{{"actor":{{"assurance":2,"iss":"https://login.demo.example","principal":"{_SPIFFE}","sub_c":"{_SUB}"}},'
            '"decision":{"clamp":{"asked":32400,"by":"profile user","got":28800,"what":"lifetime"},'
            '"ignored":["CN=bob","URI:spiffe://demo.example/user/bob"],"rule":"enrolled"},'
            f'"grant":{{"cert":"{_CE}","exp":1772395200,"nbf":1772366340,"profile":"user","serial":"1f2e3d","spki":"{_5F}"}},'
            f'"kind":"grant.cert",{_HEAD}"proof":{{"binding":"nonce","digest":"{"d1" * 32}","kind":"id_token"}},{_TAIL}{_SRC}'
        ),
    ),
    (
        TOKEN,
        (
            f'{{"actor":{{"peer":"{_CE}","principal":"{_SPIFFE}"}},"decision":{{"rule":"enrolled-rights"}},'
            f'"grant":{{"aud":["beamline-data"],"block":"{"ab" * 16}","delegations":1,"exp":1772370000,"form":"biscuit",'
            '"jti":"00112233445566778899aabbccddeeff","kid":"0a1b2c3d",'
            '"rights":[["beamline-data","read","/data/"],["beamline-data","write","/data/alice/"]],'
            f'"token":"{"70" * 32}"}},"kind":"grant.token",{_HEAD}{_TAIL}{_SRC}'
        ),
    ),
    (
        DENIED,
        (
            f'{{"actor":{{"iss":"https://login.demo.example","sub_c":"{_SUB}"}},'
            '"decision":{"code":"not-enrolled","operation":"certificate"},"kind":"grant.deny",'
            f'{_HEAD}"proof":{{}},{_TAIL}{_SRC}'
        ),
    ),
    (
        REVOKED,
        (
            f'{{"kind":"revoke",{_HEAD}"revoke":{{"before":1772366400,"by":"spiffe://demo.example/user/admin",'
            f'"kind":"principal","reason":"laptop lost","value":"{_SPIFFE}"}},{_TAIL}{_SRC}'
        ),
    ),
    (
        ENROLLED,
        (
            f'{{"enrolment":{{"action":"enrolled","by":"local","principal":"{_SPIFFE}","terms_c":["{_SUB}"],'
            f'"why":"new at the beamline"}},"kind":"enrolment.change",{_HEAD}{_TAIL}{_SRC}'
        ),
    ),
    (
        ISSUER_ADDED,
        (
            '{"issuer":{"by":"local","id":"campus","url":"https://login.demo.example","why":"contract with the campus"},'
            f'"kind":"issuer.add",{_HEAD}{_TAIL}{_SRC}'
        ),
    ),
    (STARTED, f'{{"kind":"service.start",{_HEAD}{_TAIL}"service":{{"cfg":"{"cf" * 32}","ver":"0.1.0"}},{_SRC}'),
    (
        KEY_ADDED,
        f'{{"key":{{"by":"local","kid":"0a1b2c3d","spki":"{_5F}","use":"token"}},"kind":"key.add",{_HEAD}{_TAIL}{_SRC}',
    ),
    (
        KEY_CHANGED,
        (
            '{"key":{"by":"local","changes":[{"kid":"0a1b2c3d","state":"tainted"},{"kid":"1b2c3d4e","state":"active"}],'
            f'"use":"token","why":"tape lost"}},"kind":"key.state",{_HEAD}{_TAIL}{_SRC}'
        ),
    ),
]


@pytest.mark.parametrize(("event", "text"), GOLDEN, ids=[event.kind for event, _ in GOLDEN])
def test_the_bytes_of_a_record_are_a_format(event: record.Event, text: str) -> None:
    """Each kind has exactly these bytes; changing them means a new version, since old logs stay as they are."""
    assert encoded(event).decode() == text
    assert decode(encoded(event)) == json.loads(text)


def test_there_is_a_golden_record_of_every_kind() -> None:
    """No kind is without an example, and every event type has a kind of its own."""
    assert {event.kind for event, _ in GOLDEN} == set(KINDS) == {event.kind for event in EVENTS}
    assert len(EVENTS) == len(KINDS)


TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=40)
HASH = st.binary(min_size=32, max_size=32).map(bytes.hex)
TIME = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
PRINCIPAL = st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True).filter(lambda text: ".." not in text)
CERTIFICATES = st.builds(
    record.CertificateGranted,
    principal=PRINCIPAL.map(lambda name: Principal.parse(f"spiffe://demo.example/user/{name}")),
    issuer=TEXT,
    subject=st.builds(commit, st.just("subject"), TEXT, salt=st.binary(min_size=16, max_size=16)),
    assurance=st.integers(0, 4),
    proof=st.sampled_from(["id_token", "workload", "certificate"]),
    binding=st.just("nonce"),
    proof_digest=HASH,
    rule=TEXT,
    clamp=st.none() | st.builds(Clamp, by=TEXT),
    ignored=st.lists(st.text(max_size=400), max_size=40).map(tuple),
    serial=st.integers(1, 2**159),
    certificate=HASH,
    spki=HASH,
    not_before=TIME,
    not_after=TIME,
    profile=st.sampled_from(["user", "agent", "service"]),
)
TOKENS = st.builds(
    record.TokenGranted,
    principal=st.just(TOKEN.principal),
    peer=HASH,
    rule=TEXT,
    clamp=st.none() | st.builds(Clamp, what=st.just("lifetime")),
    jti=st.binary(min_size=16, max_size=16).map(bytes.hex),
    kid=st.binary(min_size=4, max_size=4).map(bytes.hex),
    audience=st.lists(TEXT, max_size=5).map(tuple),
    rights=st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=10).map(tuple),
    expires_at=TIME,
    block=st.binary(min_size=16, max_size=16).map(bytes.hex),
    token=HASH,
    form=st.sampled_from(["biscuit", "jwt"]),
    delegations=st.integers(0, 4),
)


@settings(max_examples=200)
@given(st.one_of(CERTIFICATES, TOKENS), TIME)
def test_records_are_rfc_8785_and_read_back(event: record.Event, at: datetime) -> None:
    """For any event the bytes are what an independent RFC 8785 encoder makes of the members, and decoding finds those."""
    data = encoded(event, at=at)
    assert data == rfc8785.dumps(json.loads(data))
    body = decode(data)
    assert body == json.loads(data)
    assert body["ts"] == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_every_altered_byte_either_fails_to_decode_or_is_other_bytes_of_a_record() -> None:
    """No two spellings decode to the same record: whatever decodes, encodes to exactly the bytes it came from."""
    for index in range(len(EVENTS)):
        for data in mutations(entry(index)):
            try:
                body = decode(data)
            except LogError:
                continue
            assert rfc8785.dumps(body) == data


@pytest.mark.parametrize(
    ("event", "path", "value"),
    [
        (CERTIFICATE, "v", 2),
        (CERTIFICATE, "v", True),
        (CERTIFICATE, "v", ...),
        (CERTIFICATE, "more", 1),
        (CERTIFICATE, "log", "a b"),
        (CERTIFICATE, "log", ...),
        (CERTIFICATE, "rid", ""),
        (CERTIFICATE, "rid", "a\nb"),
        (CERTIFICATE, "ts", -1),
        (CERTIFICATE, "ts", 1.5),
        (CERTIFICATE, "ts", 2**53),
        (CERTIFICATE, "ts", True),
        (CERTIFICATE, "src", None),
        (CERTIFICATE, "src.cfg", "CF" * 32),
        (CERTIFICATE, "actor", []),
        (CERTIFICATE, "actor.principal", "alice"),
        (CERTIFICATE, "actor.principal", "spiffe://demo.example/user/../admin"),
        (CERTIFICATE, "actor.principal", 1),
        (CERTIFICATE, "actor.iss", "x" * 513),
        (CERTIFICATE, "actor.iss", "a\x1b[2Jb"),
        (CERTIFICATE, "actor.sub", "248289761001"),
        (CERTIFICATE, "actor.sub_c", ...),
        (CERTIFICATE, "actor.sub_c", "short"),
        (CERTIFICATE, "decision.clamp", None),
        (CERTIFICATE, "decision.clamp.got", "8h"),
        (CERTIFICATE, "decision.ignored", "CN=bob"),
        (CERTIFICATE, "decision.ignored", [1]),
        (CERTIFICATE, "grant.serial", "0"),
        (CERTIFICATE, "grant.serial", "1F"),
        (CERTIFICATE, "grant.serial", "1" * 41),
        (TOKEN, "grant.rights", [["service", "read"]]),
        (TOKEN, "grant.rights", [["service", "read", 1]]),
        (TOKEN, "grant.rights", ["abc"]),
        (TOKEN, "grant.delegable", 1),
        (TOKEN, "grant.kid", "0a1b2c3"),
        (REVOKED, "revoke.kind", "everything"),
        (REVOKED, "revoke.kind", 1),
        (REVOKED, "revoke.before", None),
        (CERTIFICATE, "decision.why", ""),
        (DENIED, "decision.rule", "a\nb"),
        (DENIED, "proof.kind", "word of mouth"),
        (DENIED, "proof.binding", "No Code"),
        (ISSUER_ADDED, "issuer.why", ...),
        (ISSUER_ADDED, "issuer.secret", "x"),
        (KEY_ADDED, "key.spki", "5f"),
        (KEY_ADDED, "key.why", ""),
        (KEY_CHANGED, "key.changes", [{"kid": "0a1b2c3d"}]),
        (KEY_CHANGED, "key.changes", {"0a1b2c3d": "tainted"}),
        (KEY_CHANGED, "key.why", ...),
    ],
)
def test_a_record_that_is_not_as_specified_is_refused(event: record.Event, path: str, value: object) -> None:
    """Members missing, surplus, of another type, out of range or in clear where a commitment belongs: malformed."""
    with pytest.raises(LogError, match="record-malformed"):
        decode(altered(decode(encoded(event)), path, value))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "record-malformed"),
        (b"\xff", "record-malformed"),
        (b"[]", "record-malformed"),
        (b"[" * 60_000, "record-malformed"),
        (b'{"a":' * 12_000 + b"1" + b"}" * 12_000, "record-malformed"),
        (b" " * (MAX_ENTRY + 1), "record-malformed"),
        (b"{}", "record-unknown"),
        (b'{"kind":1}', "record-unknown"),
        (b'{"kind":"grant.cert2"}', "record-unknown"),
        (b" " + entry(0), "record-malformed"),
        (entry(0).replace(b'"v":1', b'"v":1,"v":1'), "record-malformed"),
        (entry(0).replace(b"signer-1", b"signer-\\u0031"), "record-malformed"),
    ],
)
def test_what_is_not_a_record_is_refused(data: bytes, code: str) -> None:
    """Other JSON, unknown kinds, duplicate members and loose spelling."""
    with pytest.raises(LogError, match=code):
        decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("kind"), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())), st.text(max_size=50))
def test_decoding_raises_log_errors_only(data: bytes, text: str) -> None:
    """Whatever the bytes, the answer is a LogError."""
    with pytest.raises(LogError):
        decode(data)
    with pytest.raises(LogError):
        open_commitment(SUBJECT.digest, text)


@given(st.sampled_from(EVENTS), st.sampled_from(["v", "ts", "src", "actor", "grant", "decision", "revoke", "key", "log"]), JSON)
def test_decoding_a_record_with_any_other_member_raises_log_errors_only(event: record.Event, path: str, value: object) -> None:
    """Records with one section replaced by arbitrary JSON decode to themselves or raise LogError."""
    data = json.dumps({**decode(encoded(event)), path: value}, sort_keys=True, separators=(",", ":")).encode()
    try:
        body = decode(data)
    except LogError:
        return
    assert rfc8785.dumps(body) == data


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (replace(CERTIFICATE, proof_digest="d1"), {}),
        (replace(CERTIFICATE, serial=0), {}),
        (replace(CERTIFICATE, serial=-1), {}),
        (replace(CERTIFICATE, not_after=datetime(2026, 3, 1)), {}),  # noqa: DTZ001 - the mistake under test
        (replace(CERTIFICATE, rule="a\nb"), {}),
        (replace(REVOKED, reason=""), {}),
        (replace(REVOKED, reason="\ud800"), {}),
        (STARTED, {"origin": "a b"}),
        (STARTED, {"request_id": "a b"}),
        (STARTED, {"at": datetime(2026, 3, 1)}),  # noqa: DTZ001 - the mistake under test
        (STARTED, {"at": datetime(1969, 12, 31, tzinfo=UTC)}),
        (STARTED, {"source": replace(SOURCE, config="cf")}),
    ],
)
def test_what_could_not_be_read_is_not_written(event: record.Event, changes: dict[str, object]) -> None:
    """Writing obeys the same schema as reading."""
    with pytest.raises(LogError, match="record-malformed"):
        encoded(event, **changes)


def test_a_record_too_large_for_the_log_is_refused() -> None:
    """65,535 bytes is the limit of a tlog-tiles entry; more is an error before anything is granted."""
    many = replace(TOKEN, rights=tuple(("service", "read", f"/data/{index:05d}") for index in range(3000)))
    with pytest.raises(LogError, match="record-too-large"):
        encoded(many)


def test_the_limit_of_an_entry_is_exact() -> None:
    """65,535 bytes are written and read; one more is neither."""
    fill = [("s", "r", "x" * 200)] * 300
    room = MAX_ENTRY - len(encoded(replace(TOKEN, rights=(*fill, ("s", "r", "x")))))
    fill += [("s", "r", "x" * 200)] * (room // 212)
    room = MAX_ENTRY - len(encoded(replace(TOKEN, rights=(*fill, ("s", "r", "x")))))
    longest = encoded(replace(TOKEN, rights=(*fill, ("s", "r", "x" * (1 + room)))))
    assert len(longest) == MAX_ENTRY
    assert decode(longest)["kind"] == "grant.token"
    with pytest.raises(LogError, match="record-too-large"):
        encoded(replace(TOKEN, rights=(*fill, ("s", "r", "x" * (2 + room)))))
    with pytest.raises(LogError, match="record-malformed"):
        decode(longest.replace(b'"s","r"', b'"s","rr"', 1))


def test_names_from_a_hostile_request_are_recorded_harmlessly() -> None:
    """Control characters are escaped, length and number bounded; the record is still written and still small."""
    hostile = ("CN=\x1b[2J\n", "", "URI:\ud800", "CN=Bjørn", *("CN=" + "\U0001f600" * 5000 for _ in range(200)))
    data = encoded(replace(CERTIFICATE, ignored=hostile))
    shown = decode(data)["decision"]["ignored"]
    assert shown[:4] == ["CN=\\x1b[2J\\n", "(empty)", "URI:\\ud800", "CN=Bjørn"]
    assert len(shown) == 33
    assert shown[-1] == "(172 more)"
    assert len(data) < MAX_ENTRY
    few = tuple(f"CN={number}" for number in range(32))
    assert decode(encoded(replace(CERTIFICATE, ignored=few)))["decision"]["ignored"] == list(few)


def test_a_key_is_added_for_a_reason_if_there_is_one() -> None:
    """Those that come with the facility need none; whoever makes another says why."""
    assert "why" not in decode(encoded(KEY_ADDED))["key"]
    assert decode(encoded(replace(KEY_ADDED, why="yearly change")))["key"]["why"] == "yearly change"


def test_a_certificate_that_an_administrator_makes_has_a_reason() -> None:
    """It is beside the rule; a login's certificate has none."""
    assert "why" not in decode(encoded(CERTIFICATE))["decision"]
    assert decode(encoded(replace(CERTIFICATE, why="new data service")))["decision"]["why"] == "new data service"


def test_a_refusal_says_of_proof_and_rule_what_a_grant_says() -> None:
    """The same members under the same names; an entry of before, which has none of them, is still read."""
    told = {"proof": "id_token", "binding": "nonce", "proof_digest": "d1" * 32, "rule": "enrolled"}
    denied, granted = decode(encoded(replace(DENIED, **told))), decode(encoded(CERTIFICATE))
    assert denied["proof"] == granted["proof"]
    assert denied["decision"]["rule"] == granted["decision"]["rule"]
    assert decode(encoded(DENIED))["decision"].keys() == {"operation", "code"}


def test_what_is_not_known_is_left_out() -> None:
    """A refusal before anything was verified says what was asked and why not, and names nobody."""
    body = decode(encoded(record.Denied(operation="token", code="malformed")))
    assert (body["actor"], body["proof"]) == ({}, {})
    whole = replace(DENIED, principal=TOKEN.principal, peer="ce" * 32, proof_digest="d1" * 32)
    body = decode(encoded(whole))
    assert body["actor"].keys() == {"principal", "iss", "sub_c", "peer"}
    assert "before" not in decode(encoded(replace(REVOKED, before=None)))["revoke"]


def test_personal_data_are_committed_to_and_not_written() -> None:
    """Subjects are in no record and in no repr; the events hand over the commitments whose disclosures can be kept aside."""
    for event in EVENTS:
        assert b"248289761001" not in encoded(event)
        assert "248289761001" not in repr(event)
        assert SUBJECT.disclosure not in repr(event)
    kept = {event.kind: [commitment.digest for commitment in event.commitments] for event in EVENTS}
    assert kept == {
        "grant.cert": [SUBJECT.digest],
        "grant.deny": [SUBJECT.digest],
        "enrolment.change": [SUBJECT.digest],
        "grant.token": [],
        "revoke": [],
        "service.start": [],
        "issuer.add": [],
        "key.add": [],
        "key.state": [],
    }
    assert record.Denied(operation="token", code="malformed").commitments == ()


def test_a_disclosure_opens_its_commitment_and_no_other() -> None:
    """What was committed to can be shown; with another salt, name or value the hash differs."""
    opened = open_commitment(SUBJECT.digest, SUBJECT.disclosure)
    assert (opened.name, opened.value) == ("subject", "248289761001")
    assert "248289761001" not in repr(opened)
    for other in (
        commit("subject", "248289761001", salt=SALT[::-1]),
        commit("subject", "248289761002", salt=SALT),
        commit("email", "248289761001", salt=SALT),
    ):
        with pytest.raises(LogError, match="commitment-mismatch"):
            open_commitment(SUBJECT.digest, other.disclosure)


def test_structured_values_can_be_committed_to() -> None:
    """The terms of an enrolment are one commitment."""
    terms = commit("terms", {"rights": [["data", "read", "/x/"]], "assurance": 2}, salt=SALT)
    assert open_commitment(terms.digest, terms.disclosure).value == {"rights": [["data", "read", "/x/"]], "assurance": 2}


def test_commitments_are_sd_jwt_disclosures() -> None:
    """The example disclosure of RFC 9901 §4.2.1 opens the digest printed there (§4.2.3)."""
    disclosure = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
    opened = open_commitment("X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0", disclosure)
    assert (opened.name, opened.value) == ("family_name", "Möbius")


@pytest.mark.parametrize("text", ["", "é", "====", "bnVsbA", "WyJhIl0", "WzEsImIiLDJd", "W10", "AA"])
def test_what_is_not_a_disclosure_is_refused(text: str) -> None:
    """Even under its own digest, a disclosure is salt, name and value."""
    digest = commitments._digest(text)
    with pytest.raises(LogError, match="commitment-mismatch"):
        open_commitment(digest, text)


def test_a_disclosure_that_is_not_even_text_is_refused() -> None:
    """A lone surrogate, which JSON can smuggle in, is a mismatch like any other."""
    with pytest.raises(LogError, match="commitment-mismatch"):
        open_commitment(SUBJECT.digest, "\ud800")


def test_a_commitment_needs_its_salt_and_a_canonical_value() -> None:
    """Without 16 bytes of salt anyone could confirm a guess; without one spelling the hash would mean nothing."""
    with pytest.raises(LogError, match="bad-salt"):
        commit("subject", "alice", salt=b"")
    for value in ("\ud800", 2**60):
        with pytest.raises(LogError, match="record-malformed"):
            commit("subject", value, salt=SALT)
    assert isinstance(commit("subject", None, salt=SALT), Commitment)
