"""Virtual sites beside a QM region: four-point water and other kinds of sites in embedding and labels."""

from __future__ import annotations

import numpy as np
import pytest

from mm_systems import (
    DATA,
    MIXED,
    WATER,
    water_atoms,
    water_positions,
    write_four_point_prmtop,
    write_gro,
)
from pidelta.config import load_config
from pidelta.data.store import FrameStore
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.setup import Setup
from pidelta.testing.qmmm import check_qmmm, check_surroundings
from pidelta.testing.samples import Tolerances, kinds_of_atoms
from pidelta.units import ANGSTROM
from pidelta.workflow.labelling import low_labels
from pidelta.workflow.sampling import sample
from qmmm_systems import sample_of

CELL = np.array([[12.6, 0.0, 0.0], [-2.0, 12.4, 0.0], [2.5, -2.6, 12.5]]) * ANGSTROM
TIP4P_EW = {"0.315365 0.648520": "0.316435 0.680946", "0.52": "0.52422", "-1.04": "-1.04844"}
TIP4P_EW |= {"0.128012065 0.128012065": "0.106676721 0.106676721"}
SITES = {
    "3out": "7 4 5 6 4 -0.30 -0.25 2.5",
    "3fad": "7 4 5 6 3 115.0 0.11",
    "3fd": "7 4 5 6 2 0.4 0.11",
}


def set_up(folder, structure, topology, scheme, qm="resid 1 or resid 2"):
    path = folder / "pidelta.yaml"
    ends = "" if scheme is None else ", electrostatics: pme, cutoff: 5.8 angstrom"
    embedding = "" if scheme is None else f"scheme: {scheme}, cutoff: 5.8 angstrom, switch: 2 angstrom"
    path.write_text(
        f"structure: {structure}\nqm: {{atoms: '{qm}'}}\n"
        f"mm: {{topology: {topology}{ends}}}\nembedding: {{{embedding}}}\n"
    )
    return Setup(load_config(path))


@pytest.mark.parametrize("scheme", ["cutoff", "pme"])
def test_tip4p_ew_of_amber(tmp_path, scheme):
    """Two QM waters, which have sites in the file, among 52 more."""
    text = (DATA / "tip4p.top").read_text().replace("SOL 8", "SOL 54")
    for old, new in TIP4P_EW.items():
        text = text.replace(old, new)
    write_four_point_prmtop(tmp_path / "w.prmtop", text)
    positions = water_positions(54, CELL, seed=3)
    write_gro(tmp_path / "w.gro", water_atoms(1, 54), positions - positions[0], CELL)
    setup = set_up(tmp_path, "w.gro", "w.prmtop", scheme)
    assert setup.qm_region.partition.charges.min() == pytest.approx(-1.04844, abs=1e-5)
    assert np.count_nonzero(setup.qm_region.partition.charges < -1.0) == 52
    check_qmmm(setup.evaluator(), sample_of(setup), Tolerances(mesh=1e-4), count=1)


@pytest.mark.parametrize(("kind", "scheme"), [("3out", "cutoff"), ("3fad", "pme"), ("3fd", "cutoff")])
def test_sites_of_gromacs(tmp_path, kind, scheme):
    """A QM water beside a molecule with a site on a bond and one of a general kind, and three waters."""
    text = (DATA / "sites.top").read_text().replace(SITES["3out"], SITES[kind])
    (tmp_path / "s.top").write_text(text.replace("BONDTYPE", "1"))
    places = np.array([[-1.0, 5.0, 1.0], [6.0, -5.0, 0.0], [0.0, 0.0, 7.0], [5.0, 6.0, -6.0]])
    water = (WATER + places[:, None]).reshape(-1, 3)
    positions = np.concatenate([water[:6], MIXED, water[6:]])
    names = [(3, "CHN", name) for name in ("C1", "C2", "C3", "C4", "C5", "H1")]
    write_gro(tmp_path / "s.gro", [*water_atoms(1, 2), *names, *water_atoms(4, 2)], positions, CELL)
    setup = set_up(tmp_path, "s.gro", "s.top", scheme, "resid 1")
    evaluator, given = setup.evaluator(), sample_of(setup)
    kinds = kinds_of_atoms(evaluator, given.positions[0], given.cell(0), 6)
    assert np.isin([8, 9, 10], kinds["parent of a site"]).any()
    check_qmmm(evaluator, given, Tolerances(mesh=1e-4), count=3)
    if scheme == "pme":
        check_surroundings(evaluator, given)


@pytest.fixture
def cluster(tmp_path):
    """Eight q-TIP4P/F waters in vacuum, all within the cutoff of the first, which is QM."""
    positions = water_positions(8, 18.0 * np.eye(3), seed=1)
    rows = [f"{'OHH'[i % 3]} {x} {y} {z}" for i, (x, y, z) in enumerate(positions / ANGSTROM)]
    (tmp_path / "w.xyz").write_text("\n".join(["24", "water", *rows, ""]))
    (tmp_path / "c.yaml").write_text("structure: w.xyz\nqm: {atoms: [0, 1, 2]}\nmm: {water: q-tip4p-f}\n")
    return Setup(load_config(tmp_path / "c.yaml"))


def frame_of(setup, folder):
    """The structure as a frame, by way of a trajectory as i-PI writes it."""
    rows = [f"{'OHH'[i % 3]} {x} {y} {z}" for i, (x, y, z) in enumerate(setup.system.positions.tolist())]
    cell = "CELL(abcABC): 99 99 99 90 90 90"
    comment = f"# {cell} Step: 0 Bead: 0 positions{{atomic_unit}} cell{{atomic_unit}}"
    (folder / "t.xyz").write_text("\n".join([str(len(rows)), comment, *rows, ""]))
    store = FrameStore(folder / "frames.h5", "a")
    options = {"numbers": setup.system.numbers, "yardstick": setup.yardstick, "periodic": False}
    assert sample(folder / "t.xyz", setup.qm_region, store, **options) == 1
    return store


def test_dft_labels_see_the_charges_at_their_sites(cluster, tmp_path):
    """PySCF's own QM/MM, its charges put where q-TIP4P/F has them by hand."""
    pyscf = pytest.importorskip("pyscf")
    from pyscf import qmmm

    settings = ReferenceSettings(xc="PBE", basis="STO-3G", grid_level=0)
    with frame_of(cluster, tmp_path) as store:
        found = label_frame(store.frame(0), settings)
    oxygen, first, second = cluster.system.positions.reshape(-1, 3, 3)[1:].transpose(1, 0, 2)
    places = np.concatenate([first, second, 0.73612 * oxygen + 0.13194 * (first + second)])
    charges = np.repeat([0.5564, 0.5564, -1.1128], 7)
    atoms = [("OHH"[i], x) for i, x in enumerate(cluster.system.positions[:3].tolist())]
    molecule = pyscf.gto.M(atom=atoms, unit="Bohr", basis="STO-3G", verbose=0)
    scf = qmmm.mm_charge(
        molecule.RKS(xc="PBE").density_fit(auxbasis=settings.fitting_basis), places, charges, unit="Bohr"
    )
    scf.grids.level = 0
    assert found.energy == pytest.approx(scf.kernel(), abs=2e-6)
    alone = molecule.RKS(xc="PBE").density_fit(auxbasis=settings.fitting_basis).run(verbose=0)
    assert abs(found.energy - alone.e_tot) > 1e-3


def test_low_labels_are_the_energies_of_a_run(cluster, tmp_path):
    evaluation = cluster.evaluator().evaluate(cluster.system.positions[None], None)
    with frame_of(cluster, tmp_path) as store:
        ((_, label),) = low_labels(store, [0], cluster.engine, 0, 1)
        assert store.frame(0).site_numbers.tolist() == [8, 1, 1, 0] * 7
    assert label.energy == pytest.approx(evaluation.terms["low"].energy[0], abs=1e-10)
    np.testing.assert_allclose(label.charges, evaluation.charges[0], atol=1e-8)
    # what acts on a site acts on its water
    per_water = evaluation.terms["low"].gradient[0, 3:].reshape(-1, 3, 3).sum(axis=1)
    of_sites = label.site_gradient.reshape(-1, 4, 3)
    np.testing.assert_allclose(of_sites.sum(axis=1), per_water, atol=1e-9)
    assert np.abs(of_sites[:, 3]).max() > 1e-3
    np.testing.assert_allclose(label.gradient, evaluation.terms["low"].gradient[0, :3], atol=1e-9)
