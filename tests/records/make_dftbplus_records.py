"""Make tests/data/dftbplus-25.1-pid-1.1.json.xz: what DFTB+ gives for the built-in Slater-Koster set.

    python tests/records/make_dftbplus_records.py [OUTPUT]

DFTB+ 25.1 has to be installed (conda-forge: dftbplus), its program ``dftb+`` on PATH. It is run once for each
row of `CASES`, with the files of ``pidelta slater-koster export`` and an input that is written here, not by
pidelta, so that both programs read the method on their own. Geometries and point charges are made by RDKit
and ASE and random numbers, rounded, and given to DFTB+ in bohr: no conversion of units comes in between.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.data.s22 import create_s22_system
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

BOHR = 0.529177210903  # angstrom, CODATA 2018; records hold the positions in bohr
OUTPUT = Path(__file__).parents[1] / "data" / "dftbplus-25.1-pid-1.1.json.xz"
# B3LYP's, which go with the set: Grimme et al. 2011 without, Caldeweyher et al. 2019 with three-body terms.
DAMPING = {
    "d3bj": {"s6": 1.0, "s8": 1.9889, "s9": 0.0, "a1": 0.3981, "a2": 4.4211},
    "d4": {"s6": 1.0, "s8": 2.02929367, "s9": 1.0, "a1": 0.40868035, "a2": 4.53807137},
}


@dataclass(frozen=True)
class Case:
    """One run of DFTB+.

    `molecule` is a SMILES, its parts put beside each other, or a name of the S22 set. `distortion` is the
    standard deviation of the displacements from its geometry in bohr, `temperature` is in hartree.
    """

    molecule: str
    charge: int = 0
    multiplicity: int = 1
    order: int = 3
    point_charges: int = 0
    shell_resolved: bool = False
    temperature: float = 0.0
    dispersion: str = "none"
    distortion: float = 0.1


CASES = (
    # closed shells: H C N O
    Case("[H][H]"),
    Case("O"),
    Case("O", order=2, point_charges=6),
    Case("N", order=2),
    Case("C"),
    Case("CO", point_charges=8),
    Case("C=O", order=2),
    Case("C=C", distortion=0.3),
    Case("C#C", order=2, distortion=0.2),
    Case("CC#N", point_charges=8),
    Case("O=C=O", distortion=0.2),
    Case("OO", order=2, distortion=0.3),
    Case("C[N+](=O)[O-]", shell_resolved=True),
    Case("CC(=O)O", point_charges=12),
    Case("CC(N)=O", order=2),
    Case("COC"),
    Case("c1ccccc1"),
    Case("c1ccncc1", order=2, point_charges=8),
    Case("c1ccoc1", distortion=0.3),
    Case("O=c1cc[nH]c(=O)[nH]1"),
    Case("O=c1cc[nH]c(=O)[nH]1", point_charges=30),
    Case("O=c1cc[nH]c(=O)[nH]1", order=2, point_charges=30),
    # sulfur and chlorine, with d shells
    Case("S"),
    Case("S", order=2, point_charges=6),
    Case("CS", point_charges=8),
    Case("CSC", order=2),
    Case("CSSC"),
    Case("CS(C)=O", point_charges=8),
    Case("CS(N)(=O)=O"),
    Case("NC(N)=S", order=2, shell_resolved=True),
    Case("c1ccsc1", point_charges=8),
    Case("S=C=S", distortion=0.3),
    Case("Cl", order=2),
    Case("ClCl", distortion=0.2),
    Case("CCl", point_charges=8),
    Case("ClC(Cl)Cl"),
    Case("CC(=O)Cl", order=2),
    Case("C=CCl", distortion=0.2),
    Case("CSCl", shell_resolved=True, point_charges=8),
    Case("NCl"),
    Case("OCl", order=2),
    # ions and a zwitterion
    Case("[OH-]", charge=-1),
    Case("[OH3+]", charge=1, point_charges=6),
    Case("[NH4+]", charge=1, order=2),
    Case("CC(=O)[O-]", charge=-1),
    Case("CC(=O)[O-]", charge=-1, order=2, point_charges=12),
    Case("C[NH3+]", charge=1, point_charges=8),
    Case("C[S-]", charge=-1),
    Case("NC(N)=[NH2+]", charge=1),
    Case("[NH3+]CC(=O)[O-]", point_charges=20),
    # complexes
    Case("Water_dimer"),
    Case("Water_dimer", order=2, point_charges=12),
    Case("Ammonia_dimer", order=2),
    Case("Formic_acid_dimer"),
    Case("Formamide_dimer", order=2),
    Case("[Cl-].O", charge=-1),
    Case("[NH4+].O", charge=1, point_charges=8),
    Case("S.O"),
    Case("ClC(Cl)Cl.O", order=2),
    # open shells
    Case("[CH3]", multiplicity=2),
    Case("[CH2]", multiplicity=3),
    Case("[CH2]", multiplicity=3, order=2, shell_resolved=True),
    Case("[O][O]", multiplicity=3),
    Case("O[O]", multiplicity=2, point_charges=6),
    Case("C[O]", multiplicity=2, distortion=0.2),
    Case("[NH2]", multiplicity=2, order=2),
    Case("O=[N][O]", multiplicity=2),
    Case("C[S]", multiplicity=2, distortion=0.2, point_charges=6),
    Case("[S]=O", multiplicity=3),
    Case("[CH2]Cl", multiplicity=2),
    Case("[CH2]Cl", multiplicity=2, shell_resolved=True, point_charges=6),
    Case("C=C", multiplicity=3, distortion=0.3),
    Case("c1ccsc1", charge=1, multiplicity=2, order=2),
    Case("CC(C)=O", charge=1, multiplicity=2, point_charges=8),
    Case("CO", charge=1, multiplicity=2),
    # occupation numbers between
    Case("OO", temperature=0.02, distortion=0.3),
    Case("C=CCl", order=2, temperature=0.03, distortion=0.3, point_charges=8),
    Case("[OH]", multiplicity=2, temperature=0.005),
    Case("[O]Cl", multiplicity=2, temperature=0.005, point_charges=6),
    # dispersion
    Case("c1ccsc1.ClC(Cl)Cl", dispersion="d3bj"),
    Case("Methane_dimer", order=2, dispersion="d3bj"),
    Case("CSSC", dispersion="d3bj", point_charges=8),
    Case("Benzene-methane_complex", dispersion="d4"),
    Case("NC(N)=[NH2+].CS", charge=1, order=2, dispersion="d4"),
    Case("CC(=O)[O-].O", charge=-1, dispersion="d4", point_charges=8),
    Case("C[S]", multiplicity=2, dispersion="d4"),
)


def geometry(case: Case, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Symbols and positions (n, 3) in bohr, rounded."""
    if "_" in case.molecule:
        atoms = create_s22_system(case.molecule)
        symbols, positions = list(atoms.symbols), atoms.positions / BOHR
    else:
        symbols, positions = [], np.zeros((0, 3))
        for smiles in case.molecule.split("."):
            molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
            assert AllChem.EmbedMolecule(molecule, randomSeed=7) == 0, smiles
            part = molecule.GetConformer().GetPositions() / BOHR
            positions = np.concatenate([positions, beside(positions, part)])
            symbols += [chemical_symbols[atom.GetAtomicNum()] for atom in molecule.GetAtoms()]
    return symbols, np.round(positions + rng.normal(0.0, case.distortion, positions.shape), 6)


def beside(positions: np.ndarray, part: np.ndarray, distance: float = 4.0) -> np.ndarray:
    """Move `part` along x until its atoms are no nearer than `distance` in bohr."""
    shifted = part.copy()
    while len(positions) and np.linalg.norm(positions[:, None] - shifted, axis=-1).min() < distance:
        shifted[:, 0] += 0.05
    return shifted


def surroundings(
    positions: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (count, 3) of point charges, 4 to 10 bohr from the nearest atom; their charges (count,)."""
    found: list[np.ndarray] = []
    low, high = positions.min(axis=0) - 10.0, positions.max(axis=0) + 10.0
    while len(found) < count:
        point = rng.uniform(low, high)
        if 4.0 < np.linalg.norm(positions - point, axis=1).min() < 10.0:
            found.append(point)
    charges = np.round(rng.uniform(0.3, 0.9, count) * (-1.0) ** np.arange(count), 6)
    return np.round(np.reshape(found, (count, 3)), 6), charges


def run_dftbplus(record: dict[str, Any], skf: Path) -> dict[str, Any]:
    """What DFTB+ gives for a record: a `Case` as a mapping, with symbols, positions and point charges."""
    program = shutil.which("dftb+")
    if program is None:
        raise SystemExit("dftb+: not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dftb_in.hsd").write_text(dftb_in(record, skf))
        ended = subprocess.run([program], cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode or "SCC is NOT converged" in ended.stdout:
            raise SystemExit(f"{record['molecule']}: {ended.stdout[-2000:]}{ended.stderr}")
        tags = read_tags(Path(folder) / "results.tag")
    result = {
        "energy": float(tags["mermin_energy"]),
        "gradient": rounded(-tags["forces"]),
        "charges": rounded(tags["gross_atomic_charges"]),
        "orbital_energies": rounded(tags["eigenvalues"][:, 0]),
        "mm_gradient": rounded(-tags["forces_ext_charges"]) if record["mm_charges"] else [],
    }
    if record["multiplicity"] > 1:
        result["spin_populations"] = rounded(tags["gross_atomic_spins"][0])
    return result


def rounded(values: np.ndarray) -> list[Any]:
    return np.round(values, 12).tolist()


def dftb_in(record: dict[str, Any], skf: Path) -> str:
    """The input of DFTB+ for a record, as its manual describes it."""
    description = json.loads((skf / "set.json").read_text())
    elements = sorted(set(record["symbols"]))
    shells = {symbol: 1 if symbol == "H" else 3 if symbol in ("S", "Cl") else 2 for symbol in elements}
    atoms = [
        f"{elements.index(symbol) + 1} {x!r} {y!r} {z!r}"
        for symbol, (x, y, z) in zip(record["symbols"], record["positions"], strict=True)
    ]
    method = [
        "SCC = Yes",
        "SCCTolerance = 1e-11",
        "MaxSCCIterations = 1000",
        f"Charge = {record['charge']}",
        f"Filling = Fermi {{ Temperature [Hartree] = {record['temperature']!r} }}",
        f'SlaterKosterFiles = Type2FileNames {{ Prefix = "{skf}/"; Separator = "-"; Suffix = ".skf" }}',
        block("MaxAngularMomentum", {symbol: f'"{"spd"[shells[symbol] - 1]}"' for symbol in elements}),
        f"HCorrection = Damping {{ Exponent = {description['damping_exponent']!r} }}",
    ]
    if record["order"] == 3:
        derivatives = description["hubbard_derivatives"]
        copies = {symbol: shells[symbol] if record["shell_resolved"] else 1 for symbol in elements}
        method += [
            "ThirdOrderFull = Yes",
            block("HubbardDerivs", {s: " ".join([repr(derivatives[s])] * copies[s]) for s in elements}),
        ]
    if record["shell_resolved"]:
        method.append("ShellResolvedSCC = Yes")
    if record["multiplicity"] > 1:
        constants = {s: np.ravel(description["spin_constants"][s]).tolist() for s in elements}
        values = {symbol: " ".join(map(repr, row)) for symbol, row in constants.items()}
        if not record["shell_resolved"]:
            values = {"ShellResolvedSpin": "Yes", **values}
        method += [
            f"SpinPolarisation = Colinear {{ UnpairedElectrons = {record['multiplicity'] - 1} }}",
            block("SpinConstants", values),
        ]
    if record["mm_charges"]:
        rows = [
            " ".join(map(repr, [*position, charge]))
            for position, charge in zip(record["mm_positions"], record["mm_charges"], strict=True)
        ]
        points = "\n".join(["CoordsAndCharges [Bohr] {", *rows, "}"])
        method.append(f"ElectricField = {{ PointCharges = {{\n{points}\n}} }}")
    if record["dispersion"] != "none":
        method.append(dispersion(record["dispersion"]))
    names = " ".join(f'"{symbol}"' for symbol in elements)
    lines = [
        f"Geometry {{\nTypeNames = {{ {names} }}\nTypesAndCoordinates [Bohr] {{",
        *atoms,
        "}\n}",
        "Hamiltonian = DFTB {",
        *method,
        "}",
        "Options { WriteResultsTag = Yes }",
        "Analysis { PrintForces = Yes }",
        "ParserOptions { ParserVersion = 14 }",
    ]
    return "\n".join(lines) + "\n"


def block(name: str, values: dict[str, str]) -> str:
    return "\n".join([f"{name} {{", *(f"{key} = {value}" for key, value in values.items()), "}"])


def dispersion(method: str) -> str:
    """DFTB+'s own D3 (two-body terms only) and D4, with cutoffs that leave nothing out."""
    damping = {key: repr(value) for key, value in DAMPING[method].items()}
    cutoffs = {"CutoffInter [Bohr]": "200.0"}
    if method == "d3bj":
        del damping["s9"]
        return block("Dispersion = SimpleDftD3", {**damping, **cutoffs})
    return block("Dispersion = DftD4", {**damping, **cutoffs, "CutoffThree [Bohr]": "200.0"})


def read_tags(path: Path) -> dict[str, np.ndarray]:
    """Arrays of real numbers of a results.tag, with its indices in C order."""
    tags = {}
    header = re.compile(r"^(\w+) *:real:(\d+):([\d,]*)\n((?: [^\n]*\n)+)", re.MULTILINE)
    for name, _, shape, values in header.findall(path.read_text()):
        sizes = [int(size) for size in shape.split(",") if size][::-1]
        tags[name] = np.array(values.split(), dtype=np.float64).reshape(sizes)
    return tags


def make_record(case: Case, number: int, skf: Path) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    symbols, positions = geometry(case, rng)
    mm_positions, mm_charges = surroundings(positions, case.point_charges, rng)
    record = {
        **{key: value for key, value in asdict(case).items() if key not in ("point_charges", "distortion")},
        "symbols": symbols,
        "positions": positions.tolist(),
        "mm_positions": mm_positions.tolist(),
        "mm_charges": mm_charges.tolist(),
    }
    return {**record, **run_dftbplus(record, skf)}


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    RDLogger.DisableLog("rdApp.warning")  # of the force field it does not need
    records = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pidelta", "slater-koster", "export", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for number, case in enumerate(CASES):
            print(f"{number + 1}/{len(CASES)} {case.molecule}", file=sys.stderr)
            records.append(make_record(case, number, Path(folder) / f"order-{case.order}"))
    content = {
        "origin": "the program DFTB+ 25.1 (dftbplus.org) by tests/records/make_dftbplus_records.py",
        "units": "atomic units; gradient = dE/dR with the point charges in it; charges are net charges",
        "set": "pid 1.1",
        "damping": DAMPING,
        "records": records,
    }
    text = json.dumps(content, separators=(",", ":"))
    output.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{output}: {len(records)} records, {output.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
