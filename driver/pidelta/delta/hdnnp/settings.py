"""What the descriptors of the network potential of the paper are."""

from __future__ import annotations

from dataclasses import dataclass

from pidelta.delta.descriptors import DescriptorSettings


@dataclass(frozen=True, kw_only=True)
class HDNNPSettings(DescriptorSettings):
    """Descriptors of a network potential; all lengths in bohr.

    Attributes:
        charge_cutoff: cutoff of the charge-weighted Gaussians: the cutoff of the embedding.
        charge_count: number of charge-weighted Gaussians (the potential comes on top).
        hidden: widths of the hidden layers of the networks.
    """

    charge_cutoff: float
    charge_count: int = 10
    hidden: tuple[int, ...] = (32, 32)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Where the radial, angular, charge-weighted and short-range features are."""
        angular = self.structure_count
        charge = angular + self.far_features
        return *self.structure_blocks, slice(angular, charge), slice(charge, charge + self.short_features)

    @property
    def feature_count(self) -> int:
        """Number of features of an atom."""
        return int(self.blocks[-1].stop)

    @property
    def far_features(self) -> int:
        """Number of charge-weighted features."""
        return 1 + self.charge_count

    @property
    def coverage_blocks(self) -> tuple[slice, ...]:
        """The features by which the reach of the training is judged: all."""
        return self.blocks
