"""The coupling by an Ewald sum: fixed charges in it give the Ewald energy of the whole cell."""

from dataclasses import replace

import numpy as np
import pytest

from mm_systems import CUBIC as MM_CUBIC
from mm_systems import TRICLINIC as MM_TRICLINIC
from mm_systems import mm_evaluator, water_positions
from pidelta.config import load_config
from pidelta.core.charge_fields import ChargeFields
from pidelta.core.ewald import EwaldSum
from pidelta.core.pme import ParticleMeshEwald, grid_for, reciprocal_sum
from pidelta.errors import ConfigError
from pidelta.mm.water import build_water
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import System
from pidelta.testing.derivatives import central_differences
from pidelta.testing.qmmm import check_coupling
from pidelta.testing.samples import Sample
from qmmm_systems import pme_coupling
from test_core_ewald import CUBIC, TRICLINIC, random_charges, whole_energy
from test_qmmm_surroundings import ALIKE, make_evaluator, make_system, perturbed
from test_qmmm_surroundings import CUBE as WATER_CUBE
from test_qmmm_surroundings import TRICLINIC as WATER_TRICLINIC

QM = np.array([3, 4, 5, 11])
QM_WATER = np.arange(3)
CUTOFF = 6.0


def system(cell, net, seed=0, n=24):
    """Charges far enough from each other, the QM atoms a molecule across the face of the cell."""
    rng = np.random.default_rng(seed)
    _, charges = random_charges(seed, net, n)
    side = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] / 3.0
    positions = (side + rng.uniform(-0.06, 0.06, side.shape)) @ cell
    molecule = np.array([[0.0, 0.0, 0.0], [2.0, 0.3, 0.1], [2.9, 2.0, -0.4], [-0.6, 1.8, 0.5]])
    positions[QM] = np.array([-0.05, 0.5, 0.48]) @ cell + molecule
    return positions, charges


def coupled(charges, reciprocal):
    """The coupling of the QM atoms to the other charges."""
    mm = charges.copy()
    mm[QM] = 0.0
    return pme_coupling(Partition(np.full(len(charges), 8), QM, mm), reciprocal, CUTOFF)


def field_of(coupling, positions, cell):
    none = np.zeros((len(positions), 0))
    region = CutRegion(np.full(len(QM), 8), positions[:, QM], none[..., None], none, none, none)
    return coupling.field(positions, np.repeat(cell[None], len(positions), axis=0), region)


def energy(coupling, positions, charges, cell):
    """Of the QM charges in the field, among themselves and with their images."""
    field, qm = field_of(coupling, positions, cell), positions[:, QM]
    q = charges[QM]
    own = 0.0
    for a in range(len(QM)):
        for b in range(a):
            own = own + q[a] * q[b] / np.linalg.norm(qm[:, a] - qm[:, b], axis=1)
    return field.potential @ q + 0.5 * (field.kernel @ q) @ q + own, field


@pytest.mark.parametrize("net", [0.0, 1.7])
@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC], ids=["cubic", "triclinic"])
def test_fixed_charges_give_the_ewald_energy_of_the_cell(cell, net):
    positions, charges = system(cell, net)
    alpha = 1.0  # the shift of the direct part is 4e-18
    coupling = coupled(charges, EwaldSum(alpha, 1e-16))
    found = energy(coupling, positions[None], charges, cell)[0][0]
    mm = np.delete(np.arange(len(charges)), QM)
    other = EwaldSum(0.7, 1e-16)
    expected = whole_energy(other, positions, charges, cell, 9.0)
    expected -= whole_energy(other, positions[mm], charges[mm], cell, 9.0)
    # the backgrounds of both parts are in both sums; what is left is that of the cross term, in the coupling
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("method", ["ewald", "pme"])
@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC], ids=["cubic", "triclinic"])
def test_gradient_and_virial(cell, method):
    positions, charges = system(cell, 0.7, seed=1)
    alpha = 0.45
    reciprocal = EwaldSum(alpha, 1e-14)
    if method == "pme":
        reciprocal = ParticleMeshEwald(alpha, grid_for(cell, alpha, 1e-4))
    coupling = coupled(charges, reciprocal)
    q = charges[QM]
    _, field = energy(coupling, positions[None], charges, cell)
    gradient, virial = coupling.pull_back(field, q[None])

    def without_own(moved, cell=cell):
        field = field_of(coupling, moved, cell)
        return field.potential @ q + 0.5 * (field.kernel @ q) @ q

    everyone = np.arange(len(charges))
    numerical = central_differences(without_own, positions, everyone, 1e-4)
    np.testing.assert_allclose(gradient[0], numerical, atol=2e-8)
    step = 1e-5
    for a in range(3):
        for b in range(a + 1):
            strain = np.zeros((3, 3))
            strain[a, b] = strain[b, a] = step * (1.0 if a == b else 0.5)
            up, down = np.eye(3) + strain, np.eye(3) - strain
            above, below = (without_own((positions @ m)[None], cell @ m) for m in (up, down))
            assert -virial[0, a, b] == pytest.approx((above - below)[0] / (2.0 * step), abs=2e-7)


def test_a_region_larger_than_the_cutoff_and_shifted_atoms():
    positions, charges = system(TRICLINIC, 0.0, seed=2)
    positions[QM[3]] = positions[QM[0]] + np.array([8.5, 0.4, 0.3])
    coupling = coupled(charges, EwaldSum(1.0, 1e-16))
    found = energy(coupling, positions[None], charges, TRICLINIC)[0][0]
    mm = np.delete(np.arange(len(charges)), QM)
    expected = whole_energy(EwaldSum(0.7, 1e-16), positions, charges, TRICLINIC, 9.0)
    expected -= whole_energy(EwaldSum(0.7, 1e-16), positions[mm], charges[mm], TRICLINIC, 9.0)
    assert found == pytest.approx(expected, abs=1e-10)
    shifted = positions.copy()
    shifted[mm] += np.random.default_rng(0).integers(-2, 3, (len(mm), 3)) @ TRICLINIC
    again = energy(coupling, shifted[None], charges, TRICLINIC)[0][0]
    assert again == pytest.approx(found, abs=1e-11)


@pytest.mark.parametrize("cell", [WATER_CUBE, WATER_TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_conformance(cell):
    topology, positions = make_system(cell)
    evaluator = make_evaluator(topology, positions, cell)
    sample = Sample(*perturbed(positions, cell), topology.residue_indices, ALIKE)
    coupling = pme_coupling(evaluator.partition, reciprocal_sum("ewald", 11.8, 1e-6, cell), 11.8)
    check_coupling(evaluator, coupling, sample, np.array([0.4, -0.7, 0.3]))


def water_with(cell, net, method, engine_charges):
    """64 flexible waters, one of them QM and across a face of the cell, with an ion in place of a charge."""
    x = water_positions(64, cell, seed=4)
    x = x - x[0]  # the QM water at a corner
    numbers, molecules = np.tile([8, 1, 1], 64), np.repeat(np.arange(64), 3)
    names = ("O", "H", "H") * 64, ("SOL",) * 192
    system = System(numbers, x, cell, *names, molecules, molecules, ("",) * 192)
    topology = build_water(system, "q-spc-fw")
    charges = topology.charges.copy()
    charges[QM_WATER], charges[99] = engine_charges, charges[99] + net
    topology = replace(topology, charges=charges)
    settings = {"cutoff": 11.5, "cell": cell, "electrostatics": method, "ewald_tolerance": 1e-5}
    left = topology.without_internal(QM_WATER)
    partition = Partition(topology.numbers, QM_WATER, left.charges)
    coupling = pme_coupling(partition, reciprocal_sum(method, 11.5, 1e-5, cell), 11.5)
    return x, topology, left, coupling, settings


@pytest.mark.parametrize("method", ["ewald", "pme"])
@pytest.mark.parametrize("net", [0.0, 1.0])
@pytest.mark.parametrize("cell", [MM_CUBIC, MM_TRICLINIC], ids=["cubic", "triclinic"])
def test_fixed_charges_turn_the_sum_into_pure_mm(cell, net, method):
    """The classical evaluator, a program of its own within this one, has the same mesh and the same shift."""
    q = np.array([-0.7, 0.3, 0.4])
    x, topology, left, coupling, settings = water_with(cell, net, method, q)
    x = x + np.repeat(np.random.default_rng(1).integers(-1, 2, (64, 3)) @ cell, 3, axis=0)
    whole = mm_evaluator(topology, **settings).evaluate(x[None], cell[None])
    rest = mm_evaluator(left, **settings).evaluate(x[None], cell[None])
    alone = mm_evaluator(topology, cutoff=None)
    bonded = sum(alone.evaluate(x[None], None).components[name][0] for name in ("bond", "angle"))
    bonded -= sum(
        mm_evaluator(left, cutoff=None).evaluate(x[None], None).components[n][0] for n in ("bond", "angle")
    )
    none = np.zeros((1, 0))
    region = CutRegion(topology.numbers[QM_WATER], x[None, QM_WATER], none[..., None], none, none, none)
    field = coupling.field(x[None], cell[None], region)
    energy = field.potential[0] @ q + 0.5 * q @ field.kernel[0] @ q
    assert rest.energy[0] + energy + bonded == pytest.approx(whole.energy[0], abs=1e-8)
    gradient, _ = coupling.pull_back(field, q[None])
    mm = np.arange(3, 192)
    np.testing.assert_allclose((gradient + rest.gradient)[0, mm], whole.gradient[0, mm], atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"electrostatics": "reaction-field"}, "expected mm.electrostatics pme or ewald with pme"),
        (None, "embedding: expected a section mm whose charges it embeds in, found none"),
    ],
)
def test_what_pme_needs(tmp_path, change, message):
    path = tmp_path / "c.yaml"
    mm = "" if change is None else "mm: {water: q-spc-fw, electrostatics: reaction-field}\n"
    path.write_text(
        f"structure: a.gro\nqm: {{atoms: 'resid 1'}}\n{mm}embedding: {{scheme: pme}}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("method", ["ewald", "pme"])
def test_fields_are_shared_with_the_force_field(method):
    """What it made for the same positions is taken up, once; the charges of the coupling may differ."""
    positions, charges = system(TRICLINIC, 0.3, seed=5)
    mm = charges.copy()
    mm[QM] = 0.0
    moved = mm.copy()
    moved[[0, 7]] += [0.2, -0.2]
    reciprocal = Counting(reciprocal_sum(method, CUTOFF, 1e-4, TRICLINIC))
    partition = Partition(np.full(len(charges), 8), QM, moved)
    alone = pme_coupling(partition, reciprocal, CUTOFF)
    fields = ChargeFields(reciprocal, mm)
    shared, q = PMECoupling(partition, fields, CUTOFF), charges[None, QM]

    def result(coupling, x):
        field = field_of(coupling, x[None], TRICLINIC)
        return field.potential, field.kernel, *coupling.pull_back(field, q)

    other = positions + 0.1
    for made, asked, whole_fields in ((positions, positions, 1), (positions, other, 2), (other, other, 1)):
        reciprocal.sizes.clear()
        fields.make(0, made, TRICLINIC)
        found = result(shared, asked)
        assert reciprocal.sizes.count(len(charges)) == whole_fields
        for one, expected in zip(found, result(alone, asked), strict=True):
            np.testing.assert_allclose(one, expected, atol=1e-12)
    reciprocal.sizes.clear()
    result(shared, other)
    assert reciprocal.sizes.count(len(charges)) == 1  # it was taken, and is made anew


class Counting:
    """A sum that notes how many charges its fields are of."""

    def __init__(self, reciprocal):
        self._reciprocal, self.alpha, self.kernel = reciprocal, reciprocal.alpha, reciprocal.kernel
        self.sizes = []

    def field(self, positions, charges, cell):
        self.sizes.append(len(charges))
        return self._reciprocal.field(positions, charges, cell)
