"""What is inferred is enough: with nothing else installed, a model of every flavour loads and predicts its example.

The quick form shows a Python only those of the installed distributions that the requirements lead to.  With
``--install`` the truth is told by pip: they are installed into an environment of its own, where the model must work and
``pip freeze`` must name what the lock names, by its versions: what has come out since is left alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack.models import addresses, environments, requirements

FLAVOURS = ("sklearn", "xgboost", "lightgbm", "catboost", "statsmodels", "pytorch", "onnx", "keras", "transformers")
LIBRARIES = {"sklearn": "scikit-learn", "pytorch": "torch"}
MODULES = {"pytorch": "torch"}

#: Verifies a model where only the packages in a folder can be imported.
_PROOF = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("gittrack.models.verification", run_name="__main__")
"""


def trained(flavour: str, table: Any, labels: Any) -> tuple[Any, Any]:
    """(A small model, an input example)."""
    if flavour == "keras":
        pytest.importorskip("torch", reason="what Keras computes with here")
        os.environ.setdefault("KERAS_BACKEND", "torch")
    library = pytest.importorskip(MODULES.get(flavour, flavour), reason=f"a model of {flavour}")
    if flavour == "pytorch":
        return library.nn.Linear(4, 3), table.to_numpy()[:3]
    if flavour == "onnx":
        pytest.importorskip("onnxruntime", reason="predictions of ONNX models")
        helper, kind = library.helper, library.TensorProto.FLOAT
        ends = [helper.make_tensor_value_info(name, kind, [None, 4]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        return model, table.to_numpy()[:3]
    if flavour == "keras":
        layers = [library.layers.Input((4,)), library.layers.Dense(3)]
        return library.Sequential(layers), table.to_numpy()[:3]
    if flavour == "transformers":
        return classifier(library), ["good film", "bad film"]
    if flavour == "sklearn":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(100, random_state=0).fit(table, labels), table[:3]
    if flavour == "xgboost":
        return library.XGBClassifier(n_estimators=3).fit(table, labels), table[:3]
    if flavour == "lightgbm":
        return library.LGBMClassifier(n_estimators=3, verbose=-1).fit(table, labels), table[:3]
    if flavour == "catboost":
        settings = {"iterations": 3, "verbose": False, "allow_writing_files": False}
        return library.CatBoostClassifier(**settings).fit(table, labels), table[:3]
    return pytest.importorskip("statsmodels.api").OLS(np.asarray(labels), table).fit(), table[:3]


def classifier(transformers: Any) -> Any:
    """A pipeline with words of its own."""
    tokenizers = pytest.importorskip("tokenizers", reason="texts for transformers")
    words = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3, "film": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=len(words), **sizes))
    return transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)


def saved(flavour: str, folder: Path, table: Any, labels: Any) -> list[str]:
    """Save a model of a flavour; the requirements that it got."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        model, example = trained(flavour, table, labels)
        getattr(gittrack, flavour).save_model(model, folder, input_example=example)
    return requirements.read(folder)


def names(lines: Iterable[str]) -> set[str]:
    return {requirements.name_of(line) for line in lines}


def show(folder: Path, lines: Iterable[str]) -> None:
    """Fill ``folder`` with links to the installed packages that requirements lead to, and to gittrack."""
    folder.mkdir()
    for name in names(requirements.lock(lines)):
        found = metadata.distribution(name)
        tops = {path.parts[0] for path in found.files or () if not path.parts[0].startswith("..")}
        for top in tops - {"__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(found.locate_file(top)))
    (folder / "gittrack").symlink_to(Path(gittrack.__file__).parent)


def proved(model: Path, lines: Iterable[str], scratch: Path) -> dict[str, Any]:
    """What the program says that verifies a model, with these requirements and what gittrack needs."""
    show(scratch, [*lines, *environments.own_requirements()])
    words = [sys.executable, "-I", "-S", "-c", _PROOF, str(scratch), str(model), "--trust"]
    environment = environments.child_environment()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_is_inferred_is_enough(flavour: str, tmp_path: Path, table: Any, labels: Any) -> None:
    lines = saved(flavour, tmp_path / "model", table, labels)
    library = LIBRARIES.get(flavour, flavour)
    assert f"{library}=={metadata.version(library).partition('+')[0]}" in [line.partition("  #")[0] for line in lines]
    found = proved(tmp_path / "model", lines, tmp_path / "packages")
    assert found == {"works": True, "predicted": True, "problem": "", "missing": None}
    # And it is the requirements that make it work.
    without = requirements.lock(environments.own_requirements())
    found = proved(tmp_path / "model", without, tmp_path / "none")
    assert not found["works"]
    assert found["missing"]


@pytest.fixture
def asked_for(request: pytest.FixtureRequest) -> None:
    """Skips unless packages may be installed."""
    if not request.config.getoption("--install"):
        pytest.skip("installs packages from an index: only with --install")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.usefixtures("asked_for")
def test_what_pip_installs_is_enough(
    flavour: str, tmp_path: Path, table: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = saved(flavour, tmp_path / "model", table, labels)
    local = addresses.fetch(tmp_path / "model", trust=True)
    found = environments.verify(local, lines)
    assert (found.works, found.predicted, found.problem) == (True, True, "")
    environment = environments.for_model(local, lines)
    words = [str(environment.python), "-I", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    frozen = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    locked = requirements.lock(lines)
    asked = {line.partition("  #")[0].lower().replace("_", "-") for line in locked}
    assert asked <= {line.partition("+")[0].lower().replace("_", "-") for line in frozen}
    own = names(requirements.lock(environments.own_requirements())) | {"pip", "setuptools"}
    assert names(frozen) - own == names(locked) - own
