"""Look for bytes that break the parser of the i-PI protocol, guided by the lines that they reach.

Run: pip install atheris; python tests/fuzz/fuzz_protocol.py -runs=10000000 tests/fuzz/corpus

Options are those of libFuzzer. `-merge=1 tests/fuzz/corpus FOUND` adds to the corpus what reaches new lines.
`-max_len=256` is enough for a whole exchange, and faster.

28 November 2026, atheris 3.0.0, `-runs=10000000 -max_len=256 -seed=3`: half an hour, nothing found,
and no line that the corpus does not reach.
"""

import sys
from pathlib import Path

import atheris

for folder in (Path(__file__).parent, Path(__file__).parents[2] / "driver"):
    sys.path.insert(0, str(folder))
with atheris.instrument_imports(include=["pidelta.ipi"]):
    from any_bytes import check


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
