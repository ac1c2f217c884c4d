"""The skops format, read with gittrack's own list of types.

A skops file is a zip of arrays and of a description of the objects; reading it makes objects of the types that it names
and sets their attributes.  Which types may be made is decided by the list here, on top of what skops itself trusts:
classes and functions of scikit-learn, numpy and scipy that do nothing but compute.  What they may be filled with is
checked in ``models.trees``.  A file is read from memory, once.

skops' own ``load`` cannot be used: it restores trees without a look into them, and its audit of a crafted file may take
as long as the file wants.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from gittrack.errors import FormatError, GittrackError, InvalidValueError, MissingDependencyError
from gittrack.models import trees
from gittrack.models.trust import Trust, check_archive


def _names(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


#: Types and functions beyond those that skops trusts.
ALLOWED: Final = frozenset(
    [
        "collections.OrderedDict",
        "functools.partial",  # of a function that is itself on a list
        *_names("numpy", "dtype mean median max min sum"),
        *_names("scipy.sparse._csr", "csr_matrix csr_array"),
        *_names("scipy.sparse._csc", "csc_matrix csc_array"),
        *_names("sklearn._loss.loss", "HalfTweedieLoss HalfTweedieLossIdentity"),
        *_names("sklearn.calibration", "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling"),
        *_names("sklearn.compose._column_transformer", "make_column_selector _RemainderColsList"),
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        *_names(
            "sklearn.feature_selection._univariate_selection",
            "f_classif f_oneway f_regression r_regression chi2",
        ),
        *_names("sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression"),
        *_names(
            "sklearn.gaussian_process._gpc",
            "_BinaryGaussianProcessClassifierLaplace",
        ),
        *_names(
            "sklearn.gaussian_process.kernels",
            "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Hyperparameter Matern "
            "PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel",
        ),
        *_names(
            "sklearn.metrics._classification",
            "accuracy_score balanced_accuracy_score brier_score_loss cohen_kappa_score f1_score fbeta_score "
            "hamming_loss jaccard_score log_loss matthews_corrcoef precision_score recall_score zero_one_loss",
        ),
        *_names(
            "sklearn.metrics._dist_metrics",
            " ".join(
                f"{kind}Distance{bits}"
                for kind in (
                    "BrayCurtis Canberra Chebyshev Dice Euclidean Hamming Haversine Jaccard Mahalanobis Manhattan "
                    "Minkowski RogersTanimoto RussellRao SEuclidean SokalSneath"
                ).split()
                for bits in ("", "32", "64")
            ),
        ),
        *_names("sklearn.metrics._ranking", "average_precision_score roc_auc_score"),
        *_names(
            "sklearn.metrics._regression",
            "d2_absolute_error_score explained_variance_score max_error mean_absolute_error "
            "mean_absolute_percentage_error mean_gamma_deviance mean_poisson_deviance mean_squared_error "
            "mean_squared_log_error median_absolute_error r2_score root_mean_squared_error",
        ),
        *_names("sklearn.metrics._scorer", "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer"),
        *_names(
            "sklearn.model_selection._split",
            "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut LeavePOut PredefinedSplit "
            "RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold "
            "StratifiedShuffleSplit TimeSeriesSplit _CVIterableWrapper",
        ),
        "sklearn.multiclass._ConstantPredictor",
        *_names("sklearn.neighbors._ball_tree", "BallTree BallTree32 BallTree64"),
        *_names("sklearn.neighbors._kd_tree", "KDTree KDTree32 KDTree64"),
        *_names("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer SGDOptimizer"),
        "sklearn.preprocessing._function_transformer._identity",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        *_names("sklearn.utils._metadata_requests", "MetadataRequest MethodMetadataRequest"),
        "sklearn.utils.validation.check_array",
    ]
)

#: Compiled types -> the one of skops' readers that restores them.
_READERS: Final = {
    **{name: "TreeNode" for name in ALLOWED if name.startswith("sklearn.tree.")},
    **{name: "ObjectNode" for name in ALLOWED if name.startswith(("sklearn.neighbors.", "sklearn.metrics._dist"))},
    **{name: "SparseMatrixNode" for name in ALLOWED if name.startswith("scipy.sparse.")},
}


def _io() -> Any:
    try:
        import skops.io
        from skops.io import _audit, _utils  # noqa: F401 - the parts that `load` is made of
    except ImportError as error:
        raise MissingDependencyError(
            "models of scikit-learn are kept in the skops format, and skops 0.16 or later is not installed",
            hint="`pip install 'skops>=0.16'`, or pass serialization_format='cloudpickle', which runs code when loaded",
        ) from error
    return skops.io


def dump(model: Any, path: Path, *, allowed: Collection[str] = ALLOWED) -> tuple[list[str], list[str]]:
    """Write ``model`` to the file ``path``, and read it back: what cannot be read is no model.

    Returns:
        The types in it that skops does not trust by itself, and those of them that are not ``allowed`` either; sorted.

    Raises:
        MissingDependencyError: skops is not installed.
        InvalidValueError: It has something that the format cannot keep.
    """
    sio = _io()
    try:
        sio.dump(model, path)
        _, found = _read(path, Trust(granted=True), allowed)
    except Exception as error:
        path.unlink(missing_ok=True)
        shown = error.message if isinstance(error, GittrackError) else str(error)
        raise InvalidValueError(
            f"this {type(model).__name__} cannot be kept in the skops format: {shown:.300}",
            hint="pass serialization_format='cloudpickle'; loading it then runs code and needs trust=True",
        ) from error
    return found, sorted(set(found) - set(allowed))


def load(path: Path, *, trust: Trust, allowed: Collection[str] = ALLOWED) -> Any:
    """The model in the file ``path``.

    Args:
        path: A private copy.
        trust: Asked if there are types that are not ``allowed``.
        allowed: Names of types and functions beyond those that skops trusts.

    Raises:
        FormatError: Not in this format, or with something that leads out of bounds.
        UntrustedModelError: It has types that are not allowed.
        MissingDependencyError: skops is not installed.
    """
    _io()
    model, _ = _read(path, trust, allowed)
    return model


def _read(path: Path, trust: Trust, allowed: Collection[str]) -> tuple[Any, list[str]]:
    """The model, and the types in it that skops does not trust by itself."""
    if "schema.json" not in check_archive(path):
        raise FormatError(f"`{path.name}` is not in the skops format")
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        try:
            root, found = _described(archive, trust, allowed, path.name)
            model = root.construct()
        except GittrackError:
            raise
        except _BROKEN as error:
            raise FormatError(f"`{path.name}` cannot be read: {type(error).__name__}: {error!s:.200}") from error
    trees.check_model(model)
    return model, found


#: What skops, zipfile and numpy raise on files that are not what they should be.
_BROKEN: Final = (
    ArithmeticError, AttributeError, BufferError, EOFError, ImportError, LookupError, MemoryError, NotImplementedError,
    OSError, RecursionError, TypeError, ValueError, zipfile.BadZipFile,
)  # fmt: skip


def _described(archive: zipfile.ZipFile, trust: Trust, allowed: Collection[str], file: str) -> tuple[Any, list[str]]:
    """The root of the description, its types allowed and its trees sound, and the types that skops does not trust."""
    from skops.io._audit import get_tree
    from skops.io._utils import read_schema

    root = get_tree(*read_schema(archive), trusted=None)
    nodes = _nodes(root)
    found = _untrusted(nodes)
    unknown = sorted(set(found) - set(allowed))
    if unknown:
        shown = ", ".join(f"`{name}`" for name in unknown[:5]) + (" …" if len(unknown) > 5 else "")
        trust.require(f"types that gittrack does not know, {shown} in `{file}`")
    for node in nodes:
        kind = type(node).__name__
        name = f"{node.module_name}.{node.class_name}"
        if kind not in ("TypeNode", _READERS.get(name, kind)):
            raise FormatError(f"`{file}` restores a `{name}` in a way that nothing writes")
        if kind == "TreeNode":
            trees.check_tree(node.args.construct(), node.attrs.construct())
    return root, found


def _parts(node: Any) -> Iterator[Any]:
    """The descriptions right within one."""
    for child in [*node.children.values(), getattr(node, "cached", None)]:
        if isinstance(child, list):
            yield from child
        elif isinstance(child, dict):
            yield from child.values()
        elif hasattr(child, "construct"):
            yield child


def _nodes(root: Any) -> list[Any]:
    """Every description once."""
    order: list[Any] = []
    seen: set[int] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) not in seen:
            seen.add(id(node))
            order.append(node)
            todo.extend(_parts(node))
    return order


def _untrusted(nodes: list[Any]) -> list[str]:
    """The types that skops does not trust by itself: its own question, asked of each description alone.

    With the mark that skops uses against endless loops, a description does not ask those within it: what refers to the
    same thing twice, and again within it, would be asked twice as often at each level.
    """
    for node in nodes:
        node._computing_unsafe_set = True
    unknown: set[str] = set()
    for node in nodes:
        del node._computing_unsafe_set
        unknown |= node.get_unsafe_set()
        node._computing_unsafe_set = True
    return sorted(unknown)
