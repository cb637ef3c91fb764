"""A Slater-Koster set of H and C that describes no real atom but gives every engine something to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pidelta.parametrisation.writer import exponential_head, write_skf
from pidelta.qm.dftb.repulsive import spline_repulsive
from pidelta.qm.dftb.sets import DESCRIPTION, SetDescription
from pidelta.qm.dftb.skf import INTEGRALS, SlaterKosterFile

DERIVATIVES = {"H": -0.19, "C": -0.15}
SPIN_CONSTANTS = {"H": [[-0.07]], "C": [[-0.03, -0.025], [-0.025, -0.0225]]}
ONSITE = {"H": (-0.24, 0.0, 0.0), "C": (-0.5, -0.19, 0.0)}
OCCUPATIONS = {"H": (1.0, 0.0, 0.0), "C": (2.0, 2.0, 0.0)}
HUBBARD_U = {"H": 0.42, "C": 0.36}
MASSES = {"H": 1.008, "C": 12.011}


def write_made_up_set(folder: Path, order: int, **changes: object) -> Path:
    """One order, in a folder: the repulsives depend on it; `changes` go to the description."""
    folder.mkdir()
    for first in DERIVATIVES:
        for second in DERIVATIVES:
            content = pair_file(first, second, stiffness=0.1 * order)
            write_skf(folder / f"{first}-{second}.skf", content, MASSES[first], ["made up"])
    settings = {
        "name": "made-up",
        "version": "1.2",
        "license": "MIT",
        "functional": "PBE",
        "reference": "no DFT at all",
        "elements": list(DERIVATIVES),
        "order": order,
        "hubbard_derivatives": DERIVATIVES,
        "spin_constants": SPIN_CONSTANTS,
        "damping_exponent": 4.2 if order == 3 else None,
        "recipe": f"{order:064d}",
    }
    description = SetDescription.model_validate({**settings, **changes})
    (folder / DESCRIPTION).write_text(description.model_dump_json())
    return folder


def pair_file(first: str, second: str, stiffness: float) -> SlaterKosterFile:
    r = 0.1 * np.arange(1, 81)
    overlap = np.zeros((len(r), len(INTEGRALS)))
    overlap[:, INTEGRALS.index((0, 0, 0))] = 0.4 * np.exp(-((r / 2.5) ** 2))
    if second == "C":
        overlap[:, INTEGRALS.index((0, 1, 0))] = 0.1 * r * np.exp(-((r / 2.5) ** 2))
    if first == second == "C":
        overlap[:, INTEGRALS.index((1, 1, 0))] = -0.1 * np.exp(-((r / 2.5) ** 2))
        overlap[:, INTEGRALS.index((1, 1, 1))] = 0.2 * np.exp(-((r / 2.5) ** 2))
    # stiffness * (3 - r)^3 below 3 bohr.
    head = exponential_head(2.0, stiffness, -3.0 * stiffness, 6.0 * stiffness)
    coefficients = [[stiffness, -3.0 * stiffness, 3.0 * stiffness, -stiffness, 0.0, 0.0]]
    repulsive = spline_repulsive([2.0], coefficients, head, 3.0)
    if first != second:
        return SlaterKosterFile(0.1, -0.6 * overlap, overlap, repulsive)
    atom = (ONSITE[first], (HUBBARD_U[first],) * 3, OCCUPATIONS[first])
    return SlaterKosterFile(0.1, -0.6 * overlap, overlap, repulsive, *map(np.array, atom))
