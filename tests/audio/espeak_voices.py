"""Synthetic speech: the voices of eSpeak NG, spoken through ctypes (``espeakng-loader`` carries the library).

The library is GPL and is used by tests and benchmarks only.
https://github.com/espeak-ng/espeak-ng/blob/master/src/include/espeak-ng/speak_lib.h
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embeddb.waveform import Waveform, resample

Samples = NDArray[np.float32]

SYNCHRONOUS: Final = 2  # espeak_AUDIO_OUTPUT: the samples come through the callback, before espeak_Synth returns
RATE, PITCH = 1, 3  # espeak_PARAMETER
UTF8: Final = 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

#: Voices that are, or may be, copies of one another: to tell them apart measures nothing.
ALIKE: Final = (
    ("RicishayMax", "RicishayMax2", "RicishayMax3"),
    ("michel", "miguel"),
    ("robosoft", *(f"robosoft{n}" for n in range(2, 9))),
    ("Gene", "Gene2"),
    ("iven", "iven2", "iven3", "iven4"),
    ("steph", "steph2", "steph3"),
    ("edward", "edward2"),
    ("klatt", *(f"klatt{n}" for n in range(2, 7))),
    ("Mike", "mike2"),
    ("anika", "anikaRobot"),
    ("Andy", "AnxiousAndy"),
)

TEXT: Final = (
    "seven small boats drifted past the old harbour wall while grey gulls circled over quiet water every winter "
    "morning brings fresh bread warm coffee and long letters from distant friends who travel north by train through "
    "green valleys under heavy clouds nobody knows why the painter chose such bright orange for her kitchen door but "
    "visitors often stop to admire it before walking on toward market square where children chase pigeons"
)


@lru_cache(maxsize=1)
def _library() -> tuple[Any, int, list[Samples]]:
    """The library, its sample rate in Hz, and the list that the callback fills."""
    import espeakng_loader

    library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    heard: list[Samples] = []

    def hear(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            heard.append(np.array(np.ctypeslib.as_array(samples, (count,)), np.float32) / np.float32(32768))
        return 0

    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(Path(espeakng_loader.get_data_path()).parent).encode(), 0)
    assert rate > 0, "eSpeak NG did not start"
    # The callback must outlive every call: the library keeps only its address.
    library.callback = _Callback(hear)
    library.espeak_SetSynthCallback(library.callback)
    return library, rate, heard


@lru_cache(maxsize=1)
def voices() -> tuple[str, ...]:
    """The names of every voice variant, sorted."""
    import espeakng_loader

    return tuple(sorted(path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir()))


def say(text: str, voice: str, *, pitch: int = 50, rate: int = 175) -> Waveform:
    """The text in that voice at 16 kHz. ``pitch``: 0 to 100; ``rate``: words a minute."""
    library, hertz, heard = _library()
    heard.clear()
    assert library.espeak_SetVoiceByName(f"en+{voice}".encode()) == 0, f"there is no voice {voice!r}"
    library.espeak_SetParameter(RATE, rate, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    data = text.encode()
    assert library.espeak_Synth(data, len(data) + 1, 0, 0, 0, UTF8, None, None) == 0
    return resample(Waveform(np.concatenate(heard), hertz), 16_000)


def split(unheard: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Voices to train on, and so many never heard. Near copies are all among the first."""
    alike = {name for group in ALIKE for name in group}
    order = np.random.default_rng(seed).permutation([name for name in voices() if name not in alike]).tolist()
    return sorted({*order[unheard:], *alike}), order[:unheard]


def utterances(names: Sequence[str], each: int, seed: int) -> Iterator[tuple[Waveform, str]]:
    """``each`` sentences of random words in every voice, with jitter of pitch and rate: rows to train on."""
    rng = np.random.default_rng(seed)
    for name in names:
        for _ in range(each):
            text = " ".join(rng.choice(TEXT.split(), 5))
            yield say(text, name, pitch=int(rng.integers(40, 61)), rate=int(rng.integers(150, 201))), name
