"""Decisions are the engine's, in words and by code; giving up is not a decision."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from certauth.errors import UnavailableError
from certauth.tokens import authorizer
from certauth.tokens.authorizer import Allowed, FailedCheck, NotAllowed
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode
from certauth.tokens.conditions import Operations, Services, Uses, Window
from certauth.tokens.datalog import QUERY_HEAD, Binary, Check, Date, Predicate, Query, Variable
from certauth.tokens.vocabulary import Right
from tests.certauth.tokens.kit import ALICE, BOB, EVE, NOW, Facility, ask, codes, fact, with_block

START = int(NOW.timestamp())
RIGHTS = (Right("files", "read", "/data/"), Right("files", "write", "/data/log"), Right("jobs", "submit", "/"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"path": "/data/"}, []),
        ({"path": "/data/x/y/z"}, []),
        ({"path": "/data"}, ["right-not-held"]),
        ({"path": "/database"}, ["right-not-held"]),
        ({"operation": "write", "path": "/data/log"}, []),
        ({"operation": "write", "path": "/data/log/x"}, ["right-not-held"]),
        ({"operation": "write"}, ["right-not-held"]),
        ({"operation": "submit", "path": "/data/log"}, ["right-not-held"]),  # a right at another service
        ({"service": "jobs", "operation": "submit", "path": "/anything"}, []),
        ({"service": "jobs"}, ["right-not-held"]),
        ({"service": "other"}, ["token-audience", "right-not-held"]),
        ({"peer_fingerprint": BOB}, ["token-binding"]),
        ({"now": NOW - timedelta(seconds=61)}, ["token-not-yet-valid"]),
        ({"now": NOW - timedelta(seconds=60)}, []),
        ({"now": NOW + timedelta(minutes=60, seconds=-1)}, []),
        ({"now": NOW + timedelta(minutes=60)}, ["token-expired"]),
        ({"peer_fingerprint": EVE, "path": "/etc/passwd"}, ["token-binding", "right-not-held"]),
        ({"client_address": None}, []),
        ({"client_address": "not an address"}, []),
        ({"client_address": "2001:db8::1"}, []),
        ({"project": "p-17"}, []),
    ],
    ids=range(22),
)
def test_decisions(als: Facility, changes: dict[str, Any], expected: list[str]) -> None:
    """Rights, window, audience and certificate decide, and every one that fails is named."""
    assert codes(als.ask(als.mint(audience=("files", "jobs"), rights=RIGHTS), **changes)) == expected


def test_a_right_at_a_service_works_in_the_audience_only(als: Facility) -> None:
    """The rights name the service, and so does the audience, or a narrowing of it: both must."""
    submit = {"service": "jobs", "operation": "submit", "path": "/a"}
    both = als.mint(audience=("files", "jobs"), rights=RIGHTS)
    assert codes(als.ask(both, **submit)) == []
    assert codes(als.ask(als.mint(audience=("files",), rights=RIGHTS), **submit)) == ["token-audience"]
    assert codes(als.ask(with_block(both, Block(3, checks=(Services(("files",)),))), **submit)) == ["token-audience"]


def test_refusals_name_the_block_and_say_why(als: Facility) -> None:
    """A narrowing that refuses is named by its number and in words."""
    token = with_block(als.mint(), Block(3, checks=(Operations(("list",)),)))
    (failed,) = getattr(als.ask(token), "failed")  # noqa: B009 - the other outcome has none
    assert failed == FailedCheck(1, "token-operation", "the token's narrowing 1 serves only to list, not to read")


def test_a_foreign_check_that_fails_is_said_to_be_foreign(als: Facility) -> None:
    """A check we do not recognise decides like any other, and is named if nothing else explains the refusal."""
    x = Variable("x")
    strange = Check((Query(QUERY_HEAD, (fact("path", x),), ((x, "/b", Binary.SUFFIX),), ()),))
    token = als.verify(with_block(als.mint(), Block(3, checks=(strange,))))
    assert codes(ask(token, path="/data/a/b")) == []
    assert codes(ask(token)) == ["token-check"]
    assert codes(ask(token, path="/elsewhere")) == ["right-not-held"]


@pytest.mark.parametrize(
    "limits",
    [
        (Variable("x"), 5, Binary.LESS_THAN),  # a string against a number: the engine stops with an error
        (Variable("x"), Variable("y"), Binary.EQUAL),
        (Binary.AND,),  # nothing to take from the stack
        (Variable("x"), Variable("x")),  # something left on it
    ],
    ids=range(4),
)
def test_a_check_that_cannot_be_evaluated_refuses(als: Facility, limits: tuple[Any, ...]) -> None:
    """A check with a type error or a broken expression refuses; it neither permits nor crashes nor counts as giving up."""
    check = Check((Query(QUERY_HEAD, (fact("path", Variable("x")),), (limits,), ()),))
    assert codes(als.ask(with_block(als.mint(), Block(3, checks=(check,))))) == ["token-check"]


def test_a_refusal_is_always_explained(als: Facility) -> None:
    """When the engine refuses and no condition of ours explains it, that is what is said."""
    token = als.verify(als.mint())
    assert [failed.code for failed in authorizer._explain(token, _request("/data/x"))] == ["token-check"]


def _request(path: str) -> authorizer.Request:
    return authorizer.Request(now=NOW, service="files", operation="read", path=path, peer_fingerprint=ALICE)


def test_giving_up_is_unavailability(als: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine out of time raises ``decision-limit`` with a time to retry, for the same request that is otherwise allowed."""
    data = als.mint()
    assert codes(als.ask(data)) == []
    token = als.verify(data)  # anew, for an answer that was given is remembered
    hasty = authorizer._limits()
    hasty.max_time = timedelta(0)
    monkeypatch.setattr(authorizer, "_LIMITS", hasty)
    with pytest.raises(UnavailableError) as caught:
        ask(token)
    assert (caught.value.code, caught.value.retry_after) == ("decision-limit", 1)
    monkeypatch.undo()
    assert codes(ask(token)) == [], "that it gave up once is not remembered"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one each time the engine is asked."""
    times: list[None] = []
    real = authorizer._time_fact

    def counting(seconds: int) -> object:
        times.append(None)
        return real(seconds)

    monkeypatch.setattr(authorizer, "_time_fact", counting)
    return times


def test_the_same_question_is_asked_once(als: Facility, asked: list[None]) -> None:
    """For the very same facts, and until a window of the token opens or closes, the engine's word is remembered."""
    token = als.verify(als.mint())
    for seconds in (0, 0.4, 7, 1800):
        assert codes(ask(token, now=NOW + timedelta(seconds=seconds))) == []
        assert codes(ask(token, now=NOW + timedelta(seconds=seconds), path="/elsewhere")) == ["right-not-held"]
    assert len(asked) == 2


def test_every_moment_that_a_window_names_is_another_question(als: Facility) -> None:
    """What is remembered says at every second what the engine would say, before, between and after all windows."""
    windows = (Window(START + 10, START + 40), Window(None, START + 30), Window(START + 20, START + 50))
    token = als.verify(with_block(als.mint(), Block(3, checks=windows)))
    for second in (*range(8, 55), *reversed(range(8, 55))):
        allowed = codes(ask(token, now=NOW + timedelta(seconds=second))) == []
        assert allowed is (20 <= second < 30), second


def test_a_check_that_only_the_engine_understands_is_asked_about_each_second(als: Facility, asked: list[None]) -> None:
    """It may compare the time with anything."""
    t = Variable("t")
    strange = Check((Query(QUERY_HEAD, (fact("time", t),), ((t, Date(START + 2), Binary.LESS_OR_EQUAL),), ()),))
    token = als.verify(with_block(als.mint(), Block(3, checks=(strange,))))
    assert [codes(ask(token, now=NOW + timedelta(seconds=second))) for second in range(4)] == [[], [], [], ["token-check"]]
    assert len(asked) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"now": NOW - timedelta(minutes=2)},
        {"now": NOW + timedelta(hours=1)},
        {"service": "other"},
        {"operation": "write"},
        {"path": "/data/run7/b"},
        {"peer_fingerprint": BOB},
        {"client_address": "10.1.2.4"},
        {"client_address": None},
        {"project": "p-17"},
        {"uses": {"0123456789abcdef": 1}},
        {"uses": None},
        {"body_sha256": ALICE},
    ],
)
def test_any_other_question_is_asked(als: Facility, asked: list[None], changes: dict[str, Any]) -> None:
    """Whatever differs, the engine is asked about it; and about another token, though it says the same."""
    narrow = with_block(als.mint(), Block(3, checks=(Uses("0123456789abcdef", 3),)))
    usual = {"uses": {"0123456789abcdef": 0}}
    token = als.verify(narrow)
    ask(token, **usual)
    ask(token, **{**usual, **changes})
    assert len(asked) == 2
    ask(als.verify(narrow), **usual)
    assert len(asked) == 3


def test_long_paths_are_not_remembered(als: Facility, asked: list[None]) -> None:
    """A client that asks for long paths does not fill the memory."""
    token = als.verify(als.mint())
    for _ in range(2):
        assert codes(ask(token, path="/data/" + "x" * 507)) == []
    assert len(asked) == 2


def test_counts_and_bodies_of_another_form_of_check(als: Facility) -> None:
    """What the door does not state is not there, also for a check in another form than ours."""
    query = Query(QUERY_HEAD, (Predicate("uses", ("0123456789abcdef", Variable("n"))),), (), ())
    token = als.verify(with_block(als.mint(), Block(3, checks=(Check((query,)),))))
    assert codes(ask(token, uses={"0123456789abcdef": 0})) == ["token-check"]


def test_limits_are_generous() -> None:
    """The engine's own limit of one millisecond, which a busy machine exceeds for the simplest token, is not ours."""
    assert timedelta(milliseconds=100) <= authorizer._LIMITS.max_time


def test_outcomes_have_no_truth_value() -> None:
    """Neither outcome can be used as a boolean by mistake."""
    for outcome in (Allowed(), NotAllowed((FailedCheck(0, "a", "b"),))):
        with pytest.raises(TypeError):
            bool(outcome)


def test_one_time_only(als: Facility) -> None:
    """Requests do not leave their time behind: after one in time, the next out of time is refused."""
    token = als.verify(als.mint())
    for _ in range(3):
        assert codes(ask(token)) == []
        assert codes(ask(token, now=NOW + timedelta(hours=2))) == ["token-expired"]


def test_hostile_requests_stay_strings(als: Facility) -> None:
    """A path full of Datalog is a path."""
    token = als.verify(als.mint(rights=(Right("files", "read", "/"),)))
    for path in ('/"); allow if true; //', "/{v}", "/\x00", "/$p", "/\\", "/" + "x" * 5000):
        assert codes(ask(token, path=path)) == []
        assert codes(ask(token, path=path, peer_fingerprint='"; allow if true; //')) == ["token-binding"]


def test_odd_rights_of_a_trusted_issuer_are_harmless(als: Facility) -> None:
    """Rights that our own mint would not write match no canonical path, and break nothing."""
    block = als.spec(rights=()).block()
    odd = (fact("right", "files", "read", ""), fact("right", "files", "read", "/data/../"), fact("right", "", "", ""))
    token = als.verify(als.sign(block._replace(facts=(*block.facts, *odd))))
    assert codes(ask(token)) == ["right-not-held"]


def test_sets_of_services(als: Facility) -> None:
    """A token for several services works at each, and its blocks are as decoded."""
    token = als.mint(audience=("files", "jobs"), rights=RIGHTS)
    assert decode(token).contents[0].checks[1] == als.verify(token).blocks[0].checks[1]
    assert codes(als.ask(token)) == []
