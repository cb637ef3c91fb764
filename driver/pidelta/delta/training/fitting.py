"""The Lightning module that fits the networks of one model to prepared targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import lightning
import numpy as np
import torch

from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.network_model import FeatureNetworks
from pidelta.delta.training.settings import TrainingSettings
from pidelta.delta.training.targets import TargetGroup
from pidelta.state import IntArray

# A group of targets and the rows of it that form a batch.
Batch = tuple[int, torch.Tensor]
# Epochs over which the learning rate rises.
_WARM_UP = 3
# How much more than the energy gradients count by default, both relative to what a model without them gets
# wrong. A frame has one energy and many components of gradients: weighed alike, networks learn the energies
# of the training frames by heart while their gradients are still far off.
_IMPORTANCE = {"qm_gradient": 100.0, "mm_gradient": 30.0}
_NOISE = 1e-7  # hartree/bohr; charges of zero feel nothing but this
_ALIKE = 1e-4  # hartree; energies of one or two frames may be even more so


class _Loader:
    """Batches as a data loader: Lightning would take a bare list for a list of loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class Fit(lightning.LightningModule):
    """Loss, optimiser and batches for the networks of one model.

    What is validated, and kept, is a moving average of the parameters, which is smoother than they are.

    Args:
        networks: the networks, with their scales set.
        groups: the targets of all frames.
        descriptors: the descriptors of the targets.
        train, validation: indices of the frames in the list that was prepared.
        settings: the training settings.
        origin: what has to be the same when the training resumes; checkpoints keep it.
    """

    def __init__(
        self,
        networks: FeatureNetworks,
        groups: Sequence[TargetGroup],
        descriptors: DescriptorSettings,
        train: IntArray,
        validation: IntArray,
        settings: TrainingSettings,
        origin: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.networks = networks
        self.averaged = copy.deepcopy(networks).requires_grad_(False)
        self.groups = groups
        self.descriptors = descriptors
        self.train_rows = _rows(groups, train)
        self.validation_rows = _rows(groups, validation)
        self.fit_settings = settings
        self.origin = dict(origin)
        self.history: list[dict[str, float]] = []
        unit = self._mean_squares()
        self.weights = {"energy": 1.0}
        for name, given in (
            ("qm_gradient", settings.qm_gradient_weight),
            ("mm_gradient", settings.mm_gradient_weight),
        ):
            default = _IMPORTANCE[name] * unit["energy"] / unit[name] if unit[name] > _NOISE**2 else 0.0
            self.weights[name] = default if given is None else given
        # Losses are reported relative to a model that predicts the baseline energy and nothing else.
        self.loss_unit = sum(self.weights[name] * value for name, value in unit.items())

    def _mean_squares(self) -> dict[str, float]:
        """Mean squares over the training frames of energies less their baseline, and of gradients."""
        squares: dict[str, list[torch.Tensor]] = {"energy": [], "qm_gradient": [], "mm_gradient": []}
        for group, rows in zip(self.groups, self.train_rows, strict=True):
            baseline = self.networks.baseline[group.species].sum()
            squares["energy"].append((group.energy[rows] - baseline) ** 2)
            squares["qm_gradient"].append((group.gradient[rows] ** 2).mean(1))
            squares["mm_gradient"].append(group.site_square[rows] / _components(group, rows))
        means = {name: float(torch.cat(values).mean()) for name, values in squares.items()}
        return means | {"energy": max(means["energy"], _ALIKE**2)}

    def squared_errors(
        self, networks: FeatureNetworks, batch: Batch, create_graph: bool
    ) -> dict[str, torch.Tensor]:
        """Squared errors in atomic units of the frames of a batch, of gradients the mean over components.

        Args:
            networks: those that learn, or their average.
            batch: which frames.
            create_graph: whether the errors will be differentiated in the parameters.
        """
        place, rows = batch
        group = self.groups[place]
        with torch.enable_grad():
            positions = group.positions[rows].requires_grad_()
            features = group.features[rows].requires_grad_()
            energy = networks(positions, features, group.species)
            direct, slopes = torch.autograd.grad(
                energy.sum(),
                (positions, features),
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
        # Row by row, since Jacobians are large and indexing would copy them.
        moved = [own @ group.jacobian[row] for own, row in zip(slopes.flatten(1), rows, strict=True)]
        gradient = direct.flatten(1) + torch.stack(moved)
        first = self.descriptors.structure_count
        far, near = slopes[..., first:].tensor_split([self.descriptors.far_features], dim=-1)
        square = group.site_errors(rows, far, near)
        return {
            "energy": (energy - group.energy[rows]) ** 2,
            "qm_gradient": ((gradient - group.gradient[rows]) ** 2).mean(1),
            "mm_gradient": square / _components(group, rows),
        }

    def _loss(self, errors: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([self.weights[name] * value for name, value in errors.items()]).sum(0)

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Mean loss of a batch."""
        loss = (
            self._loss(self.squared_errors(self.networks, batch, create_graph=True)).mean() / self.loss_unit
        )
        self._train_losses.append((float(loss.detach()), len(batch[1])))
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs: object, batch: Batch, batch_index: int) -> None:
        """Take the parameters into their average, whose memory grows with the number of steps."""
        step = self.global_step
        share = max(1.0 - self.fit_settings.averaging, 9.0 / (9.0 + step))
        for mean, value in zip(self.averaged.parameters(), self.networks.parameters(), strict=True):
            mean.lerp_(value, share)

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the epoch before."""
        self._train_losses: list[tuple[float, int]] = []

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the squared errors of a batch."""
        self._errors.append(self.squared_errors(self.averaged, batch, create_graph=False))

    def on_validation_epoch_start(self) -> None:
        """Forget the errors of the epoch before."""
        self._errors: list[dict[str, torch.Tensor]] = []

    def on_validation_epoch_end(self) -> None:
        """Write the errors of this epoch into the history."""
        errors = self._validation_row()
        self.log("validation_loss", errors["validation_loss"])
        weights = [count for _, count in self._train_losses]
        self.history.append(
            {
                "epoch": float(self.current_epoch),
                "train_loss": float(np.average([value for value, _ in self._train_losses], weights=weights)),
                **errors,
                "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            }
        )

    def _validation_row(self) -> dict[str, float]:
        """Loss and root mean square errors from the collected errors."""
        errors = {name: torch.cat([part[name] for part in self._errors]).detach() for name in self._errors[0]}
        rmse = {f"{name}_rmse": float(value.mean().clamp(min=0.0).sqrt()) for name, value in errors.items()}
        return {"validation_loss": float(self._loss(errors).mean() / self.loss_unit), **rmse}

    def validation_errors(self) -> dict[str, float]:
        """Loss and root mean square errors of the average as it is, on the validation frames."""
        self.on_validation_epoch_start()
        for index, batch in enumerate(self.val_dataloader()):
            self.validation_step(batch, index)
        return self._validation_row()

    def train_dataloader(self) -> _Loader:
        """Batches of an epoch; the order depends on the seed and the epoch alone, so that it can resume."""
        generator = np.random.default_rng([self.fit_settings.seed, self.current_epoch])
        shuffled = [rows[torch.from_numpy(generator.permutation(len(rows)))] for rows in self.train_rows]
        batches = self._batches(shuffled)
        return _Loader([batches[place] for place in generator.permutation(len(batches))])

    def val_dataloader(self) -> _Loader:
        """The validation frames."""
        return _Loader(self._batches(self.validation_rows))

    def _batches(self, rows: Sequence[torch.Tensor]) -> list[Batch]:
        size = self.fit_settings.batch_size
        return [
            (place, own[start : start + size])
            for place, own in enumerate(rows)
            for start in range(0, len(own), size)
        ]

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay; the learning rate rises for a while, then falls as a cosine."""
        settings = self.fit_settings
        optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

        def factor(epoch: int) -> float:
            fall = 0.5 + 0.5 * math.cos(math.pi * epoch / settings.epochs)
            return min(1.0, (epoch + 1) / _WARM_UP) * max(fall, 1e-3)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed training needs beside weights and optimiser."""
        checkpoint["history"] = list(self.history)
        checkpoint["origin"] = self.origin

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the history."""
        self.history = list(checkpoint["history"])


def _components(group: TargetGroup, rows: torch.Tensor) -> torch.Tensor:
    """Number of components of the gradients on sites."""
    return (3.0 * group.site_count[rows]).clamp(min=1.0)


def _rows(groups: Sequence[TargetGroup], frames: IntArray) -> list[torch.Tensor]:
    """Rows of each group that hold the given frames, each as often as it is given."""
    wanted = torch.from_numpy(frames)
    rows = []
    for group in groups:  # their frames are ascending
        places = torch.searchsorted(group.frames, wanted).clamp(max=len(group.frames) - 1)
        rows.append(places[group.frames[places] == wanted])
    return rows
