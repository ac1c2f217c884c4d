"""Models that were made to do harm: each is a typed error, and nothing runs, is read or is written outside.

Loads happen in a program of their own (``loader``), so that a crash is an answer and not the end of the tests.  Every
payload would leave the file PWNED; canary files stand where paths that lead out would find them.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import gittrack.sklearn
from gittrack import pyfunc
from gittrack.errors import FormatError, GittrackError, NotFoundError, UntrustedModelError
from gittrack.models import addresses
from gittrack.models.pyfunc import load_local
from gittrack.models.trust import Trust, check_archive, refuse_pickle
from tests.conftest import plain_environ
from tests.models import estimators

Answers = Callable[..., list[str]]
Loader = Callable[[list[Any]], Any]


@pytest.fixture
def canaries(tmp_path: Path) -> Path:
    """The folder for models, with secrets around it; checked afterwards."""
    (tmp_path / "secret.pkl").write_bytes(payload(tmp_path))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}/PWNED",)


def payload(folder: Path) -> bytes:
    """A pickle that leaves the file PWNED in ``folder``."""
    return pickle.dumps(_Payload(folder))


@contextmanager
def loading(**variables: str) -> Iterator[Loader]:
    """The program ``loader``, which takes seconds to start; gives what it answers to a question."""
    environment = {**plain_environ(), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}
    program = [sys.executable, str(Path(__file__).with_name("loader.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        questions, said = process.stdin, process.stdout
        assert questions is not None
        assert said is not None

        def ask(question: list[Any]) -> Any:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            return json.loads(said.readline())

        yield ask
        questions.close()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    """One program for all tests: its children are as new as a program for each would be."""
    with loading() as ask:
        yield ask


@pytest.fixture
def answers(tmp_path: Path, loader: Loader) -> Answers:
    """Load folders; what each load said."""

    def ask(*folders: Path, native: bool = False) -> list[str]:
        said = [loader([str(folder), native, str(tmp_path), dict(os.environ)]) for folder in folders]
        assert not (tmp_path / "PWNED").exists()
        return said

    return ask


def write(folder: Path, mlmodel: Any, files: dict[str, bytes] | None = None) -> Path:
    """A model folder."""
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel), encoding="utf-8")
    for name, data in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def sklearn_model(file: Any = "model.pkl", form: Any = "pickle", **more: Any) -> dict[str, Any]:
    """MLmodel of an estimator."""
    conf = {"pickled_model": file, "serialization_format": form, "sklearn_version": "1.5"}
    return {
        "flavors": {
            "sklearn": conf,
            "python_function": {"loader_module": "mlflow.sklearn", "model_path": file, **more},
        }
    }


# --- pickles (D1, D2)


@pytest.mark.parametrize("native", [False, True])
def test_pickles_under_every_name(native: bool, tmp_path: Path, canaries: Path, answers: Answers) -> None:
    pickled = payload(tmp_path)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("schema.json", pickled)
        packed.writestr("model.pkl", pickled)
    folders, expected = [], []
    for number, name in enumerate(["model.pkl", "model.skops", "model.json", "model", "a/b.bin", "MLmodel.pkl"]):
        for form, error in (
            ("pickle", "UntrustedModelError"),
            ("cloudpickle", "UntrustedModelError"),
            (None, "FormatError"),
            ("joblib", "FormatError"),
            ("skops", "FormatError"),
            (["pickle"], "FormatError"),
        ):
            mlmodel = sklearn_model(name, form)
            folders.append(write(canaries / f"{number}-{form}", mlmodel, {name: pickled}))
            expected.append(error)
        old = sklearn_model(name)
        del old["flavors"]["sklearn"]["serialization_format"]
        folders.append(write(canaries / f"{number}-old", old, {name: pickled}))
        expected.append("UntrustedModelError")
    folders.append(write(canaries / "zip", sklearn_model("model.skops", "skops"), {"model.skops": archive.getvalue()}))
    expected.append("FormatError")
    assert [said.partition(":")[0] for said in answers(*folders, native=native)] == expected


@pytest.mark.parametrize(
    "start", [b"\x80\x02", b"\x80\x04\x95", b"\x80\x05", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."]
)
def test_a_pickle_is_seen_whatever_it_is_called(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(start + b"x" * 50)
    with pytest.raises(UntrustedModelError):
        refuse_pickle(tmp_path / "model.ubj", Trust())
    refuse_pickle(tmp_path / "model.ubj", Trust(granted=True))
    (tmp_path / "fine.ubj").write_bytes(b"{L\x00")
    refuse_pickle(tmp_path / "fine.ubj", Trust())


def test_a_pickle_in_an_archive_is_seen(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(UntrustedModelError, match=r"archive/data.pkl"):
        refuse_pickle(tmp_path / "model.pt2", Trust())


# --- modules and code (D3)


def test_modules_that_a_model_names(tmp_path: Path, canaries: Path, answers: Answers) -> None:
    evil = f"import os\nos.system('touch {tmp_path}/PWNED')\ndef _load_pyfunc(path): return None\n".encode()
    code = {"code/evil.py": evil, "code/sklearn.py": evil, "code/skops.py": evil, "evil.py": evil}
    named = [
        "os",
        "evil",
        "code.evil",
        "antigravity",
        "mlflow.sklearn.evil",
        "mlflow.pyfunc.loaders.chat_model",
        "gittrack",
    ]
    folders = [
        write(canaries / f"m{number}", {"flavors": {"python_function": {"loader_module": name, "code": "code"}}}, code)
        for number, name in enumerate(named)
    ]
    for number, more in enumerate(
        (
            {"loader_module": "mlflow.pyfunc.model", "python_model": "code/evil.py", "code": "code"},
            {"loader_module": "mlflow.pyfunc.loaders.code_model", "model_code_path": "evil.py"},
        )
    ):
        folders.append(write(canaries / f"p{number}", {"flavors": {"python_function": more}}, code))
    assert {said.partition(":")[0] for said in answers(*folders)} == {"UntrustedModelError"}
    folders = [
        write(canaries / f"n{number}", {"flavors": {"python_function": {"loader_module": name}}}, code)
        for number, name in enumerate((None, 1, "", ["os"], {"os": 1}))
    ]
    assert {said.partition(":")[0] for said in answers(*folders)} == {"FormatError"}


def test_code_beside_a_harmless_model_is_left_alone(tmp_path: Path, canaries: Path, answers: Answers) -> None:
    model, _ = estimators.fitted("logistic")
    (tmp_path / "sklearn.py").write_text(f"import os\nos.system('touch {tmp_path}/PWNED')\n", encoding="utf-8")
    gittrack.sklearn.save_model(model, canaries / "m", code_paths=[tmp_path / "sklearn.py"])
    (tmp_path / "sklearn.py").unlink()
    assert answers(canaries / "m") == ["loaded"]


# --- paths (D4, T)

PATHS = (
    "../secret.pkl", "../../secret.pkl", "a/../../secret.pkl", "/etc/passwd", "//etc/passwd", "..\\secret.pkl",
    "C:\\secret.pkl", "file:///etc/passwd", "model.pkl\0", "", ".", "..", "./model.pkl/..", None, 1, ["model.pkl"],
    {"a": 1}, "link", "folder-link/secret.pkl", "missing",
)  # fmt: skip


@pytest.mark.parametrize("key", ["pickled_model", "python_model", "model_code_path", "data", "code", "artifact"])
def test_paths_that_lead_out(key: str, tmp_path: Path, canaries: Path) -> None:
    for number, path in enumerate(PATHS):
        if path in ("link", "folder-link/secret.pkl"):
            continue  # links are refused before MLmodel is read; see below
        if key == "pickled_model":
            mlmodel = sklearn_model(path, "pickle")
        elif key == "data" or key == "code":
            mlmodel = {"flavors": {"python_function": {"loader_module": "json", key: path}}}
        elif key == "artifact":
            conf = {"loader_module": "mlflow.pyfunc.loaders.code_model", "model_code_path": "model.py"}
            mlmodel = {"flavors": {"python_function": {**conf, "artifacts": {"a": {"path": path}}}}}
        else:
            loader = "mlflow.pyfunc.model" if key == "python_model" else "mlflow.pyfunc.loaders.code_model"
            mlmodel = {"flavors": {"python_function": {"loader_module": loader, key: path}}}
        code = b"import gittrack.models\ngittrack.models.set_model(lambda rows: rows)\n"
        folder = write(canaries / f"{number}", mlmodel, {"model.py": code})
        if path in (None, "") and key in ("data", "code"):
            continue  # left out
        with pytest.raises((FormatError, NotFoundError)):
            pyfunc.load_model(folder, trust=True)  # not even who trusts the model reads outside of it
        assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: (folder / "link").symlink_to("/etc/passwd"),
        lambda folder: (folder / "link").symlink_to("model.pkl"),
        lambda folder: (folder / "folder").symlink_to(folder.parent),
        lambda folder: os.mkfifo(folder / "pipe"),
        lambda folder: ((folder / "sub").mkdir(), (folder / "sub" / "link").symlink_to("../../secret.pkl")),
    ],
)
def test_links_and_pipes_are_refused(make: Callable[[Path], Any], canaries: Path) -> None:
    folder = write(canaries / "m", sklearn_model())
    make(folder)
    with pytest.raises(FormatError):
        addresses.fetch(folder, trust=True)


def test_the_folder_itself_may_be_reached_by_a_link(canaries: Path) -> None:
    model, rows = estimators.fitted("logistic")
    gittrack.sklearn.save_model(model, canaries / "m")
    (canaries / "link").symlink_to(canaries / "m")
    assert pyfunc.load_model(canaries / "link").predict(rows).shape == (150,)


def test_what_was_copied_is_what_is_loaded(canaries: Path) -> None:
    """Nobody can put other bytes in between: the private copy does not follow the original."""
    model, rows = estimators.fitted("logistic")
    gittrack.sklearn.save_model(model, canaries / "m")
    local = addresses.fetch(canaries / "m")
    assert (local.folder.stat().st_mode & 0o077) == 0
    shutil.rmtree(canaries / "m")
    assert load_local(local).predict(rows).shape == (150,)
    folder = local.folder
    del local
    assert not folder.exists()


# --- skops (D5)


@cache
def _saved(model: Any) -> dict[str, bytes]:
    """The files of a model that is in order; all its folders have the same."""
    with tempfile.TemporaryDirectory() as scratch:
        gittrack.sklearn.save_model(model, Path(scratch, "model"))
        return {path.name: path.read_bytes() for path in Path(scratch, "model").iterdir()}


def skops_folder(folder: Path, model: Any) -> Path:
    """A folder with a model that is in order."""
    folder.mkdir(parents=True)
    for name, data in _saved(model).items():
        (folder / name).write_bytes(data)
    return folder


def change(folder: Path, edit: Callable[[dict[str, bytes]], None], **packing: Any) -> Path:
    """Change the members of ``model.skops``."""
    path = folder / "model.skops"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    edit(members)
    with zipfile.ZipFile(path, "w", **packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return folder


def schema_edit(edit: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, bytes]], None]:
    """A change of the description."""

    def apply(members: dict[str, bytes]) -> None:
        schema = json.loads(members["schema.json"])
        replaced = edit(schema)
        members["schema.json"] = json.dumps(schema if replaced is None else replaced).encode()

    return apply


def node(loader: str, module: str, name: str, **more: Any) -> dict[str, Any]:
    return {"__class__": name, "__module__": module, "__loader__": loader, **more}


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return node("ListNode", "builtins", "list", content=list(items))


def mapping(module: str = "builtins", name: str = "dict") -> dict[str, Any]:
    """An empty dict, or what is called as if it were one."""
    return node("DictNode", module, name, content={}, key_types=listed())


def text(value: Any) -> dict[str, Any]:
    return node("JsonNode", "builtins", "str", content=json.dumps(value), is_json=True)


def with_attribute(value: dict[str, Any], name: str = "evil") -> Callable[[dict[str, bytes]], None]:
    """The estimator gets one more attribute, or another value of one."""

    def edit(schema: dict[str, Any]) -> None:
        if name not in schema["content"]["content"]:
            schema["content"]["key_types"]["content"].append(node("TypeNode", "builtins", "str"))
        schema["content"]["content"][name] = value

    return schema_edit(edit)


def test_forged_types(tmp_path: Path, canaries: Path, answers: Answers) -> None:
    command = text(f"touch {tmp_path}/PWNED")
    words = node("TupleNode", "builtins", "tuple", content=[command])
    system = node("FunctionNode", "os", "system")
    evil = {
        "function": system,
        "type": node("TypeNode", "subprocess", "Popen"),
        "object": node("ObjectNode", "subprocess", "Popen", content=mapping()),
        "constructor": node("ConstructorFromReduceNode", "subprocess", "Popen", content=words),
        "reduce": node("TreeNode", "os", "system", content=mapping(), __reduce__={"args": words}),
        "loss": node("LossNode", "os", "system", content=mapping(), __reduce__={"args": words}),
        "partial": node(
            "PartialNode", "functools", "partial",
            content={"func": system, "args": words, "kwds": mapping(), "namespace": mapping()},
        ),
        "key": node(
            "DictNode", "builtins", "dict", content={f"touch {tmp_path}/PWNED": text(1)},
            key_types=listed(node("TypeNode", "os", "system")),
        ),
        "default": node(
            "DefaultDictNode", "collections", "defaultdict", content={"main": mapping(), "default_factory": system}
        ),
        "method": node(
            "MethodNode", "builtins", "method", content={"func": "system", "obj": node("TypeNode", "os", "x")}
        ),
        "operator": node("OperatorFuncNode", "operator", "methodcaller", attrs=words),
        "array": node("NdArrayNode", "os", "system", type="json", content=[command], shape=words),
        "list": node("ListNode", "os", "system", content=[command]),
        "bits": mapping("builtins", "eval"),
        "loader": node("EvilNode", "builtins", "str"),
    }  # fmt: skip
    model, _ = estimators.fitted("logistic")
    folders = []
    for name, value in evil.items():
        folders.append(change(skops_folder(canaries / name, model), with_attribute(value)))
    for name, said in zip(evil, answers(*folders), strict=True):
        assert said.startswith(("UntrustedModelError", "FormatError")), (name, said)
    # What its own MLmodel says to be trusted is for MLflow.
    about = yaml.safe_load((folders[0] / "MLmodel").read_text(encoding="utf-8"))
    about["flavors"]["sklearn"]["skops_trusted_types"] = ["os.system"]
    (folders[0] / "MLmodel").write_text(yaml.safe_dump(about), encoding="utf-8")
    assert answers(folders[0])[0].startswith("UntrustedModelError")


@pytest.mark.timeout(120)
def test_a_description_that_never_ends(canaries: Path, answers: Answers) -> None:
    """A list of twice the same list, forty levels deep: 2**40 lists to who counts each."""

    def edit(schema: dict[str, Any]) -> None:
        inner: dict[str, Any] = node("ListNode", "builtins", "list", content=[], __id__=1)
        for level in range(2, 42):
            again = {"__class__": None, "__module__": None, "__loader__": "CachedNode", "__id__": level - 1}
            inner = node("ListNode", "builtins", "list", content=[inner, again], __id__=level)
        schema["content"]["content"]["evil"] = inner
        schema["content"]["key_types"]["content"].append(node("TypeNode", "builtins", "str"))

    model, _ = estimators.fitted("logistic")
    deep: Any = text(1)
    for _ in range(3000):
        deep = node("ListNode", "builtins", "list", content=[deep])
    nested = skops_folder(canaries / "deep", model)
    sys.setrecursionlimit(20_000)
    try:
        change(nested, with_attribute(deep))
    finally:
        sys.setrecursionlimit(1000)
    twice = change(skops_folder(canaries / "twice", model), schema_edit(edit))
    said = answers(twice, nested)
    assert said[0] == "loaded"
    assert said[1].startswith("FormatError")


def test_archives_that_are_bombs(canaries: Path, answers: Answers) -> None:
    model, _ = estimators.fitted("logistic")

    def zeros(members: dict[str, bytes]) -> None:
        members["zeros"] = bytes(600 << 20)

    bomb = change(skops_folder(canaries / "bomb", model), zeros, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    assert (bomb / "model.skops").stat().st_size < 5 << 20
    outside = change(skops_folder(canaries / "outside", model), lambda members: members.update({"../../x": b""}))
    broken = skops_folder(canaries / "broken", model)
    data = (broken / "model.skops").read_bytes()
    (broken / "model.skops").write_bytes(data[: len(data) // 2])
    double = skops_folder(canaries / "double", model)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(double / "model.skops", "a") as archive:
        archive.writestr("schema.json", b"{}")
    huge = change(
        skops_folder(canaries / "huge", model),
        lambda members: members.update({name: _claims(members[name]) for name in members if name.endswith(".npy")}),
    )
    objects = io.BytesIO()
    np.save(objects, np.array([_Payload(canaries.parent)], dtype=object), allow_pickle=True)
    pickled = change(
        skops_folder(canaries / "pickled", model),
        lambda members: members.update({name: objects.getvalue() for name in members if name.endswith(".npy")}),
    )
    folders = (bomb, outside, broken, double, huge, pickled)
    assert [said.partition(":")[0] for said in answers(*folders)] == ["FormatError"] * len(folders)


def _claims(array: bytes) -> bytes:
    """An array that says that it has 10**12 rows."""
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 4)}
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, header)
    return made.getvalue() + array[-64:]


def test_check_archive_takes_what_people_make(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10 << 20))
    assert check_archive(tmp_path / "a.zip") == ["zeros"]


# --- indices that lead out of bounds


def arrays(edit: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any] | None], *, field: str) -> Any:
    """A change of every array of records that has ``field``."""

    def apply(members: dict[str, bytes]) -> None:
        for name, data in members.items():
            if not name.endswith(".npy"):
                continue
            array = np.load(io.BytesIO(data))
            if array.dtype.names and field in array.dtype.names:
                changed = edit(array)
                made = io.BytesIO()
                np.save(made, array if changed is None else changed)
                members[name] = made.getvalue()

    return apply


def put(field: str, index: Any, value: Any) -> Any:
    def edit(array: np.ndarray[Any, Any]) -> None:
        array[field][index] = value

    return edit


def attribute(name: str, value: Any) -> Any:
    """A change of every JSON value that the description has under ``name``."""

    def edit(schema: dict[str, Any]) -> None:
        todo: list[Any] = [schema]
        while todo:
            part = todo.pop()
            if isinstance(part, dict):
                if isinstance(part.get(name), dict) and part[name].get("is_json"):
                    part[name]["content"] = json.dumps(value)
                todo.extend(part.values())
            elif isinstance(part, list):
                todo.extend(part)

    return schema_edit(edit)


def array_attribute(name: str, edit: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Any:
    """A change of every array that the description has under ``name``."""

    def apply(members: dict[str, bytes]) -> None:
        todo: list[Any] = [json.loads(members["schema.json"])]
        while todo:
            part = todo.pop()
            if isinstance(part, dict):
                if isinstance(part.get(name), dict) and str(part[name].get("file", "")).endswith(".npy"):
                    file = part[name]["file"]
                    made = io.BytesIO()
                    np.save(made, edit(np.load(io.BytesIO(members[file]))))
                    members[file] = made.getvalue()
                todo.extend(part.values())
            elif isinstance(part, list):
                todo.extend(part)

    return apply


def emptied_tree(schema: dict[str, Any]) -> None:
    """Trees without their state."""
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if part.get("__loader__") == "TreeNode":
                part["content"] = node(
                    "DictNode",
                    "builtins",
                    "dict",
                    content={},
                    key_types=node("ListNode", "builtins", "list", content=[]),
                )
            else:
                todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)


def bare(loader: str) -> Callable[[dict[str, Any]], None]:
    """Trees by another reader, which gives them no state at all."""

    def edit(schema: dict[str, Any]) -> None:
        todo: list[Any] = [schema]
        while todo:
            part = todo.pop()
            if isinstance(part, dict):
                if part.get("__loader__") == "TreeNode":
                    part["__loader__"] = loader
                    part["content"] = part["__reduce__"]["args"]
                else:
                    todo.extend(part.values())
            elif isinstance(part, list):
                todo.extend(part)

    return edit


FAR = 1 << 28
CRAFTED: dict[str, tuple[str, Any]] = {
    "child-far": ("tree", arrays(put("left_child", 0, FAR), field="left_child")),
    "child-before": ("tree", arrays(put("right_child", 0, -FAR), field="left_child")),
    "child-itself": ("tree", arrays(put("left_child", 0, 0), field="left_child")),
    "child-shared": ("tree", arrays(put("right_child", 0, 1), field="left_child")),
    "feature-far": ("tree", arrays(put("feature", 0, FAR), field="left_child")),
    "feature-negative": ("tree", arrays(put("feature", 0, -FAR), field="left_child")),
    "tree-shorter": ("tree", arrays(lambda array: array[:2], field="left_child")),
    "tree-empty": ("tree", arrays(lambda array: array[:0], field="left_child")),
    "tree-of-other-type": ("tree", arrays(lambda array: array.view("u1"), field="left_child")),
    "tree-without-state": ("tree", schema_edit(emptied_tree)),
    "tree-by-constructor": ("tree", schema_edit(bare("ConstructorFromReduceNode"))),
    "tree-by-new": ("tree", schema_edit(bare("ObjectNode"))),
    "node-count": ("tree", attribute("node_count", FAR)),
    "max-depth": ("tree", attribute("max_depth", 0)),
    "features-in": ("tree", attribute("n_features_in_", 2)),
    "forest-child": ("forest", arrays(put("left_child", 0, FAR), field="left_child")),
    "isolation-child": ("isolation-forest", arrays(put("left_child", 0, FAR), field="left_child")),
    "extra-trees-feature": ("extra-trees", arrays(put("feature", 0, FAR), field="left_child")),
    "search-child": ("grid-search", arrays(put("left_child", 0, FAR), field="left_child")),
    "boosting-child": ("boosting", arrays(put("left_child", 0, FAR), field="left_child")),
    "boosting-outputs": ("boosting-zero", with_attribute(text(1), "n_trees_per_iteration_")),
    "boosting-shared-features": ("boosting", with_attribute(text(3), "n_features_in_")),
    "hist-left": ("hist-boosting", arrays(put("left", 0, FAR), field="bin_threshold")),
    "hist-itself": ("hist-boosting", arrays(put("right", 0, 0), field="bin_threshold")),
    "hist-feature": ("hist-boosting", arrays(put("feature_idx", slice(None), FAR), field="bin_threshold")),
    "hist-category": ("hist-boosting", arrays(put("is_categorical", slice(None), 1), field="bin_threshold")),
    "hist-empty": ("hist-boosting", arrays(lambda array: array[:0], field="bin_threshold")),
    "hist-in-fit": ("hist-boosting", with_attribute(text(True), "_in_fit")),
    "hist-features-in": ("hist-boosting", attribute("n_features_in_", 2)),
    "neighbours-start": ("neighbours", arrays(put("idx_start", slice(None), FAR), field="idx_start")),
    "neighbours-end": ("neighbours", arrays(put("idx_end", slice(None), FAR), field="idx_start")),
    "neighbours-negative": ("neighbours", arrays(put("idx_start", slice(None), -FAR), field="idx_start")),
    "neighbours-leaf": ("neighbours", arrays(put("is_leaf", slice(None), 0), field="idx_start")),
    "neighbours-nodes": ("neighbours", arrays(lambda array: array[:1], field="idx_start")),
    "ball-end": ("neighbours-ball", arrays(put("idx_end", slice(None), FAR), field="idx_start")),
    "brute-points": ("neighbours-brute", array_attribute("_fit_X", lambda array: array[:, :1].copy())),
    "brute-count": ("neighbours-brute", attribute("n_samples_fit_", FAR)),
    "svc-support": ("svc", array_attribute("support_vectors_", lambda array: array[:2].copy())),
    "svc-counts": ("svc", array_attribute("_n_support", lambda array: array * 0 + (1 << 20))),
    "svc-coefficients": ("svc", array_attribute("_dual_coef_", lambda array: array[:, :1].copy())),
    "svc-intercepts": ("svc", array_attribute("_intercept_", lambda array: array[:0].copy())),
    "svc-width": ("svc", array_attribute("support_vectors_", lambda array: array[:, :1].copy())),
    "svr-support": ("svr", array_attribute("support_", lambda array: np.resize(array, FAR // 1024).astype("int32"))),
    "centres": ("k-means", array_attribute("cluster_centers_", lambda array: array[:, :1].copy())),
}


@pytest.mark.parametrize("native", [False, True])
def test_indices_that_lead_out_of_bounds(native: bool, canaries: Path, answers: Answers) -> None:
    folders = []
    for name, (kind, edit) in CRAFTED.items():
        model, _ = estimators.fitted(kind)
        folders.append(change(skops_folder(canaries / name, model), edit))
    said = dict(zip(CRAFTED, answers(*folders, native=native), strict=True))
    assert {name: one for name, one in said.items() if not one.startswith("FormatError")} == {}


def _columns(schema: dict[str, Any]) -> None:
    """A OneHotEncoder with fewer columns than categories."""
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if "_n_features_outs" in part:
                part["_n_features_outs"] = listed(text(1))
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)


def _vocabulary(schema: dict[str, Any]) -> None:
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if "vocabulary_" in part and isinstance(part["vocabulary_"], dict) and "content" in part["vocabulary_"]:
                part["vocabulary_"]["content"] = dict.fromkeys(part["vocabulary_"]["content"], text(FAR))
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("counts", schema_edit(_vocabulary)),
        ("table", schema_edit(_columns)),
        ("hist-boosting-categories", arrays(put("bitset_idx", slice(None), FAR), field="bin_threshold")),
        ("svc-sparse", array_attribute("_n_support", lambda array: array * 0 + (1 << 20))),
    ],
)
def test_other_parts_that_lead_out_of_bounds(kind: str, edit: Any, canaries: Path) -> None:
    model, _ = estimators.fitted(kind)
    change(skops_folder(canaries / "m", model), edit)
    with pytest.raises(GittrackError, match="damaged or was made to do harm"):
        gittrack.sklearn.load_model(canaries / "m")


def test_a_sparse_matrix_that_leads_out_of_bounds(canaries: Path) -> None:
    from scipy import sparse

    model, _ = estimators.fitted("svc-sparse")

    def edit(members: dict[str, bytes]) -> None:
        for name in [name for name in members if name.endswith(".npz")]:
            matrix = sparse.load_npz(io.BytesIO(members[name]))
            if matrix.nnz:
                matrix.indices[:] = FAR
                made = io.BytesIO()
                sparse.save_npz(made, matrix)
                members[name] = made.getvalue()

    change(skops_folder(canaries / "m", model), edit)
    with pytest.raises(FormatError):
        gittrack.sklearn.load_model(canaries / "m")
