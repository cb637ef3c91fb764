"""The energy of a response model from the features of the QM atoms, for one model or several at once.

    dE = E0(R) + sum_A [q_A phi_A + 1/2 a_A F_A^2 + q'_A phi'_A + S_A]
         + sum_(A != B) c_AB . [u.F_A, u.H_A u, phi_B - phi_A, (u.F_A)^2, (phi_B - phi_A)^2, F_A.F_B,
                                (u.F_A)(phi_B - phi_A), u.F'_A, u.H'_A u]

with phi, F and H the potential, field and field gradient of the sites at the QM atoms, phi less its mean
over the region, phi', F' and H' those of the near sites, see `near_field.py`, and u the unit vector from A to
B. The charges q, polarisabilities a and pair coefficients c are networks of the descriptors of the structure:
differences of charges, dipoles, quadrupoles and polarisabilities that follow the geometry. They see the
field, too: phi, |F| and |H| at their atom, and along the pair u.F_A, u.H_A u, phi_B - phi_A and u.F_B; so the
energy has terms of all orders in it. E0 is a network of the descriptors of the structure alone, S_A one of
the short-range features and of what makes the coefficients.

K models, B structures, n atoms of T elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pidelta.core.switching import quintic
from pidelta.delta.network_model import FeatureNetworks
from pidelta.delta.radial_functions import gaussian_grid
from pidelta.delta.response.multipoles import COUNTS, MOMENTS
from pidelta.delta.response.pairs import COUPLED_TERMS, PAIR_TERMS
from pidelta.delta.response.settings import ResponseSettings
from pidelta.delta.scaling import scales

COEFFICIENTS = 2  # q and a, before q' for each power, the inputs of pairs and those of the short-range term
_LEAST_NEAR = 0.05  # of the scales of the far field
NEAR_PAIR_TERMS = 2  # u.F' and u.H' u, for each power
SMALL_FIELDS = (0.01, 0.005)
"""Where |F| and |H| bend to a smooth minimum in `field_invariants`; hartree/(e bohr) and hartree/(e bohr^2).

A quarter of the atoms of uracil in water have less.
"""
_TENSORS = (slice(1, 4), slice(4, 10))
"""Where the field and its gradient are among the moments."""


@dataclass(frozen=True)
class Weights:
    """Weights of K models, with what scales their inputs and outputs multiplied in.

    Attributes:
        baseline: (K, T) energy of an atom of each element in hartree.
        layers: matrices (K, T, inputs, outputs) and biases (K, T, 1, outputs) by name; of pairs, T is 1.
    """

    baseline: torch.Tensor
    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]


class ResponseNetworks(FeatureNetworks):
    """The parameters of one response model.

    Args:
        settings: descriptors and widths.
        seed: seed of the initial weights.
    """

    moment_scales: torch.Tensor
    near_scales: torch.Tensor

    def __init__(self, settings: ResponseSettings, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        elements, width = len(settings.elements), settings.structure_count + settings.short_features
        powers = len(settings.near_powers)
        first = settings.energy_width + settings.response_width
        energy = settings.energy_width or settings.response_width
        outputs = COEFFICIENTS + powers + 2 * settings.pair_width + settings.short_width
        self.register_buffer("moment_scales", torch.ones(3, dtype=torch.float64))
        # earlier models have none
        near_scales = torch.ones(powers, 3, dtype=torch.float64)
        self.register_buffer("near_scales", near_scales, persistent=powers > 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = _Layer(elements, settings.structure_count, first)
            self.energy = _Layer(elements, energy, energy)
            self.energy_out = _Layer(elements, energy, 1)
            self.response = _Layer(elements, settings.response_width, outputs, 0.5)
            self.radial = _Layer(1, settings.pair_radial_count, settings.pair_width)
            self.pair = _Layer(1, settings.pair_width, PAIR_TERMS + NEAR_PAIR_TERMS * powers, 0.3)
            # What they add to has a bias of its own. They begin small, as high orders are: few frames do not
            # show that.
            zero = ("bias",) if settings.field_coupling else ("weight", "bias")
            self.field = _Layer(elements, len(self.moment_scales), settings.response_width, 0.1, zero)
            self.coupling = _Layer(1, COUPLED_TERMS, settings.pair_width, 0.1, zero)
            if settings.short_width:
                self.near = _Layer(elements, settings.short_features, settings.short_width)
                self.short = _Layer(elements, settings.short_width, settings.short_width)
                self.short_out = _Layer(elements, settings.short_width, 1, 0.5)
        self.register_buffer("mean", torch.zeros(elements, width, dtype=torch.float64))
        self.register_buffer("inverse_scale", torch.ones(elements, width, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("baseline", torch.zeros(elements, dtype=torch.float64))

    def weights(self) -> Weights:
        """Weights of this model alone, K = 1."""
        split = self.settings.structure_count
        structure, near = (
            (self.mean[:, part], self.inverse_scale[:, part]) for part in (slice(split), slice(split, None))
        )
        per_charge, per_field, per_gradient = 1.0 / self.moment_scales
        linear = torch.stack([per_field, per_gradient, per_charge])
        quadratic = torch.stack([per_field**2, per_charge**2, per_field**2, per_field * per_charge])
        coupled = torch.stack([per_field, per_gradient, per_charge, per_field])
        near_field = 1.0 / self.near_scales
        no_mean = torch.zeros_like(self.moment_scales)
        own = torch.cat([torch.stack([per_charge, per_field**2]), near_field[:, 0]])
        rest = torch.ones(self.response.bias.shape[-1] - len(own), dtype=torch.float64)
        pairs = torch.cat([linear, 0.3 * quadratic, near_field[:, 1:].flatten()])
        layers = {
            "first": self.first.scaled(structure),
            "energy": self.energy.scaled(),
            "energy_out": self.energy_out.scaled(outputs=self.energy_scale),
            "response": self.response.scaled(outputs=torch.cat([self.energy_scale * own, rest])),
            "radial": self.radial.scaled(),
            "pair": self.pair.scaled(outputs=self.energy_scale * pairs),
            "field": self.field.scaled((no_mean, 1.0 / self.moment_scales)),
            "coupling": self.coupling.scaled((torch.zeros_like(coupled), coupled)),
        }
        if self.settings.short_width:
            layers["near"] = self.near.scaled(near)
            layers["short"] = self.short.scaled()
            layers["short_out"] = self.short_out.scaled(outputs=self.energy_scale)
        return Weights(
            self.baseline[None], {name: (weight[None], bias[None]) for name, (weight, bias) in layers.items()}
        )

    def forward(self, positions: torch.Tensor, features: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Energies (B,) in hartree of positions (B, n, 3) and features (B, n, D) of atoms of `species`."""
        return energies(self.settings, self.weights(), positions, features, species)[0]

    @torch.no_grad()
    def fit_scales(self, features: Sequence[torch.Tensor], species: Sequence[torch.Tensor]) -> None:
        """Set mean and scale of the features of each element, and the scales of both fields."""
        settings = self.settings
        first, last = settings.structure_count, settings.near_moments.stop
        short = slice(first, first + settings.short_features)
        invariant = [torch.cat([own[..., :first], own[..., last:]], dim=-1) for own in features]
        for element in range(len(self.mean)):
            self.mean[element], self.inverse_scale[element] = scales(
                invariant, species, element, (*settings.structure_blocks, short)
            )
        moments = [own[..., settings.moments] for own in features]
        phi = torch.cat([(own[..., 0] - own[..., :1].mean(1)).flatten() for own in moments])
        self.moment_scales.copy_(_deviations(phi, moments))
        for place, own_scales in enumerate(self.near_scales):
            start = last - MOMENTS * (len(self.near_scales) - place)
            near = [own[..., start : start + MOMENTS] for own in features]
            found = _deviations(torch.cat([own[..., 0].flatten() for own in near]), near)
            # where the frames have no near charges, one that comes later must not be magnified
            own_scales.copy_(torch.maximum(found, _LEAST_NEAR * self.moment_scales))


def _deviations(phi: torch.Tensor, moments: Sequence[torch.Tensor]) -> torch.Tensor:
    """Root mean squares (3,) of phi and of the components of F and H; 1 where there are none."""
    field, gradient = (torch.cat([own[..., part].flatten() for own in moments]) for part in _TENSORS)
    found = torch.stack([values.square().mean().sqrt() for values in (phi, field, gradient)])
    return torch.where(found > 0.0, found, 1.0)


class _Layer(nn.Module):
    """Affine maps, one for each of some kinds: x (kinds, ..., inputs) -> (kinds, ..., outputs).

    Args:
        kinds, inputs, outputs: how many.
        gain: of the first weights.
        zero: which of weight and bias stay zero, and are neither learnt nor saved.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, kinds: int, inputs: int, outputs: int, gain: float = 1.0, zero: Sequence[str] = ()
    ) -> None:
        super().__init__()
        deviation = gain * (2.0 / (inputs + outputs)) ** 0.5
        weight = deviation * torch.randn(kinds, inputs, outputs, dtype=torch.float64)
        bias = torch.zeros(kinds, 1, outputs, dtype=torch.float64)
        for name, value in (("weight", weight), ("bias", bias)):
            if name in zero:
                self.register_buffer(name, torch.zeros_like(value), persistent=False)
            else:
                self.register_parameter(name, nn.Parameter(value))

    def scaled(
        self, inputs: tuple[torch.Tensor, torch.Tensor] | None = None, outputs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Matrix and bias for inputs that are not scaled yet, and outputs that are.

        Args:
            inputs: mean and inverse scale (kinds, inputs).
            outputs: (outputs,) or a number.
        """
        weight, bias = self.weight, self.bias
        if inputs is not None:
            mean, inverse = inputs
            weight = weight * inverse[..., None]
            bias = bias - mean[..., None, :] @ weight
        return (weight, bias) if outputs is None else (weight * outputs, bias * outputs)


def stacked(models: Sequence[ResponseNetworks]) -> Weights:
    """Weights of several models of the same settings, for `energies`."""
    weights = [model.weights() for model in models]

    def joined(name: str, place: int) -> torch.Tensor:
        return torch.cat([own.layers[name][place] for own in weights])

    layers = {name: (joined(name, 0), joined(name, 1)) for name in weights[0].layers}
    return Weights(torch.cat([own.baseline for own in weights]), layers)


def energies(
    settings: ResponseSettings,
    weights: Weights,
    positions: torch.Tensor,
    features: torch.Tensor,
    species: torch.Tensor,
) -> torch.Tensor:
    """Energies (K, B) in hartree.

    Args:
        settings: of the models.
        weights: of K models, from `stacked`.
        positions: (B, n, 3) in bohr.
        features: (B, n, D), raw, in the order of `ResponseSettings`.
        species: (n,) place of each atom's element.
    """
    phi, field, gradient = features[..., settings.moments].split([1, 3, 6], dim=-1)
    powers = len(settings.near_powers)
    near_field = features[..., settings.near_moments].unflatten(-1, (powers, MOMENTS))
    phi = (phi - phi.mean(1, keepdim=True)).squeeze(-1)
    atoms, output = _atoms(settings, weights, features, field_invariants(phi, field, gradient), species)
    charge, polarisability = output[..., 0], output[..., 1]
    near_charge, *inputs = output[..., COEFFICIENTS:].split([powers, *[settings.pair_width] * 2], dim=-1)
    atoms = atoms + charge * phi + 0.5 * polarisability * (field * field).sum(-1)
    atoms = atoms + (near_charge * near_field[..., 0]).sum(-1)
    pairs = _pairs(settings, weights, positions, inputs, (phi, field, gradient), near_field)
    total: torch.Tensor = weights.baseline[:, species].sum(1)[:, None] + atoms.sum(-1) + pairs
    return total


def field_invariants(phi: torch.Tensor, field: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """phi, |F| and |H| (..., 3) from (...), (..., 3) and (..., 6); the latter two are smooth at zero."""
    small_field, small_gradient = SMALL_FIELDS
    return torch.stack(
        [
            phi,
            (field.square().sum(-1) + small_field**2).sqrt(),
            ((gradient.square() * torch.from_numpy(COUNTS)).sum(-1) + small_gradient**2).sqrt(),
        ],
        dim=-1,
    )


def _map(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """The affine maps of K models and T kinds: x (K or 1, T, N, inputs) -> (K, T, N, outputs)."""
    matrix, bias = weights.layers[name]
    mapped: torch.Tensor = x @ matrix + bias
    return mapped


def _atoms(
    settings: ResponseSettings,
    weights: Weights,
    features: torch.Tensor,
    invariants: torch.Tensor,
    species: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """E0 and the short-range term of atoms (K, B, n), and what the field multiplies.

    All but E0 depend on `field_invariants` (B, n, 3), too.
    """
    silu = nn.functional.silu
    batch, n, _ = features.shape
    # The atoms of an element are the rows of one matrix; where it has fewer, rows are left out again.
    counts = torch.bincount(species, minlength=len(settings.elements))
    order = torch.argsort(species, stable=True)
    rank = torch.empty_like(species)
    rank[order] = torch.arange(n) - (counts.cumsum(0) - counts)[species[order]]
    longest = int(counts.max())
    slots = torch.zeros(len(counts), longest, dtype=torch.int64)
    slots[species, rank] = torch.arange(n)

    def of_elements(values: torch.Tensor) -> torch.Tensor:
        """(1, T, B longest, ...) of values (B, n, ...)."""
        return values[:, slots].transpose(0, 1).flatten(1, 2)[None]

    own = of_elements(features)
    structure, near = own[..., : settings.structure_count], own[..., settings.near_moments.stop :]
    width = settings.energy_width
    hidden = _map(weights, "first", structure)
    in_field = silu(hidden[..., width:] + _map(weights, "field", of_elements(invariants)))
    energy = silu(_map(weights, "energy", silu(hidden[..., :width]) if width else in_field))
    energy = _map(weights, "energy_out", energy)
    output = _map(weights, "response", in_field)
    if settings.short_width:
        output, short = output.split([output.shape[-1] - settings.short_width, settings.short_width], dim=-1)
        short = silu(_map(weights, "short", silu(short + _map(weights, "near", near))))
        energy = energy + _map(weights, "short_out", short)

    def of_atoms(values: torch.Tensor) -> torch.Tensor:
        """(K, B, n, ...) of values (K, T, B longest, ...)."""
        rows = values.unflatten(2, (batch, longest)).transpose(1, 2).flatten(2, 3)
        chosen: torch.Tensor = rows[:, :, species * longest + rank]
        return chosen

    return of_atoms(energy).squeeze(-1), of_atoms(output)


def _pairs(
    settings: ResponseSettings,
    weights: Weights,
    x: torch.Tensor,
    inputs: Sequence[torch.Tensor],
    moments: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    near_field: torch.Tensor,
) -> torch.Tensor:
    """Energies (K, B) of all pairs of atoms in the field of the sites, and of `near_field` (B, n, P, 10)."""
    batch, n, _ = x.shape
    cutoff = settings.radial_cutoff
    first, second = _neighbours(x.detach(), cutoff)  # places among all atoms of the batch
    positions = x.flatten(0, 1)
    vectors = positions[second] - positions[first]
    r = vectors.norm(dim=-1, keepdim=True)
    centres, spacing, _ = gaussian_grid(1.5, cutoff, settings.pair_radial_count)
    radial = torch.exp(-0.5 * ((r - torch.from_numpy(centres)) / spacing) ** 2)
    own, other = (tuple(part.flatten(0, 1)[place] for part in moments) for place in (first, second))
    terms, coupled = _pair_terms(vectors / r, own, other)
    terms = torch.cat([terms, _near_pair_terms(vectors / r, near_field.flatten(0, 1)[first])], dim=-1)
    one, two = (part.flatten(1, 2) for part in inputs)
    hidden = nn.functional.silu(
        one[:, first]
        + two[:, second]
        + _map(weights, "radial", radial[None, None]).squeeze(1)
        + _map(weights, "coupling", coupled[None, None]).squeeze(1)
    )
    coefficients = _map(weights, "pair", hidden[:, None]).squeeze(1)
    energy = (coefficients * (terms * quintic(r / cutoff))).sum(-1)
    total: torch.Tensor = energy.new_zeros(len(energy), batch).index_add(1, first // n, energy)
    return total


def _neighbours(x: torch.Tensor, cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Both atoms of each pair within a cutoff, in both directions, by their places among the (B n) atoms."""
    n = x.shape[1]
    # Matrix products would lose digits far from the origin.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    away = cutoff * torch.eye(n, dtype=x.dtype)  # an atom is beyond the cutoff of itself
    structure, first, second = torch.nonzero(distances + away < cutoff, as_tuple=True)
    return structure * n + first, structure * n + second


def _pair_terms(
    u: torch.Tensor, own: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the coefficients of pairs multiply (P, 7), and what they see of the field (P, 4).

    Args:
        u: (P, 3) unit vectors from the first atom to the second.
        own, other: phi (P,), F (P, 3) and H (P, 6) of the first and the second.
    """
    phi, field, gradient = own
    other_phi, other_field, _ = other
    along = (u * field).sum(-1)
    curvature = (_products(u) * gradient).sum(-1)
    difference = other_phi - phi
    both = (field * other_field).sum(-1)
    terms = [along, curvature, difference, along**2, difference**2, both, along * difference]
    coupled = [along, curvature, difference, (u * other_field).sum(-1)]
    return torch.stack(terms, dim=-1), torch.stack(coupled, dim=-1)


def _near_pair_terms(u: torch.Tensor, near_field: torch.Tensor) -> torch.Tensor:
    """u.F' and u.H' u (Q, 2 P) from u (Q, 3) and the near moments (Q, P, 10) of the first atom."""
    _, field, gradient = near_field.split([1, 3, 6], dim=-1)
    along, curvature = (u[:, None] * field).sum(-1), (_products(u)[:, None] * gradient).sum(-1)
    return torch.stack([along, curvature], dim=-1).flatten(1)


def _products(u: torch.Tensor) -> torch.Tensor:
    """Products (Q, 6) of the components of u (Q, 3), as often as they stand in u.H u."""
    return u[:, [0, 0, 0, 1, 1, 2]] * u[:, [0, 1, 2, 1, 2, 2]] * torch.from_numpy(COUNTS)
