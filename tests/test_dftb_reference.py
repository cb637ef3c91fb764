"""The DFTB engine against the DFTB+ 25.1 program."""

from __future__ import annotations

import numpy as np
import pytest

from dftb_sets import engine, molecule, needs_sets, records

pytestmark = needs_sets

# DFTB+ 25.1 has an older value of the bohr than the records were converted with, so it saw molecules that
# were smaller by this factor.
DFTBPLUS_SCALE = 0.529177210903 / 0.529177249


def name(record):
    return f"{record['model']} {record['smiles']}{' charges' if 'mm_charges' in record else ''}"


def evaluate(record, scale=1.0):
    """Energy, gradient of QM atoms and of point charges, Mulliken charges."""
    numbers, positions = molecule(record)
    positions = scale * positions
    mm_charges = np.array(record.get("mm_charges", []))
    mm_positions = scale * np.array(record.get("mm_positions", [])).reshape(-1, 3)
    vectors = positions[:, None] - mm_positions
    distances = np.linalg.norm(vectors, axis=-1)
    potential = (mm_charges / distances).sum(1)
    result = engine(record["model"], numbers, charge=record["charge"]).evaluate(
        positions[None], potential[None]
    )
    charges = result.charges[0]
    pair = -(charges[:, None] * mm_charges / distances**3)[..., None] * vectors
    return result.energy[0], result.gradient[0] + pair.sum(1), -pair.sum(0), charges


@pytest.mark.parametrize("record", records(), ids=name)
def test_agrees_with_dftbplus(record):
    energy, gradient, mm_gradient, charges = evaluate(record)
    assert energy == pytest.approx(record["energy"], abs=1e-7)
    np.testing.assert_allclose(gradient, record["gradient"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(charges, record["mulliken"], rtol=0, atol=1e-6)
    if "mm_charges" in record:
        np.testing.assert_allclose(mm_gradient, record["mm_gradient"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("record", [r for r in records() if "mm_charges" not in r], ids=name)
def test_agrees_more_closely_with_dftbplus_in_its_own_units(record):
    energy, gradient, _, charges = evaluate(record, DFTBPLUS_SCALE)
    assert energy == pytest.approx(record["energy"], abs=1e-11)
    np.testing.assert_allclose(gradient, record["gradient"], rtol=0, atol=5e-8)
    np.testing.assert_allclose(charges, record["mulliken"], rtol=0, atol=1e-8)
