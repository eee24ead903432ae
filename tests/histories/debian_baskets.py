"""Real baskets without internet: what Debian's packages depend on, from the lists that apt keeps."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from functools import lru_cache

Row = tuple[str, str, float, float]
LEAST = 5


@lru_cache(maxsize=1)
def debian_baskets() -> list[Row]:
    """Rows of (package, package it depends on, 0, 1); empty where apt has no lists.

    Packages with five dependencies or more, first alternatives, in an order that says nothing: that of a hash.
    """
    if shutil.which("apt-cache") is None:
        return []
    listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False).stdout
    rows: dict[tuple[str, str], None] = {}
    package = ""
    for line in listed.decode(errors="replace").splitlines():
        if line.startswith("Package: "):
            package = line.removeprefix("Package: ")
        elif line.startswith("Depends: "):
            names = [re.split(r"[\s:(|]", one.strip())[0] for one in line.removeprefix("Depends: ").split(",")]
            if len(set(names)) >= LEAST:
                names = sorted(set(names), key=lambda name: zlib.crc32(f"{package} {name}".encode()))
                rows |= dict.fromkeys((package, name) for name in names)
    return [(package, name, 0.0, 1.0) for package, name in rows]
