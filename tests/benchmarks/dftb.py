"""Time of DFTB by structure, split by part, beside DFTB+ where its Python module is there.

Run: python tests/benchmarks/dftb.py [--parameters 3ob-3-1] [--batches 1 8 32] [--repeats 30] [--device cpu]

Third order, SCC to 1e-8 e from the charges of earlier calls, one thread. Each structure of a batch moves on a
trajectory of its own: 0.5 fs steps from 300 K. DFTB+ then takes the steps of the first one.
CPU time, so that other processes disturb little (wall time with --device cuda); medians over the calls.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import torch
from ase.io import read
from rich.console import Console
from rich.table import Table

from pidelta.errors import SetupError
from pidelta.qm.dftb import integrals, scc, sets
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import (
    PUBLISHED_DAMPING_EXPONENTS,
    PUBLISHED_HUBBARD_DERIVATIVES,
    load_parameters,
)
from pidelta.qm.dftb.settings import DFTBSettings, SCCSettings
from pidelta.qm.dftbplus import inputs
from pidelta.qm.dftbplus.library import load_library
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, FEMTOSECOND, parse_quantity

MOLECULES = Path(__file__).with_name("molecules")
NAMES = ("benzene", "uracil", "alanine-dipeptide", "retinoic-acid")
PARTS = {
    "integrals": (integrals.SlaterKosterIntegrals, "evaluate"),
    "SCC": (scc.SCCSolver, "solve"),
    "gradient": (integrals.SlaterKosterIntegrals, "gradient"),
}
TOLERANCE, MAX_ITERATIONS = 1e-8, 100
STEP, TEMPERATURE = 0.5 * FEMTOSECOND, parse_quantity("300 K", "temperature")
WARM_UP = 8


class Clock:
    """Seconds by part: of this process's CPU, or of the wall where a GPU works."""

    def __init__(self, device):
        self._gpu = device != "cpu"
        self.seconds = defaultdict(list)

    def now(self):
        if self._gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if self._gpu else time.process_time()

    @contextmanager
    def __call__(self, part):
        started = self.now()
        yield
        self.seconds[part].append(self.now() - started)

    def watch(self):
        """Time the parts of the built-in engine from now on."""
        for part, (owner, name) in PARTS.items():
            setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part, method):
        def timed(*arguments):
            with self(part):
                return method(*arguments)

        return timed

    def medians(self):
        """Median milliseconds by part; forgets all."""
        result = {part: 1e3 * float(np.median(values[WARM_UP:])) for part, values in self.seconds.items()}
        self.seconds.clear()
        return result


class Method:
    """DFTB3 with the built-in set or a folder of files of 3ob."""

    def __init__(self, folder):
        self.folder = folder
        if folder is None:
            builtin = sets.builtin_set()[3]
            self._files, description = builtin, builtin.description
            self.derivatives = description.hubbard_derivatives
            self.damping_exponent = description.damping_exponent
        else:
            self.derivatives = PUBLISHED_HUBBARD_DERIVATIVES["3ob"]
            self.damping_exponent = PUBLISHED_DAMPING_EXPONENTS["3ob"]

    def parameters(self, elements):
        return (
            self._files.parameters(elements)
            if self.folder is None
            else load_parameters(self.folder, elements)
        )

    def builtin(self, numbers, elements, start, device):
        return DFTBEngine(
            numbers,
            self.parameters(elements),
            DFTBSettings(
                order=3,
                hubbard_derivatives=self.derivatives,
                damping_exponent=self.damping_exponent,
                scc=SCCSettings(TOLERANCE, MAX_ITERATIONS, start),
                device=device,
            ),
        )

    def dftbplus(self, numbers, elements, library, work):
        """DFTB+ itself, by its own Python module."""
        import dftbplus

        folder = self.folder
        if folder is None:
            folder = work / "set"
            if not folder.exists():
                sets.export(self._files, folder)
        settings = DFTBSettings(
            order=3,
            hubbard_derivatives=self.derivatives,
            damping_exponent=self.damping_exponent,
            scc=SCCSettings(TOLERANCE, MAX_ITERATIONS),
        )
        hamiltonian = inputs.hamiltonian(settings, numbers, self.parameters(elements), folder.resolve())
        (work / "dftb_in.hsd").write_text(inputs.whole_input(numbers, hamiltonian))
        return dftbplus.DftbPlus(libpath=str(library), hsdpath=str(work / "dftb_in.hsd"), logfile=os.devnull)


def evaluate_dftbplus(program, positions):
    program.set_geometry(positions)
    return program.get_energy(), program.get_gradients(), program.get_gross_charges()


def measure(engine, program, atoms, batch, repeats, clock):
    """Median milliseconds by part, per call (DFTB+: per structure), and mean SCC iterations."""
    masses = atoms.get_masses()[:, None] * DALTON_IN_ELECTRON_MASS
    shape = (batch, len(atoms), 3)
    velocities = np.random.default_rng(0).normal(size=shape) * np.sqrt(TEMPERATURE / masses)
    positions = np.repeat(atoms.positions[None] * ANGSTROM, batch, axis=0)
    potential = np.zeros(shape[:2])
    trajectory, results = [], []
    for _ in range(WARM_UP + repeats):
        trajectory.append(positions[0].copy())
        with clock("whole"):
            results.append(engine.evaluate(positions, potential))
        velocities -= STEP / masses * results[-1].gradient
        positions += STEP * velocities
    for structure, result in zip(trajectory if program is not None else (), results, strict=False):
        with clock("DFTB+"):
            energy, *_ = evaluate_dftbplus(program, structure)
        assert abs(energy - result.energy[0]) < 1e-6, "the programs disagree"
    return clock.medians(), float(
        np.mean([result.properties["scc_iterations"] for result in results[WARM_UP:]])
    )


def row(name, engine, batch, times, iterations):
    parts = [times[part] for part in PARTS]
    cells = [value / batch for value in (*parts, times["whole"] - sum(parts), times["whole"])]
    texts = [
        name,
        str(len(engine.numbers)),
        str(batch),
        *(f"{cell:.2f}" for cell in cells),
        f"{iterations:.1f}",
    ]
    if "DFTB+" in times:
        texts += [f"{times['DFTB+']:.2f}", f"{times['DFTB+'] * batch / times['whole']:.1f}"]
    return texts


def find_library(console):
    try:
        return load_library(None)
    except SetupError as error:
        console.print(f"without DFTB+: {error}")
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parameters", type=Path, help="a folder of .skf files of 3ob; else the built-in set"
    )
    parser.add_argument("--molecules", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--start", choices=("none", "previous", "extrapolated"), default="extrapolated")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    library, method, clock = find_library(console), Method(arguments.parameters), Clock(arguments.device)
    clock.watch()
    title = f"ms per structure, {arguments.device}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    table = Table("molecule", "atoms", "batch", *PARTS, "rest", "whole", "SCC steps", title=title)
    for column in ("DFTB+", "DFTB+ / whole") if library is not None else ():
        table.add_column(column)
    for molecule in arguments.molecules:
        atoms = read(MOLECULES / f"{molecule}.xyz")
        numbers, elements = atoms.numbers.astype(np.int64), sorted(set(atoms.symbols))
        for batch in arguments.batches:
            engine = method.builtin(numbers, elements, arguments.start, arguments.device)
            with tempfile.TemporaryDirectory() as work:
                program = library and method.dftbplus(numbers, elements, library, Path(work))
                outcome = measure(engine, program, atoms, batch, arguments.repeats, clock)
                if program is not None:
                    program.close()
            table.add_row(*row(molecule, engine, batch, *outcome))
    console.print(table)


if __name__ == "__main__":
    main()
