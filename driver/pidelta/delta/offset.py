"""Whether the energy that is taken off each model is what the models add in the mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pidelta.delta.base import Correction
from pidelta.errors import SettingError
from pidelta.state import IntArray
from pidelta.units import KCAL_PER_MOL

_FARTHEST = 20.0 * KCAL_PER_MOL
# Standard deviations of the energies of the training: hot or quantum frames have another mean than cold ones.
_DEVIATIONS = 10.0


def check_offset(offset: float, members: Sequence[Correction], numbers: IntArray) -> None:
    """Refuse an offset of another sign, unit or molecule: a weighted baseline multiplies what it leaves.

    Args:
        offset: in hartree.
        members: the models; those without networks know no mean and are not asked.
        numbers: (n,) atomic numbers of the QM region, which all models know.

    Raises:
        SettingError: it is farther from the mean energy of the models' training than 20 kcal/mol and ten
            standard deviations of that energy.
    """
    from pidelta.delta.network_model import NetworkModel

    known = [member.training_energy(numbers) for member in members if isinstance(member, NetworkModel)]
    if not known:
        return
    mean, deviation = np.mean(known, axis=0)
    if abs(offset - mean) > max(_FARTHEST, _DEVIATIONS * deviation):
        raise SettingError(
            "offset",
            f"expected about {mean:.4f} hartree, the mean of what the models add, found {offset:.4f}",
        )
