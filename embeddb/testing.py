"""What users' own tests may import: pytest finds it as a plug-in."""

from __future__ import annotations
