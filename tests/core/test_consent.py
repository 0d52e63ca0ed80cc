"""Questions, answers and their ends; holds of applications."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.consent import Moment, Question, Rules, answer, consider, elapsed, stands
from updated.core.duration import duration
from updated.core.gate import Hold, Subject
from updated.core.holds import MAX_HOLDS, Holds, describe
from updated.errors import Refused

BUNDLE = Subject("ota", "1.3.0", "aa")
OTHER = Subject("usb", "1.4.0", "bb")
WAIT = Rules(expires=1000, default="wait")
SILENCE = Rules(expires=1000, default="allow")


def at(boottime: float, boot: str = "one", wall: float | None = 0) -> Moment:
    """`wall`: seconds since the start of boot "one", as the clock says; None: not set."""
    return Moment(boot, boottime, None if wall is None else 1_800_000_000 + (wall or boottime))


def ask(
    last: Question | None, rules: Rules, now: Moment, subject: Subject = BUNDLE
) -> tuple[Question, Hold | None]:
    return consider("install", subject, last, rules, now)


def test_a_question_waits_for_ever() -> None:
    question, hold = ask(None, WAIT, at(10))
    assert hold == Hold("consent", "Version 1.3.0 from ota waits until somebody at the device agrees.")
    assert ask(question, WAIT, at(500)) == (question, hold)
    later, hold_later = ask(question, WAIT, at(1010))
    assert (later.asked, hold_later) == (at(1010), hold)  # asked anew
    assert ask(later, WAIT, at(10_000_000))[1] == hold


def test_silence_is_taken_for_agreed_where_it_is_configured() -> None:
    question, hold = ask(None, SILENCE, at(10))
    assert hold == Hold(
        "consent", "Version 1.3.0 from ota waits for somebody to agree, 17 min at most.", 1000
    )
    assert ask(question, SILENCE, at(1009))[1] is not None
    assert ask(question, SILENCE, at(1010)) == (question, None)
    assert ask(question, SILENCE, at(99999)) == (question, None)


@pytest.mark.parametrize("rules", [WAIT, SILENCE])
def test_an_agreement_gets_stale(rules: Rules) -> None:
    question = answer(ask(None, rules, at(10))[0], allow=True, now=at(600))
    assert ask(question, rules, at(1599)) == (question, None)
    again, hold = ask(question, rules, at(1600))
    assert hold is not None
    assert (again.reply, again.asked) == ("", at(1600))


@pytest.mark.parametrize("rules", [WAIT, SILENCE])
def test_a_denial_holds_until_it_is_stale_then_it_is_asked_again(rules: Rules) -> None:
    question = answer(ask(None, rules, at(10))[0], allow=False, now=at(600))
    text = "Version 1.3.0 from ota was declined; it is asked about again in 7 min."
    assert ask(question, rules, at(1200)) == (question, Hold("consent", text, 400))
    again, hold = ask(question, rules, at(1600))
    assert hold is not None
    assert "agree" in hold.text
    assert again.reply == ""


@pytest.mark.parametrize("allow", [True, False])
def test_another_bundle_is_another_question(allow: bool) -> None:
    question = answer(ask(None, SILENCE, at(10))[0], allow=allow, now=at(20))
    other, hold = ask(question, SILENCE, at(30), OTHER)
    assert (other.manifest_hash, other.reply, other.asked) == ("bb", "", at(30))
    assert hold is not None
    same_version = replace(BUNDLE, manifest_hash="cc")
    assert ask(question, SILENCE, at(30), same_version)[1] is not None
    assert consider("reboot", BUNDLE, question, SILENCE, at(30))[1] is not None


def test_the_same_bundle_from_elsewhere_is_the_same_question() -> None:
    question = answer(ask(None, WAIT, at(10))[0], allow=True, now=at(20))
    assert ask(question, WAIT, at(30), replace(BUNDLE, source="usb"))[1] is None


def test_a_person_may_change_his_mind_until_the_answer_is_stale() -> None:
    question, _ = ask(None, WAIT, at(10))
    assert stands(question, WAIT, at(99999))
    question = answer(question, allow=False, now=at(20))
    assert stands(question, WAIT, at(1019))
    assert ask(answer(question, allow=True, now=at(30)), WAIT, at(40))[1] is None
    assert not stands(question, WAIT, at(1020))


@pytest.mark.parametrize(
    ("since", "now", "seconds"),
    [
        (at(100), at(130), 30),
        (at(100, wall=100), at(130, wall=10_000_000), 30),  # somebody has set the clock
        (at(100, wall=100), at(5, "two", wall=400), 300),
        (at(100, wall=100), at(50, "two", wall=90), 50),  # back: at least since the boot
        (at(100, wall=None), at(50, "two", wall=10_000_000), 50),  # nobody knows when it was asked
        (at(100, wall=100), at(50, "two", wall=None), 50),
    ],
)
def test_time_goes_on_over_a_reboot_and_not_by_a_clock_that_is_not_set(
    since: Moment, now: Moment, seconds: float
) -> None:
    assert elapsed(since, now) == seconds


def test_a_reboot_with_a_dead_clock_grants_nothing() -> None:
    question, _ = ask(None, SILENCE, at(10, wall=None))
    assert ask(question, SILENCE, at(20, "two", wall=1_000_000))[1] is not None
    allowed = answer(question, allow=True, now=at(20))
    assert ask(allowed, WAIT, at(20, "two", wall=None))[1] is None  # nor forgets


# Holds of applications


def test_a_hold_ends_by_itself() -> None:
    holds = Holds()
    holds.take("kiosk", "a sale is running", 600, ":1.7", now=100, longest=86400)
    held = holds.longest(100)
    assert held is not None
    assert describe(held, 100) == "kiosk holds it back (a sale is running), for 10 min at most"
    assert holds.longest(699.9) == held
    assert holds.longest(700) is None


def test_the_hold_that_ends_last_counts() -> None:
    holds = Holds()
    for seconds in (50, 200, 100):
        holds.take("app", "", seconds, ":1.7", now=0, longest=1000)
    held = holds.longest(0)
    assert held is not None
    assert held.until == 200
    holds.release(held.number, now=10)
    held = holds.longest(10)
    assert held is not None
    assert held.until == 100


@pytest.mark.parametrize("seconds", [0, -1, 1001, float("nan"), float("inf")])
def test_a_hold_has_a_longest(seconds: float) -> None:
    with pytest.raises(Refused, match="expected 1 to 1000 s") as refusal:
        Holds().take("app", "", seconds, ":1.7", now=0, longest=1000)
    assert refusal.value.rule == "hold"


def test_there_are_only_so_many_holds() -> None:
    holds = Holds()
    for _ in range(MAX_HOLDS):
        holds.take("app", "", 10, ":1.7", now=0, longest=1000)
    with pytest.raises(Refused, match="64 holds already"):
        holds.take("app", "", 10, ":1.8", now=9, longest=1000)
    assert holds.take("app", "", 10, ":1.8", now=10, longest=1000)  # the others have expired


def test_only_what_is_held_can_be_released() -> None:
    holds = Holds()
    number = holds.take("app", "", 10, ":1.7", now=0, longest=1000)
    for wrong in (0, number + 1, -number):
        with pytest.raises(Refused, match="There is no hold"):
            holds.release(wrong, now=0)
    with pytest.raises(Refused, match="There is no hold"):
        holds.release(number, now=10)


def test_who_leaves_the_bus_holds_nothing() -> None:
    holds = Holds()
    mine = holds.take("a", "", 10, ":1.7", now=0, longest=1000)
    holds.take("b", "", 20, ":1.8", now=0, longest=1000)
    assert holds.forget_owner(":1.8")
    assert not holds.forget_owner(":1.8")
    held = holds.longest(0)
    assert held is not None
    assert held.number == mine


def test_a_strangers_words_are_one_short_line() -> None:
    holds = Holds()
    holds.take("\x1b[2J\n", "x" * 100_000 + "\n", 10, ":1.7", now=0, longest=1000)
    held = holds.longest(0)
    assert held is not None
    text = describe(held, 0)
    assert text.startswith("[2J holds it back (xxx")
    assert text.isprintable()
    assert len(text) < 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.1, "1 s"),
        (60, "1 min"),
        (90, "90 s"),
        (91, "2 min"),
        (3600, "1 h"),
        (5400, "90 min"),
        (25200, "7 h"),
        (86400, "1 day"),
        (100_000, "28 h"),
        (130_000, "2 days"),
        (1e9, "11575 days"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e9))
def test_a_duration_is_never_told_too_short(seconds: float) -> None:
    count, unit = duration(seconds).split()
    told = int(count) * {"s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400}[unit]
    assert seconds <= told <= 2 * seconds + 1
