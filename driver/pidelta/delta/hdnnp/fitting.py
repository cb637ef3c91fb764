"""The Lightning module that fits the networks of one model to prepared targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import lightning
import numpy as np
import torch

from pidelta.delta.hdnnp.descriptors import DescriptorSettings
from pidelta.delta.hdnnp.networks import AtomicNetworks
from pidelta.delta.hdnnp.settings import TrainingSettings
from pidelta.delta.hdnnp.targets import TargetGroup
from pidelta.errors import ConfigError
from pidelta.state import IntArray

# A group of targets and the rows of it that form a batch.
Batch = tuple[int, torch.Tensor]


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

    Args:
        networks: the networks, with their scalers set.
        groups: the targets of all frames.
        descriptors: the descriptors of the targets.
        train, validation: indices of the frames in the list that was prepared.
        settings: the training settings.
    """

    def __init__(
        self,
        networks: AtomicNetworks,
        groups: Sequence[TargetGroup],
        descriptors: DescriptorSettings,
        train: IntArray,
        validation: IntArray,
        settings: TrainingSettings,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.groups = groups
        self.descriptors = descriptors
        self.train_rows = _rows(groups, train)
        self.validation_rows = _rows(groups, validation)
        self.fit_settings = settings
        self.history: list[dict[str, float]] = []
        # Losses are reported relative to a model that predicts the baseline energy and nothing else.
        self.loss_unit = float(
            sum(self._reference_loss(group, rows).sum() for group, rows in self._batches(self.train_rows))
            / len(train)
        )

    def squared_errors(self, batch: Batch, create_graph: bool) -> dict[str, torch.Tensor]:
        """Squared errors in atomic units of the frames of a batch, of gradients the mean over components.

        Args:
            batch: which frames.
            create_graph: whether the errors will be differentiated in the parameters.
        """
        place, rows = batch
        group = self.groups[place]
        with torch.enable_grad():
            features = group.features[rows].requires_grad_()
            energy = self.networks(features, group.species)
            (slopes,) = torch.autograd.grad(energy.sum(), features, create_graph=create_graph)
        gradient = (slopes.flatten(1)[:, None] @ group.jacobian[rows]).squeeze(1)
        outer = slopes[..., self.descriptors.structure_count :].flatten(1)
        square = (
            ((group.gram[rows] @ outer[..., None]).squeeze(2) - 2.0 * group.projection[rows]) * outer
        ).sum(1) + group.site_square[rows]
        return {
            "energy": (energy - group.energy[rows]) ** 2,
            "qm_gradient": ((gradient - group.gradient[rows]) ** 2).mean(1),
            "mm_gradient": square / (3.0 * group.site_count[rows]).clamp(min=1.0),
        }

    def _loss(self, errors: dict[str, torch.Tensor]) -> torch.Tensor:
        settings = self.fit_settings
        return (
            errors["energy"]
            + settings.qm_gradient_weight * errors["qm_gradient"]
            + settings.mm_gradient_weight * errors["mm_gradient"]
        )

    def _reference_loss(self, place: int, rows: torch.Tensor) -> torch.Tensor:
        group = self.groups[place]
        return self._loss(
            {
                "energy": (group.energy[rows] - self.networks.baseline[group.species].sum()) ** 2,
                "qm_gradient": (group.gradient[rows] ** 2).mean(1),
                "mm_gradient": group.site_square[rows] / (3.0 * group.site_count[rows]).clamp(min=1.0),
            }
        )

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Mean loss of a batch."""
        loss = self._loss(self.squared_errors(batch, create_graph=True)).mean() / self.loss_unit
        self._train_losses.append((float(loss.detach()), len(batch[1])))
        return loss

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the epoch before."""
        self._train_losses: list[tuple[float, int]] = []

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the squared errors of a batch."""
        self._errors.append(self.squared_errors(batch, create_graph=False))

    def on_validation_epoch_start(self) -> None:
        """Forget the errors of the epoch before."""
        self._errors: list[dict[str, torch.Tensor]] = []

    def on_validation_epoch_end(self) -> None:
        """Write the errors of this epoch into the history."""
        errors = {name: torch.cat([part[name] for part in self._errors]).detach() for name in self._errors[0]}
        loss = self._loss(errors).mean() / self.loss_unit
        self.log("validation_loss", loss)
        weights = [count for _, count in self._train_losses]
        self.history.append(
            {
                "epoch": float(self.current_epoch),
                "train_loss": float(np.average([value for value, _ in self._train_losses], weights=weights)),
                "validation_loss": float(loss),
                **{
                    f"{name}_rmse": float(value.mean().clamp(min=0.0).sqrt())
                    for name, value in errors.items()
                },
                "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            }
        )

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
        """Adam with decoupled weight decay; the learning rate falls as a cosine over the epochs."""
        settings = self.fit_settings
        optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, settings.epochs, eta_min=1e-3 * settings.learning_rate
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed training needs beside weights and optimiser."""
        checkpoint["history"] = list(self.history)
        checkpoint["origin"] = self._origin()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the history.

        Raises:
            ConfigError: the settings changed, other than the patience, or the frames did.
        """
        self.history = list(checkpoint["history"])
        for key, found in self._origin().items():
            expected = checkpoint["origin"][key]
            if expected != found:
                raise ConfigError(f"{key}: expected {expected!r} of the training to resume, found {found!r}")

    def _origin(self) -> dict[str, object]:
        """What has to be the same when a training resumes."""
        training = self.fit_settings.model_dump(exclude={"patience"})
        return {
            **{f"training.{key}": value for key, value in training.items()},
            **{f"descriptors.{key}": value for key, value in asdict(self.descriptors).items()},
            "frames: sum of (reference - low level)": float(sum(group.energy.sum() for group in self.groups)),
        }


def _rows(groups: Sequence[TargetGroup], frames: IntArray) -> list[torch.Tensor]:
    """Rows of each group that hold the given frames."""
    wanted = torch.from_numpy(frames)
    return [torch.nonzero(torch.isin(group.frames, wanted)).squeeze(1) for group in groups]
