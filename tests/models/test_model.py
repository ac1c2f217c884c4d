"""MLmodel: written, read, and not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.errors import FormatError, NotFoundError
from gittrack.models.model import MAX_BYTES, Model, ModelInfo
from gittrack.models.signature import infer_signature


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    model = Model.new(run_id="r1", artifact_path="model", metadata={"a": [1]}, more={"later": {"x": 1}})
    model.add_flavor("sklearn", pickled_model="model.skops", code=None)
    model.signature = infer_signature(["a"], [1.5], {"n": 1})
    model.save(tmp_path / "MLmodel")
    assert Model.load(tmp_path) == model
    assert Model.load(tmp_path / "MLmodel") == model


def test_only_flavors_is_needed() -> None:
    model = Model.from_bytes(b"flavors: {python_function: {loader_module: mlflow.sklearn}}")
    assert model.flavors == {"python_function": {"loader_module": "mlflow.sklearn"}}
    assert model.signature is None


def test_json_is_read_too() -> None:
    assert Model.from_bytes(b'{"flavors": {"a": {"b": 1}}}').flavors == {"a": {"b": 1}}


def test_what_two_parts_share_is_written_twice() -> None:
    shared = ["x"]
    assert "&" not in Model(flavors={"a": {"x": shared}, "b": {"x": shared}}).to_yaml()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "flavors: 1",
        "flavors: {a: 1}",
        "flavors: {1: {}}",
        "a: 1",
        "flavors: {}\nflavors: {}",
        "flavors: {a: {x: 1, x: 2}}",
        "flavors: {}\nrun_id: 1",
        "flavors: {}\nmetadata: x",
        "flavors: {}\nsignature: x",
        "flavors: {}\nsignature: {inputs: 1}",
        "flavors: {}\nsignature: {inputs: '[1]'}",
        "flavors: {}\nsignature: {params: '[{}]'}",
        "flavors: {a: !!python/object/apply:os.system ['touch PWNED']}",
        "flavors: {a: !!python/name:os.system }",
        "flavors: &a {a: *a}",
        "flavors: {}\nx: {? [1] : 2}",
        "flavors: {}\n\x00",
        "\xff\xfe\x00",
        "[" * 50_000,
        "flavors: {}\na: &a [1,1,1,1,1,1,1,1]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 8)}]\n" for i in range(10)),
    ],
)
def test_what_is_no_mlmodel_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError):
        Model.from_bytes(text.encode("latin-1"))
    assert not list(tmp_path.iterdir())


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "MLmodel").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file
    with pytest.raises(FormatError, match=str(MAX_BYTES)):
        Model.load(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not the folder of a model"):
        Model.load(tmp_path)


def test_model_info() -> None:
    model = Model(run_id="r", artifact_path="model", model_id="m-1", flavors={"a": {}}, signature=infer_signature([1]))
    info = ModelInfo.of(model, "models:/m-1", name="model", step=3)
    assert (info.model_uri, info.run_id, info.model_id, info.step, info.name) == ("models:/m-1", "r", "m-1", 3, "model")
    assert info.signature_dict == infer_signature([1]).to_dict()
