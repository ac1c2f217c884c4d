"""Datasets as runs record them: digests, schemas and profiles in MLflow's form, sources without credentials."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import gittrack.data as data
from gittrack import types
from gittrack.data import dataset_source_registry as registry
from gittrack.data.digest_utils import compute_numpy_digest, compute_pandas_digest
from gittrack.data.schema import ColSpec, Schema
from gittrack.errors import InvalidValueError, MissingDependencyError, NotFoundError, StorageError, UnsupportedError
from gittrack.track.secrets import REDACTED

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME = pd.DataFrame({"a": [1, 2], "b": [1.5, None], "label": ["x", "y"]})


def schema_of(frame: pd.DataFrame) -> Any:
    text = data.from_pandas(frame, source="x.csv").to_dict()["schema"]
    return None if text is None else json.loads(text)["mlflow_colspec"]


# ----------------------------------------------------------------------------------------------------------- datasets


def test_a_table_is_described_as_mlflow_does() -> None:
    dataset = data.from_pandas(FRAME, source="/data/x.csv", targets="label", name="train")
    assert dataset.name == "train"
    assert dataset.targets == "label"
    assert dataset.predictions is None
    assert dataset.df is FRAME
    assert dataset.profile == {"num_rows": 2, "num_elements": 6}
    assert json.loads(dataset.to_json()) == {
        "name": "train",
        "digest": dataset.digest,
        "source": '{"uri": "/data/x.csv"}',
        "source_type": "local",
        "schema": '{"mlflow_colspec": [{"type": "long", "name": "a", "required": true}, '
        '{"type": "double", "name": "b", "required": false}, '
        '{"type": "string", "name": "label", "required": true}]}',
        "profile": '{"num_rows": 2, "num_elements": 6}',
    }
    assert dataset._to_mlflow_entity() == types.Dataset(**dataset.to_dict())  # type: ignore[arg-type]


def test_arrays_are_described_as_mlflow_does() -> None:
    features = {"x": np.array(["ab"]), "y": np.zeros((0, 4), "float32")}
    recorded = data.from_numpy(features, source="s3://b/k", targets=np.zeros((2, 3), "int64")).to_dict()
    assert recorded["name"] == "dataset"
    assert recorded["source"] == '{"uri": "s3://b/k"}'
    assert recorded["source_type"] == "s3"
    assert json.loads(recorded["schema"] or "") == {
        "mlflow_tensorspec": {
            "features": '[{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}}, '
            '{"name": "y", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]',
            "targets": '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, 3]}}]',
        }
    }
    assert json.loads(recorded["profile"] or "") == {
        "features_shape": {"x": [1], "y": [0, 4]},
        "features_size": {"x": 1, "y": 0},
        "features_nbytes": {"x": 8, "y": 0},
        "targets_shape": [2, 3],
        "targets_size": 6,
        "targets_nbytes": 48,
    }


@pytest.mark.parametrize("role", ["targets", "predictions"])
def test_a_column_that_is_not_there_is_named(role: str) -> None:
    with pytest.raises(InvalidValueError, match="no column `gone` for " + role):
        data.from_pandas(FRAME, **{role: "gone"})


def test_a_description_without_data() -> None:
    source = data.HTTPDatasetSource("http://example.org/imdb.tar.gz")
    plain = data.meta_dataset.MetaDataset(source)
    assert set(plain.to_dict()) == {"name", "digest", "source", "source_type"}
    assert plain._to_mlflow_entity().schema is None
    detailed = data.MetaDataset(source, schema=Schema([ColSpec("string", "text")]))
    assert json.loads(detailed.to_dict()["schema"] or "") == {
        "mlflow_colspec": [{"type": "string", "name": "text", "required": True}]
    }
    digests = {
        plain.digest,
        detailed.digest,
        data.MetaDataset(source, name="other").digest,
        data.MetaDataset(data.HTTPDatasetSource("http://example.org/other")).digest,
    }
    assert len(digests) == 4
    assert data.MetaDataset(source, digest="mine").digest == "mine"


def test_a_dataset_of_ones_own() -> None:
    class Corpus(data.Dataset):
        def _compute_digest(self) -> str:
            return "d1"

    entity = Corpus(data.LocalArtifactDatasetSource("c"), "corpus")._to_mlflow_entity()
    assert entity == types.Dataset("corpus", "d1", "local", '{"uri": "c"}', None, None)


def test_a_schema_that_is_too_long_is_left_out() -> None:
    wide = pd.DataFrame(np.zeros((1, 30_000)))
    wide.columns = [f"a_rather_long_name_{i}" for i in range(30_000)]
    entity = data.from_pandas(wide, source="x")._to_mlflow_entity()
    assert entity.schema is None
    assert entity.profile == '{"num_rows": 1, "num_elements": 30000}'


# ------------------------------------------------------------------------------------------------------------- schemas


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1], "int8"), "integer"),
        (np.array([1], "int32"), "integer"),
        (np.array([1], "uint16"), "integer"),
        (np.array([1], "uint32"), "long"),
        (np.array([1], "int64"), "long"),
        (np.array([1], "float16"), "float"),
        (np.array([1], "float64"), "double"),
        (np.array([True]), "boolean"),
        (pd.to_datetime(["2020-01-01"]), "datetime"),
        (pd.to_datetime(["2020-01-01"], utc=True), "datetime"),
        (pd.Series(["a"], dtype="string"), "string"),
        (pd.Series([1], dtype="Int64"), "long"),
        (pd.Series([True], dtype="boolean"), "boolean"),
        (pd.Categorical(["a"]), "string"),
        (pd.Series([1, 2.5], dtype=object), "double"),
        (pd.Series([np.int32(1)], dtype=object), "integer"),
        (pd.Series([b"a"], dtype=object), "binary"),
        (pd.Series([True], dtype=object), "boolean"),
        (pd.Series([dt.date(2020, 1, 1)], dtype=object), "datetime"),
        (pd.Series([None], dtype=object), "any"),
    ],
)
def test_types_of_columns(values: Any, expected: str) -> None:
    (column,) = schema_of(pd.DataFrame({"c": values}))
    assert column["type"] == expected


def test_types_of_nested_columns() -> None:
    frame = pd.DataFrame(
        {
            "list": [[1, 2], [3]],
            "array": [np.array([1.0]), np.array([2.0, 3.0])],
            "deep": [[["a"]], [[]]],
            "dict": [{"a": 1}, {"a": 2, "b": "x"}],
        }
    )
    assert schema_of(frame) == [
        {"type": "array", "items": {"type": "long"}, "name": "list", "required": True},
        {"type": "array", "items": {"type": "double"}, "name": "array", "required": True},
        {"type": "array", "items": {"type": "array", "items": {"type": "string"}}, "name": "deep", "required": True},
        {
            "type": "object",
            "properties": {"a": {"type": "long", "required": True}, "b": {"type": "string", "required": False}},
            "name": "dict",
            "required": True,
        },
    ]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, "a"], dtype=object),
        np.array([1], "uint64"),
        np.array([1j]),
        np.array([1], "m8[s]"),
        pd.Series([object()], dtype=object),
    ],
)
def test_a_column_without_a_type_leaves_the_schema_out(values: Any) -> None:
    assert (
        schema_of(pd.DataFrame({"ok": [1], "c": values[:1]}) if len(values) == 1 else pd.DataFrame({"c": values}))
        is None
    )


def test_names_of_columns_that_are_no_text() -> None:
    frame = pd.DataFrame([[1, 2]], columns=pd.Index([0, dt.date(2020, 1, 1)], dtype=object))
    assert [column["name"] for column in schema_of(frame)] == [0, "2020-01-01"]
    assert [column["name"] for column in schema_of(pd.DataFrame([[1, 2]], columns=["a", "a"]))] == ["a", "a"]


# ------------------------------------------------------------------------------------------------------------- digests


def test_digests_do_not_change() -> None:
    """Written down once: runs of different versions of gittrack must stay comparable."""
    assert compute_pandas_digest(FRAME) == "1df50e7e7caf0d23"
    assert compute_numpy_digest(np.arange(6, dtype="int64").reshape(2, 3), np.array(["a", "é"])) == "f1d2b38e3e2dad76"


def test_a_digest_fits_the_limit_and_can_be_given() -> None:
    assert len(compute_pandas_digest(FRAME)) == 16
    assert data.from_pandas(FRAME, digest="abc").digest == "abc"
    assert data.from_numpy(np.zeros(1), digest="abc").digest == "abc"


def test_every_difference_changes_the_digest_of_a_table() -> None:
    late = pd.DataFrame({"x": np.zeros(50_000)})
    later = late.copy()
    later.iloc[-1, 0] = 1.0
    frames = [
        FRAME,
        FRAME.rename(columns={"a": "A"}),
        FRAME[["b", "a", "label"]],
        FRAME.iloc[::-1],
        FRAME.iloc[:1],
        FRAME.astype({"a": "int32"}),
        FRAME.assign(label=["xy", ""]),
        FRAME.assign(label=["", "xy"]),
        FRAME.assign(label=["x", None]),
        FRAME.assign(label=["x", "None"]),
        FRAME.assign(a=["1", "2"]),
        FRAME.assign(a=pd.Series([1, 2], dtype=object)),
        FRAME.set_index("a"),
        FRAME.assign(b=[1.5, np.inf]),
        late,
        later,
    ]
    assert len({compute_pandas_digest(frame) for frame in frames}) == len(frames)


def test_equal_values_have_equal_digests_however_pandas_keeps_them() -> None:
    text = ["a", None, "é", "d" * 3]
    variants = [pd.DataFrame({"t": pd.Series(text, dtype=dtype)}) for dtype in ("object", "string", "category")]
    assert len({compute_pandas_digest(frame) for frame in variants}) == 1
    numbers = [pd.DataFrame({"n": pd.Series([1, 2], dtype=dtype)}) for dtype in ("int64", "Int64")]
    assert len({compute_pandas_digest(frame) for frame in numbers}) == 1
    columns = pd.DataFrame(np.arange(6.0).reshape(2, 3))
    assert compute_pandas_digest(columns) == compute_pandas_digest(columns.copy(deep=True)[[0, 1, 2]])
    holes = [pd.DataFrame({"n": pd.Series([1, value], dtype="Int64")}) for value in (None, 0)]
    assert compute_pandas_digest(holes[0]) != compute_pandas_digest(holes[1])


@pytest.mark.parametrize("kind", ["int64", "double", "bool", "string"])
def test_arrow_columns_have_the_digest_of_equal_ones(kind: str) -> None:
    pytest.importorskip("pyarrow")
    values: list[Any] = ["a", "é"] if kind == "string" else [1, 0]
    plain = pd.Series(values, dtype={"double": "float64", "string": "object"}.get(kind, kind))
    arrow = pd.Series(values, dtype=f"{kind}[pyarrow]")
    assert compute_pandas_digest(pd.DataFrame({"c": arrow})) == compute_pandas_digest(pd.DataFrame({"c": plain}))


def test_times_with_zones_and_missing_times() -> None:
    moments = pd.DatetimeIndex(["2020-01-01", "NaT"])
    zones = [moments, moments.tz_localize("UTC"), moments.tz_localize("Europe/Paris")]
    assert len({compute_pandas_digest(pd.DataFrame({"t": zone})) for zone in zones}) == 3


def test_long_columns_of_objects_are_hashed_in_pieces() -> None:
    texts = [str(i) for i in range(70_000)]
    digests = {
        compute_pandas_digest(pd.DataFrame({"t": pd.Series(values, dtype=object)}))
        for values in (texts, [*texts[:-1], "x"], [0, *texts[1:]], [*texts[:65_536], None, *texts[65_537:]])
    }
    assert len(digests) == 4


def test_every_difference_changes_the_digest_of_arrays() -> None:
    array = np.arange(6)
    digests = [
        compute_numpy_digest(array),
        compute_numpy_digest(array.reshape(2, 3)),
        compute_numpy_digest(array.reshape(3, 2)),
        compute_numpy_digest(array.astype("int32")),
        compute_numpy_digest(array, array),
        compute_numpy_digest({"x": array}),
        compute_numpy_digest({"y": array}),
        compute_numpy_digest({"x": array, "y": array}),
        compute_numpy_digest(array.astype(object)),
        compute_numpy_digest(array.astype(object).reshape(2, 3)),
        compute_numpy_digest(np.array(0)),
        compute_numpy_digest(np.zeros((0, 4))),
        compute_numpy_digest(np.zeros((0, 5))),
        compute_numpy_digest(np.array(["2020"], "M8[D]")),
        compute_numpy_digest(np.array(["a", "b"])),
    ]
    assert len(set(digests)) == len(digests)


def test_layout_and_byte_order_do_not_change_a_digest() -> None:
    array = np.arange(12.0).reshape(3, 4)
    expected = compute_numpy_digest(array)
    assert compute_numpy_digest(np.asfortranarray(array)) == expected
    assert compute_numpy_digest(np.repeat(array, 2, axis=1)[:, ::2]) == expected
    assert compute_numpy_digest(array.astype(">f8")) == expected
    assert compute_numpy_digest({"b": array, "a": array}) == compute_numpy_digest({"a": array, "b": array})


@given(st.lists(st.one_of(st.text(), st.none(), st.integers(), st.floats(), st.binary()), max_size=30), st.integers())
def test_equal_objects_have_equal_digests_and_order_counts(values: list[Any], seed: int) -> None:
    def digest(items: list[Any]) -> str:
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return compute_numpy_digest(array)

    assert digest(values) == digest(list(values))
    shuffled = [values[(i + seed) % len(values)] for i in range(len(values))]
    missing = [None if value is None or value != value else value for value in values]
    same = repr(missing) == repr([None if v is None or v != v else v for v in shuffled])
    assert (digest(values) == digest(shuffled)) is same


def test_a_digest_is_the_same_in_another_process() -> None:
    code = (
        "import pandas as pd; from gittrack.data.digest_utils import compute_pandas_digest\n"
        "frame = pd.DataFrame({'a': [1, 2], 'b': [1.5, None], 'label': ['x', 'y']})\n"
        "print(compute_pandas_digest(frame))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == compute_pandas_digest(FRAME)


def test_polars() -> None:
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    table = polars.DataFrame({"a": [1, 2], "b": [1.5, 2.5], "label": ["x", None]})
    dataset = data.from_polars(table, source="x.parquet", targets="label", name="train")
    assert dataset.digest == compute_pandas_digest(pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5], "label": ["x", None]}))
    assert dataset.name == "train"
    assert dataset.targets == "label"


def test_polars_that_cannot_convert() -> None:
    class Table:
        def to_pandas(self) -> Any:
            raise ModuleNotFoundError("pyarrow is required")

    with pytest.raises(MissingDependencyError, match="pyarrow is required"):
        data.from_polars(Table())


# ------------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("raw", "kind", "source_type", "recorded"),
    [
        ("rel/x.csv", data.LocalArtifactDatasetSource, "local", {"uri": "rel/x.csv"}),
        (Path("rel/x.csv"), data.LocalArtifactDatasetSource, "local", {"uri": str(Path("rel/x.csv"))}),
        ("file:///tmp/x", data.LocalArtifactDatasetSource, "local", {"uri": "file:///tmp/x"}),
        ("C:\\data\\x", data.LocalArtifactDatasetSource, "local", {"uri": "C:\\data\\x"}),
        ("https://h/x", data.HTTPDatasetSource, "http", {"url": "https://h/x"}),
        ("http://me:pw@h/x?token=abc", data.HTTPDatasetSource, "http", {"url": f"http://h/x?token={REDACTED}"}),
        ("s3://bucket/key", data.RemoteDatasetSource, "s3", {"uri": "s3://bucket/key"}),
        ("sftp://me:pw@h/x", data.RemoteDatasetSource, "sftp", {"uri": "sftp://me@h/x"}),
    ],
)
def test_sources(raw: Any, kind: type[data.DatasetSource], source_type: str, recorded: dict[str, str]) -> None:
    entity = data.from_numpy(np.zeros(1), source=raw)._to_mlflow_entity()
    assert entity.source_type == source_type
    assert json.loads(entity.source) == recorded
    for read in (data.get_source(entity), data.get_source(types.DatasetInput(entity))):
        assert type(read) is kind
        assert read.to_dict() == recorded


def test_a_source_object_is_taken_as_it_is() -> None:
    source = data.LocalArtifactDatasetSource("x")
    dataset = data.from_pandas(FRAME, source=source)
    assert dataset.source is source
    assert data.get_source(dataset) is source


def test_without_a_source_it_is_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    entity = data.from_pandas(FRAME)._to_mlflow_entity()
    assert entity.source_type == "code"
    tags = json.loads(entity.source)["tags"]
    assert set(tags) == {"mlflow.user", "mlflow.source.name", "mlflow.source.type"}
    assert tags["mlflow.source.name"] == "train.py"
    subprocess.run(["git", "init", "-q"], check=True)
    assert "mlflow.source.git.commit" not in data.CodeDatasetSource.here().tags
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    source = data.CodeDatasetSource.here()
    assert source.tags["mlflow.source.git.commit"] == head
    assert registry.get_dataset_source_from_json(source.to_json(), "code").to_dict() == source.to_dict()
    with pytest.raises(UnsupportedError):
        source.load()


@pytest.mark.parametrize("raw", [17, None, object(), "gopher:x"])
def test_what_names_no_source(raw: Any) -> None:
    with pytest.raises(NotFoundError):
        registry.resolve_dataset_source(raw)


def test_candidates_narrow_the_search() -> None:
    assert registry.resolve_dataset_source("x", [data.FileSystemDatasetSource]).to_dict() == {"uri": "x"}
    with pytest.raises(NotFoundError):
        registry.resolve_dataset_source("x", [data.HTTPDatasetSource])


def test_a_source_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Warehouse(data.DatasetSource):
        @staticmethod
        def _get_source_type() -> str:
            return "warehouse"

        @staticmethod
        def _can_resolve(raw_source: Any) -> bool:
            return str(raw_source).startswith("wh:")

        @classmethod
        def _resolve(cls, raw_source: Any) -> Any:
            return cls()

        def to_dict(self) -> dict[str, Any]:
            return {"table": "t"}

        @classmethod
        def from_dict(cls, source_dict: Any) -> Any:
            assert source_dict == {"table": "t"}
            return cls()

    monkeypatch.setattr(registry, "_registered", [])
    registry.register_dataset_source(Warehouse)
    entity = data.from_pandas(FRAME, source="wh:t")._to_mlflow_entity()
    assert (entity.source_type, entity.source) == ("warehouse", '{"table": "t"}')
    assert isinstance(data.get_source(entity), Warehouse)


@pytest.mark.parametrize(
    ("source", "source_type", "error"),
    [
        ("{", "local", InvalidValueError),
        ("[]", "local", InvalidValueError),
        ("{}", "local", InvalidValueError),
        ('{"uri": 3}', "local", InvalidValueError),
        ("[" * 100_000, "http", InvalidValueError),
        ('{"url": "file:///etc/passwd"}', "http", InvalidValueError),
        ('{"tags": 3}', "code", InvalidValueError),
        ('{"path": "x"}', "delta_table", NotFoundError),
        ('{"uri": "gs://x"}', "s3", NotFoundError),
    ],
)
def test_recorded_sources_that_cannot_be_read(source: str, source_type: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        data.get_source(types.Dataset("n", "d", source_type, source))


def test_the_source_of_something_else() -> None:
    with pytest.raises(InvalidValueError):
        data.get_source("x")  # type: ignore[arg-type]


def test_loading_a_local_source(tmp_path: Path) -> None:
    file = tmp_path / "a b.csv"
    file.write_text("1")
    assert data.LocalArtifactDatasetSource(str(file)).load() == str(file)
    assert data.LocalArtifactDatasetSource(file.as_uri()).load() == str(file)
    copy = data.LocalArtifactDatasetSource(str(file)).load(tmp_path / "new")
    assert Path(copy).read_text() == "1"
    assert Path(copy) == tmp_path / "new/a b.csv"
    folder = data.LocalArtifactDatasetSource(str(tmp_path / "new")).load(tmp_path / "more")
    assert (Path(folder) / "a b.csv").read_text() == "1"
    with pytest.raises(NotFoundError):
        data.LocalArtifactDatasetSource(str(tmp_path / "gone")).load()


def test_a_remote_source_is_not_loaded_and_shows_no_password() -> None:
    with pytest.raises(UnsupportedError) as caught:
        data.RemoteDatasetSource("sftp://me:pw@h/x").load()
    assert "pw" not in str(caught.value)


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        names = {"/evil": 'attachment; filename="../../x"', "/named": 'attachment; filename="n.csv"'}
        if self.path in names:
            self.send_header("Content-Disposition", names[self.path])
        self.end_headers()
        self.wfile.write(b"rows of " + self.path.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_loading_from_the_web(web: str, tmp_path: Path) -> None:
    path = data.HTTPDatasetSource(f"{web}/a/b%20c.csv?v=1").load(tmp_path / "new")
    assert Path(path) == tmp_path / "new/b c.csv"
    assert Path(path).read_bytes() == b"rows of /a/b%20c.csv?v=1"
    assert Path(data.HTTPDatasetSource(f"{web}/named").load(tmp_path)).name == "n.csv"
    temporary = Path(data.HTTPDatasetSource(web + "/").load())
    assert temporary.read_bytes() == b"rows of /"
    temporary.unlink()
    temporary.parent.rmdir()


@pytest.mark.parametrize("path", ["/evil", "/..%2f..%2fx", "/.."])
def test_the_name_of_a_download_cannot_leave_the_folder(web: str, tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidValueError):
        data.HTTPDatasetSource(web + path).load(tmp_path / "in")
    assert not list(tmp_path.rglob("x"))


def test_a_download_that_fails_is_an_error_without_the_password(web: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        data.HTTPDatasetSource(web + "/missing?token=s3cr3t").load(tmp_path)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(StorageError):
        data.HTTPDatasetSource("http://127.0.0.1:9/x").load(tmp_path)


def test_importing_the_package_loads_no_data_library() -> None:
    heavy = "{'numpy', 'pandas', 'polars', 'dulwich', 'git', 'urllib.request'}"
    code = f"import sys, gittrack.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
