"""Energies and forces of DFTB3 with link atoms, beside AMBER's sander with the same links and charges.

Run: PATH=.../ambertools/bin:$PATH python tests/records/sander_links.py FOLDER [--only NAME] [--3ob SET]

Needs AmberTools on the PATH, RDKit and ParmEd. Both programs read the tables of pid 1.1, or those of a
folder with the published set 3ob-3-1; Hubbard derivatives and zeta are 3ob's in any case, since sander has
no others. Topologies, 0.2 ps of dynamics by sander and its forces of four frames go to FOLDER and are not
made again; `--store DATA` writes what tests/data/links has. sander's link hydrogen is at 1.09 angstrom from
the QM atom (lnk_method=1, lnk_dis=1.09), and it takes the charge of the MM atom of the cut bond away, in MM
as well; so the topologies are written with such charges (cut_molecules.py), the same for both programs.
sander prints forces with three decimals, and energies with four.
"""

import argparse
import json
import lzma
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from cut_molecules import SYSTEMS, call, make_system, write_sander_charges
from pidelta.config import load_config
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from sander_output import forces_of_sander

STEPS = (100, 200, 300, 400)
QMMM = """ &qmmm
  qmmask='{region}', qmcharge={charge}, qm_theory='DFTB3', {ewald}, adjust_q=0,
  dftb_slko_path='{tables}/',
  lnk_method=1, lnk_dis=1.09, scfconv=1.0d-10, writepdb=0, dftb_telec=0.0,
 /
"""
EWALD = "qm_ewald=1, qm_pme=1, qmcut=8.0, kmaxqx=14, kmaxqy=14, kmaxqz=14, ksqmaxq=196"
COMMON = "ntc=1, ntf=1, jfastw=4, ifqnt=1, ntxo=1"
MESH = " &ewald dsum_tol=1.0d-7, nfft1=96, nfft2=96, nfft3=96, order=6, vdwmeth=0 /\n"
CONFIG = """structure: {structure}
qm:
  atoms: "{region}"
  charge: {charge}
  dftb: {{parameters: {parameters}, order: 3, hubbard_derivatives: 3ob, damping_exponent: 4.0}}
  links: {{position: fixed, length: 1.09 angstrom, host_charge: zero, allow: [polar]}}
"""
PERIODIC = """mm: {topology: links.prmtop, cutoff: 8.0 angstrom, ewald_tolerance: 1e-7, lj_modifier: none}
embedding: {scheme: pme, cutoff: 9.0 angstrom, switch: 1.0 angstrom}
"""
VACUUM = "mm: {topology: links.prmtop}\n"
NAMES = [name for name in SYSTEMS if name != "valine"]  # that one is for link_profiles.py


def tables_of_sander(folder, published):
    """The folder of the tables as sander wants it: relative to that of its own."""
    if published is None:
        if not (folder / "pid").is_dir():
            call(folder, sys.executable, "-m", "pidelta", "slater-koster", "export", "pid")
        published = folder / "pid" / "order-3"
    return os.path.relpath(published, Path(shutil.which("sander")).parents[1] / "dat" / "slko")


def sander(folder, system, tables, name, control, start, mesh=""):
    periodic = system.margin is not None
    box = "ntb=1, cut=8.0" if periodic else "ntb=0, igb=0, cut=999.0"
    qmmm = QMMM.format(
        region=system.region,
        charge=system.charge,
        tables=tables,
        ewald=EWALD if periodic else "qm_ewald=0, qmcut=999.0",
    )
    text = f"{name}\n &cntrl {control}, {box}, {COMMON} /\n{mesh if periodic else ''}{qmmm}"
    (folder / f"{name}.in").write_text(text, encoding="utf-8")
    files = f"-i {name}.in -p links.prmtop -c {start} -o {name}.out -r {name}.rst -frc {name}.frc"
    call(folder, "sander", "-O", *files.split())


def make_frames(folder, system, tables):
    """A minimisation, 0.2 ps at 300 K, and sander's energy and forces of four frames of it."""
    sander(folder, system, tables, "min", "imin=1, maxcyc=200", "system.rst7")
    heat = "ntt=3, gamma_ln=50.0, ig=7, tempi=300.0, temp0=300.0"
    sander(folder, system, tables, "md", f"imin=0, nstlim=400, dt=0.0005, {heat}, ntwr=-100", "min.rst")
    for step in STEPS:
        control = "imin=0, nstlim=1, dt=1.0d-9, tempi=0.0, temp0=0.0, ntpr=1, ntwf=1, ioutfm=0, nscm=0"
        sander(folder, system, tables, f"frame-{step}", control, f"md.rst_{step}", MESH)


def classical_parts(folder, step):
    """Energies of terms with MM atoms in kcal/mol, under sander's names."""
    output = (folder / f"frame-{step}.out").read_text(encoding="utf-8")
    values = re.findall(r"(BOND|ANGLE|DIHED|1-4 NB|1-4 EEL|VDWAALS) +=\s+(-?\d+\.\d+)", output)
    return {name: float(value) for name, value in values[:6]}


def compare(folder, system, parameters):
    """Energy differences less their mean; force differences: RMS of QM and MM atoms, largest; size."""
    text = CONFIG.format(
        structure="frame.rst7",
        region=system.region,
        charge=system.charge,
        parameters=parameters,
    )
    config = folder / "pidelta.yaml"
    config.write_text(text + (VACUUM if system.margin is None else PERIODIC), encoding="utf-8")
    energies, rows = [], []
    for step in STEPS:
        (folder / "frame.rst7").write_bytes((folder / f"md.rst_{step}").read_bytes())
        setup = Setup(load_config(config))
        read = setup.system
        cells = None if read.cell is None else read.cell[None]
        found = setup.evaluator().evaluate(read.positions[None], cells)
        forces = -found.gradient[0] * HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
        energy, expected = forces_of_sander(folder, step, len(read))
        energies.append(float(found.energy[0]) * HARTREE_IN_KCAL_PER_MOL - energy)
        qm = np.isin(np.arange(len(read)), setup.qm_indices)
        difference = forces - expected
        parts = [np.sqrt(np.mean(difference[part] ** 2)) for part in (qm, ~qm)]
        rows.append([*parts, np.abs(difference).max(), np.sqrt(np.mean(expected[qm] ** 2))])
    return np.abs(np.array(energies) - np.mean(energies)).max(), *np.max(rows, axis=0)


def store(folder, name, data):
    """The topology and the first frame of a system, with sander's energy and forces, for the tests."""
    topology = (folder / "links.prmtop").read_bytes()
    (data / f"{name}.prmtop.xz").write_bytes(lzma.compress(topology))
    frame = (folder / f"md.rst_{STEPS[0]}").read_text(encoding="ascii").splitlines(keepends=True)
    n_atoms = int(frame[1].split()[0])
    end = 2 + (n_atoms + 1) // 2  # two atoms a line; velocities follow, then the box
    box = [] if SYSTEMS[name].margin is None else frame[-1:]
    text = "".join([*frame[:end], *box])
    (data / f"{name}.rst7.xz").write_bytes(lzma.compress(text.encode()))
    _, forces = forces_of_sander(folder, STEPS[0], n_atoms)
    system = SYSTEMS[name]
    record = {"region": system.region, "charge": system.charge, "forces": forces.tolist()}
    record["terms"] = classical_parts(folder, STEPS[0])
    text = json.dumps(record, separators=(",", ":"))
    (data / f"{name}.json.xz").write_bytes(lzma.compress(text.encode()))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--3ob", dest="published", type=Path, metavar="SET")
    parser.add_argument("--store", type=Path, metavar="DATA")
    options = parser.parse_args()
    headings = ("energies", "QM forces", "MM forces", "largest", "size of QM forces")
    table = Table("system", *headings, title="largest of four frames, kcal/mol and kcal/mol/angstrom")
    options.folder.mkdir(parents=True, exist_ok=True)
    tables = tables_of_sander(options.folder, options.published)
    parameters = "builtin" if options.published is None else options.published.resolve()
    for name in NAMES if options.only is None else [options.only]:
        folder, system = options.folder / name, SYSTEMS[name]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "links.prmtop").is_file():
            make_system(folder, system)
            charges = folder / "system.prmtop", folder / "links.prmtop"
            write_sander_charges(*charges, system.region, system.charge)
        if not (folder / f"frame-{STEPS[-1]}.frc").is_file():
            make_frames(folder, system, tables)
        if options.store is not None:
            store(folder, name, options.store)
        numbers = compare(folder, system, parameters)
        table.add_row(name, *(f"{number:.4f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
