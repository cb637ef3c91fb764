"""i-PI inputs of plain dynamics of one structure or ring polymer, at constant energy or with a thermostat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from pidelta.output_files import replacing
from pidelta.state import FloatArray, System
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, HARTREE_IN_KELVIN

PREFIX = "md"
PROPERTIES = f"{PREFIX}.out"
CHECKPOINT = f"{PREFIX}.checkpoint"
_ROWS = 20_000
"""No more rows of properties than about this, however long a run."""
_CHECKPOINTS = 100
_VACUUM = 2000.0
"""bohr; i-PI wants a cell where there is none."""


@dataclass(frozen=True)
class Dynamics:
    """What i-PI is to do, in atomic units.

    Attributes:
        terms: of the energy, which one client serves.
        time_step, steps: of velocity Verlet.
        temperature: as k_B T; of the thermostat, and of initial velocities where the start has none.
        thermostat: the time constant of a Langevin thermostat, of the centroid (PILE-G) where there are
            beads; None for constant energy.
        seed: of random numbers.
        beads: of the ring polymer; one client is sent all of them at once.
        snapshots: steps between positions that are kept; None for none.
    """

    terms: Sequence[str]
    time_step: float
    steps: int
    temperature: float
    thermostat: float | None
    seed: int
    beads: int = 1
    snapshots: int | None = None

    @property
    def stride(self) -> int:
        """Steps between rows of properties."""
        return max(1, self.steps // _ROWS)


def write_input(path: Path, dynamics: Dynamics, start: Path, address: str) -> None:
    """Write an i-PI input.

    At constant energy the total momentum is left alone, so that the conserved quantity is the kinetic and
    potential energy and nothing else. All digits of numbers are written: a continued run is the same.

    Args:
        path: the input to write.
        dynamics: what to do.
        start: what `write_structure` wrote, or a RESTART, whose velocities are taken over.
        address: of the unix socket.
    """
    is_structure = start.suffix == ".xyz"
    kelvin = dynamics.temperature * HARTREE_IN_KELVIN
    initial = f"<file mode='{'xyz' if is_structure else 'chk'}'> {escape(str(start))} </file>"
    if is_structure:
        initial += f"\n      <velocities mode='thermal' units='kelvin'> {kelvin!r} </velocities>"
    thermostat = ""
    if dynamics.thermostat is not None:
        tau = _femtoseconds(dynamics.thermostat)
        mode = "langevin" if dynamics.beads == 1 else "pile_g"
        thermostat = (
            f"\n        <thermostat mode='{mode}'> <tau units='femtosecond'> {tau} </tau> </thermostat>"
        )
    kept = max(1, dynamics.steps // _CHECKPOINTS)
    safe, positions, batch = 1, "", ""
    if dynamics.snapshots is not None:
        safe = kept = dynamics.snapshots
        positions = (
            f"\n    <trajectory filename='pos' stride='{dynamics.snapshots}' format='xyz' "
            "cell_units='angstrom'> positions{angstrom} </trajectory>"
        )
    if dynamics.beads > 1:
        batch = f"\n    <batch_size> {dynamics.beads} </batch_size> <latency> 0.01 </latency>"
    text = f"""<simulation verbosity='low' floatformat='%24.16e' safe_stride='{safe}'>
  <output prefix='{PREFIX}'>
    <properties filename='out' stride='{dynamics.stride}'>
      [ step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}} ]
    </properties>{positions}
    <checkpoint filename='checkpoint' stride='{kept}' overwrite='true'/>
  </output>
  <total_steps> {dynamics.steps} </total_steps>
  <prng> <seed> {dynamics.seed} </seed> </prng>
  <ffsocket name='pidelta' mode='unix' pbc='false'>
    <address> {address} </address>{batch}
    <parameters> {{terms: {"+".join(dynamics.terms)}}} </parameters>
  </ffsocket>
  <system>
    <initialize nbeads='{dynamics.beads}'>
      {initial}
    </initialize>
    <forces> <force forcefield='pidelta'/> </forces>
    <motion mode='dynamics'>
      <fixcom> {dynamics.thermostat is not None} </fixcom>
      <dynamics mode='{"nve" if dynamics.thermostat is None else "nvt"}'>
        <timestep units='femtosecond'> {_femtoseconds(dynamics.time_step)} </timestep>{thermostat}
      </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> {kelvin!r} </temperature> </ensemble>
  </system>
</simulation>
"""
    with replacing(path) as stream:
        stream.write(text)


def write_structure(path: Path, system: System) -> None:
    """Write a structure as i-PI reads it; the cell is turned so that its matrix is triangular."""
    from ase.cell import Cell
    from ase.data import chemical_symbols

    positions, cell = system.positions, np.eye(3) * _VACUUM
    if system.cell is not None:
        cell, rotation = Cell(system.cell).standard_form()
        positions = positions @ rotation.T
    lines = [
        str(len(system)),
        f"# cell{{atomic_unit}} positions{{atomic_unit}} CELL{{H}}: {_numbers(cell.T)}",
    ]
    lines += [
        f"{chemical_symbols[int(number)]} {_numbers(position)}"
        for number, position in zip(system.numbers, positions, strict=True)
    ]
    with replacing(path) as stream:
        stream.write("\n".join(lines) + "\n")


def _numbers(values: FloatArray) -> str:
    return " ".join(f"{value:.16e}" for value in np.ravel(values))


def _femtoseconds(time: float) -> str:
    return f"{time * ATOMIC_TIME_IN_FEMTOSECOND:.10g}"
