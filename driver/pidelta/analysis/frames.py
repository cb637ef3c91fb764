"""What is in a store of frames: its regions, trajectories and labels, and how far its methods differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from ase.data import chemical_symbols

from pidelta.analysis.pages import draw
from pidelta.analysis.sections import Curve, Panel, Picture
from pidelta.data.splits import trajectory_and_step
from pidelta.data.store import FrameStore, LabelKind
from pidelta.delta.assessment import GRADIENT_UNIT
from pidelta.delta.base import formula
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

_WIDTH = 0.5  # angstrom, of a bin of distances
_BINS = 40  # of gradients

Track = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class LabelGroup:
    """The labels of one kind by one method.

    Attributes:
        kind: ``reference`` or ``low``.
        method: of the labels.
        frames: that have one, ascending.
        programs: how many labels each program computed.
        failures: why frames have none, by index.
    """

    kind: LabelKind
    method: str
    frames: tuple[int, ...]
    programs: Mapping[str, int]
    failures: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Difference:
    """Reference less low-level labels of F frames of one region, in kcal/mol and kcal/mol/angstrom.

    Attributes:
        numbers: (n,) atomic numbers.
        frames: (F,) indices.
        energies: (F,) less their mean, as absolute energies of methods differ.
        gradients: (F, n, 3) on QM atoms.
        site_gradients: (sum of m, 3) on the point charges of all frames.
        distances: (sum of m,) of these charges from the nearest QM atom in angstrom.
    """

    numbers: IntArray
    frames: IntArray
    energies: FloatArray
    gradients: FloatArray
    site_gradients: FloatArray
    distances: FloatArray


@dataclass(frozen=True, eq=False)
class StoreSummary:
    """What a store of F frames holds.

    Attributes:
        regions: how many frames have each composition, charge and multiplicity.
        trajectories: how many frames come from each, and their first and last step.
        sites: (F,) number of point charges.
        closest: (F,) distance of the nearest of them from a QM atom in angstrom, infinite without any.
        net: (F,) their sum in e.
        labels: by kind and method.
        difference: of the first methods of both kinds; None where no frame has both, or regions differ.
    """

    regions: Mapping[str, int]
    trajectories: Mapping[str, tuple[int, int, int]]
    sites: IntArray
    closest: FloatArray
    net: FloatArray
    labels: tuple[LabelGroup, ...]
    difference: Difference | None

    def __len__(self) -> int:
        return len(self.sites)


def summarise(store: FrameStore, track: Track = iter) -> StoreSummary:
    """Read all of a store, which compares each frame and label with its checksum.

    Args:
        store: the store.
        track: is handed the indices of the frames, to show progress.

    Raises:
        DataError: it is damaged.
    """
    labels = tuple(
        LabelGroup(kind, method, tuple(indices), store.programs(kind, method), store.failures(kind, method))
        for kind in get_args(LabelKind)
        for method, indices in store.methods(kind).items()
    )
    regions: Counter[str] = Counter()
    steps: dict[str, list[int]] = {}
    sites, closest, net = [], [], []
    for index in track(range(len(store))):
        frame = store.frame(index)
        composition = formula(frame.numbers.tolist())
        regions[f"{composition}, charge {frame.charge:+d}, multiplicity {frame.multiplicity}"] += 1
        trajectory, step = trajectory_and_step(frame.source, index)
        steps.setdefault(trajectory, []).append(step)
        sites.append(len(frame.site_charges))
        closest.append(float(nearest(frame.positions, frame.site_positions).min(initial=np.inf)))
        net.append(float(frame.site_charges.sum()))
        for group in labels:
            store.label(index, group.kind, group.method)  # reading compares it with its checksum
    return StoreSummary(
        regions=dict(regions),
        trajectories={name: (len(found), min(found), max(found)) for name, found in steps.items()},
        sites=np.array(sites, dtype=np.int64),
        closest=np.array(closest) * BOHR_IN_ANGSTROM,
        net=np.array(net),
        labels=labels,
        difference=_difference(store, labels) if len(regions) == 1 else None,
    )


def _difference(store: FrameStore, labels: Sequence[LabelGroup]) -> Difference | None:
    reference, low = (
        next((group for group in labels if group.kind == kind), None) for kind in get_args(LabelKind)
    )
    if reference is None or low is None:
        return None
    frames = sorted({*reference.frames} & {*low.frames})
    if not frames:
        return None
    energies, gradients, site_gradients, distances = [], [], [], []
    for index in frames:
        frame = store.frame(index)
        high = store.label(index, "reference", reference.method)
        cheap = store.label(index, "low", low.method)
        assert high is not None
        assert cheap is not None
        energies.append(high.energy - cheap.energy)
        gradients.append(high.gradient - cheap.gradient)
        site_gradients.append(high.site_gradient - cheap.site_gradient)
        distances.append(nearest(frame.positions, frame.site_positions))
    relative = np.array(energies) - np.mean(energies)
    return Difference(
        numbers=store.frame(0).numbers,
        frames=np.array(frames, dtype=np.int64),
        energies=relative * HARTREE_IN_KCAL_PER_MOL,
        gradients=np.array(gradients) * GRADIENT_UNIT,
        site_gradients=np.concatenate(site_gradients) * GRADIENT_UNIT,
        distances=np.concatenate(distances) * BOHR_IN_ANGSTROM,
    )


def nearest(atoms: FloatArray, sites: FloatArray) -> FloatArray:
    """(m,) distance of each site from its nearest atom."""
    vectors = sites[:, None] - atoms
    return np.asarray(np.sqrt((vectors**2).sum(axis=2).min(axis=1)))


def draw_difference(difference: Difference, path: Path) -> None:
    """Energies by frame, gradients by element, and those on charges by distance, into a PNG file."""
    by_frame = Curve("", difference.frames.astype(np.float64), difference.energies)
    panels = (
        Panel("energy, less its mean", "frame", "reference - low / (kcal/mol)", (by_frame,)),
        Panel(
            "QM gradient by element",
            "reference - low / (kcal/mol/Å)",
            "density",
            tuple(_distributions(difference)),
        ),
        Panel(
            "gradient on charges, RMS",
            "distance from the QM region / Å",
            "reference - low / (kcal/mol/Å)",
            (_by_distance(difference),),
        ),
    )
    draw(Picture(path.stem, "reference less low level", panels), path)


def _distributions(difference: Difference) -> Iterable[Curve]:
    widest = float(np.abs(difference.gradients).max()) or 1.0  # of two methods that agree
    edges = np.linspace(-widest, widest, _BINS + 1)
    for number in np.unique(difference.numbers):
        values = difference.gradients[:, difference.numbers == number]
        density, _ = np.histogram(values, edges, density=True)
        yield Curve(chemical_symbols[number], 0.5 * (edges[1:] + edges[:-1]), density)


def _by_distance(difference: Difference) -> Curve:
    bins = (difference.distances / _WIDTH).astype(np.int64)
    count = np.maximum(np.bincount(bins), 1)
    mean = np.bincount(bins, weights=(difference.site_gradients**2).mean(axis=1)) / count
    shown = np.flatnonzero(mean)
    middles = np.asarray((shown + 0.5) * _WIDTH, dtype=np.float64)
    return Curve("", middles, np.asarray(np.sqrt(mean[shown]), dtype=np.float64))
