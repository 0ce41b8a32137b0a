"""Outlines of masks along the edges of their pixels: made of fewer points, joined into one line, and filled again."""

from __future__ import annotations

import numpy as np

#: Steps of the four directions right, down, left, up as (dy, dx); turning right is the next one.
_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])

#: Largest distance in pixels that a first simplification moves the line: it removes the stairs of slanted edges.
_STAIRS = 0.75

_GROW = 1.4

#: Crossings of scan lines worked on at once.
_CROSSINGS = 1 << 20

#: Holes smaller than this share of their object are filled: a cut to each would spend the points of the outline.
MIN_HOLE = 0.005


def rings(mask: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Closed outlines of a mask: (corners, area), the outer ones first, largest first.

    Corners are (n, 2) int, x and y of pixel corners, with the mask on the right of the line (outer outlines run clockwise
    on the screen, holes the other way).  Pixels that touch at a corner only are apart.  ``area`` is what the line
    encloses, in pixels.
    """
    padded = np.pad(mask.astype(bool), 1)
    here, above = padded[1:, 1:], padded[:-1, 1:]
    left, corner = padded[1:, :-1], padded[:-1, :-1]
    # Which of the four directed pixel edges leave each pixel corner; (4, H + 1, W + 1).
    out = np.stack([here & ~above, left & ~here, corner & ~left, above & ~corner])
    direction, y, x = np.nonzero(out)
    if not len(direction):
        return []
    number = np.full(out.shape, -1, dtype=np.int64)
    number[direction, y, x] = np.arange(len(direction))
    ahead = np.stack([y, x], axis=1) + _STEPS[direction]
    follow = np.full(len(direction), -1, dtype=np.int64)
    for turn in (-1, 0, 1):  # A right turn is looked for last and stays: it keeps to the same pixel where two touch.
        found = number[(direction + turn) % 4, ahead[:, 0], ahead[:, 1]]
        follow = np.where(found >= 0, found, follow)
    outlines = []
    for path in _cycles(follow.tolist()):
        turning = direction[path] != direction[np.roll(path, 1)]
        corners = np.stack([x[path], y[path]], axis=1)[turning]
        outlines.append((corners, _area(corners)))
    outer = sorted((o for o in outlines if o[1] > 0), key=lambda o: -o[1])
    return outer + sorted(((c, -a) for c, a in outlines if a < 0), key=lambda o: -o[1])


def simplified(lines: list[np.ndarray], most: int) -> list[np.ndarray]:
    """Lines of at most ``most`` points together, cuts counted; the first is kept, small others go first.

    Args:
        lines: closed lines (n, 2), the outer one first, holes by size.
    """
    most = max(most, 3)
    tolerance = _STAIRS
    while True:
        made = [line for line in (_thinned(line, tolerance) for line in lines) if len(line) >= 3]
        # A line that shrinks to nothing is kept as its extent, so that an object never vanishes.
        made = made or [_box(lines[0])]
        if sum(len(line) for line in made) + 2 * (len(made) - 1) <= most:
            return made
        if len(lines) > 1 and 5 * len(lines) > most:
            lines = lines[:-1]
        elif len(made[0]) <= 4 and len(made) == 1:
            return [made[0][:most]]
        tolerance *= _GROW


def joined(lines: list[np.ndarray]) -> np.ndarray:
    """One line (n, 2) of an outline and its holes: each hole is entered and left over the same cut."""
    line = np.asarray(lines[0], dtype=np.float64)
    for hole in lines[1:]:
        gaps = ((line[:, None, :] - hole[None, :, :]) ** 2).sum(-1)
        at, entry = np.unravel_index(int(gaps.argmin()), gaps.shape)
        round_trip = np.concatenate([hole[entry:], hole[: entry + 1]])
        line = np.concatenate([line[: at + 1], round_trip, line[at:]])
    return line


def one_line(mask: np.ndarray, most: int) -> np.ndarray:
    """Outline of one connected object with its holes as a single line: (n, 2) float, x and y in pixels.

    Args:
        mask: bool (H, W), not empty.
        most: points at most, cuts to holes included.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    outer, *holes = rings(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    holes = [hole for hole in holes if hole[1] >= MIN_HOLE * outer[1]]
    return joined(simplified([outer[0], *(hole[0] for hole in holes)], most)) + (left, top)


def filled(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool (height, width): pixels whose centre the closed line winds round.

    Args:
        corners: (n, 2) float, x and y in pixels; pixel (0, 0) reaches from 0 to 1.
    """
    mask = np.zeros((height, width), dtype=bool)
    top, bottom = (int(v) for v in np.clip((corners[:, 1].min(), corners[:, 1].max() + 1), 0, height))
    if top >= bottom:
        return mask
    start, end = corners, np.roll(corners, -1, axis=0)
    # A horizontal scan line through the pixel centres of each row; an edge owns its upper end, so that corners count once.
    first = np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5).clip(top, bottom).astype(np.int64)
    after = np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5).clip(top, bottom).astype(np.int64)
    winding = np.zeros((bottom - top, width + 1), dtype=np.int16)
    turn = np.where(end[:, 1] > start[:, 1], 1, -1).astype(np.int16)
    counts = after - first
    edges = np.flatnonzero(counts > 0)
    for part in np.array_split(edges, max(1, int(counts.sum()) // _CROSSINGS + 1)):
        if not len(part):
            continue
        edge = np.repeat(part, counts[part])
        offset = np.arange(len(edge)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        row = first[edge] + offset
        slope = (row + 0.5 - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
        x = start[edge, 0] + slope * (end[edge, 0] - start[edge, 0])
        column = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
        np.add.at(winding, (row - top, column), turn[edge])
    np.cumsum(winding, axis=1, out=winding, dtype=np.int16)
    mask[top:bottom] = winding[:, :width] != 0
    return mask


def _cycles(follow: list[int]) -> list[np.ndarray]:
    seen = bytearray(len(follow))
    found = []
    for start in range(len(follow)):
        if seen[start]:
            continue
        path = []
        at = start
        while not seen[at]:
            seen[at] = 1
            path.append(at)
            at = follow[at]
        found.append(np.array(path))
    return found


def _area(corners: np.ndarray) -> float:
    x, y = corners[:, 0].astype(np.float64), corners[:, 1].astype(np.float64)
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _thinned(line: np.ndarray, tolerance: float) -> np.ndarray:
    """Douglas and Peucker's simplification of a closed line; no dropped point is further than ``tolerance`` from it."""
    if len(line) < 4:
        return line
    far = int(((line - line[0]) ** 2).sum(1).argmax())
    points = np.concatenate([line, line[:1]]).astype(np.float64)
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, far, len(points) - 1]] = True
    spans = [(0, far), (far, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        base, between = points[last] - points[first], points[first + 1 : last] - points[first]
        length = float(base @ base)
        if length > 0:
            along = (between @ base / length).clip(0, 1)
            gaps = ((between - along[:, None] * base) ** 2).sum(1)
        else:
            gaps = (between**2).sum(1)
        worst = int(gaps.argmax())
        if gaps[worst] > tolerance**2:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return line[keep[:-1]]


def _box(line: np.ndarray) -> np.ndarray:
    (left, top), (right, bottom) = line.min(0), line.max(0)
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
