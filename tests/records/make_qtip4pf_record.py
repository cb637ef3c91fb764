"""Make tests/data/qtip4pf-ipi-3.3.json.xz: q-TIP4P/F water as i-PI's own driver in Fortran has it.

    python tests/records/make_qtip4pf_record.py PATH_OF_i-pi-driver [OUTPUT]

The driver comes with i-PI's repository (drivers/f90, ``make``). It is run once, with ASE as its server, on a
droplet of 64 molecules in an orthorhombic box: neighbours are as near as in the liquid, and the box leaves
room for the driver's cutoff of 9 angstrom.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.socketio import SocketIOCalculator

OUTPUT = Path(__file__).parents[1] / "data" / "qtip4pf-ipi-3.3.json.xz"
BOX = np.array([35.0, 36.5, 38.0])  # bohr
SPACING = 5.9  # bohr
WATER = np.array([[0.0, 0.0, 0.0], [1.55, 1.10, 0.0], [-1.51, 1.13, 0.1]])
SOCKET = "pidelta-qtip4pf"


def droplet() -> np.ndarray:
    """Positions (192, 3) in bohr, O H H of 64 molecules turned and distorted at random, rounded."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rotations = np.linalg.qr(rng.normal(size=(64, 3, 3)))[0]
    molecules = (WATER + rng.normal(0.0, 0.06, (64, 3, 3))) @ rotations
    return np.round(
        (SPACING * grid[:, None] + molecules + rng.normal(0.0, 0.2, (64, 1, 3))).reshape(-1, 3), 6
    )


def main() -> None:
    driver, output = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else OUTPUT
    positions = droplet()
    # ASE divides by its own bohr before it sends, so that the driver gets these numbers but for rounding.
    atoms = Atoms("OHH" * 64, positions * units.Bohr, cell=BOX * units.Bohr, pbc=True)
    with SocketIOCalculator(unixsocket=SOCKET) as atoms.calc:
        client = subprocess.Popen([driver, "-u", "-a", SOCKET, "-m", "qtip4pf"])
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    client.wait()
    content = {
        "origin": "i-PI 3.3's driver in Fortran, -m qtip4pf, by tests/records/make_qtip4pf_record.py: "
        "Ewald electrostatics, Lennard-Jones cut at 9 angstrom",
        "units": "atomic units; atoms O H H; orthorhombic box; forces = -dE/dR",
        "box": BOX.tolist(),
        "positions": positions.tolist(),
        "energy": energy / units.Hartree,
        "forces": np.round(forces / (units.Hartree / units.Bohr), 13).tolist(),
    }
    output.write_bytes(lzma.compress(json.dumps(content, separators=(",", ":")).encode()))


if __name__ == "__main__":
    main()
