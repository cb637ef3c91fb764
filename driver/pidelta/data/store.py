"""Frames and their labels in one HDF5 file that grows frame by frame, so that labelling can resume."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import h5py
import numpy as np

from pidelta.data.frames import Frame, Label
from pidelta.errors import DataError

LabelKind = Literal["reference", "low"]

_SCHEMA = "pidelta frames 1"
# Datasets of a frame and of a label: attribute and name in the file.
_FRAME = {
    "numbers": "numbers",
    "positions": "positions",
    "site_positions": "env_positions",
    "site_charges": "env_charges",
    "site_numbers": "env_numbers",
}
_LABEL = {"gradient": "gradient", "site_gradient": "env_gradient", "charges": "charges"}
_LARGE = {"compression": "gzip", "shuffle": True}


class FrameStore:
    """An HDF5 file of frames: one group a frame, in it one group for each kind of label.

    ``reference`` labels come from DFT, ``low`` labels from the low-level method; a delta model learns their
    difference. Use it as a context manager; every write is flushed, so a killed job loses one frame at most.

    Args:
        path: the file.
        mode: ``r`` to read, ``a`` to read and write (the file is made where there is none).

    Raises:
        DataError: there is no such file, or it is not a store of frames.
    """

    def __init__(self, path: Path, mode: Literal["r", "a"] = "r") -> None:
        self.path = path
        if mode == "r" and not path.exists():
            raise DataError(f"{path}: no such file of frames")
        try:
            self._file = h5py.File(path, mode)
        except OSError as error:
            raise DataError(f"{path}: expected an HDF5 file of frames ({error})") from None
        if mode == "a" and not self._file.attrs and len(self._file) == 0:
            self._file.attrs["schema"] = _SCHEMA
        if self._file.attrs.get("schema") != _SCHEMA:
            self._file.close()
            raise DataError(f"{path}: expected the schema {_SCHEMA!r}")

    def __enter__(self) -> FrameStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._file)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(index) for index in range(len(self)))

    def _group(self, index: int) -> h5py.Group:
        if not 0 <= index < len(self):
            raise DataError(f"{self.path}: expected a frame below {len(self)}, found {index}")
        return self._file[f"{index:06d}"]

    @property
    def embedding(self) -> dict[str, str | float] | None:
        """The embedding that the frames were cut with, lengths in bohr, or None where nobody said."""
        text = self._file.attrs.get("embedding")
        return None if text is None else dict(json.loads(text))

    def set_embedding(self, settings: Mapping[str, str | float]) -> None:
        """Record the embedding of the frames.

        Raises:
            DataError: the file holds frames that were cut with another one.
        """
        if self.embedding is not None and self.embedding != dict(settings):
            raise DataError(f"{self.path}: expected frames cut with {self.embedding}, found {dict(settings)}")
        self._file.attrs["embedding"] = json.dumps(dict(settings))

    def append(self, frame: Frame) -> int:
        """Add a frame and return its index."""
        index = len(self)
        group = self._file.create_group(None)  # without a name until it is complete: see set_label
        for attribute, name in _FRAME.items():
            group.create_dataset(name, data=getattr(frame, attribute), **_LARGE)
        group.attrs.update(charge=frame.charge, multiplicity=frame.multiplicity, source=frame.source)
        self._file[f"{index:06d}"] = group
        self._file.flush()
        return index

    def frame(self, index: int) -> Frame:
        """Read one frame."""
        group = self._group(index)
        return Frame(
            numbers=np.asarray(group["numbers"], dtype=np.int64),
            positions=np.asarray(group["positions"], dtype=np.float64),
            site_positions=np.asarray(group["env_positions"], dtype=np.float64),
            site_charges=np.asarray(group["env_charges"], dtype=np.float64),
            site_numbers=np.asarray(group["env_numbers"], dtype=np.int64),
            charge=int(group.attrs["charge"]),
            multiplicity=int(group.attrs["multiplicity"]),
            source=str(group.attrs["source"]),
        )

    def set_label(self, index: int, kind: LabelKind, label: Label) -> None:
        """Store a label, replacing an earlier one of the same kind.

        The label gets its name when it is complete, so that an interruption leaves none that is half written.
        """
        group = self._group(index)
        target = group.create_group(None)
        for attribute, name in _LABEL.items():
            target.create_dataset(name, data=getattr(label, attribute), **_LARGE)
        target.attrs.update(method=label.method, energy=label.energy)
        if kind in group:
            del group[kind]
        group[kind] = target
        self._file.flush()

    def label(self, index: int, kind: LabelKind) -> Label | None:
        """Read a label, or None where the frame has none of this kind."""
        group = self._group(index)
        if kind not in group:
            return None
        source = group[kind]
        return Label(
            method=str(source.attrs["method"]),
            energy=float(source.attrs["energy"]),
            gradient=np.asarray(source["gradient"], dtype=np.float64),
            site_gradient=np.asarray(source["env_gradient"], dtype=np.float64),
            charges=np.asarray(source["charges"], dtype=np.float64),
        )

    def unlabelled(self, kind: LabelKind, method: str) -> list[int]:
        """Indices of the frames that have no label of this kind by this method."""
        return [
            index
            for index in range(len(self))
            if kind not in self._group(index) or self._group(index)[kind].attrs["method"] != method
        ]
