"""Chloride pulled away from hydronium through the end of the embedding, in a box of 35 angstrom.

Run: python tests/pulled_ion.py docs/pulled-ion.svg

draws the force of DFTB3 on the ion along the path, by both schemes of the embedding.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from mm_systems import write_gro
from pidelta.config import load_config
from pidelta.core.ewald import EwaldSum
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

LENGTH = 35.0  # angstrom
DISTANCES = np.arange(8.0, 18.0001, 0.1)  # angstrom, from the oxygen
DIRECTION = np.array([0.6, 0.0, 0.8])
HYDRONIUM = np.array([[0, 0, 0], [0.94, 0, 0.25], [-0.47, 0.81, 0.25], [-0.47, -0.81, 0.25]])
KCAL_PER_ANGSTROM = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
TOPOLOGY = """[ defaults ]
1 2 yes 0.5 0.8333
[ atomtypes ]
OH 8 15.999 0.0 A 0.315 0.6
HO 1 1.008 0.0 A 0.0 0.0
Cl 17 35.45 0.0 A 0.44 0.42
[ moleculetype ]
H3O 3
[ atoms ]
1 OH 1 H3O O1 1 -0.2 15.999
2 HO 1 H3O H1 1 0.4 1.008
3 HO 1 H3O H2 1 0.4 1.008
4 HO 1 H3O H3 1 0.4 1.008
[ bonds ]
1 2 1 0.1 400000.0
1 3 1 0.1 400000.0
1 4 1 0.1 400000.0
[ moleculetype ]
CL 1
[ atoms ]
1 Cl 1 CL CL 1 -1.0 35.45
[ system ]
hydronium and chloride
[ molecules ]
H3O 1
CL 1
"""


def path_positions():
    """(B, 5, 3) in bohr, hydronium first and across a corner of the cell."""
    ions = DISTANCES[:, None] * DIRECTION
    return np.stack([np.concatenate([HYDRONIUM, ion[None]]) for ion in ions]) * ANGSTROM


def evaluate(folder, scheme):
    """The evaluation of the low level along the path, DFTB3 with the built-in parameters."""
    (folder / "ions.top").write_text(TOPOLOGY, encoding="utf-8")
    atoms = [*((1, "H3O", name) for name in ("O1", "H1", "H2", "H3")), (2, "CL", "CL")]
    write_gro(folder / "ions.gro", atoms, path_positions()[0], LENGTH * np.eye(3) * ANGSTROM)
    config = folder / f"{scheme}.yaml"
    config.write_text(
        "structure: ions.gro\nqm: {atoms: resname H3O, charge: 1}\n"
        f"mm: {{topology: ions.top, cutoff: 1.0 nm}}\nembedding: {{scheme: {scheme}}}\n",
        encoding="utf-8",
    )
    setup = Setup(load_config(config))
    cells = np.repeat(setup.system.cell[None], len(DISTANCES), axis=0)
    return setup.evaluator(frozenset({"low"})).evaluate(path_positions(), cells)


def along(gradient):
    """The force (B,) on the ion along the path in kcal/mol/angstrom, from a gradient (B, 5, 3)."""
    return -(gradient[:, 4] @ DIRECTION) * KCAL_PER_ANGSTROM


def by_ewald(charges):
    """That force (B,) of fixed charges (B, 5) by a plain Ewald sum, at every fourth distance.

    The Gaussians are so narrow that the ion's does not reach the other charges: there is no direct part.
    """
    ewald, cell = EwaldSum(0.3, 1e-12), LENGTH * np.eye(3) * ANGSTROM
    forces = []
    for positions, q in zip(path_positions()[::4], charges[::4], strict=True):
        gradient = ewald.evaluate(positions, q, cell).gradient
        forces.append(along(gradient[None])[0])
    return np.array(forces)


def main():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # text as text: the file is smaller, and can be searched
    pyplot.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]})

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    picture = parser.parse_args().picture
    figure, axes = pyplot.subplots(figsize=(6.0, 3.4), layout="constrained")
    for scheme, style in (("cutoff", "C1-"), ("pme", "C0-")):
        with tempfile.TemporaryDirectory() as folder:
            evaluation = evaluate(Path(folder), scheme)
        axes.plot(DISTANCES, along(evaluation.gradient), style, label=f"DFTB3, scheme: {scheme}")
    charges = np.column_stack([evaluation.charges, np.full(len(DISTANCES), -1.0)])
    axes.plot(DISTANCES[::4], by_ewald(charges), "k.", label="plain Ewald sum, Mulliken charges")
    axes.set_xlabel("distance of chloride from hydronium / Å")
    axes.set_ylabel("force on chloride / kcal/mol/Å")
    axes.legend(frameon=False)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
