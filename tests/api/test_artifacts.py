"""Artifacts: every way to log one, and every way to read it back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image as PILImage

import gittrack
from gittrack.errors import InvalidValueError, MissingDependencyError, NotFoundError, UnsupportedError

FULL = os.environ.get("GITTRACK_FAULTS") == "full"

mpl.use("agg")
artifacts = gittrack.artifacts


def paths(run_id: str, folder: str | None = None) -> list[str]:
    """Every file below ``folder``."""
    found: list[str] = []
    for entry in gittrack.Client().list_artifacts(run_id, folder):
        found += paths(run_id, entry.path) if entry.is_dir else [entry.path]
    return found


def uri(run: gittrack.ActiveRun, path: str) -> str:
    return f"{run.info.artifact_uri}/{path}"


def test_files_and_folders(project: Path, tmp_path: Path) -> None:
    top = tmp_path / "out"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "a.txt").write_bytes(b"a")
    (top / "deep" / "er" / "b.bin").write_bytes(bytes(range(256)))
    with gittrack.start_run() as run:
        gittrack.log_artifact(top / "a.txt")
        gittrack.log_artifact(str(top / "a.txt"), "in/folder")
        gittrack.log_artifact(top, "whole")
        gittrack.log_artifacts(str(top), "flat")
        gittrack.log_artifacts(top)
    run_id = run.info.run_id
    assert paths(run_id) == [
        "a.txt",
        "deep/er/b.bin",
        "flat/a.txt",
        "flat/deep/er/b.bin",
        "in/folder/a.txt",
        "whole/out/a.txt",
        "whole/out/deep/er/b.bin",
    ]
    (entry,) = [one for one in gittrack.Client().list_artifacts(run_id) if one.path == "a.txt"]
    assert (entry.is_dir, entry.file_size, entry.digest) == (False, 1, hashlib.sha256(b"a").hexdigest())
    assert gittrack.Client().list_artifacts(run_id, "a.txt") == []
    assert gittrack.Client().list_artifacts(run_id, "nothing") == []


def test_the_path_of_a_folder_may_end_in_a_slash(project: Path, tmp_path: Path) -> None:
    with gittrack.start_run() as run:
        gittrack.log_text("t", "deep/er/t.txt")
    client = gittrack.Client()
    assert [entry.path for entry in client.list_artifacts(run.info.run_id, "deep/")] == ["deep/er"]
    assert Path(client.download_artifacts(run.info.run_id, "deep/er/", str(tmp_path)), "t.txt").read_text() == "t"
    assert artifacts.list_artifacts(uri(run, "deep/"))[0].is_dir
    for bad in ("/", "deep//", "../"):
        with pytest.raises(InvalidValueError, match="artifact path"):
            client.list_artifacts(run.info.run_id, bad)


def test_what_cannot_be_told_is_no_dict(project: Path) -> None:
    circle: dict[str, Any] = {}
    circle["itself"] = circle

    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with gittrack.start_run() as run:
        bads: list[Any] = [circle, {"a": Silent()}, {("a", "b"): 1}]
        for bad in bads:
            with pytest.raises(InvalidValueError, match=r"cannot store the dict as `d.json`"):
                gittrack.log_dict(bad, "d.json")
    assert paths(run.info.run_id) == []


def test_downloads(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gittrack.start_run() as run:
        gittrack.log_text("one", "a/1.txt")
        gittrack.log_text("two", "a/b/2.txt")
        gittrack.log_text("three", "3.txt")
    run_id = run.info.run_id
    client = gittrack.Client()
    target = tmp_path / "target"
    target.mkdir()
    assert client.download_artifacts(run_id, "a", str(target)) == str(target / "a")
    assert (target / "a" / "b" / "2.txt").read_text() == "two"
    # The folders above what is asked for are left out, and the answer is absolute.
    monkeypatch.chdir(tmp_path)
    assert client.download_artifacts(run_id, "a/b", "target") == str(target / "b")
    assert artifacts.download_artifacts(f"runs:/{run_id}/a/1.txt", dst_path="target") == str(target / "1.txt")
    found = {p.relative_to(target).as_posix() for p in target.rglob("*.txt")}
    assert found == {"a/1.txt", "a/b/2.txt", "b/2.txt", "1.txt"}
    assert not (target / "3.txt").exists()
    single = client.download_artifacts(run_id, "3.txt")
    assert Path(single).read_text() == "three"
    everything = artifacts.download_artifacts(run_id=run_id, dst_path=str(tmp_path / "new" / "folder"))
    assert {p.name for p in Path(everything).rglob("*.txt")} == {"1.txt", "2.txt", "3.txt"}
    assert Path(artifacts.download_artifacts(f"runs:/{run_id}/a/1.txt")).read_text() == "one"
    assert Path(artifacts.download_artifacts(run_id=run_id, artifact_path="a/b")).name == "b"
    assert [e.path for e in artifacts.list_artifacts(f"runs:/{run_id}/a")] == ["a/1.txt", "a/b"]
    assert [e.path for e in artifacts.list_artifacts(run_id=run_id, artifact_path="a/b")] == ["a/b/2.txt"]
    with pytest.raises(NotFoundError, match="does not exist"):
        client.download_artifacts(run_id, "a", str(tmp_path / "missing"))
    with pytest.raises(NotFoundError, match=r"has no artifact `a/1.tx`"):
        client.download_artifacts(run_id, "a/1.tx")


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("runs:/{id}/../../x", InvalidValueError),
        ("runs:/{id}//etc/passwd", InvalidValueError),
        ("runs:/{id}/%2e%2e/x", InvalidValueError),
        ("runs:/../x", InvalidValueError),
        ("runs://host/{id}/x", InvalidValueError),
        ("runs:/{id}/missing", NotFoundError),
        ("file:///etc/passwd", UnsupportedError),
        ("/etc/passwd", UnsupportedError),
        ("dbfs:/x", UnsupportedError),
        ("models:/m/%2e%2e", UnsupportedError),
        ("s3://bucket/x", UnsupportedError),
    ],
)
def test_addresses_that_lead_elsewhere_are_refused(project: Path, address: str, error: type[Exception]) -> None:
    with gittrack.start_run() as run:
        gittrack.log_text("x", "x")
    address = address.replace("{id}", run.info.run_id)
    with pytest.raises(error):
        artifacts.load_text(address)
    with pytest.raises(error):
        artifacts.download_artifacts(address)


def test_an_address_or_a_run_but_not_both(project: Path) -> None:
    for arguments in (
        {},
        {"artifact_uri": "runs:/a/b", "run_id": "a"},
        {"artifact_uri": "runs:/a", "artifact_path": "b"},
    ):
        with pytest.raises(InvalidValueError):
            artifacts.download_artifacts(**arguments)
        with pytest.raises(InvalidValueError):
            artifacts.list_artifacts(**arguments)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links and pipes")
def test_what_is_no_regular_file_is_refused(project: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    with gittrack.start_run() as run:
        for bad in (folder, tmp_path / "pipe", tmp_path / "missing", Path("/dev/null")):
            with pytest.raises((InvalidValueError, NotFoundError)):
                gittrack.log_artifact(bad)
        with pytest.raises((InvalidValueError, NotFoundError)):
            gittrack.log_artifacts(tmp_path / "missing")
        with pytest.raises(InvalidValueError, match="artifact path"):
            gittrack.log_artifact(secret, "../..")
    assert paths(run.info.run_id) == []


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links_inside_a_folder_are_followed(project: Path, tmp_path: Path) -> None:
    top = tmp_path / "checkpoints"
    (top / "step-1").mkdir(parents=True)
    (top / "step-1" / "weights").write_text("w")
    (top / "last").symlink_to("step-1")
    (top / "weights").symlink_to("last/weights")
    (tmp_path / "link").symlink_to(top)
    with gittrack.start_run() as run:
        gittrack.log_artifacts(top)
        gittrack.log_artifact(tmp_path / "link", "by link")
        (top / "step-1" / "back").symlink_to("../step-1")
        (top / "other").mkdir()
        (top / "other" / "top").symlink_to("..")
        for circle in ("step-1", "other"):
            with pytest.raises(InvalidValueError, match=r"in a circle|out of"):
                gittrack.log_artifacts(top / circle)
        with pytest.raises(InvalidValueError, match="in a circle"):
            gittrack.log_artifacts(top)
    names = ["last/weights", "step-1/weights", "weights"]
    assert paths(run.info.run_id) == [*(f"by link/link/{name}" for name in names), *names]


def test_a_folder_of_many_files(project: Path, tmp_path: Path) -> None:
    """A thousand in a hundred folders; ten thousand if GITTRACK_FAULTS=full."""
    each = 100 if FULL else 10
    top = tmp_path / "many"
    block = os.urandom(10_000)
    for number in range(100):
        (top / f"{number:02}").mkdir(parents=True)
        for other in range(each):
            (top / f"{number:02}" / f"{other:02}.bin").write_bytes(b"%05d" % (number * each + other) + block)
    with gittrack.start_run() as run:
        gittrack.log_artifacts(top)
        gittrack.log_artifact(top, "again")  # the same bytes: no space, little time
    gittrack.flush_async_logging()
    client = gittrack.Client()
    assert len(client.list_artifacts(run.info.run_id)) == 101
    assert len(paths(run.info.run_id, "57")) == each
    assert len(paths(run.info.run_id, "again/many/57")) == each
    copy = client.download_artifacts(run.info.run_id, "57", str(tmp_path))
    for name in ("00.bin", f"{each - 1:02}.bin"):
        assert Path(copy, name).read_bytes() == (top / "57" / name).read_bytes()
    objects = [path for path in (project / ".gittrack" / "objects").rglob("*") if path.is_file()]
    assert len(objects) == 100 * each
    assert sum(path.stat().st_size for path in objects) == 100 * each * 10_005


def test_text_dicts_and_streams(project: Path) -> None:
    value = {"a": [1, 2.5, None, True], "é": {"b": "c"}, "path": Path("x")}
    with gittrack.start_run() as run:
        gittrack.log_text("hällo\n", "deep/hello.txt")
        gittrack.log_text("<h1>x</h1>", "index.html")
        gittrack.log_dict(value, "d.json")
        gittrack.log_dict(value, "d.yaml")
        gittrack.log_dict(value, "no extension")
        gittrack.log_stream(io.BytesIO(b"x" * 300_000), "deep/stream.bin")
        gittrack.log_text("second", "index.html")
        assert artifacts.load_text(uri(run, "index.html")) == "second"
    assert artifacts.load_text(uri(run, "deep/hello.txt")) == "hällo\n"
    assert (
        artifacts.load_dict(uri(run, "d.json"))
        == {**value, "path": "x"}
        == artifacts.load_dict(uri(run, "no extension"))
    )
    assert b"\n" in Path(artifacts.download_artifacts(uri(run, "d.yaml"))).read_bytes()
    assert Path(artifacts.download_artifacts(uri(run, "deep/stream.bin"))).stat().st_size == 300_000
    with pytest.raises(InvalidValueError, match="not JSON"):
        artifacts.load_dict(uri(run, "index.html"))
    with gittrack.start_run(run_id=run.info.run_id):
        gittrack.log_stream(io.BytesIO(b"\xff\xfe"), "bytes")
    with pytest.raises(InvalidValueError, match="not text in UTF-8"):
        artifacts.load_text(uri(run, "bytes"))
    with pytest.raises(InvalidValueError, match="not an image"):
        artifacts.load_image(uri(run, "index.html"))


def test_figures(project: Path) -> None:
    figure, axes = __import__("matplotlib.pyplot").pyplot.subplots(figsize=(2, 1))
    axes.plot([0, 1], [2, 3])
    with gittrack.start_run() as run:
        gittrack.log_figure(figure, "plots/f.png", save_kwargs={"dpi": 50})
        gittrack.log_figure(figure, "f.svg")
        with pytest.raises(InvalidValueError, match="cannot save the figure"):
            gittrack.log_figure(figure, "f.docx")
        with pytest.raises(InvalidValueError, match="takes a figure"):
            gittrack.log_figure([1, 2], "f.png")
    assert artifacts.load_image(uri(run, "plots/f.png")).size == (100, 50)
    assert "<svg" in artifacts.load_text(uri(run, "f.svg"))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 6), dtype=np.uint8),
        np.full((4, 6, 1), 255, dtype=np.int64),
        np.random.default_rng(0).random((4, 6, 3)),
        np.ones((4, 6, 4), dtype=np.float32),
        np.ones((4, 6), dtype=bool),
        PILImage.new("RGB", (6, 4)),
        gittrack.Image(PILImage.new("L", (6, 4))),
        gittrack.Image([[0] * 6] * 4),
    ],
)
def test_images(project: Path, image: Any) -> None:
    with gittrack.start_run() as run:
        gittrack.log_image(image, "i.png")
    assert artifacts.load_image(uri(run, "i.png")).size == (6, 4)


def test_image_values(project: Path) -> None:
    with gittrack.start_run() as run:
        gittrack.log_image(np.array([[0, 128, 255]]), "int.png")
        gittrack.log_image(np.array([[0.0, 0.5, 1.0]]), "float.png")
        with pytest.warns(UserWarning, match="scaled"):
            gittrack.log_image(np.array([[-1.0, 0.0, 1.0]]), "scaled.png")
    for name, expected in (("int", [0, 128, 255]), ("float", [0, 127, 255]), ("scaled", [0, 127, 255])):
        assert np.asarray(artifacts.load_image(uri(run, f"{name}.png"))).tolist() == [expected]


@pytest.mark.parametrize(
    "image",
    [
        np.array([[256]]),
        np.array([[-1]]),
        np.zeros(3),
        np.zeros((2, 2, 2)),
        np.array([["a"]]),
        np.zeros((0, 2)),
        "x",
        7,
        SimpleNamespace(dtype=object(), ndim=2),  # such as a tensor of torch: its dtype is no numpy's
    ],
)
def test_what_is_no_image(project: Path, image: Any) -> None:
    with gittrack.start_run() as run, pytest.raises(InvalidValueError):
        gittrack.log_image(image, "i.png")
    assert paths(run.info.run_id) == []


def test_a_series_of_images(project: Path) -> None:
    pixels = np.zeros((600, 300), dtype=np.uint8)
    with gittrack.start_run() as run:
        for step in range(2):
            gittrack.log_image(pixels, key="val/samples", step=step, timestamp=99)
        with pytest.raises(InvalidValueError, match="either"):
            gittrack.log_image(pixels)
        with pytest.raises(InvalidValueError, match="either"):
            gittrack.log_image(pixels, "a.png", key="k")
        with pytest.raises(InvalidValueError, match="either"):
            gittrack.log_image(pixels, "a.png", step=1)
        with pytest.raises(InvalidValueError, match="image key"):
            gittrack.log_image(pixels, key="a%b")
    found = paths(run.info.run_id)
    assert len(found) == 4
    assert all(path.startswith("images/val~samples+step+") and "+timestamp+99+" in path for path in found)
    sizes = sorted(artifacts.load_image(uri(run, path)).size for path in found)
    assert sizes == [(128, 256)] * 2 + [(300, 600)] * 2
    assert gittrack.get_run(run.info.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_image_objects(tmp_path: Path) -> None:
    PILImage.new("RGB", (3, 2)).save(tmp_path / "x.png")
    image = gittrack.Image(str(tmp_path / "x.png"))
    assert image.size == (3, 2)
    assert image.to_array().shape == (2, 3, 3)
    assert image.to_list()[0][0] == [0, 0, 0]
    assert image.resize((6, 4)).size == (6, 4)
    image.save(str(tmp_path / "y.png"))
    assert gittrack.Image(tmp_path / "y.png").to_pil().size == (3, 2)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    for bad in ("bad.png", "missing.png"):
        with pytest.raises(InvalidValueError, match="cannot be read as an image"):
            gittrack.Image(str(tmp_path / bad))


# -- tables ----------------------------------------------------------------------------------------------------------

TABLE = {"question": ["a?", "b?"], "score": [0.5, 1.0]}


@pytest.mark.parametrize("data", [TABLE, pd.DataFrame(TABLE)])
def test_a_table_grows(project: Path, data: Any) -> None:
    with gittrack.start_run() as run:
        gittrack.log_table(data, "eval/t.json")
        gittrack.log_table({"question": "c?", "score": 0.25}, "eval/t.json")
    table = gittrack.load_table("eval/t.json", run_ids=[run.info.run_id])
    assert table.to_dict("list") == {"question": ["a?", "b?", "c?"], "score": [0.5, 1.0, 0.25]}
    stored = artifacts.load_dict(uri(run, "eval/t.json"))
    assert stored == {"columns": ["question", "score"], "data": [["a?", 0.5], ["b?", 1.0], ["c?", 0.25]]}
    tag = gittrack.get_run(run.info.run_id).data.tags["mlflow.loggedArtifacts"]
    assert json.loads(tag) == [{"path": "eval/t.json", "type": "table"}]


def test_tables_of_several_runs(project: Path) -> None:
    ids = []
    for index in range(3):
        with gittrack.start_run(run_name=f"r{index}") as run:
            gittrack.log_param("index", index)
            gittrack.log_metric("m", index)
            if index:
                gittrack.log_table({"index": [index], "run_id": ["mine"]}, "t.json")
            ids.append(run.info.run_id)
    table = gittrack.load_table("t.json", extra_columns=["run_id", "params.index", "metrics.m"])
    rows = sorted(table.to_dict("records"), key=lambda row: int(row["index"]))
    assert rows == [
        {"index": i, "run_id": "mine", "run_id_": ids[i], "params.index": str(i), "metrics.m": float(i)} for i in (1, 2)
    ]
    assert len(gittrack.load_table("t.json", run_ids=ids[:2])) == 1
    assert len(gittrack.load_table("t.json", run_ids=[])) == len(gittrack.load_table("t.json"))
    with pytest.raises(NotFoundError, match="no run"):
        gittrack.load_table("t.json", run_ids=ids[:1])
    with pytest.raises(NotFoundError, match="no run"):
        gittrack.load_table("other.json")
    with pytest.raises(InvalidValueError, match=r"has no `params\.other`"):
        gittrack.load_table("t.json", extra_columns=["params.other"])


def test_a_table_with_images(project: Path) -> None:
    image = PILImage.new("RGB", (5, 4))
    with gittrack.start_run() as run:
        gittrack.log_table({"n": [1, 2], "image": [image, gittrack.Image(image)]}, "t.json")
        with pytest.raises(InvalidValueError, match="both images and other values"):
            gittrack.log_table({"image": [image, "x"]}, "u.json")
    entry = gittrack.load_table("t.json")["image"][0]
    assert entry["type"] == "image"
    assert artifacts.load_image(uri(run, entry["filepath"])).size == (5, 4)
    assert max(artifacts.load_image(uri(run, entry["compressed_filepath"])).size) == 256


def test_a_text_is_text(project: Path) -> None:
    with gittrack.start_run() as run:
        for bad in (5, None, b"bytes"):
            with pytest.raises(InvalidValueError, match="log_text takes a text"):
                gittrack.log_text(bad, "t.txt")  # type: ignore[arg-type]
    assert paths(run.info.run_id) == []


def test_the_path_of_an_artifact_may_be_a_path(project: Path, tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("f")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "g.txt").write_text("g")
    client = gittrack.Client()
    with gittrack.start_run() as run:
        run_id = run.info.run_id
        client.log_text(run_id, "t", Path("a/t.txt"))  # type: ignore[arg-type]
        client.log_dict(run_id, {}, Path("a/d.yaml"))  # type: ignore[arg-type]
        client.log_table(run_id, TABLE, Path("a/t.json"))  # type: ignore[arg-type]
        client.log_image(run_id, np.zeros((2, 2)), Path("a/i.png"))  # type: ignore[arg-type]
        client.log_artifact(run_id, tmp_path / "f.txt", Path("b"))  # type: ignore[arg-type]
        client.log_artifact(run_id, tmp_path / "folder", Path("c"))  # type: ignore[arg-type]
        client.log_artifacts(run_id, tmp_path / "folder", Path("d"))  # type: ignore[arg-type]
    assert paths(run_id, "a") == ["a/d.yaml", "a/i.png", "a/t.json", "a/t.txt"]
    assert [paths(run_id, folder) for folder in ("b", "c/folder", "d")] == [
        ["b/f.txt"],
        ["c/folder/g.txt"],
        ["d/g.txt"],
    ]


@pytest.mark.parametrize("name", ["t.csv", "t", "a,b.json", "a'b.json", "../t.json"])
def test_table_names(project: Path, name: str) -> None:
    with gittrack.start_run(), pytest.raises(InvalidValueError):
        gittrack.log_table(TABLE, name)


def test_what_is_no_table(project: Path) -> None:
    with gittrack.start_run(), pytest.raises(InvalidValueError, match="a table is a DataFrame or a dict"):
        gittrack.log_table([1, 2], "t.json")  # type: ignore[arg-type]


def test_the_address_of_artifacts(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gittrack.start_run() as run:
        assert gittrack.get_artifact_uri() == run.info.artifact_uri == f"runs:/{run.info.run_id}"
        assert gittrack.get_artifact_uri("a/b") == uri(run, "a/b")
        with pytest.raises(InvalidValueError):
            gittrack.get_artifact_uri("../x")
    assert gittrack.get_artifact_uri() != run.info.artifact_uri
    assert "starts one" in caplog.text


# -- libraries that may not be there ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("pandas", gittrack.search_runs),
        ("pandas", lambda: gittrack.log_table(TABLE, "t.json")),
        ("pandas", lambda: gittrack.load_table("t.json")),
        ("PIL.Image", lambda: gittrack.log_image(np.zeros((2, 2)), "i.png")),
        ("PIL.Image", lambda: artifacts.load_image("runs:/abc/i.png")),
        ("pyarrow", lambda: gittrack.log_table(TABLE, "t.parquet")),
    ],
)
def test_a_missing_library_is_named(project: Path, monkeypatch: pytest.MonkeyPatch, module: str, call: Any) -> None:
    with gittrack.start_run():
        gittrack.log_table(TABLE, "t.json")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError) as caught:
            call()
    assert "pip install" in str(caught.value.hint)
    assert isinstance(caught.value, ImportError)


def test_runs_as_a_list_need_no_pandas(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert gittrack.search_runs(output_format="list") == []


def test_yaml_without_pyyaml_is_json(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with gittrack.start_run() as run:
        gittrack.log_dict({"a": [1]}, "d.yml")
    assert artifacts.load_dict(uri(run, "d.yml")) == {"a": [1]}


def test_figures_of_plotly(project: Path) -> None:
    class Figure:
        __module__ = "plotly.graph_objs._figure"

        def to_html(self, include_plotlyjs: str) -> str:
            return f"<html>{include_plotlyjs}</html>"

        def to_image(self, format: str, scale: int = 1) -> bytes:
            return f"{format} {scale}".encode()

    with gittrack.start_run() as run:
        gittrack.log_figure(Figure(), "f.html")
        gittrack.log_figure(Figure(), "f.svg", save_kwargs={"scale": 2})
        with pytest.raises(InvalidValueError, match="plotly cannot save"):
            gittrack.log_figure(Figure(), "f.docx")
    assert artifacts.load_text(uri(run, "f.html")) == "<html>cdn</html>"
    assert artifacts.load_text(uri(run, "f.svg")) == "svg 2"
