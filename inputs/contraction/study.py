"""How far ring polymer contraction and multiple time steps change what 32 beads give.

    python study.py run FOLDER [NAME ...]   dynamics of uracil in 216 waters by i-PI; goes on where it ended
    python study.py frames FOLDER           every way to contract, on frames of the run ``smooth on 4``
    python study.py page FOLDER             convergence.md, .json and .png beside this script

With --large, runs and frames are of uracil in 900 waters with three delta models.
The other runs start from the beads at the end of the run ``smooth on 4``, which comes first. Frames tell
differences between ways where the noise of two runs would hide them: the same 32 beads, contracted by i-PI's
own matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from ipi.utils.nmtransform import nm_rescale

from pidelta.analysis.estimators import centroid_virial
from pidelta.analysis.ipi_output import read_properties
from pidelta.config import load_config
from pidelta.ipi.trajectories import read_trajectory
from pidelta.setup import Setup
from pidelta.state import FloatArray, smallest_parts
from pidelta.units import HARTREE_IN_KELVIN

FOLDER = Path(__file__).parent
BEADS = 32
_TOTAL = re.compile(r"<total_steps>.*?</total_steps>")
TEMPERATURE = 300.0 / HARTREE_IN_KELVIN
URACIL, URACIL_HYDROGENS = np.arange(12), np.arange(8, 12)
STRIDE = 4  # fs between rows
STIFF = ("mm.bonded", "low.vacuum", "delta.vacuum")
SMOOTH = ("mm.nonbonded", "low.embedding", "delta.embedding")
GROUPS = ("H of uracil", "C N O of uracil", "H of water", "O of water")


@dataclass(frozen=True)
class Box:
    """A system.

    Attributes:
        config: its configuration.
        initial: where i-PI starts.
        prefix: of what is written of it.
        frame_stride: fs between frames.
    """

    config: Path
    initial: Path
    prefix: str
    frame_stride: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Of the energy, stiff ones first."""
        terms = smallest_parts(load_config(self.config).terms)
        return tuple(part for part in (*STIFF, *SMOOTH) if part in terms)

    def folder(self, folder: Path, name: str) -> Path:
        """Where a run is."""
        return folder / (self.prefix + name.replace(",", "").replace(" ", "-"))

    def frames(self, folder: Path) -> Path:
        """Where the results for frames are."""
        return folder / f"{self.prefix}frames.json"


SMALL = Box(FOLDER / "small.yaml", FOLDER.parent / "small-boxes" / "uracil-216.pdb", "", 20)
LARGE = Box(FOLDER / "pidelta.yaml", FOLDER.parent / "uracil-water" / "init.pdb", "large-", 10)


@dataclass(frozen=True)
class Way:
    """A way to evaluate the energy.

    Attributes:
        beads: of each part of it, by name.
        outer: time step in fs of the smooth parts; that of stiff ones may be shorter. BAOAB, which allows
            1 fs, has one thermostat step in an outer one.
        inner: time step in fs of the stiff parts.
    """

    beads: Mapping[str, int]
    outer: float = 1.0
    inner: float = 1.0

    @property
    def nmts(self) -> int:
        """Inner time steps of an outer one."""
        return round(self.outer / self.inner)

    def steps(self, duration: int) -> int:
        """Outer time steps in so many fs."""
        return round(duration / self.outer)


def _way(smooth: int = BEADS, *, outer: float = 1.0, inner: float = 1.0, **others: int) -> Way:
    """Smooth parts on so many beads, and stiff ones on all, but for `others`: ``low_vacuum=8``."""
    beads = dict.fromkeys(STIFF, BEADS) | dict.fromkeys(SMOOTH, smooth)
    beads |= {part.replace("_", "."): count for part, count in others.items()}
    return Way(beads, outer, inner)


SAMPLED = "smooth on 4"
WAYS = {
    "all on 32": _way(),
    "smooth on 8": _way(8),
    "smooth on 6": _way(6),
    "smooth on 5": _way(5),
    SAMPLED: _way(4),
    "smooth on 3": _way(3),
    "smooth on 2": _way(2),
    "smooth on 1": _way(1),
    "nonbonded on 4": _way(mm_nonbonded=4),
    "nonbonded on 1": _way(mm_nonbonded=1),
    "low.embedding on 4": _way(low_embedding=4),
    "low.embedding on 1": _way(low_embedding=1),
    "delta.embedding on 4": _way(delta_embedding=4),
    "delta.embedding on 1": _way(delta_embedding=1),
    "nonbonded on 4, embedding on 2": _way(2, mm_nonbonded=4),
    "nonbonded on 4, embedding on 1": _way(1, mm_nonbonded=4),
    "nonbonded on 1, embedding on 4": _way(4, mm_nonbonded=1),
    "low on 8": _way(low_vacuum=8, low_embedding=8),
    "delta on 4": _way(delta_vacuum=4, delta_embedding=4),
    "delta on 1": _way(delta_vacuum=1, delta_embedding=1),
    "smooth and delta on 4": _way(4, delta_vacuum=4),
    "smooth on 8, every 2 fs": _way(8, outer=2.0, inner=0.5),
    "smooth on 4, 0.5 fs": _way(4, outer=0.5, inner=0.5),
    "smooth on 4, every 1 fs": _way(4, outer=1.0, inner=0.5),
    "smooth on 4, every 2 fs": _way(4, outer=2.0, inner=0.5),
    "all on 32, 0.5 fs": _way(outer=0.5, inner=0.5),
    # as qm-on-8.xml
    "low and delta on 8, nonbonded on 4": _way(8, low_vacuum=8, delta_vacuum=8, mm_nonbonded=4),
}
"""With two time steps the smooth parts act in the outer one."""
RUNS = (SAMPLED, "all on 32", *(name for name, way in WAYS.items() if way.inner != 1.0))


def main() -> None:
    """Read the command line and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("run", "frames", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of runs; all by default")
    parser.add_argument("--steps", type=int, default=2000, help="fs that each run has in the end")
    parser.add_argument("--large", action="store_true", help="900 waters, with delta models")
    arguments = parser.parse_args()
    folder, box = arguments.folder.resolve(), LARGE if arguments.large else SMALL
    if arguments.task == "run":
        for name in arguments.names or RUNS:
            run(box, folder, name, arguments.steps)
    elif arguments.task == "frames":
        evaluate_frames(box, folder)
    else:
        from study_page import write_page

        write_page(folder, FOLDER)


def run(box: Box, folder: Path, name: str, steps: int) -> None:
    """Run i-PI for so many fs, or the rest of them."""
    place, way = box.folder(folder, name), WAYS[name]
    place.mkdir(parents=True, exist_ok=True)
    source = place / "RESTART"
    if source.exists():
        text = source.read_text(encoding="utf-8")
        total = f"<total_steps>{way.steps(steps)}</total_steps>"
        source.write_text(_TOTAL.sub(total, text, count=1), encoding="utf-8")
    else:
        if name != SAMPLED:
            shutil.copy(box.folder(folder, SAMPLED) / "RESTART", place / "start.chk")
        source = place / "input.xml"
        source.write_text(_input(box, name, way, steps), encoding="utf-8")
    command = [sys.executable, "-m", "pidelta", "run", str(source), "--config", str(box.config)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _sockets(box: Box, way: Way) -> dict[tuple[int, bool], list[str]]:
    """Parts of the energy by the number of beads that they share, and whether they act in the inner step."""
    found: dict[tuple[int, bool], list[str]] = {}
    for part in box.parts:
        found.setdefault((way.beads[part], way.nmts == 1 or part in STIFF), []).append(part)
    return found


def _input(box: Box, name: str, way: Way, steps: int) -> str:
    sockets, forces = [], []
    for (n, inner), parts in _sockets(box, way).items():
        levels = [0, 1] if inner else [1, 0]
        weights = f"<mts_weights> {levels} </mts_weights>" if way.nmts > 1 else ""
        latency = "<latency> 0.003 </latency> " if n > 1 else ""
        address = f"pidelta-study-{os.getpid()}-{parts[0]}"
        sockets.append(
            f"<ffsocket name='{parts[0]}' mode='unix' pbc='false'> "
            f"<address>{address}</address> <batch_size> {min(n, 8)} </batch_size> {latency}"
            f"<parameters> {{terms: {'+'.join(parts)}}} </parameters> "
            "</ffsocket>"
        )
        forces.append(f"<force forcefield='{parts[0]}' nbeads='{n}'> {weights} </force>")
    initial = f"<file mode='pdb'> {box.initial} </file>"
    initial += "<velocities mode='thermal' units='kelvin'> 300 </velocities>"
    if name != SAMPLED:
        initial = "<file mode='chk'> start.chk </file>"
    kinetic = ", ".join(f"kinetic_cv({label})" for label in ("H", "O", *URACIL))
    return f"""<simulation verbosity='low' safe_stride='20'>
  <output prefix='run'>
    <properties filename='out' stride='{way.steps(STRIDE)}'>
      [ step, time{{picosecond}}, conserved, temperature{{kelvin}}, potential, {kinetic} ]
    </properties>
    <trajectory filename='pos' stride='{way.steps(box.frame_stride)}' format='xyz'> positions </trajectory>
    <checkpoint filename='checkpoint' stride='{way.steps(200)}' overwrite='true'/>
  </output>
  <total_steps>{way.steps(steps)}</total_steps>
  <prng> <seed>{20401 + list(WAYS).index(name)}</seed> </prng>
  {" ".join(sockets)}
  <system>
    <initialize nbeads='{BEADS}'> {initial} </initialize>
    <forces> {" ".join(forces)} </forces>
    <motion mode='dynamics'>
      <dynamics mode='nvt' splitting='baoab'>
        <timestep units='femtosecond'> {way.outer} </timestep>
        <nmts> {[1, way.nmts] if way.nmts > 1 else [1]} </nmts>
        <thermostat mode='pile_g'> <tau units='femtosecond'> 100 </tau> </thermostat>
      </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  </system>
</simulation>
"""


def beads_of(place: Path, every: int = 1) -> Iterator[tuple[FloatArray, FloatArray]]:
    """The frames of a run: positions (32, N, 3) and the cell (3, 3), in bohr."""
    files = [place / f"run.pos_{bead:02d}.xyz" for bead in range(BEADS)]
    for snapshots in zip(*(read_trajectory(file, every=every) for file in files), strict=False):
        yield np.array([one.positions for one in snapshots]), snapshots[0].cell


def group_indices(setup: Setup) -> dict[str, np.ndarray]:
    """Atoms of each of GROUPS."""
    hydrogen, water = setup.system.numbers == 1, np.arange(len(setup.system)) >= len(URACIL)
    chosen = (hydrogen & ~water, ~hydrogen & ~water, hydrogen & water, ~hydrogen & water)
    return {name: np.flatnonzero(mask) for name, mask in zip(GROUPS, chosen, strict=True)}


def evaluate_frames(box: Box, folder: Path) -> None:
    """Evaluate all ways on the frames of SAMPLED where one is missing."""
    setup, file = Setup(load_config(box.config)), box.frames(folder)
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    results = list(takewhile(lambda result: WAYS.keys() <= result.keys(), before))
    evaluator, groups = setup.evaluator(frozenset(box.parts)), group_indices(setup)
    for index, (beads, cell) in enumerate(beads_of(box.folder(folder, SAMPLED))):
        if index < len(results):
            continue
        results.append(_evaluate_frame(evaluator, groups, beads, cell))
        if index % 10 == 9:
            file.write_text(json.dumps(results), encoding="utf-8")
            print(f"{index + 1} frames", flush=True)
    file.write_text(json.dumps(results), encoding="utf-8")


def _evaluate_frame(
    evaluator: object, groups: Mapping[str, np.ndarray], beads: FloatArray, cell: FloatArray
) -> dict[str, dict[str, float]]:
    """By way: the energy, mean over beads, and by group the kinetic energy of an atom in hartree.

    Also the RMS error of the forces on the beads of a group relative to their RMS.
    """
    counts = sorted({n for way in WAYS.values() for n in way.beads.values()})
    energies: dict[tuple[str, int], float] = {}
    gradients: dict[tuple[str, int], FloatArray] = {}
    for n in counts:
        rescale = nm_rescale(BEADS, n)
        contracted = rescale.b1tob2(beads.reshape(BEADS, -1)).reshape(n, -1, 3)
        found = evaluator.evaluate(contracted, np.repeat(cell[None], n, axis=0))
        for part, term in found.terms.items():
            energies[part, n] = float(term.energy.mean())
            spread = rescale.b2tob1(term.gradient.reshape(n, -1))
            gradients[part, n] = spread.reshape(BEADS, -1, 3)
    parts = dict.fromkeys(part for part, _ in gradients)
    whole = sum(gradients[part, BEADS] for part in parts)
    results = {}
    for name, way in WAYS.items():
        gradient = sum(gradients[part, way.beads[part]] for part in parts)
        kinetic = centroid_virial(beads, -gradient, TEMPERATURE)
        result = {"energy": sum(energies[part, way.beads[part]] for part in parts)}
        for group, atoms in groups.items():
            result[group] = float(kinetic[atoms].mean())
            error = gradient[:, atoms] - whole[:, atoms]
            result[f"error, {group}"] = float(np.sqrt((error**2).mean() / (whole[:, atoms] ** 2).mean()))
        results[name] = result
    return results


def kinetic_energies(place: Path, groups: Mapping[str, np.ndarray]) -> dict[str, FloatArray]:
    """Of an atom of each group in hartree, by row of the output of a run; and its potential energy."""
    rows = read_properties(place / "run.out")
    own = {int(atom): rows.atomic(f"kinetic_cv({atom})") for atom in URACIL}
    means = {group: np.mean([own[int(a)] for a in groups[group]], axis=0) for group in GROUPS[:2]}
    for group, label, inside in (
        (GROUPS[2], "H", URACIL_HYDROGENS),
        (GROUPS[3], "O", [atom for atom in URACIL if atom in (2, 5)]),
    ):
        rest = rows.atomic(f"kinetic_cv({label})") - sum(own[int(atom)] for atom in inside)
        means[group] = rest / len(groups[group])
    return {**means, "potential": rows.atomic("potential")}


if __name__ == "__main__":
    main()
