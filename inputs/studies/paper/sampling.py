"""Sample the frames of this study: molecular dynamics on DFTB and force field, independent trajectories.

``python sampling.py uracil`` or ``benzene`` runs what is missing, in order, and cuts the frames into
``train.h5``, ``heldout.h5`` and for uracil ``hot-1.h5`` and ``hot-2.h5`` in the folder of the molecule.
Stopped, it goes on with the same command: a trajectory that was under way goes on from its last state. Stiff
terms act every 0.5 fs; smooth ones every 2.5 fs, and on 4 beads. That changes the kinetic energy of H by a
per cent, which is nothing to frames that have to cover what the molecule does.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from dynamics import PIDELTA, Dynamics, run

from pidelta.data.splits import trajectory_and_step
from pidelta.data.store import FrameStore

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Trajectory:
    """One trajectory and what is taken from it.

    Attributes:
        name: its folder and the prefix of its outputs.
        box: the structure it starts from.
        temperature: in kelvin.
        beads: of the ring polymer.
        length: in ps.
        settling: ps at its beginning without frames.
        spacing: ps between frames.
        beads_kept: how many of the beads of each time become frames.
        seed: of velocities and thermostat.
        part: the file that its frames go to, without its suffix.
    """

    name: str
    box: str
    temperature: int
    beads: int
    length: float
    settling: float
    spacing: float
    beads_kept: int
    seed: int
    part: str = "train"

    @property
    def dynamics(self) -> Dynamics:
        """As i-PI runs it."""
        return Dynamics(
            name=self.name,
            box=self.box,
            seed=self.seed,
            length=self.length,
            spacing=self.spacing,
            temperature=self.temperature,
            beads=self.beads,
            few=min(4, self.beads),
            long=2.5,
        )


URACIL = "../../../../../uracil-water/init.pdb"
TRAJECTORIES = {
    "uracil": (
        Trajectory("heldout-300K", "../../box-3.pdb", 300, 1, 2.4, 0.4, 0.1, 1, 20401, "heldout"),
        Trajectory("heldout-300K-16", "../../box-3.pdb", 300, 16, 0.8, 0.3, 0.1, 8, 20402, "heldout"),
        Trajectory("heldout-500K", "../../box-3.pdb", 500, 1, 2.4, 0.4, 0.1, 1, 20403, "heldout"),
        Trajectory("box-1-300K-16", URACIL, 300, 16, 1.0, 0.2, 0.1, 16, 20411),
        Trajectory("box-2-400K", "../../box-2.pdb", 400, 1, 3.4, 0.4, 0.1, 1, 20412),
        Trajectory("box-1-300K", URACIL, 300, 1, 3.4, 0.4, 0.1, 1, 20413),
        Trajectory("box-2-400K-16", "../../box-2.pdb", 400, 16, 1.0, 0.2, 0.1, 16, 20414),
        Trajectory("box-1-400K", URACIL, 400, 1, 3.4, 0.4, 0.1, 1, 20415),
        Trajectory("box-2-300K", "../../box-2.pdb", 300, 1, 3.4, 0.4, 0.1, 1, 20416),
        Trajectory("box-2-300K-16", "../../box-2.pdb", 300, 16, 1.0, 0.2, 0.1, 16, 20417),
        # Hot, with frames half a picosecond apart: the water has turned and moved by an angstrom.
        Trajectory("box-1-450K", URACIL, 450, 1, 30.4, 0.4, 0.5, 1, 20418, "hot-1"),
        Trajectory("box-2-450K", "../../box-2.pdb", 450, 1, 30.4, 0.4, 0.5, 1, 20419, "hot-1"),
        Trajectory("box-1-500K", URACIL, 500, 1, 25.4, 0.4, 0.5, 1, 20420, "hot-2"),
        Trajectory("box-2-500K", "../../box-2.pdb", 500, 1, 25.4, 0.4, 0.5, 1, 20421, "hot-2"),
    ),
    "benzene": (
        Trajectory("heldout-300K", "../../box-3.pdb", 300, 1, 2.4, 0.4, 0.1, 1, 20501, "heldout"),
        Trajectory("heldout-300K-16", "../../box-3.pdb", 300, 16, 0.7, 0.2, 0.1, 4, 20502, "heldout"),
        Trajectory("heldout-500K", "../../box-3.pdb", 500, 1, 2.4, 0.4, 0.1, 1, 20503, "heldout"),
        Trajectory("box-1-300K-16", "../../box-1.pdb", 300, 16, 0.6, 0.2, 0.1, 16, 20511),
        Trajectory("box-2-400K", "../../box-2.pdb", 400, 1, 2.6, 0.4, 0.1, 1, 20512),
        Trajectory("box-1-300K", "../../box-1.pdb", 300, 1, 2.6, 0.4, 0.1, 1, 20513),
        Trajectory("box-2-400K-16", "../../box-2.pdb", 400, 16, 0.6, 0.2, 0.1, 16, 20514),
        Trajectory("box-1-400K", "../../box-1.pdb", 400, 1, 2.6, 0.4, 0.1, 1, 20515),
        Trajectory("box-2-300K", "../../box-2.pdb", 300, 1, 2.6, 0.4, 0.1, 1, 20516),
        Trajectory("box-2-300K-16", "../../box-2.pdb", 300, 16, 0.6, 0.2, 0.1, 16, 20517),
    ),
}


def cut(molecule: Path, trajectory: Trajectory) -> Path:
    """Cut the frames of a trajectory into a file beside it."""
    runs = molecule / "runs"
    output = runs / trajectory.name / "frames.h5"
    positions = sorted((runs / trajectory.name).glob("*.pos_*.xyz"))
    step = trajectory.beads // trajectory.beads_kept
    # The first snapshot is the start itself.
    skip = 1 + round(trajectory.settling / trajectory.spacing)
    names = [str(path.relative_to(runs)) for path in positions[::step]]
    command = [*PIDELTA, "sample", str(molecule / "sampling.yaml"), *names, "--skip", str(skip)]
    subprocess.run([*command, "--output", str(output)], check=True, cwd=runs)
    return output


def interleave(paths: list[Path], output: Path) -> None:
    """Put the frames of several trajectories into one file, each number of first ones a good set.

    Trajectories take turns; within one, times far apart come first, each with another bead.
    """
    queues = [[(path, index) for index in _far_apart(path)] for path in paths]
    with FrameStore(paths[0]) as first, FrameStore(output, "a") as merged:
        merged.set_embedding(first.embedding or {})
        present = {frame.source for frame in merged}
        for path, index in filter(None, chain.from_iterable(zip_longest(*queues))):
            with FrameStore(path) as store:
                merged.set_provenance(store.provenance)
                frame = store.frame(index)
            if frame.source not in present:
                merged.append(frame)
        print(f"{output}: {len(merged)} frames")


def _far_apart(path: Path) -> list[int]:
    """The frames of a trajectory in an order that visits its times ever more finely, one bead each."""
    times: dict[int, list[int]] = {}
    with FrameStore(path) as store:
        for index, frame in enumerate(store):
            times.setdefault(trajectory_and_step(frame.source, index)[1], []).append(index)
    steps = sorted(times)
    order = sorted(range(len(steps)), key=_reversed_bits)
    return [
        times[steps[place]][(turn + number) % len(times[steps[place]])]
        for turn in range(len(times[steps[0]]))
        for number, place in enumerate(order)
    ]


def _reversed_bits(number: int) -> int:
    """The van der Corput sequence, which visits a range ever more finely."""
    return int(f"{number:08b}"[::-1], 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecule", choices=sorted(TRAJECTORIES))
    name = parser.parse_args().molecule
    molecule = FOLDER / name
    trajectories = TRAJECTORIES[name]
    for part in dict.fromkeys(trajectory.part for trajectory in trajectories):
        chosen = [trajectory for trajectory in trajectories if trajectory.part == part]
        for trajectory in chosen:
            run(trajectory.dynamics, molecule / "runs" / trajectory.name, molecule / "sampling.yaml")
        interleave([cut(molecule, trajectory) for trajectory in chosen], molecule / f"{part}.h5")


if __name__ == "__main__":
    main()
