"""The clock, against a time that the test moves by hand."""

from __future__ import annotations

import pytest

from protloc_jax.telemetry.clock import Clock, words


class Hand:
    """A clock's time source, moved by the test."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def clock(hand: Hand, **options) -> Clock:
    return Clock(**{"total_steps": 100, "global_batch": 32, "now": hand, **options})


def test_compilation_is_not_throughput():
    hand = Hand()
    c = clock(hand)
    hand.time += 60
    assert "images_per_s" not in c.lap(1)
    c.begin(1)
    hand.time += 10
    lap = c.lap(11)
    assert lap["images_per_s"] == pytest.approx(32.0)
    assert lap["step_ms"] == pytest.approx(1000.0)
    assert lap["seconds"] == pytest.approx(70.0)


def test_pauses_count_for_the_time_left_but_not_for_the_speed():
    hand = Hand()
    c = clock(hand)
    c.begin(0)
    hand.time += 10
    with c.pausing():
        hand.time += 10
    lap = c.lap(10)
    assert lap["images_per_s"] == pytest.approx(32.0)
    assert lap["eta_s"] == pytest.approx(90 * 2.0)


def test_data_wait_is_a_share_of_the_lap_and_starts_anew():
    hand = Hand()
    c = clock(hand)
    c.begin(0)
    with c.waiting():
        hand.time += 2
    hand.time += 6
    assert c.lap(4)["data_wait_percent"] == pytest.approx(25.0)
    hand.time += 4
    assert c.lap(8)["data_wait_percent"] == 0


def test_mfu_needs_a_known_device():
    hand = Hand()
    for kind, shown in (("NVIDIA H200", True), ("cpu", False)):
        c = clock(hand, devices=2, flops_per_image=114e9, device_kind=kind)
        c.begin(0)
        hand.time += 1
        lap = c.lap(100)
        if shown:
            # 3,200 images/s on two devices, 114 GFLOP each, of 989.4 TFLOP/s.
            assert lap["mfu_percent"] == pytest.approx(100 * 1600 * 114e9 / 989.4e12)
            assert "of 989 TFLOP/s" in c.line(lap)
        else:
            assert "mfu_percent" not in lap
            assert "MFU" not in c.line(lap)
        assert lap["images_per_s_per_device"] == pytest.approx(1600)


def test_seconds_go_on_from_the_run_before():
    hand = Hand()
    c = clock(hand, seconds_before=500.0)
    hand.time += 7
    assert c.seconds == pytest.approx(507.0)


def test_a_lap_without_a_step_says_nothing_about_speed():
    hand = Hand()
    c = clock(hand)
    c.begin(5)
    hand.time += 1
    assert set(c.lap(5)) == {"seconds"}
    assert c.line(c.lap(5)) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (190, "3 min 10 s"),
        (18180, "5 h 03 min"),
        (187200, "2 d 04 h"),
        (-3, "0 s"),
    ],
)
def test_durations_in_words(seconds, text):
    assert words(seconds) == text
