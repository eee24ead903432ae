"""``python -m embeddb`` is the ``embeddb`` command."""

from __future__ import annotations

from embeddb.cli.main import main

if __name__ == "__main__":
    main()
