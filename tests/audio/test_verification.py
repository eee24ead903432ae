from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from embeddb.encoders import Hashing
from embeddb.encoders.speaker import DeepSpeaker
from embeddb.encoders.verifier import Verifier
from embeddb.errors import EncoderError
from embeddb.verification import equal_error_rate, pair_scores, rates, threshold_at
from embeddb.waveform import Waveform
from tests.audio.tiny_speaker import sounds

scores = st.lists(st.integers(-20, 20).map(lambda score: score / 20), min_size=1, max_size=40)


@given(scores, scores)
def test_the_equal_error_rate_is_where_both_errors_are_nearest(same: list[float], different: list[float]) -> None:
    found = equal_error_rate(same, different)
    here = rates(same, different, found.threshold)
    assert found.rate == pytest.approx(sum(here) / 2)
    for threshold in {*same, *different}:
        there = rates(same, different, threshold)
        assert abs(here.false_accept - here.false_reject) <= abs(there.false_accept - there.false_reject) + 1e-12


def test_the_equal_error_rate_agrees_with_scikit_learns_curve() -> None:
    rng = np.random.default_rng(0)
    same, different = rng.normal(1, 1, 4_000), rng.normal(-1, 1, 9_000)
    accept, hit, _ = roc_curve(np.r_[np.ones(4_000), np.zeros(9_000)], np.r_[same, different])
    crossing = np.argmin(np.abs(1 - hit - accept))
    assert equal_error_rate(same, different).rate == pytest.approx((1 - hit[crossing] + accept[crossing]) / 2, abs=1e-3)
    assert equal_error_rate(same, different).rate == pytest.approx(0.1587, abs=0.01)  # the normal's tail beyond 1


def test_chance_is_a_half_and_separate_scores_are_none() -> None:
    assert equal_error_rate([1.0, 0.9], [0.1, 0.2]).rate == 0
    rng = np.random.default_rng(1)
    assert equal_error_rate(rng.random(5_000), rng.random(5_000)).rate == pytest.approx(0.5, abs=0.02)


@given(scores, st.floats(0, 1))
def test_a_threshold_accepts_at_most_its_share_and_no_lower_one_does(different: list[float], share: float) -> None:
    threshold = threshold_at(different, share)
    assert rates([0.0], different, threshold).false_accept <= share + 1e-9
    lower = [score for score in different if score < threshold]
    if lower:
        assert rates([0.0], different, max(lower)).false_accept > share - 1e-9


@pytest.mark.parametrize(("same", "different"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_scores_of_both_kinds_are_needed_and_finite(same: list[float], different: list[float]) -> None:
    with pytest.raises(ValueError, match="scores"):
        equal_error_rate(same, different)


def test_pairs_are_all_pairs_once() -> None:
    vectors = np.array([[1.0, 0], [2, 0], [0, 1]])
    same, different = pair_scores(vectors, ["a", "a", "b"])
    assert same.tolist() == [1.0]
    assert different.tolist() == [0.0, 0.0]


def takes(of: Waveform, count: int) -> list[Waveform]:
    """The same sound with a little noise of its own each time."""
    rng = np.random.default_rng(len(of))
    noise = rng.standard_normal((count, len(of))).astype(np.float32)
    return [Waveform(of.samples + 0.01 * row, of.rate) for row in noise]


def test_what_no_threshold_and_no_enrolment_can_be_made_of() -> None:
    encoder = Hashing(dim=64)
    for labels in ([], ["a"], ["a", "a"]):
        with pytest.raises(EncoderError, match="of two or more: there are 2 inputs"):
            Verifier.calibrated(encoder, ["one", "two"], labels)
    with pytest.raises(EncoderError, match="between 0 and 1, not 5"):
        Verifier.calibrated(encoder, ["one", "two"], ["a", "b"], false_accept=5)
    with pytest.raises(EncoderError, match="'a' has no take"):
        Verifier(encoder, 0.5).enrol({"a": []})


def test_verifying_and_identifying_by_a_calibrated_threshold(encoder: DeepSpeaker) -> None:
    people = {name: takes(sound, 6) for name, sound in zip("abcde", sounds([0.5, 0.6, 0.7, 0.8, 0.9], 4), strict=True)}
    inputs = [take for name in "abc" for take in people[name]]
    labels = [name for name in "abc" for _ in people[name]]
    verifier = Verifier.calibrated(encoder, inputs, labels, false_accept=0.0)
    assert verifier.verify(people["a"][0], people["a"][1]).same
    assert not verifier.verify(people["a"][0], people["b"][0]).same
    enrolled = verifier.enrol({name: people[name][:3] for name in "abc"})
    for name in "abc":
        [match] = verifier.identify(people[name][5], enrolled)
        assert match.name == name
    strict = Verifier(encoder, threshold=1.01)
    assert strict.identify(people["a"][5], enrolled) == []
    all_of_them = Verifier(encoder, threshold=-1.0).identify(people["a"][5], enrolled, limit=3)
    assert [match.score for match in all_of_them] == sorted((match.score for match in all_of_them), reverse=True)


def test_a_sound_of_nothing_is_nobody_and_says_which_it_was(encoder: DeepSpeaker) -> None:
    silent = Waveform(np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(EncoderError, match="no embedding of input 1") as caught:
        Verifier(encoder, 0.5).verify(sounds([0.5])[0], silent)
    assert caught.value.position == 1
