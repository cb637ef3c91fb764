"""Optimise uracil in vacuum with DFTB3 and print its bonds and dipole.

Run: python examples/optimise_uracil.py
"""

from pathlib import Path

from ase.io import read
from ase.optimize import BFGS

import pidelta

here = Path(__file__).parent
atoms = read(here / "uracil.xyz")
atoms.calc = pidelta.Calculator(here / "uracil.yaml")
BFGS(atoms).run(fmax=0.005, steps=200)

print(f"energy  {atoms.get_potential_energy():.4f} eV")
print(f"dipole  {(atoms.get_dipole_moment() ** 2).sum() ** 0.5 / 0.20819434:.2f} debye")
for i, j in ((0, 1), (1, 2), (2, 3)):
    print(f"{atoms.symbols[i]}{i}-{atoms.symbols[j]}{j}  {atoms.get_distance(i, j):.4f} angstrom")
