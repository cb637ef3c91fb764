"""The proton transfer in malonaldehyde: a nudged elastic band whose images share a calculator.

Run: python examples/proton_transfer_neb.py
"""

from pathlib import Path

from ase.build import minimize_rotation_and_translation
from ase.io import read
from ase.mep import NEB
from ase.optimize import BFGS

import pidelta

MIRRORED = (4, 3, 2, 1, 0, 7, 6, 5, 8)
"""In whose place each atom is, once the proton is at the other oxygen."""
here = Path(__file__).parent
start = read(here / "malonaldehyde.xyz")
start.calc = pidelta.Calculator(here / "malonaldehyde.yaml")
BFGS(start, logfile=None).run(fmax=0.01)
end = start.copy()
end.positions = start.positions[list(MIRRORED)]
minimize_rotation_and_translation(start, end)

images = [start, *(start.copy() for _ in range(5)), end]
for image in images[1:]:
    image.calc = start.calc
band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
band.interpolate("idpp")
BFGS(band, logfile=None).run(fmax=0.05, steps=200)

energies = [image.get_potential_energy() for image in images]
for image, energy in zip(images, energies, strict=True):
    print(
        f"O-H {image.get_distance(4, 8):.3f}  H-O {image.get_distance(0, 8):.3f} angstrom  "
        f"{energy - energies[0]:7.4f} eV"
    )
print(f"barrier  {(max(energies) - energies[0]) * 23.0605:.2f} kcal/mol")
