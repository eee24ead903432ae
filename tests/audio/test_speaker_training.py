"""DeepSpeaker learns, in a training cut short for tests; the whole of it is in ``benchmarks/speaker.py``."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Files, Vector, embedding_column, nearest, register
from embeddb.encoders.speaker import DeepSpeaker
from embeddb.errors import EncoderError, SourceError
from embeddb.sources.recordings import recordings
from embeddb.train.speaker import SMALL, SpeakerRecipe, train_speaker
from embeddb.waveform import Waveform
from embeddb.worker import drain
from tests.audio import controls, espeak_voices, spoken_digits, voice_commands
from tests.audio.tiny_speaker import TINY, sounds

pytest.importorskip("espeakng_loader", reason="the voices need espeakng-loader")

SHORT = SpeakerRecipe(softmax_steps=300, triplet_steps=30, batch=40, held_out=0.1)


class Trained(NamedTuple):
    encoder: DeepSpeaker
    losses: list[float]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    heard, _ = espeak_voices.split(24)
    losses: list[float] = []
    encoder = train_speaker(
        espeak_voices.utterances(heard, 10, seed=0),
        tmp_path_factory.mktemp("voices"),
        SHORT,
        report=lambda _step, _steps, loss: losses.append(loss),
    )
    return Trained(encoder, losses)


def test_unseen_noisy_voices_are_told_apart_far_better_than_without_training(trained: Trained) -> None:
    _, unheard = espeak_voices.split(24)
    test = list(espeak_voices.utterances(unheard, 8, seed=1))
    heard, labels = controls.noisy([sound for sound, _ in test], seed=5), [voice for _, voice in test]
    eer = controls.eer(trained.encoder.encode_documents(heard), labels)
    untrained = controls.eer(controls.untrained(heard, SMALL), labels)
    filterbanks = controls.eer(controls.statistics(heard), labels)
    assert eer <= 0.18, (eer, untrained, filterbanks)
    assert eer < untrained / 2, (eer, untrained)
    assert eer < filterbanks / 1.5, (eer, filterbanks)


def test_what_was_measured_on_voices_held_out_is_kept_with_the_model(trained: Trained) -> None:
    measured = json.loads((trained.encoder.folder / "config.json").read_text())["measured"]
    assert measured["speakers"] == 8
    assert measured["eer"] < 0.25
    assert measured["threshold_eer"] < measured["threshold_false_accept_1%"]
    assert len(trained.losses) == 330
    assert np.mean(trained.losses[290:300]) < trained.losses[0] / 2
    assert {path.name for path in trained.encoder.folder.iterdir()} == {"config.json", "model.safetensors"}


def test_trained_further_on_three_people_it_verifies_the_fourth(
    trained: Trained, shared_data: Path, tmp_path: Path
) -> None:
    """One of the four turns, shortly trained, which may end anywhere from an EER of .01 to .25. The benchmark trains
    for all four as long as one would, and its mean is below that of filterbanks."""
    takes = spoken_digits.read(shared_data / "fsdd")
    train = [(take.sound, take.speaker) for take in takes if take.number >= 5 and take.speaker != "george"]
    test = [take for take in takes if take.number < 5]
    heard, speakers = [take.sound for take in test], [take.speaker for take in test]
    recipe = replace(spoken_digits.FURTHER, softmax_steps=150)
    encoder = train_speaker(train, tmp_path, recipe, start=trained.encoder.folder)
    eer = spoken_digits.eer(encoder.encode_documents(heard), speakers, "george")
    untrained = spoken_digits.eer(controls.untrained(heard, SMALL), speakers, "george")
    assert eer < 0.75 * untrained, (eer, untrained)


def test_commands_of_unseen_voices_are_known_by_five_neighbours_in_sql(engine18: Engine, tmp_path: Path) -> None:
    """Recordings as files, queued by their paths and embedded by a worker; asked for by sounds of other voices."""
    heard, unheard = espeak_voices.split(24)
    train = voice_commands.spoken(heard, 2, seed=3)
    test = voice_commands.spoken(unheard, 1, seed=4)
    encoder = train_speaker(train, tmp_path / "model", replace(voice_commands.RECIPE, batch=48))

    class Base(DeclarativeBase):
        pass

    class Command(Base):
        __tablename__ = "commands"
        id: Mapped[int] = mapped_column(primary_key=True)
        word: Mapped[str]
        path: Mapped[str]
        voice: Mapped[Vector | None] = embedding_column("path", encoder=encoder, files=Files(tmp_path))

    words = [word for _, word in train[::3]]
    rows = controls.noisy([sound for sound, _ in train[::3]], seed=9)
    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    with Session(engine18) as session, session.begin():
        for number, (sound, word) in enumerate(zip(rows, words, strict=True)):
            soundfile.write(tmp_path / f"{number}.flac", np.clip(sound.samples, -1, 1), sound.rate)
            session.add(Command(word=word, path=f"{number}.flac"))
    assert drain(engine18).embedded == len(rows)

    queries = controls.noisy([sound for sound, _ in test], seed=7)
    said = [word for _, word in test]
    known = []
    with Session(engine18) as session:
        for query in queries:
            near = nearest(Command.voice, query, exact=True).limit(5).with_only_columns(Command.word)
            known.append(Counter(session.scalars(near)).most_common(1)[0][0])
    accuracy = np.mean([word == true for word, true in zip(known, said, strict=True)])
    plain = voice_commands.nearest_five(controls.statistics(queries), controls.statistics(rows), words)
    control = np.mean([word == true for word, true in zip(plain, said, strict=True)])
    assert accuracy >= 0.90 > control, (accuracy, control)


TINY_RECIPE = SpeakerRecipe(
    shape=TINY, softmax_steps=4, triplet_steps=3, batch=6, speakers=3, takes=2, crop=(0.2, 0.3), held_out=0
)


def people(count: int = 3, each: int = 3) -> list[tuple[Waveform, str]]:
    return [(sound, f"person {person}") for person in range(count) for sound in sounds([0.4] * each, person)]


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("at", [2, 4, 6])
def test_a_run_that_is_cut_off_goes_on_to_the_same_weights(tmp_path: Path, at: int) -> None:
    whole = train_speaker(people(), tmp_path / "whole", TINY_RECIPE)

    def interrupt(step: int, _steps: int, _loss: float) -> None:
        if step == at + 1:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train_speaker(people(), tmp_path / "cut", TINY_RECIPE, report=interrupt, checkpoint_every=2)
    steps: list[int] = []
    again = train_speaker(
        people(), tmp_path / "cut", TINY_RECIPE, report=lambda step, _steps, _loss: steps.append(step)
    )
    assert steps == list(range(at + 1, 8))
    heard = sounds([0.5, 0.6])
    np.testing.assert_allclose(again.encode_documents(heard), whole.encode_documents(heard), atol=1e-5)
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    def interrupt(step: int, _steps: int, _loss: float) -> None:
        if step == 3:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train_speaker(people(), tmp_path, TINY_RECIPE, report=interrupt, checkpoint_every=2)
    with pytest.raises(EncoderError, match="another run"):
        train_speaker(people(each=4), tmp_path, TINY_RECIPE)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(EncoderError, match="delete it to begin anew"):
        train_speaker(people(), tmp_path, TINY_RECIPE)


def test_two_speakers_are_the_least_and_silence_is_refused_by_row(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="two speakers"):
        train_speaker(people(1), tmp_path, TINY_RECIPE)
    silent = Waveform(np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(SourceError, match=r"row 9 \(nobody\)"):
        train_speaker([*people(), (silent, "nobody")], tmp_path, TINY_RECIPE)


def test_a_folder_of_speakers_is_read_and_a_link_out_of_it_refused(tmp_path: Path) -> None:
    for sound, speaker in people(2, 2):
        place = tmp_path / "voices" / speaker / "session"
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{len(list(place.iterdir()))}.flac", sound.samples, sound.rate)
    found = list(recordings(tmp_path / "voices"))
    assert [speaker for _, speaker in found] == ["person 0", "person 0", "person 1", "person 1"]
    assert {sound.rate for sound, _ in found} == {16_000}
    with tempfile.NamedTemporaryFile(suffix=".wav") as outside:
        link = tmp_path / "voices" / "person 2" / "link.wav"
        link.parent.mkdir()
        link.symlink_to(outside.name)
        with pytest.raises(SourceError, match="leads out"):
            list(recordings(tmp_path / "voices"))
        link.unlink()
    (tmp_path / "voices" / "loose.wav").write_bytes(b"")
    with pytest.raises(SourceError, match="named after its speaker"):
        list(recordings(tmp_path / "voices"))
    with pytest.raises(SourceError, match="no recordings"):
        list(recordings(tmp_path / "voices" / "person 2"))
