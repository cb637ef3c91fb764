"""Errors, correlation times and tests of distributions, of series whose statistics are known."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from pidelta.analysis.correlations import Series, correlation_section
from pidelta.analysis.statistics import (
    autocorrelation,
    block_errors,
    compare_with_canonical,
    correlation_time,
    mean_with_error,
)

RNG = np.random.default_rng(5)


def autoregressive(a, n, k=1):
    """x_i = a x_(i-1) + noise, of variance one: the autocorrelation function is a^t."""
    noise = RNG.normal(size=(n + 1000, k)) * math.sqrt(1.0 - a * a)
    return lfilter([1.0], [1.0, -a], noise, axis=0)[1000:]


@pytest.mark.parametrize("a", [0.0, 0.5, 0.95])
def test_correlation_time_of_an_autoregressive_series(a):
    """The integral from 0, by trapezia, is 1/2 + a / (1 - a)."""
    found = correlation_time(autoregressive(a, 100_000)[:, 0])
    expected = 0.5 + a / (1.0 - a)
    assert found.samples == pytest.approx(expected, rel=0.12)
    assert found.n_effective == pytest.approx(100_000 / (2.0 * expected), rel=0.12)
    assert found.is_reliable


def test_components_are_averaged():
    series = autoregressive(0.8, 20_000, 3)
    each = [correlation_time(column).samples for column in series.T]
    assert min(each) <= correlation_time(series).samples <= max(each)
    np.testing.assert_allclose(
        autocorrelation(series), np.mean([autocorrelation(column) for column in series.T], axis=0)
    )


def test_error_agrees_with_the_correlation_time():
    """Two roads to the error of a mean: blocks, and variance over independent rows."""
    series = autoregressive(0.9, 60_000)[:, 0]
    found = correlation_time(series)
    expected = series.std() / math.sqrt(found.n_effective)
    assert expected <= 1.1 * mean_with_error(series).error < 2.0 * expected
    assert block_errors(series)[0] == pytest.approx(series.std(ddof=1) / math.sqrt(60_000))


def test_short_constant_and_alternating_series():
    assert not correlation_time(autoregressive(0.99, 500)[:, 0]).is_reliable
    for series in (np.ones(100), np.array([1.0, 2.0])):
        assert math.isnan(correlation_time(series).samples)
    found = correlation_time(np.tile([1.0, -1.0], 500) + 0.1 * RNG.normal(size=1000))
    assert found.samples == 0.5
    assert found.n_effective == 1000.0
    assert math.isnan(mean_with_error(np.zeros(0)).value)


def temperatures(degrees, temperature, n=4000):
    return temperature * RNG.chisquare(degrees, n) / degrees


def test_canonical_temperatures_are_accepted():
    """In 40 draws p-values are spread over (0, 1) and deviations of the mean are those of its error."""
    tests = [compare_with_canonical(temperatures(33, 300.0, 1000), 33, 300.0) for _ in range(40)]
    p_values = np.array([test.p_value for test in tests])
    assert (p_values < 0.01).sum() <= 2
    assert 0.3 < p_values.mean() < 0.7
    assert 0.5 < np.std([test.z for test in tests]) < 1.3
    widths = np.array([(test.width.value - 1.0) / test.width.error for test in tests])
    assert 0.6 < widths.std() < 1.5


@pytest.mark.parametrize("wrong", ["temperature", "width", "degrees"])
def test_other_distributions_are_refused(wrong):
    values = temperatures(33, 300.0)
    if wrong == "temperature":
        test = compare_with_canonical(values * 1.03, 33, 300.0)
        assert test.z > 5.0
    elif wrong == "width":  # a thermostat of Berendsen's kind
        test = compare_with_canonical(300.0 + 0.6 * (values - 300.0), 33, 300.0)
        assert test.width.value == pytest.approx(0.6, abs=0.05)
        assert abs(test.z) < 4.0
    else:
        test = compare_with_canonical(values, 60, 300.0)
    assert test.p_value < 1e-4


def test_correlated_temperatures_are_thinned():
    """Squares of correlated normal velocities are canonical, too."""
    p_values = []
    for _ in range(30):
        velocities = autoregressive(0.97, 4000, 6)
        p_values.append(compare_with_canonical(50.0 * (velocities**2).sum(axis=1), 6, 300.0).p_value)
    assert (np.array(p_values) < 0.01).sum() <= 2


def test_too_few_rows_for_a_test():
    assert math.isnan(compare_with_canonical(temperatures(9, 300.0, 15), 9, 300.0).p_value)


def test_rows_of_unlike_strides_have_no_correlation_time():
    """As where two runs were joined; what is evenly spaced once the run has settled has one."""
    noise = np.random.default_rng(5).normal(size=200)
    steps = np.concatenate([np.arange(100) * 2, 200 + np.arange(100) * 10])
    joined, even = Series("joined", steps, noise), Series("even", np.arange(200) * 2, noise)
    late = Series("late", np.append([0], 40 + np.arange(199) * 2), noise)
    section = correlation_section([joined, even, late], 1e-3, None, [])
    assert [number.name for number in section.numbers] == ["even", "late"]
    assert "joined: rows are not evenly spaced in time, but 2 to 10 steps apart" in section.remarks
