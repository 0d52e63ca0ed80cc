"""What `updated why` says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.core.gate import Hold
from updated.core.why import SourceNote, WhyFacts, why

HELD = Hold("window", "Version 1.3.0 from ota waits for the install window; it opens on Mon 02:00 (in 7 h).")
FOLDER = SourceNote("folder", configured=True)
OTA = SourceNote("ota", configured=True, last="no update candidate available", next_look=5 * 3600)


@pytest.mark.parametrize(
    ("facts", "sentences"),
    [
        (
            WhyFacts("idle", "Waiting."),
            ["No automatic source is configured: updates begin with `updated install`."],
        ),
        (WhyFacts("idle", "Waiting.", sources=(FOLDER,)), ["folder: nothing is offered."]),
        (
            WhyFacts("idle", "Waiting.", sources=(SourceNote("usb", configured=False), OTA)),
            ["ota: no update candidate available; the next look is in 5 h."],
        ),
        (
            WhyFacts("idle", "Waiting.", holds=(HELD,), sources=(FOLDER, OTA)),
            [
                HELD.text,
                "folder: nothing is offered.",
                "ota: no update candidate available; the next look is in 5 h.",
            ],
        ),
        (
            WhyFacts("idle", "", sources=(SourceNote("ota", configured=True, next_look=30),)),
            ["ota: not looked at yet; the next look is in 30 s."],
        ),
        (
            WhyFacts(
                "idle",
                "",
                sources=(SourceNote("usb", True, refused=(("/media/a.raucb", "Compatible mismatch."),)),),
            ),
            ["/media/a.raucb from usb is not installed: Compatible mismatch."],
        ),
        (
            WhyFacts("idle", "", judged=False, sources=(FOLDER,)),
            [
                "The running system is not known to be healthy yet: automatic sources wait for that.",
                "folder: nothing is offered.",
            ],
        ),
        (
            WhyFacts("idle", "", judged=False, given_up=True, sources=(FOLDER,)),
            [
                "The running system was given up: nothing is installed before the reboot.",
                "folder: nothing is offered.",
            ],
        ),
        (
            WhyFacts("idle", "", sources=(FOLDER,), quarantine=(("1.2.0", "it fell back"),)),
            [
                "folder: nothing is offered.",
                "Version 1.2.0 is quarantined: it fell back; installed by hand it is tried again.",
            ],
        ),
        (
            WhyFacts("install", "Installing version 1.3.0 to rootfs.1.", paused=True, sources=(OTA,)),
            [
                "The install is paused; `updated resume` lets it go on.",
                "Installing version 1.3.0 to rootfs.1.",
            ],
        ),
        (
            WhyFacts("confirming", "Running version 1.3.0.", judged=False, sources=(OTA,)),
            [
                "Running version 1.3.0.",
                "Nothing is installed until it is confirmed: an install would overwrite the only way back.",
            ],
        ),
        (
            WhyFacts("reboot-pending", "It starts with the next reboot.", sources=(FOLDER,)),
            [
                "It starts with the next reboot.",
                'The agent does not reboot by itself: reboot.when is "manual" in updated.toml.',
                "folder: nothing is offered.",
            ],
        ),
        (
            WhyFacts("reboot-pending", "It starts.", reboots=True, holds=(HELD,), sources=(FOLDER,)),
            ["It starts.", HELD.text, "folder: nothing is offered."],
        ),
    ],
)
def test_sentences(facts: WhyFacts, sentences: list[str]) -> None:
    assert list(why(facts)) == sentences


def test_many_of_a_kind_are_counted() -> None:
    refused = tuple((f"{n}.raucb", "Compatible mismatch") for n in range(50))
    quarantine = tuple((str(n), "bad") for n in range(200))
    told = why(
        WhyFacts("idle", "", sources=(SourceNote("usb", True, refused=refused),), quarantine=quarantine)
    )
    assert "40 more from usb are not installed." in told
    assert "190 more bundles are quarantined." in told
    assert len(told) == 22


@given(
    st.sampled_from(["idle", "discover", "verify", "install", "reboot-pending", "confirming"]),
    st.builds(
        SourceNote,
        st.just("usb"),
        st.booleans(),
        st.text(),
        st.none() | st.floats(0, 1e6),
        st.lists(st.tuples(st.text(), st.text())).map(tuple),
    ),
    st.booleans(),
    st.booleans(),
)
def test_there_is_always_an_answer_and_each_is_one_line(
    state: str, source: SourceNote, judged: bool, paused: bool
) -> None:
    told = why(WhyFacts(state, "A sentence.", paused=paused, judged=judged, sources=(source,)))
    assert told
    assert all(sentence.isprintable() and sentence.endswith(".") for sentence in told)
