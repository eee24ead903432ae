"""Reading what is embedded: the input of a row, from the values of its source columns."""

from __future__ import annotations

from embeddb.sources.audio import Audio
from embeddb.sources.files import Files
from embeddb.sources.images import Image
from embeddb.sources.inputs import Inputs, Part
from embeddb.sources.text import compose

__all__ = ["Audio", "Files", "Image", "Inputs", "Part", "compose"]
