"""`pidelta prepare` with AmberTools, which makes GAFF2 topologies (conda-forge: ambertools)."""

import numpy as np
import parmed
import pytest

from pidelta.config import load_config
from pidelta.errors import SetupError
from pidelta.mm.readers import read_topology
from pidelta.setup import Setup
from pidelta.workflow.preparing.amber import AmberTools, find_amber_tools, make_topology
from pidelta.workflow.preparing.molecules import read_molecule

pytestmark = [
    pytest.mark.ambertools,
    pytest.mark.skipif(find_amber_tools(None) is None, reason="needs AmberTools in $AMBERHOME or on PATH"),
]


@pytest.fixture(scope="module")
def tools():
    return find_amber_tools(None)


def terms(structure, atoms):
    """Bonded terms among atoms as AMBER's energy has them, sorted."""
    chosen = set(atoms)

    def among(items, names, values):
        rows = [
            (tuple(getattr(item, name).idx - atoms[0] for name in names), values(item.type))
            for item in items
            if all(getattr(item, name).idx in chosen for name in names)
        ]
        return sorted((min(indices, indices[::-1]), kind) for indices, kind in rows)

    four = ("atom1", "atom2", "atom3", "atom4")
    return (
        among(structure.bonds, four[:2], lambda kind: (round(kind.k, 4), round(kind.req, 5))),
        among(structure.angles, four[:3], lambda kind: (round(kind.k, 4), round(kind.theteq, 4))),
        among(
            structure.dihedrals,
            four,
            lambda kind: (round(kind.phi_k, 5), kind.per, round(kind.phase, 3), kind.scee, kind.scnb),
        ),
    )


@pytest.mark.parametrize("smiles", ["C[S+](C)C", "[NH3+]CC(=O)[O-]", "C=CC(=O)NC"])
def test_the_topology_of_a_molecule_is_that_of_ambertools(smiles, tools, tmp_path, run, capsys):
    """Terms and Lennard-Jones as tleap wrote them, charges but for what rounding leaves."""
    arguments = ("--cutoff", "0.7 nm", "--equilibrate", "0 ps", "--output", tmp_path / "made")
    assert run("prepare", smiles, *arguments) == 0
    (theirs,) = (tmp_path / "made" / "preparation").glob("MOL/molecule.prmtop")
    alone = parmed.load_file(str(theirs))
    whole = parmed.load_file(str(tmp_path / "made" / "system.prmtop"))
    atoms = list(range(len(alone.atoms)))
    assert terms(whole, atoms) == terms(alone, atoms)
    for ours, atom in zip(whole.atoms, alone.atoms, strict=False):
        assert ours.atomic_number == atom.atomic_number
        assert (ours.epsilon, ours.rmin) == pytest.approx((atom.epsilon, atom.rmin), abs=1e-6)
        assert ours.charge == pytest.approx(atom.charge, abs=5e-4)
        assert ours.mass == pytest.approx(atom.mass, abs=1e-3)
    setup = Setup(load_config(tmp_path / "made" / "pidelta.yaml"))
    assert setup.topology.charges.sum() == pytest.approx(0.0, abs=1e-6)
    assert setup.warnings() == []
    assert "warning" not in capsys.readouterr().out  # of a proton that left the zwitterion


def test_classical_molecules_get_relaxed_charges(tools, tmp_path):
    """AM1-BCC of acetonitrile as relaxed by AM1, whose C-N bond is 0.01 angstrom longer than MMFF's."""
    molecule = read_molecule("CC#N", None, 1)
    charges = [
        read_topology(make_topology(tools, molecule, tmp_path / str(relaxed), relaxed=relaxed)).charges
        for relaxed in (True, False)
    ]
    assert not np.allclose(*charges, atol=1e-4)
    np.testing.assert_allclose(*charges, atol=0.05)


def test_molecules_of_the_force_field_around_a_quantum_one(tmp_path, run):
    """Methanol by DFTB beside two of acetonitrile: their terms stay, those of methanol go, charges vanish."""
    folder = tmp_path / "made"
    arguments = (
        "CO",
        "CC#N",
        "--classical",
        "2",
        "--count",
        "1",
        "--count",
        "2",
        "--name",
        "MET",
        "--name",
        "ACN",
    )
    assert run("prepare", *arguments, "--cutoff", "0.7 nm", "--equilibrate", "0 ps", "--output", folder) == 0
    setup = Setup(load_config(folder / "pidelta.yaml"))
    assert len(setup.qm_indices) == 6
    assert setup.warnings() == []
    names = np.array(setup.system.residue_names)
    assert [(names == name).sum() for name in ("MET", "ACN")] == [6, 12]
    left = setup.qm_region.force_field
    torsions = left.torsions.atoms
    assert len(torsions) > 0
    assert (names[torsions] == "ACN").all()
    assert setup.topology.charges[names == "ACN"].sum() == pytest.approx(0.0, abs=1e-6)


def test_what_is_there_is_taken_over(tools, tmp_path):
    molecule = read_molecule("CO", None, 1)
    path = make_topology(tools, molecule, tmp_path, relaxed=False)
    path.write_text("as it was")
    assert make_topology(tools, molecule, tmp_path, relaxed=False).read_text() == "as it was"


def test_a_program_that_fails_is_named_with_its_log(tools, tmp_path):
    """GAFF2 has no silver."""
    molecule = read_molecule("C[Ag]", None, 1)
    with pytest.raises(
        SetupError, match=r"antechamber\.log: antechamber of AmberTools made no molecule\.mol2"
    ):
        make_topology(tools, molecule, tmp_path, relaxed=False)


def test_where_ambertools_may_be(tools, monkeypatch, tmp_path):
    """By option, its folder or bin in it, by AMBERHOME, and on PATH."""
    monkeypatch.delenv("AMBERHOME", raising=False)
    for given in (tools.programs, tools.programs.parent):
        assert find_amber_tools(given) == tools
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_amber_tools(None) is None
    monkeypatch.setenv("PATH", str(tools.programs))
    assert find_amber_tools(None) == tools
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AMBERHOME", str(tools.programs.parent))
    assert find_amber_tools(None) == AmberTools(tools.programs.resolve())
