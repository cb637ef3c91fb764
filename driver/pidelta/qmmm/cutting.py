"""Compiled loops over charge groups: make them whole, find those in reach, weigh them, and the way back."""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.switching import quintic, quintic_slope

_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def make_whole(positions, particles, neighbours, parts, n_parts, cell, inverse):
    """Positions (M, 3) of grouped particles, each group whole, and the centres (C, 3) of its parts."""
    whole = np.empty((len(particles), 3))
    centres, sizes = np.zeros((n_parts, 3)), np.zeros(n_parts)
    for m in range(len(particles)):
        i = particles[m]
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        if neighbours[m] != m:
            near = neighbours[m]
            dx, dy, dz = x - whole[near, 0], y - whole[near, 1], z - whole[near, 2]
            a = np.rint(dx * inverse[0, 0] + dy * inverse[1, 0] + dz * inverse[2, 0])
            b = np.rint(dx * inverse[0, 1] + dy * inverse[1, 1] + dz * inverse[2, 1])
            c = np.rint(dx * inverse[0, 2] + dy * inverse[1, 2] + dz * inverse[2, 2])
            x -= a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
            y -= a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
            z -= a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
        whole[m, 0], whole[m, 1], whole[m, 2] = x, y, z
        part = parts[m]
        centres[part, 0] += x
        centres[part, 1] += y
        centres[part, 2] += z
        sizes[part] += 1.0
    for part in range(n_parts):
        for k in range(3):
            centres[part, k] /= sizes[part]
    return whole, centres


@_compiled
def images_in_reach(qm, centres, part_starts, cell, inverse, cutoff):
    """Groups, and their images as lattice vectors, of which a centre is within the cutoff of a QM atom.

    A point within a distance d of another has fractional displacements of at most d / height, so that few
    images of a centre can be within reach of the middle of the QM region.
    """
    middle = np.array([qm[:, 0].mean(), qm[:, 1].mean(), qm[:, 2].mean()])
    reach = cutoff + np.sqrt(((qm - middle) ** 2).sum(axis=1).max())
    widest = reach * np.sqrt((inverse**2).sum(axis=0))
    groups, shifts = [np.int64(0) for _ in range(0)], [(0.0, 0.0, 0.0) for _ in range(0)]
    for g in range(len(part_starts) - 1):
        first = len(groups)
        for c in range(part_starts[g], part_starts[g + 1]):
            d = centres[c] - middle
            low, high = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64)
            for k in range(3):
                fraction = d[0] * inverse[0, k] + d[1] * inverse[1, k] + d[2] * inverse[2, k]
                low[k] = np.int64(np.ceil(-widest[k] - fraction))
                high[k] = np.int64(np.floor(widest[k] - fraction))
            for i in range(low[0], high[0] + 1):
                for j in range(low[1], high[1] + 1):
                    for k in range(low[2], high[2] + 1):
                        x = i * cell[0, 0] + j * cell[1, 0] + k * cell[2, 0]
                        y = i * cell[0, 1] + j * cell[1, 1] + k * cell[2, 1]
                        z = i * cell[0, 2] + j * cell[1, 2] + k * cell[2, 2]
                        square = (d[0] + x) ** 2 + (d[1] + y) ** 2 + (d[2] + z) ** 2
                        if square >= reach * reach or not _is_near(centres[c], x, y, z, qm, cutoff):
                            continue
                        known = False
                        for entry in range(first, len(groups)):
                            known = known or shifts[entry] == (x, y, z)
                        if not known:
                            groups.append(g)
                            shifts.append((x, y, z))
    shift_array = np.empty((len(groups), 3))
    for entry in range(len(groups)):
        for axis in range(3):
            shift_array[entry, axis] = shifts[entry][axis]
    return np.array(groups, dtype=np.int64), shift_array


@_compiled
def _is_near(centre, x, y, z, qm, cutoff):
    for a in range(len(qm)):
        square = (centre[0] + x - qm[a, 0]) ** 2
        square += (centre[1] + y - qm[a, 1]) ** 2
        square += (centre[2] + z - qm[a, 2]) ** 2
        if square < cutoff * cutoff:
            return True
    return False


@_compiled
def group_weights(qm, centres, part_starts, groups, shifts, start, stop):
    """w = 1 - prod (1 - s(d)) over QM atoms and centres of each group, moved by its shift."""
    weights = np.empty(len(groups))
    for entry in range(len(groups)):
        rest = 1.0
        for c in range(part_starts[groups[entry]], part_starts[groups[entry] + 1]):
            x = centres[c, 0] + shifts[entry, 0]
            y = centres[c, 1] + shifts[entry, 1]
            z = centres[c, 2] + shifts[entry, 2]
            for a in range(len(qm)):
                square = (x - qm[a, 0]) ** 2 + (y - qm[a, 1]) ** 2 + (z - qm[a, 2]) ** 2
                if square <= start * start:
                    rest = 0.0
                    break
                if square < stop * stop:
                    rest *= 1.0 - quintic((np.sqrt(square) - start) / (stop - start))
            if rest == 0.0:
                break
        weights[entry] = 1.0 - rest
    return weights


@_compiled
def fill_sites(whole, particles, starts, charges, groups, shifts, weights, positions, scaled, atoms):
    """Write the sites of groups and images: positions (m, 3), scaled charges (m,) and particles (m,)."""
    site = 0
    for entry in range(len(groups)):
        for m in range(starts[groups[entry]], starts[groups[entry] + 1]):
            for k in range(3):
                positions[site, k] = whole[m, k] + shifts[entry, k]
            atoms[site] = particles[m]
            scaled[site] = weights[entry] * charges[particles[m]]
            site += 1


@_compiled
def add_weight_gradients(
    qm, sites, rows, starts, group_of_row, parts, part_starts, charges, slopes, start, stop, qm_gradient,
    site_gradient,
):  # fmt: skip
    """Add what the weights contribute to dE/dR of QM atoms (n, 3) and sites (m, 3).

    Args:
        sites: (m, 3), group by group. rows: (m,) their places among the grouped particles.
        charges: (m,) before scaling. slopes: (m,) dE/d(scaled charge).
    """
    n, most = len(qm), 0
    for g in range(len(part_starts) - 1):
        most = max(most, part_starts[g + 1] - part_starts[g])
    centres, sizes, centre_gradient = np.empty((most, 3)), np.empty(most), np.empty((most, 3))
    site = 0
    while site < len(rows):
        g = group_of_row[rows[site]]
        end = site + starts[g + 1] - starts[g]
        count = part_starts[g + 1] - part_starts[g]
        centres[:count], sizes[:count], centre_gradient[:count] = 0.0, 0.0, 0.0
        weight_slope = 0.0
        for m in range(site, end):
            part = parts[rows[m]] - part_starts[g]
            sizes[part] += 1.0
            for k in range(3):
                centres[part, k] += sites[m, k]
            weight_slope += slopes[m] * charges[m]
        rest = 1.0
        for c in range(count):
            for k in range(3):
                centres[c, k] /= sizes[c]
            for a in range(n):
                square = 0.0
                for k in range(3):
                    square += (centres[c, k] - qm[a, k]) ** 2
                if square <= start * start:
                    rest = 0.0
                    break
                if square < stop * stop:
                    rest *= 1.0 - quintic((np.sqrt(square) - start) / (stop - start))
            if rest == 0.0:
                break
        if rest == 0.0:  # wholly inside: the weight is 1 and stays so
            site = end
            continue
        for c in range(count):
            for a in range(n):
                square = 0.0
                for k in range(3):
                    square += (centres[c, k] - qm[a, k]) ** 2
                if square >= stop * stop:
                    continue
                distance = np.sqrt(square)
                x = (distance - start) / (stop - start)
                others = rest / (1.0 - quintic(x))
                scale = weight_slope * others * quintic_slope(x) / ((stop - start) * distance)
                for k in range(3):
                    part_gradient = scale * (centres[c, k] - qm[a, k])
                    centre_gradient[c, k] += part_gradient
                    qm_gradient[a, k] -= part_gradient
        for m in range(site, end):
            part = parts[rows[m]] - part_starts[g]
            for k in range(3):
                site_gradient[m, k] += centre_gradient[part, k] / sizes[part]
        site = end
