"""The published Slater-Koster sets and the reference records that the tests of the DFTB engine share."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_numbers

from conftest import SHARED
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import PUBLISHED_HUBBARD_DERIVATIVES, ParameterSet, load_parameters
from pidelta.qm.dftb.settings import DFTBSettings, SCCSettings

needs_sets = pytest.mark.skipif(not (SHARED / "slako").is_dir(), reason="no published Slater-Koster sets")

FOLDERS = {"dftb3-3ob": "3ob-3-1", "dftb2-mio": "mio-1-1"}
SETTINGS: dict[str, dict[str, Any]] = {
    "dftb3-3ob": {
        "order": 3,
        "hubbard_derivatives": PUBLISHED_HUBBARD_DERIVATIVES["3ob"],
        "damping_exponent": 4.0,
    },
    "dftb2-mio": {},
}


@cache
def parameters(model: str, elements: str) -> ParameterSet:
    return load_parameters(SHARED / "slako" / FOLDERS[model], elements.split())


def make_settings(**settings: Any) -> DFTBSettings:
    """Settings, those of the self-consistency among the others."""
    scc = {key: settings.pop(key) for key in ("tolerance", "max_iterations", "start") if key in settings}
    return DFTBSettings(**settings, scc=SCCSettings(**scc))


def make_engine(numbers: Any, parameters: ParameterSet, **settings: Any) -> DFTBEngine:
    """The built-in engine with settings as of `make_settings`."""
    return DFTBEngine(numbers, parameters, make_settings(**settings))


def engine(model: str, numbers: Any, **settings: Any) -> DFTBEngine:
    elements = "H C N O S P" if model == "dftb2-mio" else "H C N O S P Cl"
    return make_engine(numbers, parameters(model, elements), **{**SETTINGS[model], **settings})


@cache
def records() -> list[dict[str, Any]]:
    path = SHARED / "reference" / "dftbplus-25.1.json"
    return json.loads(path.read_text())["records"] if path.is_file() else []


def find_record(smiles: str, model: str, point_charges: bool = False) -> dict[str, Any]:
    return next(
        record
        for record in records()
        if record["smiles"] == smiles
        and record["model"] == model
        and ("mm_charges" in record) == point_charges
    )


def molecule(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions in bohr."""
    return np.array([atomic_numbers[symbol] for symbol in record["symbols"]]), np.array(record["positions"])
