"""Bounds checks of fitted scikit-learn models, so that a crafted file is an error and not a crash.

Trees, gradient boosting, nearest neighbours, support vector machines and sparse matrices are compiled code that follows
indices of the model without looking.  A reader that runs no code (skops) restores whatever indices the file has: one
that leads out of an array reads or writes foreign memory at the first prediction.  Everything that scikit-learn 1.4 to
1.9 takes from a model and does not check itself is checked here, right after (trees: right before) it was restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from gittrack.errors import FormatError

_LEAF: Final = -1
_MAX_INDEX: Final = (1 << 31) - 1


def _fail(what: str) -> FormatError:
    return FormatError(f"the model is damaged or was made to do harm: {what}")


def _require(condition: object, what: str) -> None:
    if not condition:
        raise _fail(what)


def _count(value: Any, what: str, least: int = 0) -> int:
    """``value`` as a plain integer that can be a size."""
    import numpy as np

    _require(isinstance(value, (int, np.integer)) and not isinstance(value, bool), f"{what} is no integer")
    _require(least <= int(value) <= _MAX_INDEX, f"{what} is {int(value)}")
    return int(value)


def _array(value: Any, what: str, ndim: int, kinds: str = "iuf") -> Any:
    import numpy as np

    _require(isinstance(value, np.ndarray) and value.ndim == ndim and value.dtype.kind in kinds, f"{what} is no array")
    return value


def _within(values: Any, end: int, what: str) -> None:
    """Every one of ``values`` is in 0 … end - 1."""
    _require(not len(values) or (values.min() >= 0 and values.max() < end), f"{what} leads out of bounds")


# --- decision trees


def check_tree(args: Any, state: Any) -> None:
    """What a ``sklearn.tree._tree.Tree`` is about to be made from.

    Args:
        args: Of its constructor: number of features, number of classes for each output, number of outputs.
        state: Of ``__setstate__``: ``max_depth``, ``node_count``, ``nodes``, ``values``.

    Raises:
        FormatError: It would read or write out of bounds.
    """
    _require(isinstance(args, tuple) and len(args) == 3 and isinstance(state, dict), "a tree without its parts")
    features = _count(args[0], "a tree's number of features", 1)
    outputs = _count(args[2], "a tree's number of outputs", 1)
    classes = _array(args[1], "a tree's number of classes", 1, "iu")
    _require(len(classes) == outputs and classes.min() >= 1 and classes.max() <= _MAX_INDEX, "a tree's classes")
    nodes = _array(state.get("nodes"), "the nodes of a tree", 1, "V")
    names = nodes.dtype.names or ()
    _require({"left_child", "right_child", "feature"} <= set(names), "the nodes of a tree have other fields")
    _require(_count(state.get("node_count"), "a tree's number of nodes", 1) == len(nodes), "a tree's number of nodes")
    values = _array(state.get("values"), "the values of a tree", 3, "f")
    _require(values.shape == (len(nodes), outputs, int(classes.max())), "the values of a tree have another shape")
    inner = nodes["left_child"] != _LEAF
    _within(nodes["feature"][inner], features, "a feature of a tree")
    depth = _depth(nodes["left_child"], nodes["right_child"], inner)
    _require(_count(state.get("max_depth"), "a tree's depth") >= depth, "a tree is deeper than it says")


def _depth(left: Any, right: Any, inner: Any) -> int:
    """Depth of a binary tree whose children come after their parents and have one parent each."""
    import numpy as np

    parents = np.flatnonzero(inner)
    left, right = left[inner].astype(np.int64), right[inner].astype(np.int64)
    children = np.concatenate((left, right))
    _within(children, len(inner), "a child of a tree")
    _require((left > parents).all() and (right > parents).all(), "a tree has a loop")
    _require(len(np.unique(children)) == len(children), "a node of a tree has two parents")
    place = np.full(len(inner), -1)
    place[parents] = np.arange(len(parents))
    depth, level = 0, place[:1]
    while (level := level[level >= 0]).size:
        depth += 1
        level = place[np.concatenate((left[level], right[level]))]
    return depth


# --- what is checked when it is there


def _check_tree_estimator(facts: Mapping[str, Any]) -> None:
    tree = facts.get("tree_")
    if tree is not None:
        features = _count(facts.get("n_features_in_"), "a tree's number of features", 1)
        _require(type(tree).__name__ == "Tree" and tree.n_features == features, "a tree is of other features")


def _check_gradient_boosting(model: Any, facts: Mapping[str, Any]) -> None:
    import warnings

    import numpy as np

    if "estimators_" not in facts:
        return
    estimators = facts["estimators_"]
    _require(isinstance(estimators, np.ndarray) and estimators.ndim == 2 and estimators.size, "boosting without trees")
    features = {vars(one).get("n_features_in_") for one in estimators.flat}
    _require(features == {facts.get("n_features_in_")}, "boosted trees of different features")
    sample = np.zeros((2, _count(facts.get("n_features_in_"), "the number of features", 1)), np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape = model._raw_predict_init(sample).shape
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise _fail("the first estimate of boosting cannot be made") from error
    _require(shape == (2, estimators.shape[1]), "boosting has more trees than outputs")


def _check_hist_gradient_boosting(facts: Mapping[str, Any]) -> None:
    if "_predictors" not in facts:
        return
    _require(not facts.get("_in_fit"), "boosting that is still being fitted")
    features = _count(facts.get("n_features_in_"), "the number of features", 1)
    mapper = vars(facts["_bin_mapper"])
    categorical = _array(mapper.get("is_categorical_"), "the list of categorical features", 1, "bu")
    _require(len(categorical) == features, "the list of categorical features has another length")
    _check_preprocessor(facts.get("_preprocessor"), features)
    for predictors in facts["_predictors"]:
        _require(isinstance(predictors, list), "boosting without trees")
        for predictor in predictors:
            _check_predictor(vars(predictor), categorical)


def _check_preprocessor(preprocessor: Any, features: int) -> None:
    """A ColumnTransformer that gives out as many columns as it takes."""
    import functools

    if preprocessor is None:
        return
    columns = 0
    for name, transformer, mask in vars(preprocessor).get("transformers_", ()):
        if isinstance(transformer, str) and transformer == "drop":
            continue
        kind = type(transformer).__name__
        if kind == "FunctionTransformer":
            function = transformer.func
            known = isinstance(function, functools.partial) and function.func.__name__ == "check_array"
            _require(known, f"the step `{name}` of boosting is not scikit-learn's")
        else:
            _require(kind == "OrdinalEncoder", f"the step `{name}` of boosting is not scikit-learn's")
        columns += int(_array(mask, "the columns of a step of boosting", 1, "b").sum())
    _require(columns == features, "boosting prepares its input into fewer columns")


def _check_predictor(facts: Mapping[str, Any], categorical: Any) -> None:
    nodes = _array(facts.get("nodes"), "the nodes of a boosted tree", 1, "V")
    names = set(nodes.dtype.names or ())
    _require({"left", "right", "feature_idx", "is_leaf", "is_categorical", "bitset_idx"} <= names, "other fields")
    _require(len(nodes), "a boosted tree without nodes")
    inner = nodes["is_leaf"] == 0
    _depth(nodes["left"], nodes["right"], inner)
    _within(nodes["feature_idx"][inner], len(categorical), "a feature of a boosted tree")
    by_category = inner & (nodes["is_categorical"] != 0)
    _require(categorical[nodes["feature_idx"][by_category]].all(), "a boosted tree takes numbers for categories")
    for name in ("raw_left_cat_bitsets", "binned_left_cat_bitsets"):
        bitsets = _array(facts.get(name), "the categories of a boosted tree", 2, "u")
        _require(bitsets.shape[1] == 8, "the categories of a boosted tree have another shape")
        _within(nodes["bitset_idx"][by_category], len(bitsets), "the categories of a boosted tree")


def _check_binary_tree(tree: Any) -> None:
    """KDTree and BallTree, and the distance that they use."""
    data, index, nodes, bounds, leaf_size, levels, count, *_, metric, weight = tree.__getstate__()
    _array(data, "the points of neighbours", 2, "f")
    points, features = data.shape
    _require(points and features, "neighbours without points")
    _array(index, "the order of neighbours", 1, "iu")
    _require(len(index) == points, "the order of neighbours has another length")
    _within(index, points, "a neighbour")
    _array(nodes, "the nodes of neighbours", 1, "V")
    _require(_count(count, "the number of nodes", 1) == len(nodes), "the number of nodes of neighbours")
    _require(_count(leaf_size, "the size of leaves", 1) and _count(levels, "the depth", 1) < 64, "the depth")
    kinds = {"KDTree": 2, "BallTree": 1}
    boxes = next((size for name, size in kinds.items() if type(tree).__name__.startswith(name)), 0)
    _require(getattr(bounds, "shape", None) == (boxes, len(nodes), features), "the bounds of neighbours")
    start, end = nodes["idx_start"], nodes["idx_end"]
    _within(start, points + 1, "a node of neighbours")
    _require((start <= end).all() and end.max() <= points, "a node of neighbours leads out of bounds")
    inner = (nodes["is_leaf"] == 0).nonzero()[0]
    _require(not len(inner) or 2 * int(inner.max()) + 2 < len(nodes), "a node of neighbours has no children")
    _require(len(nodes) < 1 << levels, "neighbours are deeper than they say")
    _require(weight is None or weight.shape == (points,), "the weights of neighbours")
    _, vector, matrix, *_ = metric.__getstate__()
    _require(not matrix.size or matrix.shape in ((1, 1), (len(vector), len(vector))), "the matrix of a distance")
    try:
        metric._validate_data(data)
    except ValueError as error:
        raise _fail("a distance of other dimensions") from error
    _require("PyFunc" not in type(metric).__name__, "a distance that is a function")
    if type(metric).__name__.startswith("Mahalanobis"):
        _require(matrix.shape == (features, features), "the matrix of a distance")


def _check_neighbours(facts: Mapping[str, Any]) -> None:
    points = facts.get("_fit_X")
    if points is None:
        return
    shape = points.shape
    _require(len(shape) == 2 and shape[0] == facts.get("n_samples_fit_"), "the number of neighbours")
    if facts.get("metric") != "precomputed":
        _require(shape[1] == facts.get("n_features_in_"), "neighbours of other dimensions")
    labels, classes = facts.get("_y"), facts.get("classes_")
    if labels is not None and classes is not None and getattr(labels, "ndim", 0) == 1 and not isinstance(classes, list):
        _within(_array(labels, "the labels of neighbours", 1, "iu"), len(classes), "a label of a neighbour")
        _require(len(labels) == shape[0], "the labels of neighbours")


def _check_support_vectors(model: Any, facts: Mapping[str, Any]) -> None:
    """What libsvm is given."""
    if "support_vectors_" not in facts:
        return
    vectors: Any = facts["support_vectors_"]
    coefficients: Any = facts.get("_dual_coef_")
    counts = _array(facts.get("_n_support"), "the numbers of support vectors", 1, "iu")
    support = _array(facts.get("support_"), "the support vectors", 1, "iu")
    size, classes, kind = len(support), len(counts), model._impl
    _require(isinstance(kind, str), "the kind of a support vector machine")
    classifies = kind in ("c_svc", "nu_svc")
    _require(classes >= 2 and counts.min() >= 0, "the number of classes")
    _require(vectors.ndim == 2 and vectors.shape[0] == size, "the number of support vectors")
    _require(not classifies or int(counts.sum()) == size, "the support vectors' classes")
    fitted: Any = facts.get("shape_fit_")
    _require(isinstance(fitted, tuple) and len(fitted) == 2, "the shape of the data")
    if facts.get("kernel") == "precomputed" or callable(facts.get("kernel")):
        _within(support, int(fitted[0]), "a support vector")
    else:
        _require(vectors.shape[1] == facts.get("n_features_in_") == fitted[1], "support vectors of other dimensions")
    _require(getattr(coefficients, "ndim", 0) == 2, "the coefficients of support vectors")
    _require(coefficients.shape == (classes - 1, size) or coefficients.shape == (1, size), "the coefficients")
    _require(not classifies or coefficients.shape[0] == classes - 1, "the coefficients of support vectors")
    _require(bool(hasattr(vectors, "indptr")) == bool(facts.get("_sparse")), "support vectors of another form")
    if hasattr(coefficients, "nnz"):
        _require(coefficients.nnz == coefficients.shape[0] * size, "the coefficients of support vectors")
    pairs = classes * (classes - 1) // 2 if classifies else 1
    _require(len(_array(facts.get("_intercept_"), "the intercepts", 1, "f")) >= pairs, "the number of intercepts")
    for name in ("_probA", "_probB"):
        _require(len(_array(facts.get(name), "the probabilities", 1, "f")) in (0, pairs), "the number of probabilities")


def _check_centres(facts: Mapping[str, Any]) -> None:
    centres = facts.get("cluster_centers_")
    if centres is not None:
        _array(centres, "the centres of clusters", 2, "f")
        _require(centres.shape[1] == facts.get("n_features_in_"), "centres of clusters of other dimensions")


def _check_vocabulary(facts: Mapping[str, Any]) -> None:
    vocabulary = facts.get("vocabulary_")
    if isinstance(vocabulary, dict):
        columns = {_count(column, "a column of a vocabulary") for column in vocabulary.values()}
        _require(max(columns, default=-1) < len(vocabulary), "a vocabulary with a column that is not there")


def _check_one_hot(model: Any, facts: Mapping[str, Any]) -> None:
    if "categories_" not in facts:
        return
    categories = facts["categories_"]
    _require(isinstance(categories, list), "the categories of an encoder")
    mappings = facts.get("_default_to_infrequent_mappings")
    for position, mapping in enumerate(mappings if isinstance(mappings, list) else ()):
        if mapping is not None:
            _array(mapping, "the rare categories of an encoder", 1, "iu")
            _require(len(mapping) == len(categories[position]), "the rare categories of an encoder")
            rare = len(facts["_infrequent_indices"][position])
            _within(mapping, len(categories[position]) - rare + 1, "a rare category of an encoder")
    dropped = facts.get("_drop_idx_after_grouping")
    if dropped is not None:
        for position, category in enumerate(dropped):
            if category is not None:
                _within(_array_of(category), len(categories[position]), "a category that an encoder drops")
    try:
        _require(model._compute_n_features_outs() == facts.get("_n_features_outs"), "the columns of an encoder")
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        if isinstance(error, FormatError):
            raise
        raise _fail("the columns of an encoder") from error


def _array_of(value: Any) -> Any:
    import numpy as np

    return _array(np.asarray([value]), "an index", 1, "iu")


def _check_sparse(matrix: Any) -> None:
    try:
        matrix.check_format(full_check=True)
    except (ValueError, AttributeError) as error:
        raise _fail("a sparse matrix leads out of bounds") from error


def _on_facts(check: Callable[[Mapping[str, Any]], None]) -> Callable[[Any], None]:
    return lambda model: check(vars(model))


def _on_both(check: Callable[[Any, Mapping[str, Any]], None]) -> Callable[[Any], None]:
    return lambda model: check(model, vars(model))


#: Class name within scikit-learn and scipy, of the object or of one of its bases -> the check.
_CHECKS: Final[dict[str, Callable[[Any], None]]] = {
    "sklearn.tree.BaseDecisionTree": _on_facts(_check_tree_estimator),
    "sklearn.ensemble.BaseGradientBoosting": _on_both(_check_gradient_boosting),
    "sklearn.ensemble.BaseHistGradientBoosting": _on_facts(_check_hist_gradient_boosting),
    "sklearn.neighbors.KDTree": _check_binary_tree,
    "sklearn.neighbors.KDTree32": _check_binary_tree,
    "sklearn.neighbors.BallTree": _check_binary_tree,
    "sklearn.neighbors.BallTree32": _check_binary_tree,
    "sklearn.neighbors.NeighborsBase": _on_facts(_check_neighbours),
    "sklearn.svm.BaseLibSVM": _on_both(_check_support_vectors),
    "sklearn.cluster._BaseKMeans": _on_facts(_check_centres),
    "sklearn.feature_extraction.CountVectorizer": _on_facts(_check_vocabulary),
    "sklearn.feature_extraction.DictVectorizer": _on_facts(_check_vocabulary),
    "sklearn.preprocessing.OneHotEncoder": _on_both(_check_one_hot),
    "scipy.sparse._cs_matrix": _check_sparse,
    "scipy.sparse._bsr_base": _check_sparse,
}


def check_model(root: Any) -> None:
    """A model that was restored, and everything in it.

    Raises:
        FormatError: Something in it leads out of bounds.
    """
    for thing in _all_within(root):
        for cls in type(thing).__mro__:
            check = _CHECKS.get(".".join([*cls.__module__.split(".")[:2], cls.__name__]))
            if check is not None:
                try:
                    check(thing)
                except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
                    if isinstance(error, FormatError):
                        raise
                    raise _fail(f"a part of a {type(thing).__name__} has another form") from error


def _all_within(root: Any) -> Iterator[Any]:
    """``root`` and every object that it holds, the inner ones first: some checks make use of inner ones."""
    seen: set[int] = set()
    kept: list[Any] = []  # so that no id is used again
    todo = [(root, False)]
    while todo:
        thing, entered = todo.pop()
        if entered:
            yield thing
        elif not isinstance(thing, (str, bytes, int, float, type(None), type)) and id(thing) not in seen:
            seen.add(id(thing))
            kept.append(thing)
            todo.append((thing, True))
            todo.extend((part, False) for part in _parts(thing))


def _parts(thing: Any) -> Iterator[Any]:
    import numpy as np

    if isinstance(thing, np.ndarray):
        yield from thing.flat if thing.dtype.kind == "O" else ()
    elif isinstance(thing, Mapping):
        yield from thing.values()
    elif isinstance(thing, (Sequence, set)):
        yield from thing
    if hasattr(thing, "__dict__"):
        yield from vars(thing).values()
