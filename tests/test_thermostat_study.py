"""The study in inputs/thermostats: i-PI reads its thermostats, and its page says what was measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

STUDY = Path(__file__).parents[1] / "inputs" / "thermostats"
MODULES = ("family", "running", "observables", "results", "pictures", "page")


@pytest.fixture
def study(monkeypatch):
    """Its modules by name; they import each other as scripts of one folder do."""
    monkeypatch.syspath_prepend(STUDY)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


def test_ipi_reads_every_thermostat(study):
    from ipi.inputs.thermostats import InputThermo
    from ipi.utils.io.inputs.io_xml import xml_parse_string

    kinds = set()
    for run in study["family"].family():
        if run.thermostat:
            thermostat = InputThermo()
            thermostat.parse(xml_parse_string(run.thermostat).fields[0][1])
            kinds.add(type(thermostat.fetch()).__name__)
    assert kinds == {
        *("ThermoLangevin", "ThermoSVR", "ThermoGLE", "ThermoFFL"),
        *("ThermoPILE_L", "ThermoPILE_G", "ThermoNMGLE"),
    }


def test_runs_have_names_of_their_own_and_start_from_runs_before_them(study):
    before = [""]
    for run in study["family"].family():
        assert run.name not in before
        assert run.start in before
        before.append(run.name)


def test_matrices_of_piglet_are_classical_for_the_centroid_and_positive_elsewhere(study):
    """A C + C A^T is the covariance of the noise, and so has no negative eigenvalue."""
    parameters = study["family"]._matrices()["piglet"]
    drift, covariance = (np.array(parameters[key]) for key in ("drift", "covariance_in_kelvin"))
    noise = drift @ covariance + covariance @ drift.T
    assert np.linalg.eigvalsh(0.5 * (noise + noise.T)).min() > -1e-6 * np.abs(noise).max()
    for key in ("drift", "centroid_drift"):
        assert np.linalg.eigvals(np.array(parameters[key])).real.min() > 0.0


def test_the_page_says_what_was_measured(study, monkeypatch):
    tables = study["page"].tables(study["results"].read())
    text = (STUDY / "README.md").read_text()
    assert len(tables) > 3
    for table in tables.values():
        assert table in text


@pytest.mark.slow
def test_both_regions_have_the_temperature_of_the_thermostat(study, tmp_path):
    """1.5 ps of uracil in water, strongly damped: 36 and 1944 degrees of freedom at 298 K."""
    family, running, observables = (study[name] for name in ("family", "running", "observables"))
    thermostat = family.local("langevin", 20)
    run = family.Run("both", "uracil", "Langevin", thermostat, 1, 2.0, "")
    running.bring_to(run, run.steps(1.0), tmp_path)
    result = observables.observe(run, tmp_path / run.name)
    for group in ("QM", "QM H", "QM heavy", "MM", "MM H", "MM O"):
        value, error = result.temperatures[group]
        assert error < 20.0
        assert abs(value - family.TEMPERATURE) < 4.0 * error
    assert result.temperatures["QM"][1] < 0.04 * family.TEMPERATURE
    assert result.temperatures["MM"][1] < 0.01 * family.TEMPERATURE
