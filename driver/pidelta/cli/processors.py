"""The processors that this process may use, which on a cluster or in a container are not all there are."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def allowed_processors() -> int:
    """Processors that affinity, the quota of the control group and SLURM leave to the process."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    by_slurm = int(granted) if granted.isdecimal() else math.inf
    return max(1, math.ceil(min(count, cgroup_quota(), by_slurm)))


def share_processors(batches: Sequence[int], processors: int) -> list[int]:
    """Clients for sockets that work at the same time.

    Args:
        batches: of each socket, how many clients could work at once.
        processors: how many can in all; each socket gets a client even if there are fewer.
    """
    clients = [1] * len(batches)
    while clients and sum(clients) < processors:
        busiest = max(range(len(batches)), key=lambda k: batches[k] / clients[k])
        if clients[busiest] >= batches[busiest]:
            break
        clients[busiest] += 1
    return clients


def cgroup_quota(groups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """Processors that the control group of this process has time for, infinite without a limit.

    Args:
        groups: where control groups are mounted.
        own: the file that lists those of this process, as ``0::/path`` (version 2) or ``4:cpu:/path``.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            folder = groups / controllers
            levels = [path.strip("/"), *(str(parent) for parent in Path(path.strip("/")).parents)]
            quotas += [_quota(folder / level) for level in levels]
    return min(quotas)


def _quota(folder: Path) -> float:
    """What cpu.max (version 2) or cpu.cfs_quota_us (version 1) of a control group says."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return float(quota) / float(period) if float(quota) > 0.0 else math.inf
    except (OSError, ValueError):  # none here, or the word max
        return math.inf
