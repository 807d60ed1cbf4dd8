"""Elimination of common subexpressions: what several steps of a recorded run compute alike is computed once.

A step builds the same matrix for its draws and for their densities, takes logarithms of constants, and begins with the
scales that the step before it ended with. Python cannot see that, a graph of operations can: an operation on the same
tensors, none of which was changed in between, has the same result, to the last bit.

Source: Aho, Lam, Sethi, Ullman 2006, "Compilers", section 8.5.
"""

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten


def eliminate_common(graph: Graph) -> Graph:
    """Return a graph with the same results and the same changes of its inputs, where no operation is repeated in vain.

    Random draws stay, as do operations that change a tensor and those whose result is changed later.

    Args:
        graph: Of operations of `torch.ops.aten`, as `vi_core.execution.replay.record` notes them.
    """
    return _Elimination(graph).run()


class _Elimination:
    """Copies a graph node by node; `done` has the copies by what they compute, `changes` how often memory was changed.

    The owner of a tensor is the node whose memory it shows: a view's is that of the tensor viewed.
    """

    def __init__(self, graph: Graph):
        self.old, self.new = graph, Graph()
        self.owner: dict[Node, Node] = {}
        for node in graph.nodes:
            viewed = _viewed(node)
            self.owner[node] = node if viewed is None else self.owner[viewed]
        self.changes = {self.owner[part]: 0 for node in graph.nodes for part in _changed(node)}
        self.copies: dict[Node, Node] = {}
        self.done: dict[Any, Node] = {}

    def run(self) -> Graph:
        for node in self.old.nodes:
            for part in _changed(node):
                self.changes[self.owner[part]] += 1
            self.copies[node] = self._copy(node)
        self.new.eliminate_dead_code()
        return self.new

    def _copy(self, node: Node) -> Node:
        """Return the copy of a node, which may be that of an earlier one."""
        if not self._repeatable(node):
            return self.new.node_copy(node, self.copies.__getitem__)
        if self._is_identity(node):
            return self.copies[node.all_input_nodes[0]]
        key = self._key(node)
        if key not in self.done:
            self.done[key] = self.new.node_copy(node, self.copies.__getitem__)
        return self.done[key]

    def _repeatable(self, node: Node) -> bool:
        """Whether a second call would return the same tensor, or one that nobody could tell from it."""
        if node.op != "call_function":
            return node.op == "get_attr"
        if _changed(node):
            return False
        target: Any = node.target
        is_random = torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
        return self.owner[node] is not node or not (is_random or node in self.changes)

    def _is_identity(self, node: Node) -> bool:
        """Whether the result is a copy of an argument that is never changed: x¹ or 1 · x."""
        powers = node.target in (aten.pow.Tensor_Scalar, aten.mul.Tensor, aten.mul.Scalar)
        if not powers or isinstance(node.args[1], Node) or node.args[1] != 1:
            return False
        kind = node.meta["dtype"]
        return kind.is_floating_point and self.owner[node.all_input_nodes[0]] not in self.changes

    def _key(self, node: Node) -> Any:
        """Return what a node computes: an operation on copies, each as it is after so many changes.

        A view shows what its memory has become, whenever it was taken.
        """
        key = node.target, self._described(node.args), self._described(tuple(node.kwargs.items()))
        if self.owner[node] is not node:
            return key
        return *key, tuple(self.changes.get(self.owner[part], 0) for part in node.all_input_nodes)

    def _described(self, given: Any) -> Any:
        """Return a hashable form of arguments; 1, 1.0 and True differ in it, as 0.0 and −0.0 do."""
        if isinstance(given, Node):
            return self.copies[given]
        if isinstance(given, (tuple, list)):
            return tuple(map(self._described, given))
        return type(given), repr(given)


def _changed(node: Node) -> list[Node]:
    """Return the arguments that an operation changes in place."""
    return [part for part, alias in _aliased(node) if alias.is_write]


def _viewed(node: Node) -> Node | None:
    """Return the argument whose memory the result shows, or None for a result of its own."""
    if node.target is operator.getitem or node.target is aten._unsafe_view.default:
        return node.all_input_nodes[0]
    target: Any = node.target
    if node.op != "call_function" or all(value.alias_info is None for value in target._schema.returns):
        return None
    return next((part for part, _ in _aliased(node)), None)


def _aliased(node: Node) -> list[tuple[Node, Any]]:
    """Return the arguments that an operation changes or shows in its result, with the note of its schema on them."""
    target: Any = node.target
    if node.op != "call_function" or target is operator.getitem:
        return []
    found = []
    for index, argument in enumerate(target._schema.arguments):
        if argument.alias_info is not None:
            given = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            parts = given if isinstance(given, (list, tuple)) else [given]
            found += [(part, argument.alias_info) for part in parts if isinstance(part, Node)]
    return found
