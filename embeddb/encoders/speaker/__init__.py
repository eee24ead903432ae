"""Speakers: voices as vectors."""

from __future__ import annotations

from embeddb.encoders.speaker.deep_speaker import DeepSpeaker
from embeddb.encoders.speaker.rescnn import Shape
from embeddb.encoders.speaker.xvector import XVector

__all__ = ["DeepSpeaker", "Shape", "XVector"]
