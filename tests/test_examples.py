"""The scripts in examples/ run, and print what is true."""

from __future__ import annotations

import re
import runpy

import numpy as np
import pytest

from conftest import ROOT


@pytest.fixture
def printed(capfd):
    """The numbers in what an example prints, by the label before them."""

    def run(name, *labels):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        output = capfd.readouterr().out
        return [
            np.array([float(number) for number in re.findall(rf"{label} +(-?\d+\.\d+)", output)])
            for label in labels
        ]

    return run


def test_optimisations_in_one_process_and_by_a_socket(printed):
    (energy,), (dipole,) = printed("optimise_uracil", "energy ", "dipole")
    assert 3.5 < dipole < 5.0  # 4.2 to 4.4 debye by DFT
    ((by_socket,),) = printed("socket_server", "energy ")
    assert by_socket == pytest.approx(energy, abs=5e-4)


def test_molecular_dynamics_conserves_the_energy(printed):
    (totals,) = printed("short_md", "total")
    assert len(totals) == 20
    assert np.ptp(totals) < 0.02


def test_vibrations(printed):
    """All modes of a minimum, of which the stretches of C=O and C=C, below 1800 1/cm, absorb most."""
    (intensities,) = printed("vibrations_uracil", "1/cm")
    assert len(intensities) == 30
    assert set(np.argsort(intensities)[-3:]) == {23, 24, 25}


def test_nudged_elastic_band(printed):
    """Symmetric, with the proton in the middle at the top."""
    energies, (barrier,) = printed("proton_transfer_neb", "angstrom", "barrier")
    np.testing.assert_allclose(energies, energies[::-1], atol=2e-3)
    assert np.argmax(energies) == 3
    assert energies[3] * 23.0605 == pytest.approx(barrier, abs=0.01)
    assert barrier == pytest.approx(2.78 + 3.71, abs=0.1)  # B3LYP's, and the error that tests/quality has
