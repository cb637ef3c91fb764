"""A QM region that the delta models describe alone, without a low-level method."""

import shutil
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from conftest import ROOT
from pidelta.cli.description import describe_setup
from pidelta.config import load_config
from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.delta.loading import load_correction
from pidelta.errors import ConfigError, ModelError
from pidelta.setup import Setup
from pidelta.testing.derivatives import central_differences
from pidelta.workflow.labelling import low_labels

URACIL_WATER = ROOT / "inputs" / "uracil-water"
TEXT = """\
structure: uracil-water.gro
qm: {atoms: resname URA, engine: none}
mm: {topology: uracil-water.top, cutoff: 0.9 nm}
"""


@pytest.fixture
def folder(tmp_path):
    """The shipped model as if it had been trained on the reference itself."""
    for name in ("uracil-water.gro", "uracil-water.top"):
        shutil.copy(URACIL_WATER / name, tmp_path)
    model = load_correction(URACIL_WATER / "delta-0.pt")
    model.provenance = replace(model.provenance, low_level="none")
    model.save(tmp_path / "alone.pt")
    (tmp_path / "p.yaml").write_text(TEXT + "delta: {models: [alone.pt]}\n")
    return tmp_path


def test_energy_is_that_of_model_and_force_field(folder):
    setup = Setup(load_config(folder / "p.yaml"))
    system, evaluator = setup.system, setup.evaluator()
    cells = system.cell[None]
    evaluation = evaluator.evaluate(system.positions[None], cells)
    assert set(evaluation.terms) == {"mm", "delta"}
    region = setup.qm_region.cut(system.positions[None], cells)
    expected = load_correction(folder / "alone.pt").evaluate(region)
    assert evaluation.terms["delta"].energy[0] == pytest.approx(expected.energy[0], abs=1e-12)
    # there are no charges to make a dipole of
    assert evaluation.charges is None
    assert evaluation.dipole is None
    assert not setup.extras(frozenset(evaluation.terms)) & {"charges", "dipole", "embedding"}
    atoms = np.array([2, 13])

    def energy(positions):
        return evaluator.evaluate(positions, np.repeat(cells, len(positions), axis=0)).energy

    numerical = central_differences(energy, system.positions, atoms)
    np.testing.assert_allclose(evaluation.gradient[0, atoms], numerical, rtol=0, atol=2e-6)


def test_low_level_labels_are_zero(folder):
    (folder / "low.yaml").write_text(TEXT)
    setup = Setup(load_config(folder / "low.yaml"))
    cut = setup.qm_region.cut(setup.system.positions[None], setup.system.cell[None])
    site_numbers = cut.site_numbers[0]
    frame = Frame(cut.numbers, cut.positions[0], cut.site_positions[0], cut.site_charges[0], site_numbers)
    with FrameStore(folder / "f.h5", "a") as store:
        store.append(frame)
        ((_, label),) = low_labels(store, [0], setup.engine, 0, 1)
    assert label.method == "none"
    assert label.energy == 0.0
    assert not label.gradient.any()
    assert not label.site_gradient.any()


def test_the_set_up_names_the_models(folder):
    config = load_config(folder / "p.yaml")
    setup = Setup(config)
    console = Console(width=200, record=True, file=StringIO())
    console.print(describe_setup(config, setup, setup.evaluator()))
    text = console.export_text()
    assert "those of the delta models" in text
    assert "12 atoms: N C O" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("engine: none", "engine: none, dftb: {}"), "unknown key qm.dftb with engine: none"),
        (("engine: none", "engine: none, properties: [gap]"), "properties: expected none with engine none"),
        (("mm:", "embedding: {scheme: pme}\nmm:"), "expected cutoff with qm.engine none, found pme"),
    ],
)
def test_settings_that_need_a_low_level_are_refused(folder, change, message):
    (folder / "p.yaml").write_text((folder / "p.yaml").read_text().replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_config(folder / "p.yaml")


def test_a_region_that_nothing_describes_is_refused(folder):
    (folder / "low.yaml").write_text(TEXT)
    with pytest.raises(ConfigError, match=r"delta: expected models with qm\.engine none, found none"):
        Setup(load_config(folder / "low.yaml")).evaluator()


def test_models_of_another_low_level_are_refused(folder):
    shutil.copy(URACIL_WATER / "delta-0.pt", folder / "alone.pt")
    with pytest.raises(ModelError, match=r"expected the low-level method .*'DFTB3/.*found 'none'"):
        Setup(load_config(folder / "p.yaml")).evaluator()
