"""transformers: pipelines of tiny models made here; nothing is fetched."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack import pyfunc
from gittrack.errors import (
    FormatError,
    InvalidValueError,
    MissingDependencyError,
    UnsupportedError,
    UntrustedModelError,
)
from gittrack.frameworks.transformers import flavour
from gittrack.models.model import Model
from gittrack.models.trust import Trust

torch = pytest.importorskip("torch", reason="what transformers computes with")
transformers = pytest.importorskip("transformers", reason="models of transformers")
tokenizers = pytest.importorskip("tokenizers", reason="models of transformers")
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very", "this", "is", "example", ".")
TEXTS = ["good film", "a very bad film"]
SIZES = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
GREEDY = {"max_new_tokens": 3, "do_sample": False}


def tokenizer() -> Any:
    words = tokenizers.models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(words)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": f"[{name.upper()}]" for name in names}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def network(task: str) -> Any:
    torch.manual_seed(0)
    return _network(task).eval()


def _network(task: str) -> Any:
    if task == "text-generation":
        config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, **SIZES)
        return transformers.GPT2LMHeadModel(config)
    if task == "image-classification":
        config = transformers.ViTConfig(image_size=8, patch_size=4, **BERT)
        return transformers.ViTForImageClassification(config)
    classes = {
        "text-classification": transformers.BertForSequenceClassification,
        "zero-shot-classification": transformers.BertForSequenceClassification,
        "fill-mask": transformers.BertForMaskedLM,
        "token-classification": transformers.BertForTokenClassification,
        "feature-extraction": transformers.BertModel,
    }
    labels = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
    config = transformers.BertConfig(**SIZES, **BERT, **(labels if task.startswith("zero") else {}))
    return classes[task](config)


def parts(task: str) -> dict[str, Any]:
    if task != "image-classification":
        return {"model": network(task), "tokenizer": tokenizer()}
    pytest.importorskip("PIL", reason="images")
    size = {"height": 8, "width": 8}
    made = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)(size=size)
    return {"model": network(task), "image_processor": made}


def pipeline(task: str) -> Any:
    return transformers.pipeline(task, **parts(task))


def image(color: int) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color, 30, 60)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def inputs(task: str) -> list[Any]:
    """Data of each form that a pipeline takes."""
    if task == "image-classification":
        return [[image(200)], [image(200), image(5)]]
    if task == "zero-shot-classification":
        question = {
            "sequences": "good film",
            "candidate_labels": '["good", "bad"]',
            "hypothesis_template": "this is {} .",
        }
        return [question]
    if task == "fill-mask":
        return ["a [MASK] film", ["a [MASK] film", "this is [MASK]"]]
    return [TEXTS[0], TEXTS]


def plain(found: Any) -> Any:
    if hasattr(found, "to_dict"):
        found = found.to_dict(orient="list")
    if isinstance(found, dict):
        return {str(key): plain(value) for key, value in found.items()}
    if isinstance(found, np.ndarray):
        found = found.tolist()
    if isinstance(found, list):
        return [plain(one) for one in found]
    return pytest.approx(found, abs=1e-5) if isinstance(found, float) else found


TASKS = (
    "text-classification",
    "text-generation",
    "fill-mask",
    "token-classification",
    "feature-extraction",
    "zero-shot-classification",
    "image-classification",
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a pipeline for a task."""
    folders: dict[str, Path] = {}

    def make(task: str) -> Path:
        if task not in folders:
            folder = tmp_path_factory.mktemp("transformers") / "model"
            config = GREEDY if task == "text-generation" else None
            example = None if task == "feature-extraction" else inputs(task)[0]
            gittrack.transformers.save_model(pipeline(task), folder, input_example=example, model_config=config)
            folders[task] = folder
        return folders[task]

    return make


@pytest.fixture
def copy(kept: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of a classifier's own, to be changed."""
    shutil.copytree(kept("text-classification"), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("task", TASKS)
def test_kept_and_loaded_without_trust(task: str, kept: Callable[[str], Path]) -> None:
    folder = kept(task)
    about = Model.load(folder)
    assert about.gittrack == {"formats": ["safetensors"], "runs_code": False}
    assert about.signature is not None
    assert about.signature.outputs is not None
    data = inputs(task)[-1]
    before = pipeline(task)
    after = gittrack.transformers.load_model(folder)
    assert type(after) is type(before)
    options = GREEDY if task == "text-generation" else {}
    call = (lambda made: made(**{**data, "candidate_labels": ["good", "bad"]})) if isinstance(data, dict) else None
    expected, found = ((call(made) if call else made(data, **options)) for made in (before, after))
    assert found == plain(expected)
    # A text by itself is answered as it is among others.
    loaded = pyfunc.load_model(folder)
    if not isinstance(data, dict) and task != "feature-extraction":
        rows, one = (plain(loaded.predict(some)) for some in (data, data[:1]))
        assert one == (rows[:1] if isinstance(rows, list) else one)


@pytest.mark.peer
@pytest.mark.parametrize("task", TASKS)
def test_predicts_as_mlflow_does(task: str, kept: Callable[[str], Path]) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow")
    ours, theirs = pyfunc.load_model(kept(task)), mlflow.pyfunc.load_model(str(kept(task)))
    for data in inputs(task):
        found, expected = ours.predict(data), theirs.predict(data)
        assert type(found) is type(expected)
        assert plain(found) == plain(expected)
    assert isinstance(mlflow.transformers.load_model(str(kept(task))), transformers.Pipeline)


@pytest.mark.peer
def test_what_mlflow_logged_is_loaded(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow")
    logged = {"prompt_template": "this is {prompt}", "model_config": dict(GREEDY), "pip_requirements": ["numpy"]}
    for task, options in (("text-classification", {}), ("text-generation", logged)):
        folder = tmp_path / task
        mlflow.transformers.save_model(pipeline(task), str(folder), **{"pip_requirements": ["numpy"], **options})
        ours, theirs = pyfunc.load_model(folder), mlflow.pyfunc.load_model(str(folder))
        for data in (TEXTS[0], TEXTS):
            assert plain(ours.predict(data)) == plain(theirs.predict(data))
        assert gittrack.transformers.load_model(folder).task == task


def test_a_template_and_options_are_kept(tmp_path: Path) -> None:
    template = "this is {prompt}"
    folder = tmp_path / "model"
    gittrack.transformers.save_model(
        pipeline("text-generation"), folder, model_config=GREEDY, prompt_template=template, metadata={"who": "me"}
    )
    assert Model.load(folder).metadata == {"who": "me", "prompt_template": template}
    expected = pipeline("text-generation")(template.format(prompt="good"), return_full_text=False, **GREEDY)
    loaded = pyfunc.load_model(folder)
    assert loaded.predict("good") == [expected[0]["generated_text"].strip()]
    whole = pyfunc.load_model(folder, model_config={"return_full_text": True}).predict("good")
    assert whole[0].startswith("this is good")
    for wrong in ("{prompt.__class__}", "no field", "{other}", "{prompt!r}", "{prompt} {prompt}", "{", 5):
        with pytest.raises(InvalidValueError, match="prompt template"):
            gittrack.transformers.save_model(
                pipeline("text-generation"),
                tmp_path / "other",
                prompt_template=wrong,  # type: ignore[arg-type]
            )
        shutil.rmtree(tmp_path / "other", ignore_errors=True)


def test_parts(tmp_path: Path) -> None:
    some = parts("text-classification")
    folder = tmp_path / "model"
    gittrack.transformers.save_model({**some, "torch_dtype": torch.float32}, folder, task="text-classification")
    found = gittrack.transformers.load_model(folder, return_type="components")
    assert set(found) == {"task", "model", "tokenizer"}
    halves = gittrack.transformers.load_model(folder, return_type="components", dtype=torch.float16)
    assert halves["model"].dtype == torch.float16
    with pytest.raises(InvalidValueError, match="return_type"):
        gittrack.transformers.load_model(folder, return_type="model")  # type: ignore[arg-type]
    save = gittrack.transformers.save_model
    for model, task, match in (
        (some, None, "not known"),
        ({"tokenizer": some["tokenizer"]}, "fill-mask", "parts"),
        (some["model"], "text-classification", "no model of transformers"),
        ({"model": some["model"]}, "text-classification", "no pipeline"),
    ):
        with pytest.raises(InvalidValueError, match=match):
            save(model, tmp_path / "other", task=task)
    with pytest.raises(UnsupportedError, match="llm/v1/chat"):
        save(some, tmp_path / "other", task="llm/v1/chat")
    with pytest.raises(UnsupportedError, match="weights"):
        save(some, tmp_path / "other", task="text-classification", save_pretrained=False)


def test_a_processor_is_kept_and_no_pipeline_is_made(tmp_path: Path) -> None:
    class Kept(transformers.ProcessorMixin):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            pass

        def save_pretrained(self, place: str) -> None:
            Path(place).mkdir(parents=True)
            Path(place, "processor_config.json").write_text("{}", encoding="utf-8")

    folder = tmp_path / "model"
    gittrack.transformers.save_model(pipeline("text-classification"), folder, processor=Kept())
    assert "python_function" not in Model.load(folder).flavors
    with pytest.raises(UnsupportedError, match="processor"):
        gittrack.transformers.load_model(folder)
    with pytest.raises(FormatError, match="`Kept`"):
        gittrack.transformers.load_model(folder, return_type="components")


# --- hostile folders


def edit(name: str, **settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        document = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**document, **settings}))

    return change


def add(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return change


CONFIG = "model/config.json"
TOKENIZER = "components/tokenizer/tokenizer_config.json"
HOSTILE: dict[str, Callable[[Path], None]] = {
    "pickled weights": add("model/pytorch_model.bin", b"\x80\x04."),
    "code": add("model/modeling.py", b"open('pwned', 'w')"),
    "a tokenizer's code": add("components/tokenizer/tokenization_own.py", b"open('pwned', 'w')"),
    "code to generate by": add("model/custom_generate/generate.py", b"open('pwned', 'w')"),
    "auto_map": edit(CONFIG, auto_map={"AutoModel": "modeling.Own"}),
    "auto_map of another repository": edit(TOKENIZER, auto_map={"AutoTokenizer": ["evil/repo--own.Own", None]}),
    "a pipeline of its own": edit(CONFIG, custom_pipelines={"text-classification": {"impl": "own.Own"}}),
    "a kernel": edit(CONFIG, attn_implementation="evil/kernel"),
    "kernels of parts": edit(CONFIG, text_config={"_attn_implementation": {"": "evil/kernel:own"}}),
    "quantization": edit(CONFIG, quantization_config={"quant_method": "gptq"}),
    "an adapter": add("model/adapter_config.json", b'{"base_model_name_or_path": "evil/repo"}'),
    "a backbone": edit(CONFIG, backbone="evil/repo", use_pretrained_backbone=True),
    "another library's model": edit(CONFIG, vision_config={"model_type": "timm_wrapper"}),
    "an encoder of another repository": edit(CONFIG, encoder={"encoder_name_or_path": "evil/repo"}),
    "a vocabulary from outside": edit(TOKENIZER, vocab_file="/etc/passwd"),
    "a tokenizer from outside": edit(TOKENIZER, tokenizer_file="../../../tokenizer.json"),
    "arguments of a tokenizer": edit(TOKENIZER, init_inputs=["/etc/passwd"]),
    "special tokens that are settings": edit("components/tokenizer/special_tokens_map.json", vocab_file="/etc/passwd"),
    "tokenizers of other versions": edit(TOKENIZER, fast_tokenizer_files=["../../x.json"]),
    "weights from outside": edit("model/model.safetensors.index.json", weight_map={"a": "../../x.safetensors"}),
    "an index that is none": edit("model/model.safetensors.index.json", weight_map=["a"]),
    "no JSON": add(CONFIG, b"{"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_crafted_folder_is_refused(name: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    HOSTILE[name](copy)
    for load in (gittrack.transformers.load_model, pyfunc.load_model):
        with pytest.raises(UntrustedModelError, match="could run code"):
            load(copy)
    assert not (tmp_path / "pwned").exists()


def test_a_link_is_refused(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(FormatError, match="link"):
        gittrack.transformers.load_model(copy)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"model_binary": "../outside"}, FormatError),
        ({"pipeline_model_type": "AutoModel"}, FormatError),
        ({"pipeline_model_type": "os.system"}, FormatError),
        ({"pipeline_model_type": "Pipeline"}, FormatError),
        ({"tokenizer_type": "Trainer"}, FormatError),
        ({"components": ["../model"]}, FormatError),
        ({"components": "tokenizer"}, FormatError),
        ({"torch_dtype": "torch.os"}, FormatError),
        ({"torch_dtype": "torch.load"}, FormatError),
        ({"task": "no-such-task"}, FormatError),
        ({"task": None}, FormatError),
        ({"source_model_revision": "abc", "source_model_name": "evil/repo"}, UnsupportedError),
        ({"local_base_model_path": "/etc"}, UnsupportedError),
        ({"peft_adaptor": "peft"}, UnsupportedError),
    ],
)
def test_what_mlmodel_says_is_checked(settings: dict[str, Any], error: type[Exception], copy: Path) -> None:
    about = Model.load(copy)
    about.flavors["transformers"].update(settings)
    about.save(copy / "MLmodel")
    with pytest.raises(error):
        gittrack.transformers.load_model(copy)


def test_options_that_mlmodel_or_a_caller_says_are_checked(copy: Path) -> None:
    evil = {"custom_generate": "evil/repo", "trust_remote_code": True}
    about = Model.load(copy)
    wrong: tuple[dict[str, Any], ...] = (
        evil,
        {"assistant_model": "evil/repo"},
        {"top_k": {"a": 1}},
        {"tokenizer_kwargs": {"a": {}}},
    )
    for config in wrong:
        about.flavors["python_function"]["config"] = config
        about.save(copy / "MLmodel")
        with pytest.raises(InvalidValueError, match="option"):
            pyfunc.load_model(copy)
    about.flavors["python_function"]["config"] = {"top_k": None}
    about.save(copy / "MLmodel")
    loaded = pyfunc.load_model(copy)
    assert loaded.predict(TEXTS).shape == (2, 2)  # both labels of each
    with pytest.raises(InvalidValueError, match="custom_generate"):
        loaded._model_impl.predict(TEXTS, evil)


def test_nothing_else_is_read_and_nobody_is_asked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = import_module("huggingface_hub.constants")

    def refuse(*_: Any) -> None:
        raise AssertionError("somebody is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    edit(CONFIG, _name_or_path="evil/repo")(copy)
    edit(TOKENIZER, name_or_path="evil/repo")(copy)
    conf = Model.load(copy).flavors["transformers"]
    seen: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str):
            seen.append(arguments[0])

    sys.addaudithook(watch)  # which stays for good
    try:
        flavour.load(copy, conf, trust=Trust())
    finally:
        watching = False
    assert constants.HF_HUB_OFFLINE is False
    assert f"{copy}/model/config.json" in seen
    known = (str(copy), sys.prefix, sys.base_prefix, "/proc", "/sys")
    assert [path for path in seen if not path.startswith(known)] == []


def test_damaged_weights_and_missing_files(copy: Path) -> None:
    (copy / "model" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(FormatError, match="`model`"):
        gittrack.transformers.load_model(copy)
    (copy / "model" / "model.safetensors").unlink()
    with pytest.raises(FormatError, match="`model`"):
        gittrack.transformers.load_model(copy)


def test_code_of_its_own_is_kept_and_needs_trust(tmp_path: Path) -> None:
    made = pipeline("text-classification")
    made.model.config.auto_map = {"AutoModel": "modeling.Own"}
    gittrack.transformers.save_model(made, tmp_path / "model")
    assert Model.load(tmp_path / "model").gittrack["runs_code"] is True
    with pytest.raises(UntrustedModelError, match="auto_map"):
        gittrack.transformers.load_model(tmp_path / "model")
    # Trust or not, it is the library's own class that is made.
    loaded = gittrack.transformers.load_model(tmp_path / "model", trust=True)
    assert type(loaded.model) is transformers.BertForSequenceClassification


def test_input_that_is_none(kept: Callable[[str], Path]) -> None:
    loaded = {task: pyfunc.load_model(kept(task))._model_impl for task in TASKS}
    for task, data in (
        ("text-classification", [{"path": "x"}]),
        ("text-classification", 5),
        ("text-generation", [5]),
        ("fill-mask", []),
        ("zero-shot-classification", TEXTS),
        ("image-classification", "https://example.org/cat.png"),
        ("image-classification", "/etc/passwd"),
        ("image-classification", base64.b64encode(b"no image").decode()),
        ("image-classification", 5),
    ):
        with pytest.raises(InvalidValueError):
            loaded[task].predict(data)
    found = loaded["text-classification"].predict([{0: "{'text': 'good', 'text_pair': 'bad'}"}, {0: "{5"}])
    assert len(found) == 2


def test_a_task_without_a_form_is_refused_as_function_only(tmp_path: Path) -> None:
    config = transformers.BertConfig(**SIZES, **BERT)
    made = pipeline("text-classification")
    made.model = transformers.BertForQuestionAnswering(config)
    made.__class__ = type("OwnPipeline", (type(made),), {})
    gittrack.transformers.save_model(made, tmp_path / "model")
    assert "python_function" not in Model.load(tmp_path / "model").flavors


def test_what_is_missing_is_said(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError) as raised:
        gittrack.transformers.load_model(copy)
    assert raised.value.hint == "`pip install transformers`"
