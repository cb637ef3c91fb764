"""From a file to a correction, by the schema that the file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pidelta.checksums import checksum
from pidelta.delta.base import Correction
from pidelta.delta.files import read_file
from pidelta.errors import ModelError

if TYPE_CHECKING:
    from pidelta.delta.network_model import NetworkModel


Precision = Literal["float64", "float32"]


def load_correction(path: Path, precision: Precision = "float64") -> Correction:
    """Read a model file of any kind.

    Args:
        path: the file.
        precision: in which its networks are evaluated, see `NetworkModel.dtype`.

    Raises:
        ModelError: the file is missing, damaged, of an unknown schema, or incomplete.
    """
    schema, content = read_file(path)
    kinds = {kind.schema: kind for kind in model_kinds().values()}
    if schema not in kinds:
        older = schema.rpartition(" ")[0] in {name.rpartition(" ")[0] for name in kinds}
        advice = ", of another version: train the model again" if older else ""
        raise ModelError(
            f"{path}: expected the schema {' or '.join(map(repr, kinds))}, found {schema!r}{advice}"
        )
    try:
        model = kinds[schema].from_content(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ModelError(f"{path}: expected a complete model {schema!r} ({reason})") from None
    if precision == "float32":
        import torch

        model.dtype = torch.float32
    return model


def load_members(paths: Sequence[Path], precision: Precision = "float64") -> list[Correction]:
    """Read the models of a committee.

    Args:
        paths: their files.
        precision: as in `load_correction`.

    Raises:
        ModelError: as there, or two are the same, which would seem sure of themselves.
    """
    models: list[Correction] = []
    seen: dict[str, Path] = {}
    for path in paths:
        models.append(load_correction(path, precision))
        digest = checksum(path)
        if digest in seen:
            raise ModelError(f"{path}: expected models that differ, found the same as in {seen[digest]}")
        seen[digest] = path
    return models


def model_kinds() -> Mapping[str, type[NetworkModel]]:
    """The kinds of models by the name that `train.yaml` has; here, as PyTorch takes a second to import."""
    from pidelta.delta.hdnnp.model import HDNNP
    from pidelta.delta.response.model import Response

    return {"response": Response, "hdnnp": HDNNP}
