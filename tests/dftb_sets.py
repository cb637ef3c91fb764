"""The built-in Slater-Koster set with DFTB+'s records, and published sets where `../shared` has them."""

from __future__ import annotations

import json
import lzma
from functools import cache
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_numbers

from conftest import ROOT, SHARED
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import PUBLISHED_HUBBARD_DERIVATIVES, ParameterSet, load_parameters
from pidelta.qm.dftb.sets import SetDescription, builtin_set
from pidelta.qm.dftb.settings import DFTBSettings, SCCSettings

# By tests/records/make_dftbplus_records.py.
CONTENT = json.loads(lzma.decompress((ROOT / "tests/data/dftbplus-25.1-pid-1.1.json.xz").read_bytes()))
RECORDS: list[dict[str, Any]] = CONTENT["records"]

PUBLISHED_FOLDERS = {"dftb3-3ob": SHARED / "slako" / "3ob-3-1", "dftb2-mio": SHARED / "slako" / "mio-1-1"}
PUBLISHED_SETTINGS: dict[str, dict[str, Any]] = {
    "dftb3-3ob": {
        "order": 3,
        "hubbard_derivatives": PUBLISHED_HUBBARD_DERIVATIVES["3ob"],
        "damping_exponent": 4.0,
    },
    "dftb2-mio": {},
}
# Where they are missing, conftest.py leaves these tests out; each has a sibling with the built-in set.
published_sets = pytest.mark.published_sets


@cache
def builtin(order: int) -> tuple[SetDescription, ParameterSet]:
    files = builtin_set()[order]
    return files.description, files.parameters(files.description.elements)


def settings_of(order: int) -> dict[str, Any]:
    """What the built-in set brings along, as settings of an engine."""
    description, _ = builtin(order)
    return {
        "order": order,
        "hubbard_derivatives": description.hubbard_derivatives if order == 3 else None,
        "damping_exponent": description.damping_exponent,
        "spin_constants": description.spin_constants,
    }


def make_settings(**settings: Any) -> DFTBSettings:
    """Settings, those of the self-consistency among the others."""
    scc = {key: settings.pop(key) for key in ("tolerance", "max_iterations", "start") if key in settings}
    return DFTBSettings(**settings, scc=SCCSettings(**scc))


def make_engine(numbers: Any, parameters: ParameterSet, **settings: Any) -> DFTBEngine:
    """The built-in engine with settings as of `make_settings`."""
    return DFTBEngine(numbers, parameters, make_settings(**settings))


def engine(numbers: Any, order: int = 3, **settings: Any) -> DFTBEngine:
    """The built-in engine with the built-in set."""
    return make_engine(numbers, builtin(order)[1], **{**settings_of(order), **settings})


def record_settings(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of an engine with which DFTB+ made a record, its dispersion aside."""
    return {
        **settings_of(record["order"]),
        "charge": record["charge"],
        "multiplicity": record["multiplicity"],
        "shell_resolved": record["shell_resolved"],
        "electronic_temperature": record["temperature"],
    }


def record_name(record: dict[str, Any]) -> str:
    """A name of a record of the built-in set or of a published one."""
    if "smiles" in record:
        return f"{record['model']} {record['smiles']}{' charges' if 'mm_charges' in record else ''}"
    notes = {
        f"charge {record['charge']}": record["charge"],
        f"multiplicity {record['multiplicity']}": record["multiplicity"] > 1,
        "charges": record["mm_charges"],
        "shells": record["shell_resolved"],
        "warm": record["temperature"],
        record["dispersion"]: record["dispersion"] != "none",
    }
    return " ".join([f"DFTB{record['order']}", record["molecule"], *(note for note in notes if notes[note])])


def find_record(molecule: str, order: int = 3) -> dict[str, Any]:
    """The first record of a molecule of this order."""
    return next(r for r in RECORDS if r["molecule"] == molecule and r["order"] == order)


def molecule(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions in bohr."""
    return np.array([atomic_numbers[symbol] for symbol in record["symbols"]]), np.array(record["positions"])


@cache
def published(model: str) -> ParameterSet:
    elements = "H C N O S P" if model == "dftb2-mio" else "H C N O S P Cl"
    return load_parameters(PUBLISHED_FOLDERS[model], elements.split())


def published_engine(model: str, numbers: Any, **settings: Any) -> DFTBEngine:
    return make_engine(numbers, published(model), **{**PUBLISHED_SETTINGS[model], **settings})


@cache
def published_records() -> list[dict[str, Any]]:
    path = SHARED / "reference" / "dftbplus-25.1.json"
    return json.loads(path.read_text())["records"] if path.is_file() else []
