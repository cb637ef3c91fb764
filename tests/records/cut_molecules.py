"""Molecules that a border cuts, as AMBER files: GAFF2 or ff14SB, in vacuum or in flexible SPC/Fw water.

Needs antechamber, parmchk2 and tleap of AmberTools on the PATH, RDKit and ParmEd.
"""

import subprocess
from dataclasses import dataclass

import numpy as np
import parmed
from rdkit import Chem
from rdkit.Chem import AllChem


@dataclass(frozen=True)
class LinkSystem:
    """`molecule` is a SMILES or residues of ff14SB; `region` an AMBER mask; `margin` of water in angstrom."""

    molecule: str
    region: str
    charge: int = 0
    margin: float | None = None
    ion: str | None = None

    @property
    def residues(self) -> bool:
        return " " in self.molecule


CAPPED_ALA, CAPPED_LYS = "ACE ALA NME", "ACE LYS NME"
ETHYL = ":1@C1,C2,H1,H2,H3,H4,H5"
ALA_SIDE_CHAIN = ":2@CB,HB1,HB2,HB3"
VAL_SIDE_CHAIN = ":2@CB,HB,CG1,HG11,HG12,HG13,CG2,HG21,HG22,HG23"
PEPTIDE_UNIT = ":1@C,O|:2@N,H"
LYS_SIDE_CHAIN = ":2@CB,HB2,HB3,CG,HG2,HG3,CD,HD2,HD3,CE,HE2,HE3,NZ,HZ1,HZ2,HZ3"
SYSTEMS = {
    "ethane": LinkSystem("CC", ":1@C1,H1,H2,H3"),
    "butane": LinkSystem("CCCC", ETHYL),
    "alanine": LinkSystem(CAPPED_ALA, ALA_SIDE_CHAIN),
    "peptide": LinkSystem(CAPPED_ALA, PEPTIDE_UNIT),
    "valine": LinkSystem("ACE VAL NME", VAL_SIDE_CHAIN),
    "butane-water": LinkSystem("CCCC", ETHYL, margin=7.0),
    "alanine-water": LinkSystem(CAPPED_ALA, ALA_SIDE_CHAIN, margin=5.5),
    "peptide-water": LinkSystem(CAPPED_ALA, PEPTIDE_UNIT, margin=5.5),
    "lysine-water": LinkSystem(CAPPED_LYS, LYS_SIDE_CHAIN, 1, 5.0, "Cl-"),
}
LEAP = """source leaprc.protein.ff14SB
source leaprc.gaff2
source leaprc.water.spce
loadamberparams frcmod.spcfw
loadamberparams frcmod.ionsjc_spce
WAT = SPF
HOH = SPF
set default FlexibleWater on
{molecule}
{solvent}
saveamberparm m system.prmtop system.rst7
quit
"""


def call(folder, *command):
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def make_system(folder, system):
    """Write system.prmtop and system.rst7, the charges as the force field has them."""
    if system.residues:
        molecule = f"m = sequence {{ {system.molecule} }}"
    else:
        _make_gaff(folder, system.molecule)
        molecule = "loadamberparams molecule.frcmod\nm = loadmol2 molecule.mol2"
    solvent = ""
    if system.margin is not None:
        solvent = f"solvatebox m SPCFWBOX {system.margin} iso\n"
    if system.ion is not None:
        solvent += f"addions m {system.ion} 1"
    (folder / "leap.in").write_text(LEAP.format(molecule=molecule, solvent=solvent), encoding="utf-8")
    call(folder, "tleap", "-f", "leap.in")


def _make_gaff(folder, smiles):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=7)
    AllChem.MMFFOptimizeMolecule(molecule)
    (folder / "molecule.sdf").write_text(Chem.MolToMolBlock(molecule), encoding="utf-8")
    options = "-fi sdf -o molecule.mol2 -fo mol2 -c bcc -rn LIG -at gaff2 -nc 0 -ek"
    call(folder, "antechamber", "-i", "molecule.sdf", *options.split(), "maxcyc=0,qm_theory='AM1',")
    call(folder, *["parmchk2", "-i", "molecule.mol2", "-f", "mol2", "-o", "molecule.frcmod", "-s", "gaff2"])


def write_sander_charges(source, target, region, charge):
    """The charges that sander takes from a border (adjust_q=0), written as those of the force field.

    MM atoms with a bond to the region have none, those of the region sum to its charge, and what is left of
    each residue that the border cuts to an integer, so that neither program has charges to move.
    """
    topology = parmed.amber.AmberParm(str(source))
    charges = np.array([atom.charge for atom in topology.atoms])
    total = charges.sum()
    qm = np.array(parmed.amber.AmberMask(topology, region).Selection(), dtype=bool)
    borders = [b for b in topology.bonds if qm[b.atom1.idx] != qm[b.atom2.idx]]
    hosts = {(b.atom2 if qm[b.atom1.idx] else b.atom1).idx for b in borders}
    charges[qm] += (charge - charges[qm].sum()) / qm.sum()
    for residue in {atom.residue for b in borders for atom in (b.atom1, b.atom2)}:
        left = [atom.idx for atom in residue.atoms if not qm[atom.idx]]
        rest = [i for i in left if i not in hosts]
        wanted = round(charges[left].sum())
        charges[left] *= [i in rest for i in left]
        charges[rest] += (wanted - charges[rest].sum()) / len(rest)
    assert abs(charges.sum() - total) < 1e-4
    for atom, value in zip(topology.atoms, charges, strict=True):
        atom.charge = value
    topology.write_parm(str(target))
