"""A cut bond, and the rotation about it: QM/MM with a link hydrogen beside DFTB of the whole molecule.

Run: PATH=.../ambertools/bin:$PATH python tests/records/link_profiles.py FOLDER [--picture FILE]

Needs what cut_molecules.py needs. Molecules in vacuum, DFTB3/pid 1.1. The QM atoms move as one along the
cut bond, or turn about it, from the minimum of the whole molecule; then those relax that fix neither the
length nor the angle, with the whole molecule in DFTB. All methods are compared at these geometries, which
go to FOLDER.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import parmed
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.optimize import BFGS
from ase.units import kcal, mol
from rich.console import Console
from rich.table import Table

import pidelta
from cut_molecules import SYSTEMS, make_system


@dataclass(frozen=True)
class Cut:
    """Names of the atoms of the rotation: the last two are QM, and the cut bond is in the middle."""

    label: str
    rotation: tuple[str, str, str, str]


CUTS = {
    "butane": Cut("butane, C2-C3", ("C4", "C3", "C2", "C1")),
    "alanine": Cut("alanine, CA-CB", ("N", "CA", "CB", "HB1")),
    "valine": Cut("valine, CA-CB", ("N", "CA", "CB", "CG1")),
}
LENGTHS = np.arange(1.40, 1.721, 0.02)
ANGLES = np.arange(0.0, 360.0, 15.0)
WHOLE = "structure: system.xyz\nqm: {atoms: all, dftb: {order: 3}}\n"
CLASSICAL = "structure: system.rst7\nmm: {topology: system.prmtop}\n"
QMMM = """structure: system.rst7
qm: {{atoms: "{region}", dftb: {{order: 3}}, links: {{position: {position}, host_charge: {host}}}}}
mm: {{topology: system.prmtop}}
"""
METHODS = {
    "charge-shift": ("scaled", "charge-shift"),
    "redistribute": ("scaled", "redistribute"),
    "zero": ("scaled", "zero"),
    "fixed length": ("fixed", "charge-shift"),
}


def calculator(folder, name, text):
    path = folder / f"{name.replace(' ', '-')}.yaml"
    path.write_text(text, encoding="utf-8")
    return pidelta.Calculator(path)


def make_geometries(folder, cut, region):
    """The relaxed structures of both scans, as lists of Atoms."""
    minimum = read(folder / "system.xyz")
    whole = minimum.calc = calculator(folder, "whole", WHOLE)
    BFGS(minimum, logfile=None).run(fmax=0.002, steps=1000)
    _, host, partner, end = cut
    bond = minimum.positions[partner] - minimum.positions[host]
    length = np.linalg.norm(bond)
    rest = np.setdiff1d(np.arange(len(minimum)), region)
    scans = [], []
    for value in LENGTHS:
        atoms = minimum.copy()
        atoms.positions[region] += bond * (value / length - 1.0)
        scans[0].append(relaxed(atoms, whole, [*rest, partner]))
    for value in ANGLES:
        atoms = minimum.copy()
        atoms.set_dihedral(*cut, value, indices=region)
        scans[1].append(relaxed(atoms, whole, [*rest, partner, end]))
    return scans


def relaxed(atoms, whole, fixed):
    atoms.calc = whole
    atoms.set_constraint(FixAtoms(fixed))
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=500)
    return Atoms(atoms.numbers, atoms.positions)


def energies(calc, frames):
    """Of each frame, in kcal/mol."""
    found = []
    for atoms in frames:
        atoms.calc = calc
        found.append(atoms.get_potential_energy() / (kcal / mol))
    return np.array(found)


def minimum_and_force_constant(profile):
    """In angstrom and kcal/mol/angstrom^2, of a polynomial of fourth order."""
    fit = np.polynomial.Polynomial.fit(LENGTHS, profile, 4)
    roots = fit.deriv().roots()
    roots = roots[np.isreal(roots) & (roots.real > LENGTHS[0]) & (roots.real < LENGTHS[-1])].real
    place = roots[np.argmin(fit(roots))]
    return place, fit.deriv(2)(place)


def profiles(folder, name):
    """{method: (energies of the lengths, energies of the angles)} of one molecule."""
    system, cut = SYSTEMS[name], CUTS[name]
    if not (folder / "system.prmtop").is_file():
        make_system(folder, system)
    topology = parmed.load_file(str(folder / "system.prmtop"), str(folder / "system.rst7"))
    numbers = [atom.atomic_number for atom in topology.atoms]
    write(folder / "system.xyz", Atoms(numbers, topology.coordinates))
    region = np.flatnonzero(parmed.amber.AmberMask(topology, system.region).Selection())
    residue = next(r for r in topology.residues if r.idx == topology.atoms[region[0]].residue.idx)
    names = {atom.name: atom.idx for atom in residue.atoms}
    files = [folder / "lengths.extxyz", folder / "angles.extxyz"]
    if not files[1].is_file():
        scans = make_geometries(folder, [names[a] for a in cut.rotation], region)
        for file, frames in zip(files, scans, strict=True):
            write(file, frames)
    texts = {"whole molecule": WHOLE, "force field": CLASSICAL}
    for method, (position, host) in METHODS.items():
        texts[method] = QMMM.format(region=system.region, position=position, host=host)
    found = {}
    for method, text in texts.items():
        calc = calculator(folder, method, text)
        found[method] = tuple(energies(calc, read(file, ":")) for file in files)
    return found


def tabulate(results):
    columns = ("length / angstrom", "force constant", "barrier", "RMS difference of the rotation")
    table = Table("bond", "method", *columns, title="kcal/mol, kcal/mol/angstrom^2")
    for name, found in results.items():
        reference = found["whole molecule"][1]
        for method, (bond, rotation) in found.items():
            place, constant = minimum_and_force_constant(bond)
            difference = rotation - reference
            numbers = (
                f"{place:.3f}",
                f"{constant:.0f}",
                f"{np.ptp(rotation):.2f}",
                f"{np.std(difference):.2f}",
            )
            table.add_row(CUTS[name].label, method, *numbers)
    Console().print(table)


def draw(results, path):
    figure, axes = plt.subplots(2, len(results), figsize=(4.0 * len(results), 6.0), layout="constrained")
    for column, (name, found) in zip(axes.T, results.items(), strict=True):
        for method, scans in found.items():
            style = {"color": "black", "linewidth": 2.0} if method == "whole molecule" else {}
            style |= {"linestyle": ":", "color": "grey"} if method == "force field" else {}
            for axis, x, energy in zip(column, (LENGTHS, ANGLES), scans, strict=True):
                axis.plot(x, energy - energy.min(), label=method, **style)
        column[0].set(title=CUTS[name].label, xlabel="length / Å")
        column[1].set(xlabel="angle / °", xticks=range(0, 361, 60))
    for axis in axes[:, 0]:
        axis.set_ylabel("energy / kcal/mol")
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    results = {}
    for name in CUTS:
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        results[name] = profiles(folder, name)
    tabulate(results)
    if options.picture is not None:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
