"""Replica exchange: who was at which temperature, from what i-PI writes of its swaps."""

import numpy as np
import pytest

from pidelta.analysis.exchange import exchange_section, read_exchange
from pidelta.errors import DataError
from pidelta.units import HARTREE_IN_KELVIN, KELVIN

TEMPERATURES = np.array([300.0, 340.0, 380.0]) * KELVIN


def test_temperatures_of_each_step(tmp_path):
    """After step 10 systems 0 and 1 are exchanged, after 30 system 0, then at 340 K, and 2."""
    path = tmp_path / "PARATEMP"
    path.write_text("        10     1     0     2\n        30     2     0     1\n")
    exchange = read_exchange(path, TEMPERATURES, 20.0)
    steps = np.array([0, 10, 11, 30, 31, 99])
    expected = {
        0: [300, 300, 340, 340, 380, 380],
        1: [340, 340, 300, 300, 300, 300],
        2: [380, 380, 380, 380, 340, 340],
    }
    for system, kelvin in expected.items():
        found = exchange.temperature_of(system, steps) * HARTREE_IN_KELVIN
        np.testing.assert_allclose(found, kelvin)
    section = exchange_section(exchange, 100)
    rates = {number.name: number for number in section.numbers}
    for pair in ("300 K - 340 K", "340 K - 380 K"):
        assert rates[f"exchanges {pair}"].mean.value == pytest.approx(1.0 / (100 / 20.0))
    mean = rates["system 1: mean temperature of its ensemble"]
    assert mean.mean.value == pytest.approx(0.1 * 340.0 + 0.9 * 300.0)
    assert mean.details["share of time from cold to hot"] == "0.90, 0.10, 0.00"


def test_no_exchange_yet(tmp_path):
    exchange = read_exchange(tmp_path / "PARATEMP", TEMPERATURES, 20.0)
    np.testing.assert_allclose(exchange.temperature_of(2, np.arange(5)) * HARTREE_IN_KELVIN, 380.0)
    section = exchange_section(exchange, 100)
    assert section.numbers[0].mean.value == 0.0
    assert "nothing was exchanged" in section.remarks[0]


def test_swaps_of_a_restart_replace_the_old_ones(tmp_path):
    path = tmp_path / "PARATEMP"
    path.write_text("10 1 0 2\n30 2 0 1\n20 0 1 2\n")
    exchange = read_exchange(path, TEMPERATURES, 20.0)
    np.testing.assert_array_equal(exchange.steps, [10, 20])


def test_swaps_of_another_number_of_systems(tmp_path):
    path = tmp_path / "PARATEMP"
    path.write_text("10 1 0\n")
    with pytest.raises(DataError, match="PARATEMP: line 1: expected a step and 3 replicas, found '10 1 0'"):
        read_exchange(path, TEMPERATURES, 20.0)
