"""What may be in the folders of a model of transformers, looked at before the library reads them.

The library runs code that comes with a model, unpickles weights, fetches kernels, adapters and whole models that a
configuration names, and opens the files that it names.  So only weights in safetensors, texts and JSON are let through,
and no configuration that names code, another model or a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gittrack.errors import FormatError

_SUFFIXES: Final = frozenset({".json", ".safetensors", ".txt", ".md", ".jinja", ".model"})
#: It names the model that the weights are to be added to, which is fetched.
_ADAPTER: Final = "adapter_config.json"
_INDEX: Final = ".safetensors.index.json"
#: Words and their numbers: the library looks for no settings in them.
_VOCABULARIES: Final = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
_MAX_JSON: Final = 256 << 20
_MAX_TENSORS: Final = 1_000_000

#: Settings that name code, or say how code of the model's own is run.
_CODE = re.compile(
    r"auto_map|custom_\w+|trust_remote_code|code_revision|init_inputs|use_kernels|use_timm_backbone"
    r"|use_pretrained_backbone|\w*kernels?_config|\w*quantization_config|(?:mecab|sudachi|jumanpp|sp_model)_\w+"
)
#: Settings that name a file or another model.  Where a model was loaded from, which many say, is not followed.
_PLACE = re.compile(
    r"(?:\w*_)?(?:files?|paths?|dirs?|directory|folder|repo|repo_id|repo_or_path|urls?|uri|checkpoint|spm|vocab|merges)"
    r"|\w+name_or_path"
)
_HARMLESS: Final = frozenset({"_name_or_path", "name_or_path", "special_tokens_map_file"})
#: Names of functions that are in the library; a kernel's has a slash.
_IMPLEMENTATION = re.compile(r"\w*_implementation(?:_internal)?")
#: Kinds of models that are made of other libraries' or other models' files.
_KINDS: Final = frozenset({"rag", "timm_backbone", "timm_wrapper"})


def check(*folders: Path) -> None:
    """Refuse folders that could make the library do anything but compute.

    Raises:
        FormatError: There is something that is not known to be harmless; says what.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise _refused(path.name, "is no regular file")
            if path.is_file():
                _check_file(path)


def _check_file(path: Path) -> None:
    if path.suffix not in _SUFFIXES or path.name == _ADAPTER:
        raise _refused(path.name, "could be code, or lead to some")
    if path.suffix == ".json" and path.name not in _VOCABULARIES:
        document = _json(path)
        if path.name.endswith(_INDEX):
            _check_index(path, document)
            return
        for key, value in _settings(document):
            fault = _fault(key, value)
            if fault is not None:
                raise _refused(path.name, fault)


def _json(path: Path) -> Any:
    if path.stat().st_size > _MAX_JSON:
        raise _refused(path.name, "is too large")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _refused(path.name, "is no JSON") from error


def _check_index(path: Path, document: Any) -> None:
    """The files that weights are in must be beside the index."""
    files = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(files, dict) or len(files) > _MAX_TENSORS:
        raise _refused(path.name, "is no index")
    for name in {str(one) for one in files.values()}:
        if not re.fullmatch(r"[\w.\-]+\.safetensors", name) or not (path.parent / name).is_file():
            raise _refused(path.name, f"names the file `{name:.80}`")


def _settings(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield from value.items()
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _fault(key: str, value: Any) -> str | None:
    """What is wrong with a setting; None if nothing is."""
    if not value or key in _HARMLESS:
        return None
    if _CODE.fullmatch(key):
        return f"has the setting `{key:.80}`"
    if isinstance(value, (str, list)) and _PLACE.fullmatch(key):
        return f"names a file or another model, `{key:.80}`"
    if _IMPLEMENTATION.fullmatch(key) and re.search(r"[/:@|\\]", json.dumps(value)):
        return f"has the setting `{key:.80}`, which names code"
    if key == "model_type" and str(value) in _KINDS:
        return f"is of the kind `{value}`, which reads other models"
    return None


def _refused(name: str, why: str) -> FormatError:
    return FormatError(f"`{name:.80}` {why}", hint="only trust=True loads it")
