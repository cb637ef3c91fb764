"""Molecules of springs, whose quantum statistics is known for every number of beads.

Bonds without a rest length, k r^2 / 2, leave x, y and z apart: along each the atoms of a molecule have
harmonic normal modes, however far they move. P beads of a mode of frequency w at the temperature
T = 1 / beta have the kinetic and the potential energy

    1/(2 beta) sum_k w^2 / (w^2 + w_k^2),   w_k = 2 P / (beta hbar) sin(k pi / P),   k = 0 ... P - 1

which is hbar w / 4 coth(beta hbar w / 2) in the limit (Schweizer, Stratt, Chandler, Wolynes,
J. Chem. Phys. 75, 1347 (1981)). A mode of frequency zero, the centre of mass, has 1/(2 beta).

Run: python tests/harmonic_molecules.py [--steps 4000], for a table of 1 to 64 beads, sampled beside exact.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipi_support import running_ipi, unique_address
from pidelta.analysis.ipi_output import read_properties
from pidelta.analysis.statistics import mean_with_error
from pidelta.config import load_config
from pidelta.ipi.client import serve
from pidelta.ipi.transports import connect
from pidelta.setup import Setup
from pidelta.units import DALTON_IN_ELECTRON_MASS, HARTREE_IN_EV, HARTREE_IN_KELVIN, HARTREE_IN_KJ_PER_MOL

KELVIN = 150.0
MOLECULES = 64
BEADS = (1, 2, 4, 8, 16, 32, 64)
SYMBOLS = ("H", "C", "N")
MASSES = (1.00794, 12.0107, 14.0067)  # i-PI's
SPRINGS = {(0, 1): 70_000.0, (1, 2): 220_000.0}  # kJ/mol/nm^2: 1450 and 1010 cm-1
NM = 18.897261246
STRIDE = 4
LARGEST_BATCH = 16  # i-PI drops a client that takes 0.1 s to empty the buffer of a socket: 200 kB


@dataclass(frozen=True)
class Exact:
    """Of one molecule in hartree: kinetic energy by atom, and potential energy."""

    kinetic: np.ndarray
    potential: float


def exact(beads: int, masses=MASSES) -> Exact:
    """The values for some beads, 0 for infinitely many."""
    squares, modes = _modes(np.asarray(masses) * DALTON_IN_ELECTRON_MASS)
    energies = np.array([_energy_of_mode(max(square, 0.0), beads) for square in squares])
    bound = squares > 1e-3 * squares.max()
    energies[~bound] = 0.5 * KELVIN / HARTREE_IN_KELVIN
    return Exact(3.0 * modes**2 @ energies, float(3.0 * energies[bound].sum()))


def free_energy(beads: int, masses=MASSES) -> float:
    """-T log Z of one molecule in hartree, up to a constant that depends on no mass.

    Z of P beads, and of the centre of mass as classical statistics has it.
    """
    temperature = KELVIN / HARTREE_IN_KELVIN
    masses = np.asarray(masses) * DALTON_IN_ELECTRON_MASS
    squares, _ = _modes(masses)
    bound = squares[squares > 1e-3 * squares.max()]
    waves = _free_frequencies(beads)
    log_z = -0.5 * np.log((waves[None] ** 2 + bound[:, None]) / (beads * temperature) ** 2).sum()
    return -3.0 * temperature * (log_z + 0.5 * np.log(masses.sum()))


def _modes(masses):
    hessian = np.zeros((3, 3))
    for (i, j), k in SPRINGS.items():
        k = k / HARTREE_IN_KJ_PER_MOL / NM**2
        hessian[[i, j], [i, j]] += k
        hessian[[i, j], [j, i]] -= k
    return np.linalg.eigh(hessian / np.sqrt(np.outer(masses, masses)))


def _free_frequencies(beads: int):
    return 2.0 * beads * KELVIN / HARTREE_IN_KELVIN * np.sin(np.arange(beads) * np.pi / beads)


def _energy_of_mode(square: float, beads: int) -> float:
    temperature = KELVIN / HARTREE_IN_KELVIN
    if square < 1e-12:
        return 0.5 * temperature
    if not beads:
        omega = np.sqrt(square)
        return 0.25 * omega / np.tanh(0.5 * omega / temperature)
    return float(0.5 * temperature * np.sum(square / (square + _free_frequencies(beads) ** 2)))


@dataclass(frozen=True)
class Sampled:
    """Of one molecule in hartree, `Mean`s by symbol."""

    kinetic: dict
    potential: object


def sample(folder: Path, beads: int, steps: int, masses=MASSES, seed: int = 20101) -> Sampled:
    """Run i-PI with pidelta as its client; leave out the first tenth."""
    evaluator = Setup(load_config(_write_molecules(folder, seed))).evaluator()
    address = unique_address()
    path = _write_input(folder, address, beads, steps, masses, seed)
    with running_ipi(path, seconds=1800.0), closing(connect("unix", address, 0, patience=300.0)) as transport:
        serve(evaluator, transport)
    properties = read_properties(folder / "sim.out")
    means = {}
    kinetic = _kinetic_columns(beads)
    for name in ("potential", *kinetic):
        values = properties.columns[name]
        means[name] = mean_with_error(values[len(values) // 10 :] / MOLECULES)
    energies = {symbol: means[name] for symbol, name in zip(SYMBOLS, kinetic, strict=True)}
    return Sampled(energies, means["potential"])


def _kinetic_columns(beads: int) -> list[str]:
    """Centroid-virial energies, which for one bead are the constant 3/2 k_B T: there those of the momenta."""
    return [f"kinetic_{'cv' if beads > 1 else 'md'}({symbol})" for symbol in SYMBOLS]


def _write_molecules(folder: Path, seed: int) -> Path:
    bonds = "\n".join(f"{i + 1} {j + 1} 1 0.0 {k}" for (i, j), k in SPRINGS.items())
    numbers = {"H": 1, "C": 6, "N": 7}
    (folder / "springs.top").write_text(
        "\n".join(
            [
                "[ defaults ]\n1 2 no 1.0 1.0\n[ atomtypes ]",
                *(f"{s}S {numbers[s]} {m} 0.0 A 0.0 0.0" for s, m in zip(SYMBOLS, MASSES, strict=True)),
                "[ moleculetype ]\nMOL 3\n[ atoms ]",
                *(
                    f"{i + 1} {s}S 1 MOL {s} 1 0.0 {m}"
                    for i, (s, m) in enumerate(zip(SYMBOLS, MASSES, strict=True))
                ),
                f"[ bonds ]\n{bonds}\n[ system ]\nsprings\n[ molecules ]\nMOL {MOLECULES}\n",
            ]
        )
    )
    spread = np.random.default_rng(seed).normal(0.0, 0.05, (MOLECULES * 3, 3))
    rows = [f"{s} {x:.6f} {y:.6f} {z:.6f}" for s, (x, y, z) in zip(SYMBOLS * MOLECULES, spread, strict=True)]
    (folder / "springs.xyz").write_text("\n".join([f"{len(rows)}", "", *rows, ""]))
    (folder / "init.xyz").write_text(
        "\n".join([f"{len(rows)}", "# positions{angstrom} cell{angstrom}", *rows, ""])
    )
    (folder / "pidelta.yaml").write_text("structure: springs.xyz\nmm: {topology: springs.top}\n")
    return folder / "pidelta.yaml"


def _write_input(folder: Path, address: str, beads: int, steps: int, masses, seed: int) -> Path:
    columns = ", ".join(["step", "potential", *_kinetic_columns(beads)])
    path = folder / "input.xml"
    path.write_text(f"""<simulation verbosity='low'>
  <output prefix='sim'> <properties filename='out' stride='{STRIDE}'> [ {columns} ] </properties> </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> {seed} </seed></prng>
  <ffsocket name='all' mode='unix' pbc='false'>
    <address> {address} </address> <batch_size> {min(beads, LARGEST_BATCH)} </batch_size>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz'> init.xyz </file>
      <cell mode='abc' units='angstrom'> [ 100, 100, 100 ] </cell>
      <masses mode='manual' units='dalton'> {list(masses) * MOLECULES} </masses>
      <velocities mode='thermal' units='kelvin'> {KELVIN} </velocities>
    </initialize>
    <forces> <force forcefield='all'/> </forces>
    <ensemble> <temperature units='kelvin'> {KELVIN} </temperature> </ensemble>
    <motion mode='dynamics'>
      <fixcom> False </fixcom>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 0.25 </timestep>
        <thermostat mode='pile_l'> <tau units='femtosecond'> 10 </tau> </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
""")
    return path


def table(steps: int, numbers: Sequence[int]) -> None:
    """Print what is sampled beside what is exact, in meV; the last line is that of infinitely many beads."""
    print("| beads | H | exact | C | exact | N | exact | potential | exact |")
    print("|---" * 9 + "|")
    for beads in (*numbers, 0):
        value = exact(beads)
        known = [f"{1000.0 * HARTREE_IN_EV * energy:.2f}" for energy in (*value.kinetic, value.potential)]
        found = ["" for _ in known]
        if beads:
            with tempfile.TemporaryDirectory() as folder:
                means = sample(Path(folder), beads, steps)
            scaled = [
                mean.scaled(1000.0 * HARTREE_IN_EV) for mean in (*means.kinetic.values(), means.potential)
            ]
            found = [mean.shown(".2f") for mean in scaled]
        cells = [cell for pair in zip(found, known, strict=True) for cell in pair]
        print(f"| {beads or 'limit'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000, help="of 0.25 fs, for each number of beads")
    parser.add_argument("--beads", type=int, nargs="*", default=BEADS, help="the numbers of beads")
    options = parser.parse_args()
    table(options.steps, options.beads)
