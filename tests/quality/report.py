"""Write the quality report of the built-in Slater-Koster set: README.md of this folder and its pictures.

Run: python tests/quality/report.py [--set FOLDER ...]

It compares the built-in set, or the sets in folders, and the published sets in shared/slako beside the
checkout, where they are, with the DFT data of reference.json. The dynamics of the third-order set take some
minutes the first time; their results are kept in nve.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nve
import page
import pictures
from measure import measure
from methods import own_methods, published_methods
from molecules import read_molecules
from reference import Reference

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--set", type=Path, action="append", default=[], help="folder of a set, for each order"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the page")
    arguments = parser.parse_args()
    own = own_methods(arguments.set)
    if not own:
        parser.error("this version has no built-in set; give one with --set")
    for name, result in nve.run_all(own[0]):
        print(f"{name}: {result['drift']:+.1e} meV/atom/ps", flush=True)
    molecules, reference = read_molecules(), Reference()
    measurements = []
    for method in [*own, *published_methods()]:
        print(f"measuring {method.name}", flush=True)
        measurements.append(measure(method, reference, molecules))
    folder = arguments.output / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures.draw_gradients(measurements, molecules, folder / "gradients.png")
    pictures.draw_bonds(measurements, folder / "bonds.png")
    pictures.draw_dimer(measurements, folder / "water-dimer.png")
    pictures.draw_proton_transfer(measurements, folder / "proton-transfer.png")
    if measurements[0].vibrations:
        pictures.draw_frequencies(measurements, folder / "frequencies.png")
    text = page.write(measurements, molecules, reference, nve.results_of(own[0]))
    (arguments.output / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
