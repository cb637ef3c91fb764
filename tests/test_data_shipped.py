"""The labelled frames that ship: whole, by their checksums."""

from __future__ import annotations

import pytest

from conftest import ROOT
from pidelta.data.store import FrameStore

FILES = sorted((ROOT / "inputs").rglob("labels/*.h5"))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "inputs")))
def test_every_frame_and_label_fits_its_checksum(path):
    with FrameStore(path) as store:
        frames = list(store)
        methods = store.methods("reference")
        for method, indices in methods.items():
            for index in indices:
                label = store.label(index, "reference", method)
                assert label.gradient.shape == frames[index].positions.shape
                assert label.site_gradient.shape == frames[index].site_positions.shape
    assert frames
    assert methods
