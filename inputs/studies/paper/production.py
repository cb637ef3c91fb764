"""Production: uracil in water, classical and as a ring polymer, by the delta models and by DFTB alone.

``python production.py FOLDER`` runs what is missing, in order; ``--run NAME`` one of them. Stopped, a run
goes on with the same command from its last state. ``--labels`` cuts the frames that are labelled afterwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODELS = FOLDER.parents[1] / "uracil-water"
PIDELTA = (sys.executable, "-m", "pidelta")
STEP = 0.002  # ps, of the smooth terms; stiff ones act every 0.5 fs
FRAMES = 20  # to label, evenly spaced in time
INPUT = """\
<simulation verbosity='low' safe_stride='100'>
  <output prefix='{name}'>
    <properties filename='out' stride='10'>
      [ step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}},
        potential{{electronvolt}} ]
    </properties>
    <trajectory filename='pos' stride='{stride}' format='xyz' cell_units='angstrom'>
      positions{{angstrom}}
    </trajectory>
{extras}    <checkpoint filename='checkpoint' stride='500' overwrite='true'/>
  </output>
  <total_steps>{steps}</total_steps>
  <prng> <seed>{seed}</seed> </prng>
  <ffsocket name='stiff' mode='shm' pbc='false'>
    <address>pidelta-{name}-stiff</address>
    <batch_size> {beads} </batch_size> <latency> 0.001 </latency>
    <parameters> {{terms: {stiff}}} </parameters>
  </ffsocket>
  <ffsocket name='smooth' mode='shm' pbc='false'>
    <address>pidelta-{name}-smooth</address>
    <batch_size> {few} </batch_size> <latency> 0.001 </latency>
    <parameters> {{terms: {smooth}}} </parameters>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='pdb'> {box} </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces>
      <force forcefield='stiff'> <mts_weights> [0, 1] </mts_weights> </force>
      <force forcefield='smooth' nbeads='{few}'> <mts_weights> [1, 0] </mts_weights> </force>
    </forces>
    <normal_modes transform='matrix'/>
    <motion mode='dynamics'>
      <dynamics mode='nvt' splitting='baoab'>
        <timestep units='femtosecond'> 2.0 </timestep>
        <nmts> [1, 4] </nmts>
        <thermostat mode='{thermostat}'> <tau units='femtosecond'> 100 </tau> </thermostat>
      </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  </system>
</simulation>
"""
EXTRAS = """\
    <trajectory filename='spread' stride='10' extra_type='delta_standard_deviation'> extras </trajectory>
    <trajectory filename='extrapolation' stride='10' extra_type='delta_extrapolation'> extras </trajectory>
"""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        delta: whether the delta models take part.
        beads: of the ring polymer; smooth terms act on half of them.
        length: in ps.
        spacing: ps between positions that are kept.
        seed: of velocities and thermostat.
    """

    delta: bool
    beads: int
    length: float
    spacing: float
    seed: int


RUNS = {
    "classical": Run(True, 1, 100.0, 0.05, 20501),
    "quantum": Run(True, 16, 20.0, 0.05, 20502),
    "classical-dftb": Run(False, 1, 40.0, 0.05, 20503),
    "quantum-dftb": Run(False, 16, 10.0, 0.05, 20504),
}


def write_input(name: str, run: Run, folder: Path) -> Path:
    """The input of a run in its folder."""
    stiff, smooth = ["mm.bonded", "low.vacuum"], ["mm.nonbonded", "low.embedding"]
    if run.delta:
        stiff, smooth = [*stiff, "delta.vacuum"], [*smooth, "delta.embedding"]
    path = folder / "input.xml"
    path.write_text(
        INPUT.format(
            name=name,
            box=MODELS / "init.pdb",
            beads=run.beads,
            few=max(1, run.beads // 2),
            stiff="+".join(stiff),
            smooth="+".join(smooth),
            # forces on half of the beads cannot be written for all of them
            extras=EXTRAS if run.delta and run.beads == 1 else "",
            thermostat="pile_l" if run.beads > 1 else "svr",
            seed=run.seed,
            steps=round(run.length / STEP),
            stride=round(run.spacing / STEP),
        ),
        encoding="utf-8",
    )
    return path


def perform(name: str, folder: Path) -> None:
    """Run to the end, or go on from the last state; a file says that it is there."""
    run = RUNS[name]
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = write_input(name, run, folder)
    again = ["--restart"] if (folder / "RESTART").exists() else []
    terms = "mm+low+delta" if run.delta else "mm+low"
    command = [*PIDELTA, "run", str(path), "--config", str(MODELS / "pidelta.yaml"), "--terms", terms]
    subprocess.run([*command, "--clients", "1", *again], check=True)
    (folder / "done").touch()


def cut(name: str, folder: Path) -> None:
    """Frames to label, of a ring polymer each of another bead."""
    run = RUNS[name]
    output = folder / "frames.h5"
    snapshots = round(run.length / run.spacing)
    for place in range(FRAMES):
        bead = place % run.beads
        (path,) = folder.glob(f"*.pos_{bead:02d}.xyz" if run.beads > 10 else f"*.pos_{bead}.xyz")
        skip = str(round((place + 1) * snapshots / FRAMES))
        command = [*PIDELTA, "sample", str(MODELS / "pidelta.yaml"), str(path), "--skip", skip]
        subprocess.run([*command, "--limit", "1", "--output", str(output)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", choices=RUNS)
    parser.add_argument("--labels", action="store_true")
    arguments = parser.parse_args()
    for name in RUNS if arguments.run is None else [arguments.run]:
        if not arguments.labels:
            perform(name, arguments.folder / name)
        elif RUNS[name].delta:
            cut(name, arguments.folder / name)


if __name__ == "__main__":
    main()
