"""A cut bond, and the rotation about it: QM/MM with a link hydrogen beside DFTB of the whole molecule.

Run: PATH=.../ambertools/bin:$PATH python tests/records/link_profiles.py FOLDER [--picture FILE]

Needs what cut_molecules.py needs. Molecules in vacuum, DFTB3/pid 1.1, GAFF2 and ff14SB. Each method relaxes
every point itself, from the minimum of the whole molecule in DFTB, with the length or the angle held.
Topologies and energies go to FOLDER and are not made again.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import parmed
from ase import Atoms
from ase.constraints import FixInternals
from ase.io import write
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
LENGTHS = np.arange(1.40, 1.701, 0.05)
ANGLES = np.arange(0.0, 360.0, 20.0)
WHOLE = "structure: system.xyz\nqm: {{atoms: all, dftb: {{order: 3}}}}\n"
CLASSICAL = "structure: system.rst7\nmm: {{topology: system.prmtop}}\n"
QMMM = """structure: system.rst7
qm: {{atoms: "{region}", dftb: {{order: 3}}, links: {{LINKS}}}}
mm: {{topology: system.prmtop}}
"""
METHODS = {
    "whole molecule": WHOLE,
    "force field": CLASSICAL,
    "scaled": QMMM.replace("LINKS", "position: scaled, host_charge: charge-shift"),
    "scaled, zero": QMMM.replace("LINKS", "position: scaled, host_charge: zero"),
    "fixed": QMMM.replace("LINKS", "position: fixed, host_charge: charge-shift"),
}


def calculator(folder, name, text):
    path = folder / f"{name.replace(' ', '-').replace(',', '')}.yaml"
    path.write_text(text, encoding="utf-8")
    return pidelta.Calculator(path)


def scan(start, calc, turning, cut):
    """Energies of relaxed structures in kcal/mol, at each length and at each angle of the cut bond."""
    _, host, partner, _ = cut
    bond = start.positions[partner] - start.positions[host]
    found = [], []
    for length in LENGTHS:
        atoms = start.copy()
        atoms.positions[turning] += bond * (length / np.linalg.norm(bond) - 1.0)
        found[0].append(relaxed_energy(atoms, calc, {"bonds": [[length, [host, partner]]]}))
    for angle in ANGLES:
        atoms = start.copy()
        atoms.set_dihedral(*cut, angle, indices=turning)
        found[1].append(relaxed_energy(atoms, calc, {"dihedrals_deg": [[angle, list(cut)]]}))
    return found


def relaxed_energy(atoms, calc, held):
    atoms.calc = calc
    atoms.set_constraint(FixInternals(**held, epsilon=1e-6))
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    return atoms.get_potential_energy() / (kcal / mol)


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
    start = Atoms([atom.atomic_number for atom in topology.atoms], topology.coordinates)
    write(folder / "system.xyz", start)
    region = np.flatnonzero(parmed.amber.AmberMask(topology, system.region).Selection())
    residue = topology.atoms[region[0]].residue
    index = {atom.name: atom.idx for atom in residue.atoms}
    found = {}
    for method, text in METHODS.items():
        calc = calculator(folder, method, text.format(region=system.region))
        if method == "whole molecule":
            start.calc = calc
            BFGS(start, logfile=None).run(fmax=0.002, steps=1000)
        file = folder / f"{method.replace(' ', '-').replace(',', '')}.json"
        if not file.is_file():
            file.write_text(json.dumps(scan(start, calc, region, [index[a] for a in cut.rotation])))
        found[method] = tuple(np.array(part) for part in json.loads(file.read_text(encoding="utf-8")))
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
    # text as text: the file is smaller, and can be searched
    plt.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]})
    figure, axes = plt.subplots(2, len(results), figsize=(4.0 * len(results), 6.0), layout="constrained")
    for column, (name, found) in zip(axes.T, results.items(), strict=True):
        for method, scans in found.items():
            if method == "scaled, zero":  # hardly to be told from the other
                continue
            style = {"color": "black", "linewidth": 2.0} if method == "whole molecule" else {}
            style |= {"linestyle": ":", "color": "grey"} if method == "force field" else {}
            for axis, x, energy in zip(column, (LENGTHS, ANGLES), scans, strict=True):
                axis.plot(x, energy - energy.min(), label=method, **style)
        column[0].set(title=CUTS[name].label, xlabel="length / Å")
        column[1].set(xlabel="angle / °", xticks=range(0, 361, 60))
    for axis in axes[:, 0]:
        axis.set_ylabel("energy / kcal/mol")
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


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
