"""todo."""

from __future__ import annotations

from pathlib import Path

from pidelta.mm.topology import Topology


def read_charmm(path: Path, parameters) -> Topology:
    """todo."""
