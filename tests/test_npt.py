"""Constant pressure: cells that change under i-PI's barostats, Ewald sums that follow, what is refused."""

from __future__ import annotations

import shutil
from contextlib import closing

import numpy as np
import pytest

from conftest import ROOT
from ipi_support import running_ipi, unique_address
from pidelta.errors import GeometryError
from pidelta.ipi.client import serve
from pidelta.ipi.transports import connect
from test_qmmm_conformance import set_up

STEPS = 14
PRESSURE = "<pressure units='megapascal'> 0.1 </pressure>"
BAROSTATS = {
    "isotropic": ("npt", PRESSURE, ""),
    "anisotropic": (
        "nst",
        "<stress units='megapascal'> [0.1, 0, 0, 0, 0.1, 0, 0, 0, 0.1] </stress>",
        "<h0 units='atomic_unit' shape='(3, 3)'> [{cell}] </h0>",
    ),
    "flexible": ("npt", PRESSURE, ""),
}


def write_input(folder, system, barostat, timestep, steps):
    """A run without thermostats: what i-PI calls conserved is an energy of Newton's equations."""
    mode, ensemble, more = BAROSTATS[barostat]
    rows = [f"{'OHH'[i % 3]} {x:.10f} {y:.10f} {z:.10f}" for i, (x, y, z) in enumerate(system.positions)]
    comment = "# positions{atomic_unit} cell{atomic_unit}"
    (folder / "init.xyz").write_text("\n".join([str(len(rows)), comment, *rows, ""]))
    cell = ", ".join(f"{x:.10f}" for x in system.cell.T.ravel())
    more = f"<tau units='femtosecond'> 50 </tau> {more.format(cell=cell)}"
    path, address = folder / f"{barostat}.xml", unique_address()
    path.write_text(f"""<simulation verbosity='low'>
  <output prefix='{barostat}'>
    <properties filename='out' stride='1'> [ conserved, potential, volume, cell_h ] </properties>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed>1</seed></prng>
  <ffsocket name='all' mode='unix' pbc='false'> <address>{address}</address> </ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='xyz' units='atomic_unit'> init.xyz </file>
      <cell mode='manual' units='atomic_unit'> [ {cell} ] </cell>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='all'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> {ensemble} </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='{mode}'>
        <timestep units='femtosecond'> {timestep} </timestep>
        <barostat mode='{barostat}'> {more} </barostat>
      </dynamics>
    </motion>
  </system>
</simulation>
""")
    return path, address


def trajectory_of(folder, setup, evaluator, barostat, timestep, steps):
    """Columns of the output of a run by i-PI, with the client in this process."""
    path, address = write_input(folder, setup.system, barostat, timestep, steps)
    with running_ipi(path) as ipi:
        with closing(connect("unix", address, 0, patience=60.0)) as transport:
            serve(evaluator, transport)
        assert ipi.wait(60.0) == 0
    return np.loadtxt(folder / f"{barostat}.out")


@pytest.mark.parametrize(
    ("barostat", "coupling", "cell"),
    [
        ("isotropic", "pme", "cubic"),
        ("anisotropic", "cutoff", "triclinic"),
        pytest.param("flexible", "pme", "triclinic", marks=pytest.mark.slow),
        pytest.param("anisotropic", "pme", "triclinic", marks=pytest.mark.slow),
    ],
)
def test_the_error_of_the_conserved_quantity_falls_as_the_square_of_the_time_step(
    tmp_path, barostat, coupling, cell
):
    """As that of an integrator of second order must where the virial is the derivative of the energy.

    Two QM waters in 25 q-TIP4P/F waters at the wrong density: the cell changes its volume by a few per cent.
    What two time steps extrapolate to stays constant; a virial wrong by 5 % moves it by half of the range.
    """
    setup = set_up(tmp_path, coupling, "dftb", "builtin", cell, reach=4.0)
    coarse, fine = (
        trajectory_of(tmp_path, setup, setup.evaluator(), barostat, 0.5 / halving, STEPS * halving)
        for halving in (1, 2)
    )
    assert np.ptp(fine[:, 2]) > 0.01 * fine[0, 2]
    error = np.ptp(coarse[:, 0])
    assert error < 0.05 * np.ptp(coarse[:, 1])
    assert error / np.ptp(fine[:, 0]) == pytest.approx(4.0, rel=0.15)
    assert np.ptp(4.0 * fine[::2, 0] - coarse[:, 0]) / 3.0 < 0.06 * error
    edges = fine[-1, 3:6] / fine[0, 3:6]
    assert bool(np.ptp(edges) > 1e-4) is (barostat != "isotropic")


@pytest.mark.parametrize("coupling", ["cutoff", "pme"])
@pytest.mark.parametrize("evaluator", ["builtin", "openmm"])
def test_no_step_of_the_energy_as_the_cell_changes(tmp_path, coupling, evaluator):
    """The meshes stay those of the set-up; the energy is the integral of its slope by Simpson's rule."""
    setup = set_up(tmp_path, coupling, "ase", evaluator, "triclinic", reach=4.0, virial=True)
    whole, system = setup.evaluator(), setup.system
    scales = np.linspace(0.95, 1.05, 41)
    found = whole.evaluate(scales[:, None, None] * system.positions, scales[:, None, None] * system.cell)
    slopes = -np.trace(found.virial, axis1=1, axis2=2) / scales
    step = scales[1] - scales[0]
    integrals = (slopes[:-2:2] + 4.0 * slopes[1:-1:2] + slopes[2::2]) * step / 3.0
    np.testing.assert_allclose(np.diff(found.energy[::2]), integrals, rtol=0, atol=2e-6)


def test_a_cell_that_shrinks_too_far(tmp_path):
    setup = set_up(tmp_path, "cutoff", "dftb", "builtin", "cubic")
    system = setup.system
    low = setup.evaluator(frozenset(["low"]))
    message = r"cutoff of the embedding is 4.600 angstrom, expected at most half the cell, 4.465 angstrom"
    with pytest.raises(GeometryError, match=message):
        low.evaluate(0.95 * system.positions[None], 0.95 * system.cell[None])


def write_example(folder, steps, *changes):
    """The example at constant pressure, for some steps."""
    source = ROOT / "inputs" / "uracil-water"
    for name in ("uracil-water.gro", "uracil-water.top", "init.pdb", *(f"delta-{i}.pt" for i in range(3))):
        shutil.copy(source / name, folder)
    for name in ("npt.xml", "npt.yaml"):
        text = (source / name).read_text()
        text = text.replace("<total_steps>1000", f"<total_steps>{steps}")
        text = text.replace("pidelta-uracil-npt", unique_address())
        for old, new in changes:
            text = text.replace(old, new)
        (folder / name).write_text(text)
    return folder / "npt.xml", folder / "npt.yaml"


@pytest.mark.slow
def test_the_example_at_constant_pressure(tmp_path, run):
    path, config = write_example(tmp_path, 40)
    assert run("run", path, "--config", config) == 0
    volume = np.loadtxt(tmp_path / "npt.out")[:, 6]
    assert volume[0] == pytest.approx(30.0**3, rel=1e-3)
    assert 1e-5 < np.ptp(volume) / volume[0] < 0.05


OPENMM = (
    "  topology: uracil",
    "  engine: openmm\n  platform: Reference\n  virial: false\n  topology: uracil",
)


def test_a_barostat_needs_the_virial(tmp_path, fail):
    path, config = write_example(tmp_path, 2, OPENMM)
    line = fail("run", path, "--config", config)
    assert "npt.yaml: mm.virial: expected true with <dynamics mode='npt'> in" in line
    assert line.endswith("npt.xml, found false")


def test_a_barostat_needs_a_cell(tmp_path, fail):
    for name in ("init.xyz", "zundel.xyz", "pidelta.yaml"):
        shutil.copy(ROOT / "inputs" / "zundel" / name, tmp_path)
    text = (ROOT / "inputs" / "zundel" / "pimd.xml").read_text()
    (tmp_path / "pimd.xml").write_text(text.replace("<dynamics mode='nvt'", "<dynamics mode='npt'"))
    line = fail("run", tmp_path / "pimd.xml")
    assert "pimd.xml: <dynamics mode='npt'>: expected a structure with a cell, found none in" in line
