"""Geometries that minimise the DFT energy of the QM region in the surroundings of MD frames.

Run: python minima.py CONFIG FRAMES.h5 OUTPUT.h5 [--every 10] [--number 8] [--offset 0]

The surroundings are point charges and Lennard-Jones atoms at rest. A quasi-Newton search from each frame has
the low-level method's second derivatives as the first guess. The minima become frames of OUTPUT.h5 with their
labels, of DFT in the charges alone; frames that are there are not searched again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from pidelta.config import load_config
from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.setup import Setup
from pidelta.workflow.labelling import low_labels

LEVEL = ReferenceSettings("B3LYP", dispersion="d3bj")
CONVERGED = 1e-3  # hartree/bohr, the largest component of the gradient at the end
MOST = 25  # labels for one minimum
STEP = 5e-3  # bohr, of differences
LONGEST = 0.25  # bohr, of the move of an atom
SOFTEST = 0.01  # hartree/bohr^2, so that soft and unstable modes move little


class LennardJones:
    """Between the QM atoms and the sites of frames; without it atoms fall onto charges.

    Args:
        setup: whose topology has the parameters; the sites of one element have those of the first MM atom.
    """

    def __init__(self, setup: Setup) -> None:
        topology = setup.topology
        assert topology is not None
        self._topology, self._qm = topology, topology.lj_types[setup.qm_indices]
        others = np.setdiff1d(np.arange(len(topology)), setup.qm_indices)
        first = {int(topology.numbers[atom]): topology.lj_types[atom] for atom in others[::-1]}
        self._types = np.zeros(1 + max(first), dtype=np.int64)
        self._types[list(first)] = list(first.values())

    def __call__(self, frame: Frame) -> tuple[float, np.ndarray]:
        """Energy in hartree and its gradient (n, 3) on the QM atoms."""
        pair = np.ix_(self._qm, self._types[frame.site_numbers])
        c6, c12 = self._topology.lj_c6[pair], self._topology.lj_c12[pair]
        vectors = frame.positions[:, None] - frame.site_positions
        square = (vectors**2).sum(axis=2)
        slope = (6.0 * c6 - 12.0 * c12 / square**3) / square**4
        return float((c12 / square**6 - c6 / square**3).sum()), (slope[:, :, None] * vectors).sum(axis=1)


def second_derivatives(frame: Frame, setup: Setup, lennard_jones: LennardJones, folder: Path) -> np.ndarray:
    """(3n, 3n) of the low-level method in the surroundings of the frame, by differences of its gradients."""
    size = frame.positions.size
    moves = np.concatenate([np.eye(size), -np.eye(size)]) * STEP
    moved = [
        replace(frame, positions=frame.positions + move.reshape(-1, 3), source=f"move {place}")
        for place, move in enumerate(moves)
    ]
    path = folder / "moved.h5"
    path.unlink(missing_ok=True)
    with FrameStore(path, "a") as store:
        for own in moved:
            store.append(own)
        labels = dict(low_labels(store, list(range(2 * size)), setup.engine, frame.charge, 1))
    path.unlink()
    gradients = np.array(
        [(labels[place].gradient + lennard_jones(own)[1]).ravel() for place, own in enumerate(moved)]
    )
    hessian = (gradients[:size] - gradients[size:]) / (2.0 * STEP)
    return 0.5 * (hessian + hessian.T)


def minimise(frame: Frame, hessian: np.ndarray, lennard_jones: LennardJones) -> tuple[Frame, Label]:
    """The minimum next to the frame, with its label."""

    def evaluate(frame: Frame) -> tuple[Label, float, np.ndarray]:
        label, (energy, gradient) = label_frame(frame, LEVEL), lennard_jones(frame)
        return label, label.energy + energy, (label.gradient + gradient).ravel()

    label, energy, gradient = evaluate(frame)
    start, labels = energy, 1
    while np.abs(gradient).max() > CONVERGED and labels < MOST:
        values, modes = np.linalg.eigh(hessian)
        step = -modes @ ((modes.T @ gradient) / np.maximum(np.abs(values), SOFTEST))
        step *= min(1.0, LONGEST / np.linalg.norm(step.reshape(-1, 3), axis=1).max())
        moved = replace(frame, positions=frame.positions + step.reshape(-1, 3))
        new, new_energy, new_gradient = evaluate(moved)
        labels += 1
        hessian = updated(hessian, step, new_gradient - gradient)
        if new_energy < energy + 1e-5:
            frame, label, energy, gradient = moved, new, new_energy, new_gradient
    print(
        f"{frame.source}: {labels} labels, {energy - start:.4f} hartree, "
        f"largest gradient {np.abs(gradient).max():.1e}",
        flush=True,
    )
    return frame, label


def updated(hessian: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The symmetric rank-one update, left out where it would divide by almost nothing."""
    rest = change - hessian @ step
    along = rest @ step
    if abs(along) < 1e-3 * np.linalg.norm(rest) * np.linalg.norm(step):
        return hessian
    return hessian + np.outer(rest, rest) / along


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--number", type=int, default=8)
    arguments = parser.parse_args()
    setup = Setup(load_config(arguments.config))
    lennard_jones = LennardJones(setup)
    with FrameStore(arguments.frames) as store:
        last = arguments.offset + arguments.every * arguments.number
        frames = [store.frame(place) for place in range(arguments.offset, last, arguments.every)]
        embedding = store.embedding
    with FrameStore(arguments.output, "a", compact=True) as store:
        store.set_embedding(embedding or {})
        present = {frame.source for frame in store}
    for frame in frames:
        source = f"{frame.source} minimum"
        if source in present:
            continue
        hessian = second_derivatives(frame, setup, lennard_jones, arguments.output.parent)
        found, label = minimise(replace(frame, source=source), hessian, lennard_jones)
        with FrameStore(arguments.output, "a", compact=True) as store:
            store.set_label(store.append(found), "reference", label)


if __name__ == "__main__":
    main()
