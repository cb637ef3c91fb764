"""Energies and forces of DFTB3 with PME embedding, beside AMBER's sander (qm_ewald=1, qm_pme=1).

Run: PATH=.../ambertools/bin:$PATH python tests/records/sander_pme.py FOLDER 3OB_FOLDER [--only uracil]

Needs antechamber, parmchk2, tleap and sander of AmberTools on the PATH, RDKit, and the published set
3ob-3-1, which both programs read. Topologies (GAFF2, flexible SPC/Fw water), 0.2 ps of dynamics by sander and
its forces of four frames go to FOLDER and are not made again. sander prints forces with three decimals, and
energies with four.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem
from rich.console import Console
from rich.table import Table

from pidelta.config import load_config
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from sander_output import forces_of_sander

# name: SMILES, charge, ion to add, margin of water in angstrom
SYSTEMS = {
    "uracil": ("O=c1cc[nH]c(=O)[nH]1", 0, None, 13.0),
    "methylammonium": ("C[NH3+]", 1, "Cl-", 13.0),
    "retinoate": ("CC1=C(C(CCC1)(C)C)/C=C/C(C)=C/C=C/C(C)=C/C(=O)[O-]", -1, "Na+", 15.0),
}
STEPS = (100, 200, 300, 400)
LEAP = """source leaprc.gaff2
source leaprc.water.spce
loadamberparams frcmod.spcfw
loadamberparams frcmod.ionsjc_spce
WAT = SPF
HOH = SPF
loadamberparams qm.frcmod
set default FlexibleWater on
m = loadmol2 qm.mol2
{ions}
solvatebox m SPCFWBOX {margin}
saveamberparm m system.prmtop system.rst7
quit
"""
QMMM = """ &qmmm
  qmmask=':LIG', qmcharge={charge}, qm_theory='DFTB3', qm_ewald=1, qm_pme=1, qmcut=10.0, kmaxqx=14, kmaxqy=14,
  kmaxqz=14, ksqmaxq=196, scfconv=1.0d-10, writepdb=0, dftb_telec=0.0,
 /
"""
COMMON = "ntb=1, cut=10.0, ntc=1, ntf=1, jfastw=4, ifqnt=1, ntxo=1"
CONFIG = """structure: frame.rst7
qm:
  atoms: "resname LIG"
  charge: {charge}
  dftb: {{parameters: {parameters}, order: 3, hubbard_derivatives: 3ob}}
mm: {{topology: system.prmtop, cutoff: 10.0 angstrom, ewald_tolerance: 1e-6, lj_modifier: none}}
embedding: {{scheme: {scheme}}}
"""


def call(folder, *command):
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def make_system(folder, smiles, charge, ion, margin):
    """Geometry by RDKit, charges AM1-BCC with their rounding put on the first atom, solvent by tleap."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=7)
    AllChem.MMFFOptimizeMolecule(molecule)
    (folder / "qm.sdf").write_text(Chem.MolToMolBlock(molecule), encoding="utf-8")
    options = ["-fi", "sdf", "-o", "qm.mol2", "-fo", "mol2", "-c", "bcc", "-rn", "LIG", "-at", "gaff2"]
    call(
        folder,
        "antechamber",
        "-i",
        "qm.sdf",
        *options,
        "-nc",
        str(charge),
        "-ek",
        "maxcyc=0,qm_theory='AM1',",
    )
    lines = (folder / "qm.mol2").read_text(encoding="utf-8").splitlines()
    first = lines.index("@<TRIPOS>ATOM") + 1
    rows = [line.split() for line in lines[first : first + molecule.GetNumAtoms()]]
    rest = charge - sum(float(row[8]) for row in rows)
    place = lines[first].rfind(rows[0][8])
    lines[first] = f"{lines[first][:place]}{float(rows[0][8]) + rest:.6f}"
    (folder / "qm.mol2").write_text("\n".join(lines) + "\n", encoding="utf-8")
    call(folder, *["parmchk2", "-i", "qm.mol2", "-f", "mol2", "-o", "qm.frcmod", "-s", "gaff2"])
    ions = "" if ion is None else f"addions m {ion} 1"
    (folder / "leap.in").write_text(LEAP.format(ions=ions, margin=margin), encoding="utf-8")
    call(folder, "tleap", "-f", "leap.in")


def sander(folder, name, control, start, charge, ewald=""):
    (folder / f"{name}.in").write_text(
        f"{name}\n &cntrl {control}, {COMMON} /\n{ewald}{QMMM.format(charge=charge)}", encoding="utf-8"
    )
    files = f"-i {name}.in -p system.prmtop -c {start} -o {name}.out -r {name}.rst -frc {name}.frc"
    call(folder, "sander", "-O", *files.split())


def make_frames(folder, charge):
    sander(folder, "min", "imin=1, maxcyc=60", "system.rst7", charge)
    heat = "ntt=3, gamma_ln=50.0, ig=7, tempi=300.0, temp0=300.0"
    sander(folder, "md", f"imin=0, nstlim=400, dt=0.0005, {heat}, ntwr=-100", "min.rst", charge)
    mesh = " &ewald dsum_tol=1.0d-7, nfft1=96, nfft2=96, nfft3=96, order=6, vdwmeth=0 /\n"
    for step in STEPS:
        control = "imin=0, nstlim=1, dt=1.0d-9, tempi=0.0, temp0=0.0, ntpr=1, ntwf=1, ioutfm=0, nscm=0"
        sander(folder, f"frame-{step}", control, f"md.rst_{step}", charge, mesh)


def compare(folder, charge, parameters, scheme):
    """Differences of energies less their mean, RMS of force differences on QM and MM atoms, of QM forces."""
    config = folder / f"{scheme}.yaml"
    text = CONFIG.format(charge=charge, parameters=parameters.resolve(), scheme=scheme)
    config.write_text(text, encoding="utf-8")
    energies, rows = [], []
    for step in STEPS:
        (folder / "frame.rst7").write_bytes((folder / f"md.rst_{step}").read_bytes())
        setup = Setup(load_config(config))
        system = setup.system
        found = setup.evaluator().evaluate(system.positions[None], system.cell[None])
        forces = -found.gradient[0] * HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
        energy, expected = forces_of_sander(folder, step, len(system))
        energies.append(float(found.energy[0]) * HARTREE_IN_KCAL_PER_MOL - energy)
        qm = np.isin(np.arange(len(system)), setup.qm_indices)
        parts = forces[qm] - expected[qm], forces[~qm] - expected[~qm], expected[qm]
        rows.append([np.sqrt(np.mean(part**2)) for part in parts])
    return np.abs(np.array(energies) - np.mean(energies)).max(), *np.max(rows, axis=0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("parameters", type=Path)
    parser.add_argument("--only", choices=SYSTEMS)
    options = parser.parse_args()
    headings = ("embedding", "energies", "QM forces", "MM forces", "size of QM forces")
    table = Table("system", *headings, title="largest of four frames, kcal/mol and kcal/mol/angstrom")
    for name, (smiles, charge, ion, margin) in SYSTEMS.items():
        if options.only not in (None, name):
            continue
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "system.prmtop").is_file():
            make_system(folder, smiles, charge, ion, margin)
        if not (folder / f"frame-{STEPS[-1]}.frc").is_file():
            make_frames(folder, charge)
        for scheme in ("pme", "cutoff"):
            numbers = compare(folder, charge, options.parameters, scheme)
            table.add_row(name, scheme, *(f"{number:.4f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
