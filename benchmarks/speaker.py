"""Speakers and commands: DeepSpeaker as our command trains it, beside what it must beat.

    python -m benchmarks.speaker [--digits FOLDER] [--threads 2]

Voices are eSpeak NG's (``espeakng-loader``), each utterance filtered and noisy. The controls are statistics of
filterbanks, and the same network untrained. ``--digits``: the recordings of the Free Spoken Digit Dataset; of each of
its four speakers in turn, takes 0 to 4 are verified by a network that was trained further on the other three.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine
from embeddb.encoders.speaker import DeepSpeaker
from embeddb.train.speaker import SMALL, train_speaker
from embeddb.waveform import Waveform
from tests.audio import controls, espeak_voices, spoken_digits, voice_commands

UNHEARD = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="the folder of the Free Spoken Digit Dataset")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(f"{machine()}, {options.threads} threads")
    table = Table("", "trained", "untrained", "filterbanks", "seconds of training")
    with tempfile.TemporaryDirectory() as folder:
        speaker = voices(table, Path(folder) / "speaker")
        commands(table, Path(folder) / "commands")
        if options.digits:
            digits(table, spoken_digits.read(options.digits), speaker, Path(folder))
    console.print(table)


def voices(table: Table, folder: Path) -> DeepSpeaker:
    """Equal error rate on voices never heard."""
    heard, unheard = espeak_voices.split(UNHEARD)
    rows = list(espeak_voices.utterances(heard, 16, seed=0))
    test = list(espeak_voices.utterances(unheard, 12, seed=1))
    sounds, labels = controls.noisy([sound for sound, _ in test], seed=5), [voice for _, voice in test]
    begin = time.perf_counter()
    encoder = train_speaker(rows, folder)
    seconds = time.perf_counter() - begin
    _row(
        table,
        f"EER, {UNHEARD} unheard voices, noisy",
        controls.eer(encoder.encode_documents(sounds), labels),
        controls.eer(controls.untrained(sounds, SMALL), labels),
        controls.eer(controls.statistics(sounds), labels),
        seconds,
    )
    return encoder


def commands(table: Table, folder: Path) -> None:
    """Ten commands by voices never heard, by their five nearest neighbours."""
    heard, unheard = espeak_voices.split(UNHEARD)
    train, test = voice_commands.spoken(heard, 2, seed=3), voice_commands.spoken(unheard, 1, seed=4)
    begin = time.perf_counter()
    encoder = train_speaker(train, folder, voice_commands.RECIPE)
    seconds = time.perf_counter() - begin
    known = controls.noisy([sound for sound, _ in train[::3]], seed=9)
    asked = controls.noisy([sound for sound, _ in test], seed=7)
    _accuracies(
        table, "5-NN, 10 commands", encoder, (known, [w for _, w in train[::3]]), (asked, [w for _, w in test]), seconds
    )


def digits(table: Table, takes: Sequence[spoken_digits.Take], start: DeepSpeaker, folder: Path) -> None:
    """Each speaker verified by a network trained further on the others; and their digits by one trained on words."""
    test = [take for take in takes if take.number < 5]
    sounds, speakers = [take.sound for take in test], [take.speaker for take in test]
    untrained, statistics = controls.untrained(sounds, SMALL), controls.statistics(sounds)
    rates = []
    for claimed in sorted(set(speakers)):
        train = [(take.sound, take.speaker) for take in takes if take.number >= 5 and take.speaker != claimed]
        begin = time.perf_counter()
        encoder = train_speaker(train, folder / claimed, spoken_digits.FURTHER, start=start.folder)
        seconds = time.perf_counter() - begin
        vectors = (encoder.encode_documents(sounds), untrained, statistics)
        rates.append([*(spoken_digits.eer(some, speakers, claimed) for some in vectors), seconds])
        _row(table, f"EER, {claimed}, trained further on three others", *rates[-1])
    _row(table, "EER, mean of the four", *np.mean(rates, axis=0))
    recipe = replace(voice_commands.RECIPE, crop=(0.4, 0.7))
    for claimed in sorted(set(speakers)):
        others = [take for take in takes if take.speaker != claimed]
        own = [take for take in test if take.speaker == claimed]
        begin = time.perf_counter()
        encoder = train_speaker([(take.sound, take.digit) for take in others], folder / f"{claimed} digits", recipe)
        seconds = time.perf_counter() - begin
        known = ([take.sound for take in others[::3]], [take.digit for take in others[::3]])
        asked = ([take.sound for take in own], [take.digit for take in own])
        _accuracies(table, f"5-NN, digits of {claimed}, unheard", encoder, known, asked, seconds)


def _accuracies(
    table: Table,
    what: str,
    encoder: DeepSpeaker,
    known: tuple[list[Waveform], list[str]],
    asked: tuple[list[Waveform], list[str]],
    seconds: float,
) -> None:
    figures = []
    for encode in (encoder.encode_documents, lambda sounds: controls.untrained(sounds, SMALL), controls.statistics):
        found = voice_commands.nearest_five(encode(asked[0]), encode(known[0]), known[1])
        figures.append(float(np.mean([word == true for word, true in zip(found, asked[1], strict=True)])))
    _row(table, what, *figures, seconds)


def _row(table: Table, what: str, *figures: float) -> None:
    *rates, seconds = figures
    table.add_row(what, *(f"{rate:.3f}" for rate in rates), f"{seconds:.0f}")


if __name__ == "__main__":
    main()
