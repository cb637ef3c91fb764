"""``pidelta ffdirect-path``: where the file is by which i-PI calls pidelta in its own process."""

from __future__ import annotations

from pathlib import Path

import pidelta


def ffdirect_path() -> None:
    """Print the path for the <pes_path> of an <ffdirect> whose <pes> is custom."""
    print(Path(pidelta.__file__).with_name("ipi_pes.py"))
