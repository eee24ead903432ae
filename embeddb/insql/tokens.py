"""A tokeniser of the library ``tokenizers`` as tables, made by asking it about every character."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from embeddb.encoders.memo import Memo
from embeddb.errors import EncoderError

#: Characters first to last, and what becomes of them; None: a word of its own.
Range = tuple[int, int, str | None]
Kinds = Literal["wordpiece", "bytes"]

#: All code points that a text in Postgres may hold, beyond ASCII.
_BEYOND: Final = [p for p in range(0x80, sys.maxunicode + 1) if not 0xD800 <= p < 0xE000]
_MARKS: Final = r"!-/:-@\[-`{-~"
#: As many as the library normalises at a time; its memory grows with the length of a text.
_AT_ONCE: Final = 20_000
#: As many are asked about at a time where most are alike.
_BLOCK: Final = 256
#: Parts characters from each other where the library sees many at once. It stays as it is, and nothing becomes it.
_SEPARATOR: Final = "0"

_ranges: Final[Memo[str, tuple[tuple[Range, ...], str | None]]] = Memo()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``tokens``: id, token, and whether it is made of that very text. ``merges``: pairs, the first to be joined first.

    The other members are those of ``embeddb.transformer``.
    """

    tokenizer: Kinds
    tokens: Sequence[tuple[int, str, bool]]
    merges: Sequence[tuple[str, str]]
    characters: Sequence[Range]
    ascii_from: str
    ascii_to: str
    refused: str | None
    special: str | None
    prefix: str
    longest: int
    unknown: int | None
    before_text: tuple[int, ...]
    after_text: tuple[int, ...]


def read(tokenizer: Any) -> Vocabulary:
    """The tables of a fast tokeniser: WordPiece as BERT has it, or byte pair encoding over bytes as RoBERTa has it.

    Raises EncoderError for any other, and for settings that the SQL does not know.
    """
    library = getattr(tokenizer, "backend_tokenizer", None)
    if library is None:
        raise EncoderError(f"{type(tokenizer).__name__} has no SQL: only fast tokenizers of transformers")
    settings = json.loads(library.to_str())
    whole: list[int] = tokenizer("a", padding=False)["input_ids"]
    inner: list[int] = tokenizer("a", padding=False, add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    shared = {
        "special": _special(settings),
        "before_text": tuple(whole[:start]),
        "after_text": tuple(whole[start + len(inner) :]),
    }
    kind = settings["model"]["type"]
    if kind == "WordPiece":
        return _wordpiece(library, settings, shared)
    if kind == "BPE":
        return _bytes(library, settings, shared)
    raise EncoderError(f"tokenizers of the type {kind} have no SQL: only WordPiece and BPE over bytes")


def _wordpiece(library: Any, settings: Mapping[str, Any], shared: Mapping[str, Any]) -> Vocabulary:
    model = settings["model"]
    pre_tokenizer = (settings["pre_tokenizer"] or {}).get("type")
    if (settings["normalizer"] or {}).get("type") != "BertNormalizer" or pre_tokenizer != "BertPreTokenizer":
        raise EncoderError("WordPiece has SQL only with BertNormalizer and BertPreTokenizer")
    if not settings["normalizer"]["clean_text"] or model["max_input_chars_per_word"] != 100:
        raise EncoderError("WordPiece has SQL only with clean_text, and with words of 100 characters at most")
    tokens = _vocabulary(settings)
    lowered = {chr(p): library.normalizer.normalize_str(chr(p)) for p in range(1, 128)}
    if any(len(becomes) > 1 for becomes in lowered.values()):
        raise EncoderError("this normalizer makes several characters of one in ASCII")
    # translate() drops what has no partner, so those come last.
    changed = sorted((c for c in lowered if lowered[c] != c), key=lambda c: lowered[c] == "")
    key = json.dumps([settings["normalizer"], settings["pre_tokenizer"]], sort_keys=True)
    characters, refused = _ranges.get(key, partial(_bert_characters, library))
    return Vocabulary(
        tokenizer="wordpiece",
        tokens=[(number, token, True) for token, number in tokens.items()],
        merges=(),
        characters=characters,
        ascii_from="".join(changed),
        ascii_to="".join(lowered[c] for c in changed),
        refused=refused,
        prefix=model["continuing_subword_prefix"],
        longest=max(map(len, tokens)),
        unknown=tokens[model["unk_token"]],
        **shared,
    )


def _bert_characters(library: Any) -> tuple[tuple[Range, ...], str | None]:
    """What normaliser and pre-tokeniser make of each character, and a pattern of what depends on its neighbours.

    Only the order of combining marks does: canonical decomposition sorts them.
    """
    becomes = dict(zip(_BEYOND, _each(library.normalizer.normalize_str, map(chr, _BEYOND)), strict=True))
    kept = sorted({c for text in becomes.values() for c in text if c != " " and ord(c) > 127})
    marks = set()
    for start in range(0, len(kept), _AT_ONCE):
        spread = _SEPARATOR + "".join(c + _SEPARATOR for c in kept[start : start + _AT_ONCE])
        marks |= {word for word, _ in library.pre_tokenizer.pre_tokenize_str(spread) if len(word) == 1}
    marks.discard(_SEPARATOR)
    movable = sorted(c for c in kept if unicodedata.combining(c))
    decomposes = library.normalizer.normalize_str("\u00e9") == "e"

    def pairs() -> Iterator[tuple[int, str | None]]:
        for point, text in becomes.items():
            apart = "".join(f" {c} " if c in marks else c for c in text)
            if apart.split() == [chr(point)] and apart != chr(point):
                yield point, None
            elif apart != chr(point):
                yield point, apart

    refused = f"[{''.join(movable)}]{{2}}" if movable and decomposes else None
    return tuple(joined(pairs())), refused


def _each(normalize: Callable[[str], str], characters: Iterator[str]) -> Iterator[str]:
    """What each character becomes by itself, of many at a time."""
    left = list(characters)
    for start in range(0, len(left), _AT_ONCE):
        some = left[start : start + _AT_ONCE]
        found = normalize("".join(c + _SEPARATOR for c in some)).split(_SEPARATOR)
        if len(found) != len(some) + 1:
            raise EncoderError("this normalizer does not treat characters one by one")
        yield from found[:-1]


def joined(pairs: Iterator[tuple[int, str | None]]) -> Iterator[Range]:
    """Neighbours that become the same are one range."""
    open_range: Range | None = None
    for point, text in pairs:
        if open_range and open_range[1] == point - 1 and open_range[2] == text:
            open_range = (open_range[0], point, text)
        else:
            if open_range:
                yield open_range
            open_range = (point, point, text)
    if open_range:
        yield open_range


def _bytes(library: Any, settings: Mapping[str, Any], shared: Mapping[str, Any]) -> Vocabulary:
    model, pre_tokenizer = settings["model"], settings["pre_tokenizer"] or {}
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    odd += [name for name in ("byte_fallback", "ignore_merges") if model.get(name)]
    if settings["normalizer"] or pre_tokenizer.get("type") != "ByteLevel" or not pre_tokenizer.get("use_regex", True):
        raise EncoderError("byte pair encoding has SQL only over bytes, without a normalizer, as GPT-2 has it")
    if odd:
        raise EncoderError(f"byte pair encoding with {', '.join(odd)} has no SQL")
    tokens = _vocabulary(settings)
    known = set(model["vocab"])
    rows = [
        (number, token, token in known and [t.value for t in library.model.tokenize(token)] == [token])
        for token, number in tokens.items()
    ]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return Vocabulary(
        tokenizer="bytes",
        tokens=rows,
        merges=[(first, second) for first, second in merges],
        characters=_ranges.get("bytes", partial(_byte_kinds, library))[0],
        ascii_from="",
        ascii_to="",
        refused=None,
        prefix=" " if pre_tokenizer.get("add_prefix_space") else "",
        longest=max(map(len, tokens)),
        unknown=tokens.get(model.get("unk_token") or ""),
        **shared,
    )


def _byte_kinds(library: Any) -> tuple[tuple[Range, ...], str | None]:
    """Which characters are letters, numbers or blanks to the pattern that parts words."""

    kinds: dict[int, str] = {}
    for start in range(0, len(_BEYOND), _BLOCK):
        kinds |= _kinds_in(library, _BEYOND[start : start + _BLOCK])
    return tuple(joined(iter(sorted(kinds.items())))), None


def _kinds_in(library: Any, points: Sequence[int]) -> dict[int, str]:
    """Letters "a", numbers "1" and blanks, of these; the pattern parts the text where the kind changes."""

    def pieces(text: str) -> list[tuple[int, int]]:
        return [span for _, span in library.pre_tokenizer.pre_tokenize_str(text)]

    block = "".join(map(chr, points))
    for neighbour, kind in (("a", "a"), ("1", "1"), ("!", None)):
        if len(pieces(neighbour + block)) == 1:
            return dict.fromkeys(points, kind) if kind else {}
    kinds: dict[int, str] = dict.fromkeys(points, "\t")
    for neighbour, kind in (("a", "a"), ("1", "1"), ("!", None)):
        found = set(pieces("".join(f"{neighbour}{chr(point)}\n" for point in points)))
        for place, point in enumerate(points):
            if (3 * place, 3 * place + 2) in found:
                if kind:
                    kinds[point] = kind
                else:
                    del kinds[point]
    return kinds


def _vocabulary(settings: Mapping[str, Any]) -> dict[str, int]:
    return {**settings["model"]["vocab"], **{t["content"]: t["id"] for t in settings["added_tokens"]}}


def _special(settings: Mapping[str, Any]) -> str | None:
    """A pattern of the tokens that are recognised before anything else, each as it stands."""
    patterns = []
    for token in settings["added_tokens"]:
        if token["single_word"] or (token["normalized"] and settings["normalizer"] and not token["special"]):
            raise EncoderError(f"the added token {token['content']!r} has settings without SQL")
        blanks = ["[ \t\n\r]*" if token[side] else "" for side in ("lstrip", "rstrip")]
        patterns.append(blanks[0] + re.sub(r"(\W)", r"\\\1", token["content"]) + blanks[1])
    return "|".join(patterns) or None
