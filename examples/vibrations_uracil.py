"""Harmonic frequencies and infrared intensities of uracil in vacuum with DFTB3.

Run: python examples/vibrations_uracil.py
"""

import tempfile
from pathlib import Path

from ase.io import read
from ase.optimize import BFGS
from ase.vibrations import Infrared

import pidelta

here = Path(__file__).parent
atoms = read(here / "uracil.xyz")
atoms.calc = pidelta.Calculator(here / "uracil.yaml")
BFGS(atoms, logfile=None).run(fmax=0.001, steps=500)

with tempfile.TemporaryDirectory() as folder:
    vibrations = Infrared(atoms, name=f"{folder}/infrared")
    vibrations.run()
    frequencies, intensities = vibrations.get_frequencies(), vibrations.intensities
for frequency, intensity in list(zip(frequencies, intensities, strict=True))[6:]:
    print(f"{frequency.real:8.1f} 1/cm  {intensity:6.2f} (D/angstrom)^2/u")
