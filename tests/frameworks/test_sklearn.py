"""What autologging logs of scikit-learn trainings; the store is a fake, the library is the real one."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from sklearn import config_context, model_selection
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score as early_accuracy, confusion_matrix, mean_squared_error, roc_auc_score
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import gittrack.sklearn
from gittrack import frameworks
from gittrack.errors import InvalidValueError
from gittrack.frameworks import models
from gittrack.frameworks.patch import Patched, quiet

if TYPE_CHECKING:
    from tests.frameworks.fakes import FakeRecorder

X, y = load_iris(return_X_y=True)
BINARY_X, BINARY_Y = load_breast_cancer(return_X_y=True)
NUMBERS_X, NUMBERS_Y = load_diabetes(return_X_y=True)

CLASSIFIER_METRICS = {
    f"training_{name}"
    for name in ("precision_score", "recall_score", "f1_score", "accuracy_score", "log_loss", "roc_auc", "score")
}
REGRESSOR_METRICS = {
    f"training_{name}"
    for name in ("mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "r2_score", "score")
}


class OwnClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A user's estimator, defined before autologging is switched on."""

    def __init__(self, shift: int = 0, fail: bool = False) -> None:
        self.shift = shift
        self.fail = fail

    def fit(self, X: Any, y: Any) -> OwnClassifier:  # noqa: N803
        if self.fail:
            raise RuntimeError("cannot be trained")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), self.classes_[self.shift])


# --- one training


def test_a_classifier(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    model = RandomForestClassifier(n_estimators=7, max_depth=2, random_state=0)
    assert model.fit(X, y) is model
    [run] = recorded.runs
    assert run.status == "FINISHED"
    assert run.params == {key: str(value) for key, value in model.get_params(deep=True).items()}
    assert run.metrics.keys() == CLASSIFIER_METRICS
    assert run.metrics["training_score"] == run.metrics["training_accuracy_score"] == model.score(X, y)
    assert run.tags == {
        "mlflow.autologging": "sklearn",
        "estimator_name": "RandomForestClassifier",
        "estimator_class": "sklearn.ensemble._forest.RandomForestClassifier",
    }
    assert b"RandomForestClassifier" in run.artifacts["estimator.html"]
    assert run.artifacts["training_confusion_matrix.png"].startswith(b"\x89PNG")
    assert "training_roc_curve.png" not in run.artifacts
    [dataset] = run.inputs
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "train")]
    assert {(point.dataset_name, point.dataset_digest) for point in run.points} >= {
        (dataset.dataset.name, dataset.dataset.digest)
    }


def test_equal_estimators_have_equal_pages(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    for _ in range(2):
        make_pipeline(StandardScaler(), SVC()).fit(X, y)
    one, two = recorded.runs
    assert one.artifacts["estimator.html"] == two.artifacts["estimator.html"]
    assert one.artifacts["training_confusion_matrix.png"] == two.artifacts["training_confusion_matrix.png"]


def test_two_classes_have_curves(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    SVC().fit(BINARY_X, BINARY_Y)
    [run] = recorded.runs
    assert run.metrics.keys() == CLASSIFIER_METRICS - {"training_log_loss", "training_roc_auc"}  # no probabilities
    assert {"training_roc_curve.png", "training_precision_recall_curve.png"} < run.artifacts.keys()


def test_a_regressor(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    Ridge(alpha=2).fit(NUMBERS_X, NUMBERS_Y)
    [run] = recorded.runs
    assert run.metrics.keys() == REGRESSOR_METRICS
    assert run.metrics["training_root_mean_squared_error"] == math.sqrt(run.metrics["training_mean_squared_error"])
    assert run.artifacts.keys() == {"estimator.html"}


def test_sample_weights_and_pos_label(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog(pos_label=0)
    weight = np.where(BINARY_Y == 0, 5.0, 1.0)
    model = DecisionTreeClassifier(max_depth=1, random_state=0).fit(BINARY_X, BINARY_Y, sample_weight=weight)
    [run] = recorded.runs
    assert run.metrics["training_score"] == pytest.approx(model.score(BINARY_X, BINARY_Y, weight))
    predicted = model.predict(BINARY_X)
    true_positive = weight[(predicted == 0) & (BINARY_Y == 0)].sum()
    assert run.metrics["training_precision_score"] == pytest.approx(true_positive / weight[predicted == 0].sum())


def test_the_sample_weight_may_be_positional(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    weight = np.arange(len(y)) % 3 + 1.0
    positional = DecisionTreeClassifier(max_depth=1, random_state=0).fit(X, y, weight)
    expected = positional.score(X, y, weight)
    assert recorded.runs[0].metrics["training_score"] == pytest.approx(expected)


def test_no_labels_no_metrics(recorded: FakeRecorder, caplog: pytest.LogCaptureFixture) -> None:
    gittrack.sklearn.autolog()
    PCA(2).fit_transform(X)
    KMeans(3, n_init=1, random_state=0).fit_predict(X)
    assert [run.tags["estimator_name"] for run in recorded.runs] == ["PCA", "KMeans"]
    assert [run.metrics for run in recorded.runs] == [{}, {}]
    assert caplog.records == []


def test_preparations_are_no_trainings(recorded: FakeRecorder) -> None:
    class OwnScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None) -> OwnScaler:  # noqa: N803
            return self

        def transform(self, X: Any) -> Any:  # noqa: N803
            return X

    gittrack.sklearn.autolog()
    StandardScaler().fit(X, y)
    LabelEncoder().fit_transform(y)
    SelectFromModel(DecisionTreeClassifier()).fit(X, y)
    OwnScaler().fit_transform(X, y)
    assert recorded.runs == []


def test_what_predicts_nothing_is_no_training_but_may_train(recorded: FakeRecorder) -> None:
    class Experiment(BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Experiment:  # noqa: N803
            self.best_ = DecisionTreeClassifier().fit(X, y)
            return self

    gittrack.sklearn.autolog()
    Experiment().fit(X, y)
    assert [run.tags["estimator_name"] for run in recorded.runs] == ["DecisionTreeClassifier"]


def test_metadata_is_routed_as_ever(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()

    class Later(OwnClassifier):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
            self.weighted_ = sample_weight is not None
            return super().fit(X, y)

    with config_context(enable_metadata_routing=True):
        for classifier in (DecisionTreeClassifier(), Later()):
            model = make_pipeline(StandardScaler(), classifier.set_fit_request(sample_weight=True))
            model[0].set_fit_request(sample_weight=True)
            model.fit(X, y, sample_weight=np.ones(len(y)))
    assert model[-1].weighted_
    assert [run.tags["estimator_name"] for run in recorded.runs] == ["Pipeline", "Pipeline"]


def test_a_failed_training_keeps_its_parameters_and_its_error(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        OwnClassifier(shift=1, fail=True).fit(X, y)
    [run] = recorded.runs
    assert run.status == "FAILED"
    assert run.params == {"shift": "1", "fail": "True"}
    assert run.metrics == {}


def test_trainings_in_the_users_run(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog(extra_tags={"ignored": "the run is not ours"})
    with recorded.started() as mine:
        LogisticRegression(max_iter=1000).fit(X, y)
    assert recorded.runs == [mine]
    assert mine.metrics.keys() == CLASSIFIER_METRICS
    assert "ignored" not in mine.tags


def test_frames_keyword_arguments_and_names_of_columns(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    frame, labels = load_iris(return_X_y=True, as_frame=True)
    LogisticRegression(max_iter=1000).fit(y=labels, X=frame)
    [run] = recorded.runs
    assert run.metrics.keys() == CLASSIFIER_METRICS
    assert len(run.inputs) == 1


def test_data_that_the_training_changes_is_measured_as_it_was(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog(max_tuning_runs=0)
    scrambled = NUMBERS_X * 10 + 5
    pipeline = make_pipeline(StandardScaler(copy=False), LinearRegression())
    search = GridSearchCV(pipeline, {"linearregression__positive": [False]}, cv=2)
    with quiet():
        expected = clone(pipeline).fit(scrambled.copy(), NUMBERS_Y).score(scrambled.copy(), NUMBERS_Y)
    for model in (pipeline, search):
        data = scrambled.copy()
        model.fit(data, NUMBERS_Y)
        assert not np.array_equal(data, scrambled)  # it did change
    assert [run.metrics["training_score"] for run in recorded.runs] == [pytest.approx(expected)] * 2


def test_long_and_odd_parameters(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    steps = [("scale (first)", StandardScaler()), ("m" * 300, Ridge())]
    Pipeline(steps).fit(NUMBERS_X, NUMBERS_Y)
    [run] = recorded.runs
    assert "scale _first___with_mean" in run.params
    assert max(map(len, run.params)) == 250
    assert run.metrics.keys() == REGRESSOR_METRICS


# --- trainings within trainings


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_a_training_and_what_it_trains_is_one_run(recorded: FakeRecorder, backend: str) -> None:
    gittrack.sklearn.autolog()
    members = [("scaled", make_pipeline(StandardScaler(), LogisticRegression())), ("own", OwnClassifier())]
    with joblib.parallel_config(backend, n_jobs=1 if backend == "sequential" else 2):
        VotingClassifier(members).fit(X, y)
    assert [run.tags["estimator_name"] for run in recorded.runs] == ["VotingClassifier"]


def test_trainings_in_threads_of_the_user_have_their_own_runs(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    started = threading.Barrier(2)

    class Slow(OwnClassifier):
        def fit(self, X: Any, y: Any) -> Slow:  # noqa: N803
            started.wait(timeout=30)
            super().fit(X, y)
            return self

    threads = [threading.Thread(target=Slow(shift).fit, args=(X, y)) for shift in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.params["shift"] for run in recorded.runs) == ["0", "1"]
    assert {run.status for run in recorded.runs} == {"FINISHED"}


def test_cross_validation_and_importances_log_nothing(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    cross_val_score(KNeighborsClassifier(), X, y)  # imported before autolog()
    model_selection.cross_validate(KNeighborsClassifier(), X, y)
    assert recorded.runs == []
    model = KNeighborsClassifier().fit(X, y)
    before = dict(recorded.runs[0].metrics)
    permutation_importance(model, X, y, n_repeats=2)
    assert recorded.runs[0].metrics == before


def test_a_grid_search(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog(max_tuning_runs=2)
    pipeline = make_pipeline(StandardScaler(), SVC())
    search = GridSearchCV(pipeline, {"svc__C": [0.001, 1, 10], "svc__kernel": ["rbf"]}, cv=3).fit(X, y)
    parent, *children = recorded.runs
    assert parent.params["best_svc__C"] == str(search.best_params_["svc__C"])
    assert parent.params["cv"] == "3"
    assert "estimator__svc__C" not in parent.params
    assert parent.metrics["best_cv_score"] == search.best_score_
    assert parent.metrics["training_score"] == search.score(X, y)
    assert [child.metrics["rank_test_score"] for child in children] == [1, 2]
    for child in children:
        assert child.tags["mlflow.parentRunId"] == parent.run_id
        assert child.tags["estimator_name"] == "Pipeline"
        assert child.status == "FINISHED"
        assert child.params.keys() == pipeline.get_params().keys()
        assert child.metrics.keys() == {
            "mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time",
            "mean_test_score", "std_test_score", "rank_test_score",
        }  # fmt: skip
    assert children[0].params["svc__C"] == str(search.best_params_["svc__C"])
    rows = list(csv.DictReader(io.StringIO(parent.artifacts["cv_results.csv"].decode())))
    assert [float(row["mean_test_score"]) for row in rows] == list(search.cv_results_["mean_test_score"])


@pytest.mark.parametrize(("most", "children"), [(None, 4), (0, 0), (9, 4)])
def test_how_many_settings_of_a_search_become_runs(recorded: FakeRecorder, most: int | None, children: int) -> None:
    gittrack.sklearn.autolog(max_tuning_runs=most)
    grid = [{"n_neighbors": [1, 2]}, {"weights": ["uniform", "distance"]}]
    GridSearchCV(KNeighborsClassifier(), grid, cv=2).fit(X, y)
    assert len(recorded.runs) == 1 + children
    cells = next(csv.DictReader(io.StringIO(recorded.runs[0].artifacts["cv_results.csv"].decode())))
    assert cells["param_weights"] == ""  # this setting does not have it


def test_a_search_with_several_scores_and_without_refit(
    recorded: FakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    gittrack.sklearn.autolog(max_tuning_runs=1)
    scoring = {"first": "accuracy", "second": "f1_macro"}
    RandomizedSearchCV(
        KNeighborsClassifier(), {"n_neighbors": [1, 30, 60]}, n_iter=3, cv=2, scoring=scoring, refit=False
    ).fit(X, y)
    parent, child = recorded.runs
    assert child.metrics["rank_test_first"] == 1
    assert "best_cv_score" not in parent.metrics
    assert caplog.records == []


# --- after the training


def test_metrics_after_the_training(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    model = DecisionTreeClassifier(max_depth=2, random_state=0).fit(BINARY_X[:400], BINARY_Y[:400])
    X_test, y_test = BINARY_X[400:], BINARY_Y[400:]  # noqa: N806
    predicted = model.predict(X_test)
    accuracy = early_accuracy(y_test, predicted)  # imported before autolog()
    early_accuracy(y_true=y_test, y_pred=predicted, normalize=False)
    X_other = BINARY_X[:100]  # noqa: N806
    roc_auc_score(BINARY_Y[:100], model.predict_proba(X_other)[:, 1])  # a part of a prediction: not known
    early_accuracy(BINARY_Y[:100], model.predict(X_other))
    model.score(X_test, y_test)
    confusion_matrix(y_test, predicted)  # no number
    [run] = recorded.runs
    after = {key: value for key, value in run.metrics.items() if not key.startswith("training_")}
    assert after.keys() == {
        "accuracy_score_X_test",
        "accuracy_score-2_X_test",
        "accuracy_score-3_X_other",
        "DecisionTreeClassifier_score_X_test",
    }
    assert after["accuracy_score_X_test"] == accuracy
    assert after["accuracy_score-2_X_test"] == accuracy * len(y_test)
    calls = json.loads(run.artifacts["metric_info.json"])
    assert calls.keys() == after.keys()
    assert calls["accuracy_score-2_X_test"] == "accuracy_score(y_true=y_test, y_pred=predicted, normalize=False)"
    assert calls["DecisionTreeClassifier_score_X_test"] == "DecisionTreeClassifier.score(X=X_test, y=y_test)"
    assert [tag.value for one in run.inputs for tag in one.tags] == ["train", "eval", "eval"]


def test_data_is_named_where_it_comes_from(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    model = Ridge().fit(NUMBERS_X, NUMBERS_Y)

    def evaluate(estimator: Ridge, *data: Any, **more: Any) -> None:
        mean_squared_error(more["labels"], estimator.predict(data[0]))

    holdout = NUMBERS_X[:50]
    evaluate(model, holdout, labels=NUMBERS_Y[:50])
    evaluate(model, NUMBERS_X[:50], labels=NUMBERS_Y[:50])
    for fold in (NUMBERS_X[:60], NUMBERS_X[60:120]):
        mean_squared_error(NUMBERS_Y[:60], model.predict(fold))
    names = [key for key in recorded.runs[0].metrics if key.startswith("mean_")]
    assert names == [
        "mean_squared_error_holdout",
        "mean_squared_error-2_unknown_dataset",
        "mean_squared_error-3_fold",
        "mean_squared_error-4_fold-2",
    ]


def test_metrics_go_to_the_run_of_their_model(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    first = make_pipeline(StandardScaler(), SVC(C=0.01)).fit(X, y)
    second = make_pipeline(StandardScaler(), SVC(C=100)).fit(X, y)
    one, two = first.predict(X), second.predict(X)
    assert early_accuracy(y, two) > early_accuracy(y, one)
    runs = recorded.runs
    assert runs[1].metrics["accuracy_score_X"] > runs[0].metrics["accuracy_score_X"]
    assert "accuracy_score-2_X" not in runs[0].metrics


def test_no_metrics_after_the_training_if_not_wanted(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog(log_post_training_metrics=False, log_datasets=False)
    model = KNeighborsClassifier().fit(X, y)
    early_accuracy(y, model.predict(X))
    model.score(X, y)
    [run] = recorded.runs
    assert run.metrics.keys() == CLASSIFIER_METRICS
    assert run.inputs == []


# --- models


def test_models_are_handed_to_who_saves_them(recorded: FakeRecorder) -> None:
    saved: list[models.FittedModel] = []

    def save(fitted: models.FittedModel) -> str:
        saved.append(fitted)
        return f"m-{fitted.name}"

    models.register("sklearn", save)
    gittrack.sklearn.autolog(log_input_examples=True, registered_model_name="iris", max_tuning_runs=2)
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 9]}, cv=2).fit(X, y)
    model, best = saved
    assert (model.framework, model.model, model.name, model.run_id) == (
        "sklearn",
        search,
        "model",
        recorded.runs[0].run_id,
    )
    assert (best.model, best.name) == (search.best_estimator_, "best_estimator")
    assert np.array_equal(model.sample, X[:5])
    assert np.array_equal(model.predictions(), search.predict(X[:5]))
    assert model.params["best_n_neighbors"] == search.best_params_["n_neighbors"]
    assert model.options["log_input_examples"] is True
    assert (model.options["registered_model_name"], best.options["registered_model_name"]) == ("iris", None)
    search.score(X, y)
    by_key = {point.key: point.model_id for point in recorded.runs[0].points}
    assert by_key["training_score"] == by_key["GridSearchCV_score_X"] == "m-model"
    children = [{point.model_id for point in child.points} for child in recorded.runs[1:]]
    assert children == [{"m-best_estimator"}, {None}]


def test_models_are_not_saved_if_not_wanted(recorded: FakeRecorder) -> None:
    def save(fitted: models.FittedModel) -> None:
        pytest.fail("saved")

    models.register("sklearn", save)
    gittrack.sklearn.autolog(log_models=False)
    KNeighborsClassifier().fit(X, y)


def test_a_saver_that_fails_is_a_warning(recorded: FakeRecorder, caplog: pytest.LogCaptureFixture) -> None:
    def save(fitted: models.FittedModel) -> None:
        raise OSError("no room for models")

    models.register("sklearn", save)
    gittrack.sklearn.autolog()
    KNeighborsClassifier().fit(X, y)
    assert "no room for models" in caplog.text
    assert recorded.runs[0].metrics.keys() == CLASSIFIER_METRICS


# --- never in the way


@pytest.mark.parametrize(
    "call", ["active_run", "start_run", "end_run", "log_batch", "log_inputs", "log_artifacts", "log_text"]
)
def test_whatever_breaks_the_training_goes_on(
    recorded: FakeRecorder, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    recorded.broken = {call}
    gittrack.sklearn.autolog()
    for _ in range(2):
        model = KNeighborsClassifier().fit(X, y)
        assert early_accuracy(y, model.predict(X)) > 0.9
        assert model.score(X, y) > 0.9
    assert caplog.records
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records)


def test_estimators_that_break_the_rules(recorded: FakeRecorder, caplog: pytest.LogCaptureFixture) -> None:
    class Hostile(OwnClassifier):
        def get_params(self, deep: bool = True) -> dict[str, Any]:
            raise AttributeError("no parameters for you")

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
            raise ZeroDivisionError("no score")

        def _sklearn_tags(self) -> Any:
            raise KeyError("no tags")

    gittrack.sklearn.autolog()
    model = Hostile().fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2]
    assert recorded.runs[0].status == "FINISHED"
    assert "no parameters for you" in caplog.text


def test_users_objects_are_not_touched(recorded: FakeRecorder) -> None:
    plain = DecisionTreeClassifier(random_state=0).fit(X, y)
    gittrack.sklearn.autolog()
    watched = DecisionTreeClassifier(random_state=0).fit(X, y)
    watched.score(X, y)
    assert vars(watched).keys() == vars(plain).keys()
    assert pickle.dumps(watched) == pickle.dumps(plain)


def test_own_classes_are_pickled_as_they_were_written(recorded: FakeRecorder) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    gittrack.sklearn.autolog()

    class Local(TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None) -> Local:  # noqa: N803
            return self

        def fit_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
            return X

        def transform(self, X: Any) -> Any:  # noqa: N803
            return X

    data = cloudpickle.dumps((Local(), early_accuracy))
    program = """
        import pickle, sys
        model, metric = pickle.load(sys.stdin.buffer)
        assert model.fit_transform([[1]]) == [[1]] and metric([1], [1]) == 1
        assert not [name for name in sys.modules if name.startswith("gittrack")]
    """
    subprocess.run([sys.executable, "-I", "-c", textwrap.dedent(program)], input=data, check=True, timeout=120)


def test_everything_is_put_back(recorded: FakeRecorder) -> None:
    import sklearn.base
    import sklearn.metrics

    def state() -> dict[str, Any]:
        owners: list[Any] = [
            *sklearn.base.BaseEstimator.__subclasses__(), ClassifierMixin, TransformerMixin, BaseEstimator,
            OwnClassifier, RandomForestClassifier, PCA, sklearn.metrics, model_selection, sys.modules[__name__],
        ]  # fmt: skip
        return {f"{owner}.{name}": value for owner in owners for name, value in vars(owner).items() if callable(value)}

    before = state()
    gittrack.sklearn.autolog()
    assert isinstance(early_accuracy, Patched)
    assert isinstance(vars(ClassifierMixin)["score"], Patched)
    assert state() != before
    gittrack.sklearn.autolog(disable=True)
    assert state() == before
    KNeighborsClassifier().fit(X, y)
    assert recorded.runs == []


def test_switching_on_twice_logs_once(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog()
    gittrack.sklearn.autolog(log_datasets=False)

    class Later(ClusterMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None) -> Later:  # noqa: N803
            return self

        def fit_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
            self.fit(X)
            return X

        def transform(self, X: Any) -> Any:  # noqa: N803
            return X

        predict = transform

    Later().fit_transform(X)
    Later().fit(X)
    gittrack.sklearn.autolog(silent=True)
    Later().fit_transform(X)
    assert [run.tags["estimator_name"] for run in recorded.runs] == ["Later"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tuning_runs": -1}, "max_tuning_runs"),
        ({"serialization_format": "onnx"}, "serialization_format"),
        ({"extra_tags": ["a"]}, "extra_tags"),
    ],
)
def test_arguments_are_checked(recorded: FakeRecorder, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        gittrack.sklearn.autolog(**arguments)
    KNeighborsClassifier().fit(X, y)
    assert recorded.runs == []


# --- gittrack.autolog()


def test_autolog_of_everything(recorded: FakeRecorder) -> None:
    frameworks.autolog(extra_tags={"team": "red"})
    KNeighborsClassifier().fit(X, y)
    assert recorded.runs[0].tags["team"] == "red"
    frameworks.autolog(disable=True)
    KNeighborsClassifier().fit(X, y)
    assert len(recorded.runs) == 1


def test_autolog_of_everything_respects_the_frameworks_own(recorded: FakeRecorder) -> None:
    gittrack.sklearn.autolog(log_datasets=False)
    frameworks.autolog(extra_tags={"team": "red"})
    KNeighborsClassifier().fit(X, y)
    assert "team" not in recorded.runs[0].tags


def test_autolog_of_everything_except(recorded: FakeRecorder) -> None:
    frameworks.autolog(exclude_flavors=["sklearn"])
    KNeighborsClassifier().fit(X, y)
    assert recorded.runs == []


@pytest.mark.parametrize("switch_on", ["gittrack.frameworks.autolog()", "gittrack.sklearn.autolog()"])
def test_in_a_fresh_process_everything_is_watched_as_it_is_imported(switch_on: str) -> None:
    program = f"""
        import sys
        import gittrack.frameworks, gittrack.sklearn
        from gittrack.frameworks import imports, recorder
        from tests.frameworks.fakes import FakeRecorder
        fake = FakeRecorder()
        recorder.use((fake, fake))
        {switch_on}
        assert not {{"sklearn", "numpy", "pandas", "matplotlib", "scipy"}} & set(sys.modules)
        assert imports._finder in sys.meta_path

        from sklearn.base import BaseEstimator
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import accuracy_score
        from sklearn.datasets import load_iris

        class Own(BaseEstimator):
            def fit(self, X, y=None):
                return self
            def predict(self, X):
                return X

        X, y = load_iris(return_X_y=True)
        PCA(2).fit_transform(X)
        model = LogisticRegression(max_iter=1000).fit(X, y)
        accuracy_score(y, model.predict(X))
        Own().fit(X)
        import sklearn.model_selection, sklearn.inspection
        assert [run.tags["estimator_name"] for run in fake.runs] == ["PCA", "LogisticRegression", "Own"]
        assert "accuracy_score_X" in fake.runs[1].metrics
        assert imports._finder not in sys.meta_path, imports._waiting
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=120)
