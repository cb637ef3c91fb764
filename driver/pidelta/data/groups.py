"""Arrays, numbers and words of an HDF5 group with a checksum, as HDF5 has none for most of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from pidelta.errors import DataError

_LARGE = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
_SMALL = 500  # numbers, below which compression takes more than it saves


def write_group(
    group: h5py.Group,
    content: Mapping[str, Any],
    arrays: Mapping[str, Any],
    values: Mapping[str, Any],
    rounded: Mapping[str, float],
    owner: str = "",
) -> None:
    """Write arrays as datasets, values as attributes, and the checksum of all.

    Args:
        group: an empty one.
        content: arrays and values by name.
        arrays, values: of which types they are.
        rounded: arrays that are kept as integers, in multiples of a unit.
        owner: the checksum of what the group belongs to.
    """
    own = {name: kind(content[name]) for name, kind in values.items()}
    for name, kind in arrays.items():
        array = np.asarray(content[name], dtype=kind)
        options = _LARGE | {"chunks": array.shape} if array.size > _SMALL else {}
        if name in rounded:
            integers = np.rint(array / rounded[name]).astype(np.int32)
            group.create_dataset(name, data=integers, **options).attrs["unit"] = rounded[name]
        else:
            group.create_dataset(name, data=array, **options)
        own[name] = _array(group[name], kind)
    group.attrs.update({name: own[name] for name in values}, checksum=checksum(own, owner))


def read_group(
    where: str, group: h5py.Group, arrays: Mapping[str, Any], values: Mapping[str, Any], owner: str = ""
) -> dict[str, Any]:
    """Read what `write_group` wrote.

    Raises:
        DataError: something differs from what was written, in the group named by `where`.
    """
    content = {name: _array(group[name], kind) for name, kind in arrays.items()}
    content |= {name: kind(group.attrs[name]) for name, kind in values.items()}
    if group.attrs["checksum"] != checksum(content, owner):
        raise DataError(f"{where}: expected numbers that fit their checksum: it is damaged")
    return content


def _array(data: h5py.Dataset, kind: Any) -> Any:
    """The numbers of a dataset, whether they are rounded or not."""
    unit = data.attrs.get("unit")
    return np.asarray(data[()], dtype=kind) if unit is None else data[()] * float(unit)


def seal(group: h5py.Group, name: str, words: Mapping[str, str], owner: str = "") -> None:
    """Write the checksum of attributes that change after their group was written.

    Args:
        group: of the attributes.
        name: of the attribute that holds the checksum.
        words: the attributes by name.
        owner: the checksum of what they belong to.
    """
    group.attrs[name] = checksum(words, owner)


def check_seal(where: str, group: h5py.Group, name: str, words: Mapping[str, str], owner: str = "") -> None:
    """Compare attributes with their checksum, which files of earlier versions do not have.

    Raises:
        DataError: they differ from what was written, in the group named by `where`.
    """
    found = group.attrs.get(name)
    if found is not None and found != checksum(words, owner):
        raise DataError(f"{where}: expected words that fit their checksum: it is damaged")


def checksum(content: Mapping[str, Any], owner: str) -> str:
    """Eight bytes, in hexadecimal digits, that change with any number, shape or word of a group.

    `owner` is the checksum of the frame that a label belongs to.
    """
    digest = hashlib.blake2b(owner.encode(), digest_size=8)
    for name in sorted(content):
        value = content[name]
        if isinstance(value, np.ndarray):
            digest.update(f"{name} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"{name} {value!r} ".encode())
    return digest.hexdigest()
