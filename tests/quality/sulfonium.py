"""Does the built-in set describe sulfonium ions? None is in its training list.

Run: python tests/quality/sulfonium.py [--output sulfonium.json]

Minima of thioethers and sulfonium ions, and energies of proton and methyl transfers between them, by DFT at
the level of the quality report and by the same DFTB methods. DFT results are kept, so that it goes on where
it stopped; the page sulfonium.md is written at the end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from ase.data import covalent_radii

from dft import SETTINGS, Surface, charges_and_dipole
from measure import own_methods
from methods import Method, published_methods
from minima import minimise
from molecules import Molecule, dynamics_frames, force_field_minimum, make_frame
from pidelta.data.frames import Frame
from pidelta.output_files import replacing
from pidelta.qm.reference import label_frame
from pidelta.units import ANGSTROM, EV, HARTREE_IN_KCAL_PER_MOL

HERE = Path(__file__).parent
MOLECULES = {
    name: Molecule(name, smiles)
    for name, smiles in {
        "dimethyl sulfide": "CSC",
        "tetrahydrothiophene": "C1CCSC1",
        "protonated dimethyl sulfide": "C[SH+]C",
        "trimethylsulfonium": "C[S+](C)C",
        "S-methylthiolanium": "C[S+]1CCCC1",
        "2-hydroxyethyl dimethylsulfonium": "C[S+](C)CCO",
        "ammonia": "N",
        "ammonium": "[NH4+]",
        "methylammonium": "C[NH3+]",
    }.items()
}
REACTIONS = {
    "proton from dimethyl sulfide-H+ to ammonia": (
        ("protonated dimethyl sulfide", "ammonia"),
        ("dimethyl sulfide", "ammonium"),
    ),
    "methyl from trimethylsulfonium to ammonia": (
        ("trimethylsulfonium", "ammonia"),
        ("dimethyl sulfide", "methylammonium"),
    ),
    "methyl from trimethylsulfonium to thiolane": (
        ("trimethylsulfonium", "tetrahydrothiophene"),
        ("dimethyl sulfide", "S-methylthiolanium"),
    ),
}
DYNAMICS = {"temperature": "400 K", "frames": 2, "seed": 20261127}
SULFUR = 16


class Results:
    """DFT results by molecule, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        stored = json.loads(path.read_text()) if path.exists() else {"method": SETTINGS.method, "results": {}}
        if stored["method"] != SETTINGS.method:
            raise SystemExit(f"{path}: expected results by {SETTINGS.method}, found {stored['method']}")
        self.content: dict[str, dict] = stored["results"]

    def of(self, molecule: Molecule, start: Method) -> dict:
        """Minimum, charges and the gradients of two hot geometries, computed once."""
        if molecule.name not in self.content:
            frame = force_field_minimum(molecule)
            minimum = start.minimum(frame)
            frame = make_frame(frame.numbers, minimum.positions, frame.charge, molecule.name)
            surface = Surface(frame)
            relaxed = minimise(surface, frame.positions, start.hessian(frame, frame.positions))
            charges, _ = charges_and_dipole(surface.scf(relaxed.positions))
            hot = dynamics_frames(molecule, DYNAMICS)
            self.content[molecule.name] = {
                "numbers": frame.numbers.tolist(),
                "charge": frame.charge,
                "positions": relaxed.positions.round(7).tolist(),
                "energy": relaxed.energy,
                "charges": charges.round(5).tolist(),
                "hot": [
                    {
                        "positions": each.positions.round(7).tolist(),
                        "gradient": label_frame(each, SETTINGS).gradient.round(7).tolist(),
                    }
                    for each in hot
                ],
            }
            with replacing(self.path) as stream:
                json.dump({"method": SETTINGS.method, "results": self.content}, stream)
            print(molecule.name, flush=True)
        return self.content[molecule.name]


def frame_of(result: dict, positions: list | None = None) -> Frame:
    return make_frame(result["numbers"], positions or result["positions"], result["charge"])


def bonds_and_angles(numbers: np.ndarray, positions: np.ndarray) -> tuple[list[float], list[float]]:
    """Lengths of bonds of S in angstrom, and angles at it in degrees, in the order of the atoms."""
    lengths, angles = [], []
    for sulfur in np.flatnonzero(numbers == SULFUR):
        vectors = positions - positions[sulfur]
        distances = np.linalg.norm(vectors, axis=1)
        reach = 1.25 * ANGSTROM * (covalent_radii[numbers] + covalent_radii[SULFUR])
        near = [other for other in np.flatnonzero(distances < reach) if other != sulfur]
        lengths += [distances[other] / ANGSTROM for other in near]
        for place, first in enumerate(near):
            for second in near[:place]:
                cosine = vectors[first] @ vectors[second] / distances[first] / distances[second]
                angles.append(float(np.degrees(np.arccos(cosine))))
    return lengths, angles


def measure(method: Method, results: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Figures of a method for each molecule with S, and of each reaction."""
    energies: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        frame = frame_of(result)
        relaxed = method.minimum(frame)
        energies[name] = relaxed.energy
        if SULFUR not in result["numbers"]:
            continue
        known = bonds_and_angles(frame.numbers, frame.positions)
        found = bonds_and_angles(frame.numbers, relaxed.positions)
        charges = method.evaluate(frame, frame.positions[None]).charges[0]
        gradients = [
            method.evaluate(frame, np.array(hot["positions"])[None]).gradient[0] - hot["gradient"]
            for hot in result["hot"]
        ]
        sulfur = frame.numbers == SULFUR
        figures[name] = {
            "gradient": float(np.abs(gradients).mean()) / (EV / ANGSTROM),
            "bonds": float(np.mean(np.subtract(found[0], known[0]))),
            "angles": float(np.abs(np.subtract(found[1], known[1])).max()),
            "charge": float((charges - result["charges"])[sulfur].sum()),
        }
    for name, (before, after) in REACTIONS.items():
        change = sum(energies[each] for each in after) - sum(energies[each] for each in before)
        wanted = sum(results[each]["energy"] for each in after)
        wanted -= sum(results[each]["energy"] for each in before)
        figures[name] = {
            "wanted": HARTREE_IN_KCAL_PER_MOL * wanted,
            "found": HARTREE_IN_KCAL_PER_MOL * change,
        }
    return figures


def page(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """The tables in Markdown."""
    methods = list(figures)
    lines = [__doc__.split("\n", 1)[0].join(("# ", "")), ""]
    lines += [
        f"Against {SETTINGS.method}, in vacuum. `python tests/quality/sulfonium.py`",
        "",
        "Gradient: MAE in eV/Å over two geometries of force-field dynamics at 400 K. Bonds: mean signed",
        "error of the bonds of S at the minimum, in Å. Angles: largest error of those at S, in degrees.",
        "Charge of S: Mulliken less that in intrinsic atomic orbitals, in e, both at the DFT minimum.",
        "",
        "| molecule | " + " | ".join(methods) + " |",
        "|---" * (1 + len(methods)) + "|",
    ]
    for name, molecule in MOLECULES.items():
        if "S" in molecule.smiles:
            cells = [
                "{gradient:.3f}; {bonds:+.3f}; {angles:.1f}; {charge:+.2f}".format(**figures[method][name])
                for method in methods
            ]
            title = f"{name}, `{molecule.smiles}`: gradient; bonds; angles; charge"
            lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", "Energies of reaction in kcal/mol.", "", "| reaction | DFT | " + " | ".join(methods) + " |"]
    lines.append("|---" * (2 + len(methods)) + "|")
    for name in REACTIONS:
        cells = [f"{figures[method][name]['found']:.1f}" for method in methods]
        lines.append(f"| {name} | {figures[methods[0]][name]['wanted']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "sulfonium.json")
    arguments = parser.parse_args()
    methods = [*own_methods([]), *(each for each in published_methods() if "S" in each.parameters.elements)]
    results = Results(arguments.output)
    known = {name: results.of(molecule, methods[0]) for name, molecule in MOLECULES.items()}
    figures = {method.name: measure(method, known) for method in methods}
    arguments.output.with_suffix(".md").write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
