"""Where the nodes of a graph stand when its edges run from top to bottom; nothing is drawn here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def layered(
    count: int, edges: Sequence[tuple[int, int]], width: float, gap: float
) -> tuple[list[tuple[int, float]], list[list[tuple[int, float]]]]:
    """Lay out a graph from top to bottom: which rank each node is in, and where along it.

    Args:
        count: Number of nodes.
        edges: Pairs of nodes, from and to; a node's edges come from nodes before it.
        width: Width of a node.
        gap: Room between two nodes, or between a node and an edge that goes past it.

    Returns:
        Rank and centre of each node; and for each edge the ranks and places where it goes past nodes, none for most.

    Notes:
        A node's rank is the longest way to it. Ranks are ordered by the mean place of a node's neighbours, which leaves few
        crossings (Sugiyama, Tagawa and Toda, 1981). A node stands below the one on the longest way to it, so that the main
        line of a network is straight, and what skips layers runs beside it.
    """
    ranks = [0] * count
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        ranks[end] = max(ranks[end], ranks[start] + 1)
    for node in range(count):  # an input that is used late stands right above where it is used
        if all(end != node for _, end in edges):
            ranks[node] = min((ranks[end] for start, end in edges if start == node), default=1) - 1
    nodes = [_Item(rank, node) for node, rank in enumerate(ranks)]
    rows: list[list[_Item]] = [[] for _ in range(max(ranks, default=0) + 1)]
    for item in nodes:
        rows[item.rank].append(item)
    passing: list[list[_Item]] = []
    for start, end in edges:
        line = [_Item(rank, None) for rank in range(ranks[start] + 1, ranks[end])]
        for item in line:
            rows[item.rank].append(item)
        chain = [nodes[start], *line, nodes[end]]
        for upper, lower in itertools.pairwise(chain):
            upper.after.append(lower)
            lower.before.append(upper)
        passing.append(line)
    for row in reversed(rows):
        for item in row:
            item.height = max((lower.height + (lower.node is not None) for lower in item.after), default=0)
    _order(rows)
    _place(rows, width, gap)
    return [(item.rank, item.x) for item in nodes], [[(item.rank, item.x) for item in line] for line in passing]


class _Item:
    """A node of a diagram, or a place where an edge goes past the nodes of a rank."""

    def __init__(self, rank: int, node: int | None) -> None:
        self.rank = rank
        self.node = node
        self.before: list[_Item] = []
        self.after: list[_Item] = []
        self.height = 0  # nodes on the longest way down from here
        self.x = 0.0

    @property
    def leaders(self) -> list[_Item]:
        """Of those before it the ones that it should stand below: on the longest ways from the top."""
        return [item for item in self.before if item.node is not None] or self.before

    @property
    def followers(self) -> list[_Item]:
        """Of those after it the ones that should stand below it: on the longest ways to the bottom."""
        farthest = max((item.height for item in self.after), default=0)
        return [item for item in self.after if item.height == farthest]


def _order(rows: list[list[_Item]]) -> None:
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(8):
        down = sweep % 2 == 0
        inwards = rows if down else rows[::-1]
        for beside, row in itertools.pairwise(inwards):
            places = {id(item): place for place, item in enumerate(beside)}
            own = {id(item): place for place, item in enumerate(row)}
            means: dict[int, float] = {}
            for item in row:
                near = [places[id(other)] for other in (item.before if down else item.after)]
                means[id(item)] = sum(near) / len(near) if near else own[id(item)]
            row.sort(key=lambda item, means=means: means[id(item)])  # type: ignore[misc]
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: list[list[_Item]]) -> int:
    crossings = 0
    for upper, lower in itertools.pairwise(rows):
        places = {id(item): place for place, item in enumerate(lower)}
        ends = [sorted(places[id(item)] for item in item_above.after) for item_above in upper]
        flat = [end for group in ends for end in group]
        crossings += sum(later < end for index, end in enumerate(flat) for later in flat[index + 1 :])
    return crossings


def _place(rows: list[list[_Item]], width: float, gap: float) -> None:
    for number, row in enumerate(rows):
        wishes, weights = [], []
        for item in row:
            leaders = item.leaders
            wishes.append(sum(leader.x for leader in leaders) / len(leaders) if leaders else 0.0)
            # Of several below one, that on the longest way stays where it wishes, and the others make room.
            leads = item.node is not None and (number == 0 or any(leader.followers == [item] for leader in leaders))
            weights.append(1e6 if leads else 1.0 if item.node is not None else 1e-3)
        distances = [
            gap + width * ((left.node is not None) + (right.node is not None)) / 2 for left, right in itertools.pairwise(row)
        ]
        for item, x in zip(row, _spread(wishes, weights, distances), strict=True):
            item.x = x
        if number == 0 and len(row) > 1:  # several inputs, around the middle
            middle = (row[0].x + row[-1].x) / 2
            for item in row:
                item.x -= middle
    for row in reversed(rows):  # inputs that are used late
        for item in row:
            if not item.before and item.rank and len(row) == 1:
                item.x = item.after[0].x


def _spread(wishes: list[float], weights: list[float], distances: list[float]) -> list[float]:
    """Places in this order, at least so far from each other, as near to the wishes as can be: least weighted squares."""
    offsets = np.concatenate([[0.0], np.cumsum(distances)])
    blocks: list[list[float]] = []  # weight, mean, how many: those that touch move together
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        blocks.append([weight, wish - float(offset), 1])
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            later, earlier = blocks.pop(), blocks.pop()
            total = earlier[0] + later[0]
            blocks.append([total, (earlier[0] * earlier[1] + later[0] * later[1]) / total, earlier[2] + later[2]])
    means = [mean for _, mean, many in blocks for _ in range(int(many))]
    return [mean + float(offset) for mean, offset in zip(means, offsets, strict=True)]
