"""100 fs of ASE molecular dynamics of uracil in vacuum at constant energy, with its drift.

Run: python examples/short_md.py
"""

from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

import pidelta

here = Path(__file__).parent
atoms = read(here / "uracil.xyz")
atoms.calc = pidelta.Calculator(here / "uracil.yaml")
thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(7))
Stationary(atoms)

dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
for _ in range(20):
    dynamics.run(10)
    print(
        f"{dynamics.get_time() / units.fs:6.1f} fs  {atoms.get_temperature():6.1f} K  "
        f"total {atoms.get_total_energy():.6f} eV"
    )
