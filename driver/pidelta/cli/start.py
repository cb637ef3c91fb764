"""What ``pidelta run`` looks at before i-PI starts: where the systems start, and under which conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from pidelta.cli.messages import show_warning
from pidelta.ipi.conditions import read_conditions
from pidelta.ipi.starts import check_atom_order, read_starts

if TYPE_CHECKING:
    from pathlib import Path

    from pidelta.setup import Setup


def show_conditions(console: Console, path: Path) -> None:
    """Print time step, temperature and their like, and what is unusual about them.

    Raises:
        SetupError: one is beyond all reason.
    """
    conditions = read_conditions(path)
    if conditions.text:
        console.print(conditions.text, soft_wrap=True, markup=False, highlight=False)
    for warning in conditions.warnings:
        show_warning(console, warning)


def check_starts(console: Console, path: Path, setup: Setup) -> None:
    """Check atoms, order and units of what each system of an i-PI input starts from; warn of differences.

    Raises:
        SetupError: they are not those of the structure.
    """
    starts = read_starts(path)
    check_atom_order(starts, setup.system)
    warnings: dict[str, None] = {}
    for start in starts:
        # the beads of a ring polymer are often one structure
        for positions in np.unique(start.positions, axis=0):
            setup.yardstick.check(positions, start.cell, f"{start.path}")
            if not start.goes_on:
                found = setup.yardstick.differences(positions, start.cell, f"{start.path}")
                warnings.update(dict.fromkeys(found))
    for warning in warnings:
        show_warning(console, warning)
