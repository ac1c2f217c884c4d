"""Filters and orders: MLflow's language and more, read into a tree that becomes SQL, a Python predicate or a sort key.

    metrics.acc > 0.9 AND (params.model = 'resnet' OR NOT tags.stage LIKE 'draft%')

As in MLflow: ``metrics. params. tags. attributes. datasets.`` and, for attributes, no prefix; keys quoted by ``"`` or a
backtick; text quoted by ``'`` or ``"``, without escapes; ``= != < <= > >= LIKE ILIKE IN NOT IN IS NULL IS NOT NULL``;
``!=`` and ``NOT IN`` do not match what lacks the key; NaN meets ``!=`` only.

Beyond it: ``OR``, ``NOT``, parentheses; ``params.lr > 0.01`` (no quotes) compares as numbers, and a parameter that is
no number meets ``!=`` only; ``IN`` for params, tags and every text attribute; ``metrics.loss.min``, ``.max`` and
``.last``; ``attributes.commit``, ``.tree``, ``.branch`` and ``.dirty`` of the code.  ``NOT`` turns true to false and
false to true: ``NOT metrics.acc > 0.9`` also matches a run without ``acc``.

``metrics.loss.min``: if any run has a metric of that whole name, it is meant, as in MLflow; otherwise the least value
of ``loss``.  ``metrics."loss.min"`` is always the first, ``metrics."loss".min`` always the second.

Of a logged model a metric may have many values, from several runs and on several datasets: it matches if one of them
does.  Its order is written as dicts, and goes by the newest value.

The modules, as a text goes through them: ``entities`` what can be asked of what; ``reader`` text to words;
``grammar`` words to a ``tree``; ``sql`` a tree to what the index runs; ``pages`` the tokens between its answers.
``python`` gives the same answers without SQL: the tests' oracle, and for a record that is at hand.
"""

from gittrack.track.query.entities import EXPERIMENTS, LOGGED_MODELS, MODEL_VERSIONS, MODELS, RUNS, Entity
from gittrack.track.query.grammar import (
    MAX_COMPARISONS,
    MAX_DEPTH,
    MAX_LEVELS,
    MAX_ORDER,
    MAX_VALUES,
    HasMetric,
    parse_filter,
    parse_model_order,
    parse_order,
)
from gittrack.track.query.pages import bound_offset, bound_token, page_offset, page_token
from gittrack.track.query.sql import compile_query, compile_search, measured_on
from gittrack.track.query.tree import Comparison, Field, Junction, Measured, Negation

__all__ = [
    # what is searched
    "EXPERIMENTS",
    "LOGGED_MODELS",
    "MODELS",
    "MODEL_VERSIONS",
    "RUNS",
    "Entity",
    # text to tree
    "HasMetric",
    "parse_filter",
    "parse_model_order",
    "parse_order",
    "Comparison",
    "Field",
    "Junction",
    "Measured",
    "Negation",
    # its limits
    "MAX_COMPARISONS",
    "MAX_DEPTH",
    "MAX_LEVELS",
    "MAX_ORDER",
    "MAX_VALUES",
    # tree to SQL
    "compile_query",
    "compile_search",
    "measured_on",
    # pages
    "bound_offset",
    "bound_token",
    "page_offset",
    "page_token",
]
