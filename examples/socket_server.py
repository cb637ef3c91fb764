"""An optimisation of uracil by ASE, with forces from a pidelta client in a process of its own.

The client may run on another host, as with i-PI: use port=... in place of the unix socket here, and start
`pidelta client uracil.yaml --mode inet --address HOST --port ...` there.

Run: python examples/socket_server.py
"""

import os
import subprocess
import sys
from pathlib import Path

from ase.calculators.socketio import SocketIOCalculator
from ase.io import read
from ase.optimize import BFGS

here = Path(__file__).parent
address = f"pidelta-ase-{os.getpid()}"
command = [sys.executable, "-m", "pidelta", "client", str(here / "uracil.yaml"), "--address", address]

atoms = read(here / "uracil.xyz")
with SocketIOCalculator(unixsocket=address) as atoms.calc, subprocess.Popen(command):
    BFGS(atoms).run(fmax=0.01, steps=200)
    print(f"energy  {atoms.get_potential_energy():.4f} eV")
    atoms.calc.close()
