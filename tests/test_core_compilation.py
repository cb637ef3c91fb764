"""Compiled functions where no folder can be written to: a read-only installation without a home."""

from __future__ import annotations

import os
import subprocess
import sys

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
