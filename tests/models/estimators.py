"""Fitted estimators of every family that people log, with rows that they predict from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn import (
    calibration,
    cluster,
    compose,
    datasets,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    kernel_ridge,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

_ROWS, _LABELS = datasets.load_iris(return_X_y=True)
_FRAME = pd.DataFrame({"size": _ROWS[:, 0], "kind": np.array(["a", "b", "c"])[_LABELS], "n": np.arange(150) % 7})
_TEXTS = ["good film", "bad film", "very good", "awful thing", "good"] * 6
_SENTIMENT = [1, 0, 1, 0, 1] * 6


def _table() -> Any:
    return compose.ColumnTransformer(
        [
            ("kind", preprocessing.OneHotEncoder(handle_unknown="ignore", min_frequency=2), ["kind"]),
            ("rest", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler()), ["size", "n"]),
        ]
    )


def _boosting_by_category() -> Any:
    frame = _FRAME.assign(kind=_FRAME["kind"].astype("category"))
    return ensemble.HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(frame, _LABELS)


_TREE = tree.DecisionTreeClassifier(max_depth=3)
_LINE = linear_model.LogisticRegression(max_iter=300)

#: Made and fitted with the iris rows and labels.
PLAIN: dict[str, Callable[[], Any]] = {
    "tree": lambda: _TREE,
    "tree-regressor": tree.DecisionTreeRegressor,
    "tree-two-outputs": tree.DecisionTreeRegressor,
    "extra-tree": tree.ExtraTreeClassifier,
    "forest": lambda: ensemble.RandomForestClassifier(10),
    "forest-regressor": lambda: ensemble.RandomForestRegressor(10),
    "extra-trees": lambda: ensemble.ExtraTreesClassifier(10),
    "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=5),
    "boosting-regressor": lambda: ensemble.GradientBoostingRegressor(n_estimators=5),
    "boosting-zero": lambda: ensemble.GradientBoostingClassifier(n_estimators=5, init="zero"),
    "boosting-init": lambda: ensemble.GradientBoostingRegressor(n_estimators=5, init=linear_model.Ridge()),
    "hist-boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5),
    "hist-boosting-regressor": lambda: ensemble.HistGradientBoostingRegressor(max_iter=5),
    "hist-boosting-poisson": lambda: ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=5),
    "ada-boost": lambda: ensemble.AdaBoostClassifier(n_estimators=5),
    "bagging": lambda: ensemble.BaggingClassifier(n_estimators=5, max_features=3),
    "isolation-forest": lambda: ensemble.IsolationForest(n_estimators=10),
    "voting": lambda: ensemble.VotingClassifier([("a", _TREE), ("b", _LINE)]),
    "stacking": lambda: ensemble.StackingClassifier([("a", _TREE), ("b", _LINE)]),
    "neighbours": neighbors.KNeighborsClassifier,
    "neighbours-ball": lambda: neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    "neighbours-minkowski": lambda: neighbors.KNeighborsRegressor(algorithm="kd_tree", p=3),
    "neighbours-brute": lambda: neighbors.KNeighborsClassifier(algorithm="brute"),
    "neighbours-radius": lambda: neighbors.RadiusNeighborsRegressor(radius=5),
    "nearest-centroid": neighbors.NearestCentroid,
    "outlier-factor": lambda: neighbors.LocalOutlierFactor(novelty=True),
    "svc": svm.SVC,
    "svc-linear": lambda: svm.SVC(kernel="linear"),
    "svr": svm.SVR,
    "nu-svc": svm.NuSVC,
    "one-class-svm": svm.OneClassSVM,
    "linear-svc": svm.LinearSVC,
    "logistic": lambda: _LINE,
    "ridge": linear_model.Ridge,
    "lasso-cv": linear_model.LassoCV,
    "sgd": linear_model.SGDClassifier,
    "tweedie": linear_model.TweedieRegressor,
    "poisson": linear_model.PoissonRegressor,
    "kernel-ridge": kernel_ridge.KernelRidge,
    "naive-bayes": naive_bayes.GaussianNB,
    "discriminant": discriminant_analysis.LinearDiscriminantAnalysis,
    "gaussian-process": gaussian_process.GaussianProcessClassifier,
    "gaussian-process-regressor": lambda: gaussian_process.GaussianProcessRegressor(
        gaussian_process.kernels.Matern() + gaussian_process.kernels.WhiteKernel()
    ),
    "mlp": lambda: neural_network.MLPClassifier(hidden_layer_sizes=(4,), max_iter=20),
    "mlp-sgd": lambda: neural_network.MLPRegressor(hidden_layer_sizes=(4,), solver="sgd", max_iter=20),
    "k-means": lambda: cluster.KMeans(3, n_init=1),
    "mini-batch-k-means": lambda: cluster.MiniBatchKMeans(3, n_init=1),
    "mean-shift": lambda: cluster.MeanShift(bandwidth=2),
    "mixture": lambda: mixture.GaussianMixture(3),
    "grid-search": lambda: model_selection.GridSearchCV(_TREE, {"max_depth": [1, 2]}, cv=2),
    "grid-search-scoring": lambda: model_selection.GridSearchCV(
        _LINE, {"C": [0.1, 1.0]}, cv=model_selection.KFold(2, shuffle=True), scoring=["accuracy", "f1_macro"],
        refit="accuracy",
    ),
    "randomized-search": lambda: model_selection.RandomizedSearchCV(_TREE, {"max_depth": [1, 2]}, n_iter=2, cv=2),
    "calibrated": lambda: calibration.CalibratedClassifierCV(_TREE, cv=2),
    "calibrated-isotonic": lambda: calibration.CalibratedClassifierCV(_TREE, cv=2, method="isotonic"),
    "one-vs-rest": lambda: multiclass.OneVsRestClassifier(_TREE),
    "output-code": lambda: multiclass.OutputCodeClassifier(_LINE),
    "pca-pipeline": lambda: pipeline.make_pipeline(decomposition.PCA(2), _LINE),
    "select-pipeline": lambda: pipeline.make_pipeline(
        preprocessing.PolynomialFeatures(), feature_selection.SelectKBest(k=3), _TREE
    ),
    "function-pipeline": lambda: pipeline.make_pipeline(preprocessing.FunctionTransformer(np.log1p), _LINE),
    "union-pipeline": lambda: pipeline.make_pipeline(
        pipeline.make_union(preprocessing.QuantileTransformer(n_quantiles=10), preprocessing.KBinsDiscretizer()), _LINE
    ),
    "embedding": lambda: pipeline.make_pipeline(ensemble.RandomTreesEmbedding(5), _LINE),
    "chain": lambda: multioutput.ClassifierChain(_TREE),
}  # fmt: skip
_TWO_OUTPUTS = ("tree-two-outputs", "chain")

#: Fitted with something else.
OTHERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "table": lambda: (pipeline.make_pipeline(_table(), _LINE).fit(_FRAME, _LABELS), _FRAME),
    "table-forest": lambda: (
        pipeline.make_pipeline(_table(), ensemble.RandomForestClassifier(5)).fit(_FRAME, _LABELS),
        _FRAME,
    ),
    "table-columns": lambda: (
        pipeline.make_pipeline(
            compose.make_column_transformer(
                (
                    preprocessing.OneHotEncoder(drop="first"),
                    compose.make_column_selector(dtype_include=["object", "str"]),
                ),
                remainder="passthrough",
            ),
            _LINE,
        ).fit(_FRAME, _LABELS),
        _FRAME,
    ),
    "table-ordinal": lambda: (
        pipeline.make_pipeline(
            compose.make_column_transformer((preprocessing.OrdinalEncoder(), ["kind"]), remainder="drop"), _TREE
        ).fit(_FRAME, _LABELS),
        _FRAME,
    ),
    "hist-boosting-categories": lambda: (
        _boosting_by_category(),
        _FRAME.assign(kind=_FRAME["kind"].astype("category")),
    ),
    "tfidf": lambda: (
        pipeline.make_pipeline(feature_extraction.text.TfidfVectorizer(), _LINE).fit(_TEXTS, _SENTIMENT),
        _TEXTS,
    ),
    "counts": lambda: (
        pipeline.make_pipeline(feature_extraction.text.CountVectorizer(), naive_bayes.MultinomialNB()).fit(
            _TEXTS, _SENTIMENT
        ),
        _TEXTS,
    ),
    "hashes": lambda: (
        pipeline.make_pipeline(feature_extraction.text.HashingVectorizer(n_features=64), _LINE).fit(_TEXTS, _SENTIMENT),
        _TEXTS,
    ),
    "svc-sparse": lambda: (
        pipeline.make_pipeline(feature_extraction.text.CountVectorizer(), svm.SVC()).fit(_TEXTS, _SENTIMENT),
        _TEXTS,
    ),
    "lda": lambda: (
        pipeline.make_pipeline(
            feature_extraction.text.CountVectorizer(), decomposition.LatentDirichletAllocation(2), _LINE
        ).fit(_TEXTS, _SENTIMENT),
        _TEXTS,
    ),
}

NAMES = [*PLAIN, *OTHERS]


@cache
def fitted(name: str) -> tuple[Any, Any]:
    """A fitted estimator and rows that it predicts from."""
    from sklearn.base import clone

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in OTHERS:
            return OTHERS[name]()
        labels = np.c_[_LABELS, _LABELS % 2] if name in _TWO_OUTPUTS else _LABELS
        return clone(PLAIN[name]()).fit(_ROWS, labels), _ROWS
