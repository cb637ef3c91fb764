"""Dynamics of this study by i-PI: stiff terms every 0.5 fs, smooth ones less often and on fewer beads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PIDELTA = (sys.executable, "-m", "pidelta")
SHORT = 0.5  # fs
STIFF = ("mm.bonded", "low.vacuum", "delta.vacuum")
SMOOTH = ("mm.nonbonded", "low.embedding", "delta.embedding")
INPUT = """\
<simulation verbosity='low' safe_stride='20'>
  <output prefix='{name}'>
    <properties filename='out' stride='4'>
      [ step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}},
        potential{{electronvolt}} ]
    </properties>
    <trajectory filename='pos' stride='{stride}' format='xyz' cell_units='angstrom'>
      positions{{angstrom}}
    </trajectory>
{extras}    <checkpoint filename='checkpoint' stride='{stride}' overwrite='true'/>
  </output>
  <total_steps>{steps}</total_steps>
  <prng> <seed>{seed}</seed> </prng>
  <ffsocket name='stiff' mode='shm' pbc='false'>
    <address>pidelta-paper-{name}-stiff</address>
    <batch_size> {beads} </batch_size> <latency> 0.001 </latency>
    <parameters> {{terms: {stiff}}} </parameters>
  </ffsocket>
  <ffsocket name='smooth' mode='shm' pbc='false'>
    <address>pidelta-paper-{name}-smooth</address>
    <batch_size> {few} </batch_size> <latency> 0.001 </latency>
    <parameters> {{terms: {smooth}}} </parameters>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='pdb'> {box} </file>
      <velocities mode='thermal' units='kelvin'> {temperature} </velocities>
    </initialize>
    <forces>
      <force forcefield='stiff'> <mts_weights> [0, 1] </mts_weights> </force>
      <force forcefield='smooth' nbeads='{few}'> <mts_weights> [1, 0] </mts_weights> </force>
    </forces>
    <normal_modes transform='matrix'/>
    <motion mode='dynamics'>
      <dynamics mode='nvt' splitting='baoab'>
        <timestep units='femtosecond'> {long} </timestep>
        <nmts> [1, {inner}] </nmts>
        <thermostat mode='{thermostat}'> <tau units='femtosecond'> 100 </tau> </thermostat>
      </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> {temperature} </temperature> </ensemble>
  </system>
</simulation>
"""
SPREAD = """\
    <trajectory filename='spread' stride='10' extra_type='delta_standard_deviation'> extras </trajectory>
    <trajectory filename='extrapolation' stride='10' extra_type='delta_extrapolation'> extras </trajectory>
"""


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """One trajectory.

    Attributes:
        name: the prefix of its outputs.
        box: the structure it starts from, as its folder finds it.
        seed: of velocities and thermostat.
        length: in ps.
        spacing: ps between positions that are kept.
        temperature: in kelvin.
        beads: of the ring polymer.
        few: the beads on which smooth terms act.
        long: fs between smooth forces.
        delta: whether the delta models take part.
        thermostat: as i-PI names it.
    """

    name: str
    box: str
    seed: int
    length: float
    spacing: float
    temperature: int = 300
    beads: int = 1
    few: int = 1
    long: float = 2.0
    delta: bool = False
    thermostat: str = "pile_l"


def run(dynamics: Dynamics, folder: Path, config: Path) -> None:
    """Run to the end, or go on from the last state; a file says that it is there."""
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "input.xml"
    path.write_text(input_of(dynamics), encoding="utf-8")
    again = ["--restart"] if (folder / "RESTART").exists() else []
    terms = "mm+low+delta" if dynamics.delta else "mm+low"
    command = [*PIDELTA, "run", str(path), "--config", str(config), "--terms", terms]
    subprocess.run([*command, "--clients", "1", *again], check=True)
    done.touch()


def input_of(dynamics: Dynamics) -> str:
    """The input of i-PI."""
    count = 3 if dynamics.delta else 2
    step = 1e-3 * dynamics.long  # ps
    return INPUT.format(
        **vars(dynamics),
        stiff="+".join(STIFF[:count]),
        smooth="+".join(SMOOTH[:count]),
        # forces on some of the beads cannot be written for all of them
        extras=SPREAD if dynamics.delta and dynamics.few == dynamics.beads else "",
        inner=round(dynamics.long / SHORT),
        steps=round(dynamics.length / step),
        stride=round(dynamics.spacing / step),
    )
