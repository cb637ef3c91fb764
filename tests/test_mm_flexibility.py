"""Molecules that only the constraints of other programs would hold in shape: refused, or said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mm_systems import DATA
from pidelta.config import load_config
from pidelta.errors import TopologyError
from pidelta.mm.flexibility import flexibility_warnings, loose_angles, refuse_collapsing_water
from pidelta.mm.readers import read_topology
from pidelta.mm.topology import Harmonic
from pidelta.setup import Setup
from qmmm_systems import bare_topology


def harmonic(*atoms, k=1.0):
    return Harmonic(np.array(atoms), np.full(len(atoms), k), np.ones(len(atoms)))


def water(**tables):
    topology = bare_topology([0, 0, 0], [0.0, 0.0, 0.0], [(0, 1), (0, 2)], names=["O", "H1", "H2"])
    return replace(topology, numbers=np.array([8, 1, 1]), **tables)


HELD = {
    "an angle term": {"angles": harmonic((1, 0, 2))},
    "an angle term the other way round": {"angles": harmonic((2, 0, 1))},
    "a Urey-Bradley term": {"urey_bradley": harmonic((2, 1))},
    "a bond": {"bonds": harmonic((0, 1), (2, 0), (1, 2))},
}


@pytest.mark.parametrize("term", HELD)
def test_terms_that_hold_an_angle(term):
    assert len(loose_angles(water(**HELD[term]))) == 0
    refuse_collapsing_water(water(**HELD[term]))


@pytest.mark.parametrize("tables", [{}, {"angles": harmonic((1, 0, 2), k=0.0)}])
def test_water_of_bonds_alone_is_refused(tables):
    with pytest.raises(TopologyError, match=r"made-up\.top: .*RES1:O \(atom 0\).*FlexibleWater on"):
        refuse_collapsing_water(water(**tables))


def test_other_molecules_are_named_in_a_warning_alone():
    bonds = [(0, 1), (0, 2), (0, 3), (3, 4), (5, 6)]
    topology = bare_topology([0] * 5 + [1] * 2, [0.0] * 7, bonds)
    topology = replace(topology, angles=harmonic((1, 0, 2), (1, 0, 3)))
    assert loose_angles(topology).tolist() == [[0, 3, 4], [2, 0, 3]]
    refuse_collapsing_water(topology)
    (warning,) = flexibility_warnings(topology)
    assert "holds 2 of its angles" in warning
    assert "X0 - X3 - X4 (1)" in warning


def test_the_diagonal_of_a_ring_of_four_needs_one_term():
    ring = bare_topology([0] * 4, [0.0] * 4, [(0, 1), (1, 2), (2, 3), (3, 0)])
    topology = replace(ring, angles=harmonic((0, 1, 2), (1, 2, 3)))
    assert len(loose_angles(ring)) == 4
    assert len(loose_angles(topology)) == 0


def test_water_made_to_be_rigid_is_named_in_a_warning():
    bonds = HELD["a bond"]
    (warning,) = flexibility_warnings(water(**bonds))
    assert "1 water molecules have a bond H-H and no angle term" in warning
    assert flexibility_warnings(water(**bonds, angles=harmonic((1, 0, 2)))) == []


@pytest.mark.parametrize("name", ["acetamide-water", "tip4p"])
def test_flexible_topologies_pass(name):
    topology = read_topology(DATA / f"{name}.top")
    assert flexibility_warnings(topology) == []
    refuse_collapsing_water(topology)


def test_a_protein_of_charmm_passes(charmm):
    folder = charmm[0]
    topology = read_topology(folder / "protein.psf", [folder / "protein.rtf", folder / "protein.prm"])
    assert flexibility_warnings(topology) == []


def test_set_up_refuses_collapsing_water_but_not_in_the_qm_region(tmp_path):
    text = (DATA / "tip4p.top").read_text().replace("2 1 3 1 104.52 628.02", "").replace("SOL 8", "SOL 2")
    (tmp_path / "water.top").write_text(text)
    rows = [(0.0, 0.0), (0.08, 0.06), (-0.08, 0.06), (0.01, 0.01)]
    lines = [
        f"{molecule + 1:5d}SOL  {name:>5s}{4 * molecule + k + 1:5d}{x:8.3f}{y:8.3f}{0.4 * molecule:8.3f}"
        for molecule in range(2)
        for k, (name, (x, y)) in enumerate(zip(("OW", "HW1", "HW2", "MW"), rows, strict=True))
    ]
    (tmp_path / "water.gro").write_text("\n".join(["two", "8", *lines, "   0.00000   0.00000   0.00000", ""]))
    path = tmp_path / "pidelta.yaml"
    path.write_text("structure: water.gro\nmm: {topology: water.top}\n")
    for look in (Setup.warnings, lambda setup: setup.classical):
        with pytest.raises(TopologyError, match=r"water\.top: expected a term that holds the angle of water"):
            look(Setup(load_config(path)))
    path.write_text("structure: water.gro\nqm: {atoms: all}\nmm: {topology: water.top}\n")
    assert not any("angle" in warning for warning in Setup(load_config(path)).warnings())
