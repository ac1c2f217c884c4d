"""Prompts are registered models with a tag, in MLflow; a search finds them only if it asks for them.

Source: MLflow 3's ``mlflow/store/model_registry/sqlalchemy_store.py``: a filter that does not name the tag is about
models; ``!=`` of this tag, and of no other, also matches what has no such tag.
"""

from __future__ import annotations

from typing import Final

from gittrack.track.query.entities import TAG
from gittrack.track.query.tree import Comparison, Field, Junction, Negation, Node

_TAG: Final = Field(TAG, "mlflow.prompt.is_prompt")
_NO_PROMPT: Final = Negation(Comparison(_TAG, "=", "true"))


def apart(where: Node | None) -> Node:
    """A filter that finds prompts only if ``where`` asks for them."""
    if where is None:
        return _NO_PROMPT
    if _names_tag(where):
        return _rewritten(where)
    parts = where.parts if isinstance(where, Junction) and where.operator == "AND" else (where,)
    return Junction("AND", (*parts, _NO_PROMPT))


def _names_tag(node: Node) -> bool:
    if isinstance(node, Junction):
        return any(map(_names_tag, node.parts))
    return _names_tag(node.part) if isinstance(node, Negation) else node.field == _TAG


def _rewritten(node: Node) -> Node:
    if isinstance(node, Junction):
        return Junction(node.operator, tuple(map(_rewritten, node.parts)))
    if isinstance(node, Negation):
        return Negation(_rewritten(node.part))
    if node.field == _TAG and node.operator == "!=":
        return Negation(Comparison(_TAG, "=", node.value))
    return node
