"""What is in a store of frames: its regions, trajectories, labels, and how far methods differ."""

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
from pidelta.data.frames import LabelKind, LabelledFrame
from pidelta.data.plausibility import outliers, suspicions
from pidelta.data.splits import trajectory_and_step
from pidelta.data.store import FrameStore
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
class LabelValues:
    """Labels of F frames of one region, or their difference, in kcal/mol and kcal/mol/angstrom.

    Attributes:
        name: ``reference - low``, or the kind where there is but one.
        numbers: (n,) atomic numbers.
        frames: (F,) indices.
        energies: (F,) less their mean, as absolute energies of methods differ.
        gradients: (F, n, 3) on QM atoms.
        site_gradients: (sum of m, 3) on the point charges of all frames.
        distances: (sum of m,) of these charges from the nearest QM atom in angstrom.
        doubts: lines on labels whose sign, unit or energy looks wrong.
    """

    name: str
    numbers: IntArray
    frames: IntArray
    energies: FloatArray
    gradients: FloatArray
    site_gradients: FloatArray
    distances: FloatArray
    doubts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StoreSummary:
    """What a store of F frames holds.

    Attributes:
        regions: how many frames have each composition, charge and multiplicity.
        trajectories: how many frames come from each, and their first and last step.
        sites: (F,) number of point charges.
        closest: (F,) distance of the nearest of them from a QM atom in angstrom, infinite without any.
        net: (F,) their sum in e.
        labels: by kind and method, also where all frames failed.
        values: of the first methods of both kinds, or of one kind where no frame has both; None where none
            has a label, or regions differ.
    """

    regions: Mapping[str, int]
    trajectories: Mapping[str, tuple[int, int, int]]
    sites: IntArray
    closest: FloatArray
    net: FloatArray
    labels: tuple[LabelGroup, ...]
    values: LabelValues | None

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
        for method, indices in _methods(store, kind).items()
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
        values=_values(store, labels) if len(regions) == 1 else None,
    )


def _methods(store: FrameStore, kind: LabelKind) -> dict[str, list[int]]:
    """Frames that have a label by each method, none of one by which all failed."""
    found = store.methods(kind)
    return found | {method: [] for method in store.failed_methods(kind) if method not in found}


def _values(store: FrameStore, labels: Sequence[LabelGroup]) -> LabelValues | None:
    groups: dict[LabelKind, LabelGroup] = {}
    for group in labels:
        if group.frames:
            groups.setdefault(group.kind, group)
    reference, low = groups.get("reference"), groups.get("low")
    if reference is not None and low is not None and {*reference.frames} & {*low.frames}:
        name, frames = "reference - low", sorted({*reference.frames} & {*low.frames})
    elif groups:
        first = reference or groups["low"]
        groups = {first.kind: first}
        name, frames = first.kind, list(first.frames)
    else:
        return None
    energies, gradients, site_gradients, distances = [], [], [], []
    regions, pairs, places = [], [], [(store.path, index) for index in frames]
    for index in frames:
        frame = store.frame(index)
        regions.append(frame)
        signed = [
            (-1.0 if kind == "low" and len(groups) > 1 else 1.0, store.label(index, kind, group.method))
            for kind, group in groups.items()
        ]
        found = [(sign, label) for sign, label in signed if label is not None]
        if len(found) == 2:
            pairs.append(LabelledFrame(frame, found[0][1], found[1][1]))
        energies.append(sum(sign * label.energy for sign, label in found))
        gradients.append(sum(sign * label.gradient for sign, label in found))
        site_gradients.append(sum(sign * label.site_gradient for sign, label in found))
        distances.append(nearest(frame.positions, frame.site_positions))
    relative = np.array(energies) - np.mean(energies)
    errors, notes = (
        suspicions(pairs, places) if pairs else ([], outliers(np.array(energies), regions, places))
    )
    return LabelValues(
        name=name,
        numbers=store.frame(0).numbers,
        frames=np.array(frames, dtype=np.int64),
        energies=relative * HARTREE_IN_KCAL_PER_MOL,
        gradients=np.array(gradients) * GRADIENT_UNIT,
        site_gradients=np.concatenate(site_gradients) * GRADIENT_UNIT,
        distances=np.concatenate(distances) * BOHR_IN_ANGSTROM,
        doubts=(*errors, *notes),
    )


def nearest(atoms: FloatArray, sites: FloatArray) -> FloatArray:
    """(m,) distance of each site from its nearest atom."""
    vectors = sites[:, None] - atoms
    return np.asarray(np.sqrt((vectors**2).sum(axis=2).min(axis=1)))


def draw_values(values: LabelValues, path: Path) -> None:
    """Energies by frame, gradients by element, and those on charges by distance, into a PNG file."""
    by_frame = Curve("", values.frames.astype(np.float64), values.energies)
    panels = (
        Panel("energy, less its mean", "frame", f"{values.name} / (kcal/mol)", (by_frame,)),
        Panel(
            "QM gradient by element",
            f"{values.name} / (kcal/mol/Å)",
            "density",
            tuple(_distributions(values)),
        ),
        Panel(
            "gradient on charges, RMS",
            "distance from the QM region / Å",
            f"{values.name} / (kcal/mol/Å)",
            (_by_distance(values),),
        ),
    )
    draw(Picture(path.stem, f"labels: {values.name}", panels), path)


def _distributions(values: LabelValues) -> Iterable[Curve]:
    widest = float(np.abs(values.gradients).max()) or 1.0  # of two methods that agree
    edges = np.linspace(-widest, widest, _BINS + 1)
    for number in np.unique(values.numbers):
        chosen = values.gradients[:, values.numbers == number]
        density, _ = np.histogram(chosen, edges, density=True)
        yield Curve(chemical_symbols[number], 0.5 * (edges[1:] + edges[:-1]), density)


def _by_distance(values: LabelValues) -> Curve:
    bins = (values.distances / _WIDTH).astype(np.int64)
    count = np.maximum(np.bincount(bins), 1)
    mean = np.bincount(bins, weights=(values.site_gradients**2).mean(axis=1)) / count
    shown = np.flatnonzero(mean)
    middles = np.asarray((shown + 0.5) * _WIDTH, dtype=np.float64)
    return Curve("", middles, np.asarray(np.sqrt(mean[shown]), dtype=np.float64))
