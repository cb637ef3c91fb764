"""Run the thermostat study, or go on with it, and write its page: ``python study.py``, hours on one core.

A run that was stopped goes on from its RESTART, one that is complete is left alone: the command may be
stopped with Ctrl-C and given again at any time. ``--only`` picks runs by name, ``uracil-1-*`` by a pattern.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from family import FOLDER, family
from results import collect
from running import bring_to

from page import write_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=FOLDER / "runs", help="where the raw outputs are")
    parser.add_argument("--only", nargs="*", default=["*"], help="names of runs, or patterns")
    parser.add_argument(
        "--part", type=float, default=1.0, help="of the length of each run, to see all of them early"
    )
    parser.add_argument("--page", action="store_true", help="run nothing: write the page of what was run")
    options = parser.parse_args()
    for run in family():
        if not options.page and any(fnmatch(run.name, pattern) for pattern in options.only):
            bring_to(run, run.steps(options.part), options.runs)
    write_page(collect(options.runs))


if __name__ == "__main__":
    main()
