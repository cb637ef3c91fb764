"""Compiled functions: where no folder can be written to, and after a change of what they call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from conftest import ROOT

SCRIPT = """
from pidelta.core.compilation import compiled

# Functions of a file in a folder that nobody can write to, not even root.
source = "def double(x): return 2.0 * x\\ndef triple(x): return 3.0 * x"
functions = {}
exec(compile(source, "/proc/self/kernels.py", "exec"), functions)
print(compiled(nogil=True)(functions["double"])(1.5), compiled()(functions["triple"])(1.5))
"""


def test_without_a_cache(tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    nowhere = {name: str(blocker / "x") for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "3.0 4.5"), ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "NUMBA_CACHE_DIR" in lines[0]


def test_a_change_of_what_a_function_calls_is_seen(tmp_path):
    """numba compiles what it calls into it, and looks at the file of the function alone."""
    package = tmp_path / "kernels"
    (package / "core").mkdir(parents=True)
    shutil.copy(ROOT / "driver" / "pidelta" / "core" / "compilation.py", package / "core")
    head = "from kernels.core.compilation import compiled\n"
    (package / "outer.py").write_text(
        f"{head}from kernels.inner import inner\n@compiled()\ndef outer(x):\n    return 10.0 * inner(x)\n"
    )
    found = []
    for factor in (1.0, 2.0, 2.0):
        (package / "inner.py").write_text(f"{head}@compiled()\ndef inner(x):\n    return {factor} * x\n")
        os.utime(package / "inner.py", (factor, factor))
        script = "from kernels.outer import outer; print(outer(1.5), sum(outer.stats.cache_hits.values()))"
        environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        ended = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(ended.stdout.split())
    assert found == [["15.0", "0"], ["30.0", "0"], ["30.0", "1"]]
    assert len(list((package / "__pycache__").glob("compiled-*"))) == 1
