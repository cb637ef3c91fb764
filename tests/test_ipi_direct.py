"""pidelta in the process of i-PI: ``<ffdirect>`` with the file of `pidelta ffdirect-path`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import pidelta
from ipi_support import write_water
from pidelta.analysis.ipi_output import read_properties

PES = Path(pidelta.__file__).with_name("ipi_pes.py")
DIRECT = """<ffdirect name='{name}'{attributes}>
    <pes> custom </pes> <pes_path> {pes} </pes_path> <parameters> {{{parameters}}} </parameters>
    {extra}
  </ffdirect>"""


def direct_in_place(
    path, *, name="pidelta", attributes="", pes=PES, parameters="config: pidelta.yaml", extra=""
):
    """Put an ffdirect in the place of the ffsocket of an input."""
    element = DIRECT.format(name=name, attributes=attributes, pes=pes, parameters=parameters, extra=extra)
    path.write_text(re.sub("<ffsocket.*</ffsocket>", element, path.read_text(), flags=re.DOTALL))
    return path


def with_beads(path, n_beads):
    text = path.read_text().replace("nbeads='1'", f"nbeads='{n_beads}'")
    path.write_text(text.replace("water: q-spc-fw", "water: q-tip4p-f"))
    return path


def test_the_path_is_printed(run, capsys):
    assert run("ffdirect-path") == 0
    assert Path(capsys.readouterr().out.strip()) == PES


@pytest.mark.parametrize(
    ("n_beads", "attributes", "extra"),
    [
        (1, "", ""),
        (3, "", ""),
        (4, "", "<batch_size> 2 </batch_size>"),
        (4, " threaded='True'", "<batch_size> 3 </batch_size>"),
    ],
)
def test_same_trajectory_as_over_a_socket(tmp_path, run, capsys, n_beads, attributes, extra):
    paths = [write_water(tmp_path / name, 10) for name in ("socket", "direct")]
    direct_in_place(paths[1], attributes=attributes, extra=extra)
    for path in paths:
        assert run("run", with_beads(path, n_beads)) == 0
    assert "forcefield pidelta: mm" in capsys.readouterr().out
    one, two = (read_properties(path.parent / "water.out").columns for path in paths)
    assert len(one["step"]) == 11
    for name in ("conserved", "potential"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-12)
