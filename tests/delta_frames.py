"""Structures and an analytic stand-in for (reference - low level) that the tests of the delta model share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.delta.assessment import Prediction
from pidelta.delta.base import Provenance
from pidelta.delta.calibration import Reliability, reliability
from pidelta.delta.committee import Committee
from pidelta.delta.coverage import Coverage, Ellipsoid
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.hdnnp.model import HDNNP
from pidelta.delta.hdnnp.networks import AtomicNetworks
from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.response.model import Response
from pidelta.delta.response.networks import ResponseNetworks
from pidelta.delta.response.settings import ResponseSettings

NUMBERS = np.array([8, 6, 1, 1])
FORMALDEHYDE = np.array([[0.0, 0.0, 2.28], [0.0, 0.0, 0.0], [0.0, 1.78, -1.1], [0.0, -1.78, -1.1]])
EMBEDDING = {"scheme": "cutoff", "cutoff": 16.0, "switch": 4.0}


def random_frame(seed: int, sites: int = 24, source: str = "") -> Frame:
    """Distorted formaldehyde in three-site molecules whose charges fade out, as in an embedding."""
    rng = np.random.default_rng(seed)
    positions = FORMALDEHYDE + rng.normal(0.0, 0.12, FORMALDEHYDE.shape)
    directions = rng.normal(size=(sites // 3, 3))
    distances = rng.uniform(5.5, 15.5, sites // 3)
    centres = directions / np.linalg.norm(directions, axis=1)[:, None] * distances[:, None]
    arms = rng.normal(size=(sites // 3, 2, 3))
    arms *= 1.9 / np.linalg.norm(arms, axis=2, keepdims=True)
    weights = 1.0 / (1.0 + np.exp(2.0 * (distances - 14.0)))
    return Frame(
        numbers=NUMBERS,
        positions=positions,
        site_positions=np.concatenate([centres[:, None], centres[:, None] + arms], axis=1).reshape(-1, 3),
        site_charges=(np.array([-0.82, 0.41, 0.41]) * weights[:, None]).ravel(),
        site_numbers=np.tile([8, 1, 1], sites // 3),
        source=source,
    )


def analytic_difference(frame: Frame) -> tuple[float, np.ndarray, np.ndarray]:
    """Morse terms between QM atoms, and charges that depend on the bonds in the potential of the sites."""
    x = torch.tensor(frame.positions, requires_grad=True)
    sites = torch.tensor(frame.site_positions, requires_grad=True)
    charges = torch.tensor(frame.site_charges)
    first, second = torch.triu_indices(len(x), len(x), 1)
    r = (x[first] - x[second]).norm(dim=1)
    rest = torch.tensor(np.linalg.norm(FORMALDEHYDE[first] - FORMALDEHYDE[second], axis=1))
    morse = 0.03 * ((1.0 - torch.exp(-0.7 * (r - 1.03 * rest))) ** 2).sum()
    stretch = (x[0] - x[1]).norm() - 2.28
    difference = torch.tensor([-0.06, 0.04, 0.01, 0.01]) + 0.03 * stretch * torch.tensor(
        [-1.0, 1.0, 0.0, 0.0]
    )
    potential = (charges / (sites - x[:, None]).norm(dim=2)).sum(1)
    energy = morse + (difference * potential).sum()
    gradient, site_gradient = torch.autograd.grad(energy, (x, sites))
    return float(energy.detach()), gradient.numpy(), site_gradient.numpy()


def write_store(path: Path, count: int, seed: int, offset: float = -100.0, sites: int = 24) -> None:
    """A store of labelled frames whose reference - low level is `analytic_difference` + `offset`."""
    rng = np.random.default_rng(seed)
    with FrameStore(path, "a") as store:
        for place in range(count):
            frame = random_frame(seed + place, sites, f"run.pos_{place % 2}.xyz step {place // 2 * 50}")
            energy, gradient, site_gradient = analytic_difference(frame)
            low = (rng.normal(), rng.normal(size=gradient.shape), rng.normal(size=site_gradient.shape))
            charges = np.zeros(len(NUMBERS))
            index = store.append(frame)
            store.set_label(index, "low", Label("toy low", *low, charges))
            reference = (low[0] + energy + offset, low[1] + gradient, low[2] + site_gradient)
            store.set_label(index, "reference", Label("toy reference", *reference, charges))


def random_model(seed: int = 0, composition: tuple[int, ...] = (1, 1, 6, 8), **options: object) -> HDNNP:
    """An untrained model with cutoffs that differ from each other."""
    cutoffs = {"charge_cutoff": 16.0, "short_cutoff": 9.0, "radial_cutoff": 8.0, "angular_cutoff": 6.0}
    given = {"elements": (1, 6, 8), "mm_elements": (1, 8), "hidden": (16, 16), **cutoffs, **options}
    settings = HDNNPSettings(**given)
    networks = AtomicNetworks(settings, seed)
    provenance = Provenance("toy low", "toy reference", EMBEDDING, (composition,), settings.mm_elements)
    return HDNNP(settings, networks, unit_coverage(settings), 1e-3 * (seed + 1), provenance)


def random_response(
    seed: int = 0, composition: tuple[int, ...] = (1, 1, 6, 8), **options: object
) -> Response:
    """An untrained response model with cutoffs that differ from each other, and all its terms of a size."""
    cutoffs = {"short_cutoff": 9.0, "radial_cutoff": 8.0, "angular_cutoff": 6.0}
    widths = {"energy_width": 32, "response_width": 24, "pair_width": 16, "short_width": 12}
    elements = {"elements": (1, 6, 8), "mm_elements": (1, 8)}
    settings = ResponseSettings(**{**elements, **cutoffs, **widths, **options})
    networks = ResponseNetworks(settings, seed)
    networks.moment_scales.copy_(torch.tensor([0.05, 0.02, 0.01]))
    networks.near_scales.copy_(torch.tensor([0.05, 0.02, 0.01]))
    rng = torch.Generator().manual_seed(seed)
    for name, value in networks.state_dict().items():
        if name.endswith("bias") or name in ("mean", "baseline"):
            value += 0.1 * torch.randn(value.shape, generator=rng, dtype=value.dtype)
    provenance = Provenance("toy low", "toy reference", EMBEDDING, (composition,), settings.mm_elements)
    return Response(settings, networks, unit_coverage(settings), 1e-3 * (seed + 1), provenance)


def unit_coverage(settings: DescriptorSettings) -> Coverage:
    """Distances are those of the features from zero."""

    def spheres(width: int) -> tuple[Ellipsoid, ...]:
        return tuple(
            Ellipsoid(np.zeros(width), np.ones(width), np.zeros((width, 0))) for _ in settings.elements
        )

    structure = settings.structure_count
    return Coverage(spheres(structure), spheres(settings.coverage_blocks[-1].stop - structure))


def calibrate(members, items) -> Reliability:
    """The spread of members on frames, whatever methods these are labelled by."""
    committee = Committee(members, force_deviation=True)
    predictions = [Prediction(item, committee.evaluate(item.frame.region)) for item in items]
    return reliability(predictions, len(members))
