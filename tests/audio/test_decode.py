from __future__ import annotations

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddb.errors import SourceError
from embeddb.sources.audio import decode
from embeddb.waveform import Waveform, resample, windows


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate))


def encoded(samples: Any, rate: int, kind: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def loudest(waveform: Waveform) -> float:
    """The frequency with most power, in Hz."""
    spectrum = np.abs(np.fft.rfft(waveform.samples * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * waveform.rate / len(waveform))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000])
@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", None)]
)
def test_every_format_and_rate_gives_the_tone_that_was_written(kind: str, subtype: str | None, rate: int) -> None:
    stereo = np.stack([tone(440, 1.0, rate), tone(440, 1.0, rate) / 2], axis=1)
    sound = decode(encoded(stereo, rate, kind, subtype), rate=16_000)
    assert sound.rate == 16_000
    assert sound.samples.dtype == np.float32
    assert abs(sound.seconds - 1.0) < 0.15  # MP3 pads its frames
    assert abs(loudest(sound) - 440) < 5
    middle = sound.samples[4_000:12_000]
    assert abs(np.abs(middle).max() - 0.375) < 0.05  # the mean of both channels


def test_lossless_sound_at_its_own_rate_is_exact() -> None:
    channels = np.random.default_rng(0).uniform(-0.9, 0.9, (5_000, 3)).astype(np.float32)
    sound = decode(io.BytesIO(encoded(channels, 22_050, "WAV", "FLOAT")))
    assert sound.rate == 22_050
    np.testing.assert_allclose(sound.samples, channels.mean(1), rtol=0, atol=1e-7)


def test_a_file_longer_than_a_block_is_read_whole() -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (700_001, 2)).astype(np.float32)
    np.testing.assert_allclose(decode(encoded(samples, 48_000, "WAV", "FLOAT")).samples, samples.mean(1), atol=1e-7)


def with_nan() -> bytes:
    samples = tone(440, 0.5, 16_000).astype(np.float32)
    samples[77] = np.nan
    return encoded(samples, 16_000, "WAV", "FLOAT")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "empty"),
        (b"no sound at all" * 100, "as sound: Format not recognised"),
        (encoded(np.zeros(16_000), 16_000, "WAV"), "silent"),
        (encoded(np.zeros(0), 16_000, "WAV"), "0.0 ms"),
        (encoded(tone(440, 0.02, 16_000), 16_000, "WAV"), "20.0 ms"),
        (with_nan(), "NaN"),
    ],
    ids=["empty", "text", "silence", "no samples", "short", "NaN"],
)
def test_what_cannot_be_embedded_is_refused_by_name(data: bytes, fault: str) -> None:
    with pytest.raises(SourceError, match=rf"^voices/7\.wav: .*{fault}"):
        decode(data, name="voices/7.wav")


def test_limits_hold_for_bytes_and_for_what_they_decode_to() -> None:
    # A minute of one value is a few hundred bytes of FLAC: its size says nothing of its length.
    bomb = encoded(np.full(60 * 48_000, 0.5), 48_000, "FLAC")
    assert len(bomb) < 60_000
    with pytest.raises(SourceError, match="longer than 5 s"):
        decode(bomb, max_seconds=5)
    with pytest.raises(SourceError, match="larger than 1,000 bytes"):
        decode(io.BytesIO(bytes(10_000)), max_bytes=1_000)


def test_a_header_that_hides_the_length_does_not_pass_the_limit() -> None:
    """An MP3's header names no length that can be trusted: frames are counted as they come."""
    data = encoded(tone(440, 3.0, 16_000), 16_000, "MP3")
    with pytest.raises(SourceError, match="longer than 2 s"):
        decode(data + data, max_seconds=2)


WHOLE = {
    kind: encoded(tone(300, 0.3, 16_000), 16_000, kind)
    for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64")
}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_file_is_sound_or_a_source_error(kind: str, kept: float, changes: list[tuple[float, int]]) -> None:
    data = bytearray(WHOLE[kind][: int(kept * len(WHOLE[kind]))])
    for place, value in changes:
        # Headers are where damage does most.
        at = int(place**3 * (len(data) - 1))
        data[at : at + 1] = bytes([value])
    try:
        sound = decode(bytes(data), max_seconds=10)
    except SourceError:
        return
    assert np.isfinite(sound.samples).all()
    assert 0 < sound.seconds <= 10


@given(st.integers(1, 2_000), st.integers(1, 500), st.integers(1, 500))
def test_windows_are_equal_and_lose_nothing(length: int, size: int, hop: int) -> None:
    sound = Waveform(np.arange(length, dtype=np.float32), 100)
    hop = min(hop, size)
    cut = windows(sound, size / 100, hop / 100)
    assert {len(window) for window in cut} == {min(size, length)}
    assert set(np.concatenate([window.samples for window in cut])) == set(range(length))
    assert [window.samples[0] for window in cut] == sorted({window.samples[0] for window in cut})


def test_windows_are_at_least_a_sample_and_leave_no_gap() -> None:
    sound = Waveform(np.ones(100, np.float32), 10)
    for seconds, hop in [(0.0, None), (1.0, 0.0), (1.0, 2.0)]:
        with pytest.raises(SourceError, match="hop must be"):
            windows(sound, seconds, hop)


def test_resampling_keeps_a_tone_and_drops_what_the_new_rate_cannot_hold() -> None:
    low = resample(Waveform(tone(440, 1.0, 44_100).astype(np.float32), 44_100), 16_000)
    high = resample(Waveform(tone(10_000, 1.0, 44_100).astype(np.float32), 44_100), 16_000)
    assert len(low) == 16_000
    assert abs(loudest(low) - 440) < 2
    assert np.abs(high.samples[1_000:-1_000]).max() < 0.02


def test_the_rate_that_a_header_claims_does_not_choose_the_memory() -> None:
    sound = Waveform(tone(440, 1.0, 44_100).astype(np.float32), 10_000_019)
    tracemalloc.start()
    try:
        resampled = resample(sound, 16_000)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert resampled.seconds == pytest.approx(sound.seconds, rel=0.02)
    near = resample(Waveform(tone(440, 1.0, 47_999).astype(np.float32), 47_999), 16_000)
    assert abs(loudest(near) - 440) < 2
    with pytest.raises(SourceError, match="no rate of a recording"):
        resample(Waveform(np.ones(9, np.float32), 2**31), 16_000)


@pytest.mark.parametrize(("samples", "rate"), [(np.ones((2, 3), np.float32), 8_000), (np.ones(3, np.float32), 0)])
def test_a_waveform_is_one_channel_with_a_rate(samples: Any, rate: int) -> None:
    with pytest.raises(SourceError):
        Waveform(samples, rate)
