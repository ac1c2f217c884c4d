"""Pipelines as ``python_function``: what goes in and comes out is as MLflow's wrapper has it, for the tasks here.

Two things are narrower.  Images are bytes or base64, never an address or a path: whoever may ask a server for a
prediction may not make it open files or connect.  And options are those of pipelines and of generating text, none that
loads code or another model.
"""

from __future__ import annotations

import ast
import base64
import binascii
import functools
import io
import json
import re
import string
from collections.abc import Callable, Mapping
from typing import Any, Final

from gittrack.errors import InvalidValueError, UnsupportedError
from gittrack.frameworks import native

_TEMPLATES: Final = frozenset({"FeatureExtractionPipeline", "FillMaskPipeline", "TextGenerationPipeline"})
#: What pipelines take when they are called, beside the settings of ``GenerationConfig``.
_OPTIONS: Final = frozenset(
    {
        *(
            "add_special_tokens",
            "aggregation_strategy",
            "batch_size",
            "candidate_labels",
            "clean_up_tokenization_spaces",
        ),
        *("collapse_whitespace", "function_to_apply", "handle_long_generation", "hypothesis_template", "ignore_labels"),
        *("include_prompt", "is_split_into_words", "max_length", "multi_label", "num_workers", "padding", "prefix"),
        *("return_all_scores", "return_full_text", "return_tensors", "skip_special_tokens", "stop_sequence", "stride"),
        *("targets", "tokenize_kwargs", "tokenizer_encode_kwargs", "tokenizer_kwargs", "top_k", "truncation"),
    }
)
#: Settings of ``GenerationConfig`` that compile, or need another model.
_REFUSED = re.compile(r"_.*|.*(?:assistant|compile|custom|transformers_version|watermark|cache_config).*")
#: Options whose values are options again, of a tokenizer.
_NESTED: Final = frozenset({"tokenize_kwargs", "tokenizer_encode_kwargs", "tokenizer_kwargs"})


@functools.cache
def _known_options() -> frozenset[str]:
    settings = native.library("transformers", "transformers").GenerationConfig()
    return _OPTIONS | {name for name in vars(settings) if not _REFUSED.fullmatch(name)}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a prediction that are none of ours, or that are more than texts, numbers and lists of them.

    Raises:
        InvalidValueError: There is one; says which.
    """
    for name, value in options.items():
        if name not in _known_options():
            raise InvalidValueError(
                f"a pipeline as python_function has no option `{name!s:.80}`",
                hint="gittrack.transformers.load_model gives the pipeline itself",
            )
        inner = value.values() if name in _NESTED and isinstance(value, dict) else [value]
        if not all(_is_plain(one) for one in inner):
            raise InvalidValueError(f"the option `{name}` must be a text, a number or a list of them")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def check_template(template: object, kind: str) -> None:
    """Refuse a prompt template that has anything but one ``{prompt}``, or is for a pipeline that takes none.

    Raises:
        InvalidValueError: It is one of that.
    """
    if kind not in _TEMPLATES:
        raise InvalidValueError(f"a {kind} takes no prompt template")
    try:
        fields = [one[1:] for one in string.Formatter().parse(str(template)) if one[1] is not None]
    except ValueError as error:
        raise InvalidValueError(f"the prompt template cannot be read: {error}") from error
    if not isinstance(template, str) or fields != [("prompt", "", None)]:
        raise InvalidValueError(
            "a prompt template is a text with one `{prompt}` in it", hint='such as "Q: {prompt} A:"; braces are doubled'
        )


class TransformersPredictor:
    """A pipeline as ``python_function``.

    Args:
        pipeline: The pipeline.
        config: Options of every prediction, unless parameters say otherwise.
        template: Text that the input is put into; None if there is none.

    Raises:
        UnsupportedError: There is no form for its task.
        InvalidValueError: ``config`` or ``template`` is not what it should be.
    """

    def __init__(self, pipeline: Any, config: Mapping[str, Any], template: Any = None) -> None:
        self._pipeline = pipeline
        self._kind = type(pipeline).__name__
        if self._kind not in TASKS:
            raise UnsupportedError(
                f"a {self._kind} cannot be used as python_function",
                hint="gittrack.transformers.load_model gives the pipeline itself",
            )
        check_options(config)
        if template is not None:
            check_template(template, self._kind)
        self._config = dict(config)
        self._template: str | None = template

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the pipeline says, in MLflow's form.

        Args:
            data: A text, a list of texts, a dict or a list of dicts as the pipeline takes them, or a table of those.
            params: Options of the pipeline, before those that were logged.

        Raises:
            InvalidValueError: ``data`` is nothing that the pipeline takes, or an option is unknown.
        """
        check_options(params or {})
        options = {**self._config, **(params or {})}
        collapse = options.pop("collapse_whitespace", False)
        options.pop("include_prompt", None)  # it is about pipelines with code of their own
        read, write = TASKS[self._kind]
        given = read(_records(data, self._kind))
        if self._template is not None:
            template = self._template
            given = (
                template.format(prompt=given) if isinstance(given, str) else [template.format(prompt=x) for x in given]
            )
        found = self._pipeline(**given, **options) if isinstance(given, dict) else self._pipeline(given, **options)
        output = write(found)
        return _tidied(output, collapse=collapse) if isinstance(output, (str, list)) else output

    def get_raw_model(self) -> Any:
        """The pipeline itself."""
        return self._pipeline


# --- in


def _records(data: Any, kind: str) -> Any:
    """A table as a list of dicts; anything else as it is."""
    if not hasattr(data, "columns"):
        return data
    if kind != "ZeroShotClassificationPipeline":
        return data.to_dict(orient="records")
    found = {}
    for name, values in data.to_dict(orient="list").items():  # all rows are asked about the same labels
        different = [value for at, value in enumerate(values) if value not in values[:at]]
        found[name] = different if len(different) > 1 and all(isinstance(x, str) for x in different) else different[0]
    return found


def _texts(data: Any) -> Any:
    """A text or a list of texts; of dicts, the first value of each."""
    if isinstance(data, list) and all(isinstance(one, dict) and one for one in data):
        data = [next(iter(one.values())) for one in data]
    if isinstance(data, str) or (isinstance(data, list) and data and all(isinstance(one, str) for one in data)):
        return data
    raise InvalidValueError(
        f"this pipeline predicts from a text or a list of texts, not from {_shape(data)}",
        hint="of a table, the first column is taken",
    )


def _classified(data: Any) -> Any:
    """A text, or a dict of a text and its pair, or a list of such."""
    if isinstance(data, list) and data and all(isinstance(one, dict) and set(one) == {0} for one in data):
        data = [_pair(one[0]) for one in data]  # a table whose column has no name
    for one in data if isinstance(data, list) and data else [data]:
        if not isinstance(one, str) and not (isinstance(one, dict) and one and set(one) <= {"text", "text_pair"}):
            raise InvalidValueError(
                f"texts are classified from texts, or dicts of `text` and `text_pair`, not from {_shape(one)}"
            )
    return data


def _pair(text: Any) -> Any:
    """A dict that a server was sent comes as the text of one."""
    if isinstance(text, str) and text.startswith("{"):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        return found if isinstance(found, dict) else text
    return text


def _questions(data: Any) -> Any:
    """Texts and their candidate labels, which may come as JSON."""
    if not isinstance(data, dict) or "candidate_labels" not in data:
        raise InvalidValueError("this pipeline takes a dict or a table with `sequences` and `candidate_labels`")
    labels = data["candidate_labels"]
    if isinstance(labels, str):
        try:
            labels = json.loads(labels)
        except ValueError:
            labels = data["candidate_labels"]  # names with commas between them
    return {**data, "candidate_labels": labels}


def _images(data: Any) -> Any:
    if isinstance(data, list):
        return [_image(next(iter(one.values())) if isinstance(one, dict) and one else one) for one in data]
    return _image(data)


def _image(data: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    hint = "Path(…).read_bytes(), or that in base64"
    if isinstance(data, str):
        try:
            data = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidValueError("an image is its bytes, or base64: no path and no address", hint=hint) from error
    if not isinstance(data, bytes):
        raise InvalidValueError(f"an image is its bytes, or base64, not {_shape(data)}", hint=hint)
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidValueError("the bytes are no image that can be read", hint=hint) from error
    return image


def _shape(data: Any) -> str:
    if isinstance(data, list):
        return "a list of " + (type(data[0]).__name__ if data else "nothing")
    return f"a dict of {', '.join(map(str, data))}" if isinstance(data, dict) else f"a {type(data).__name__}"


# --- out


def _table(found: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(found)


def _generated(found: Any) -> Any:
    """One text for each, however many were generated."""
    if isinstance(found[0], dict):
        return found[0]["generated_text"]
    return [some[0]["generated_text"] for some in found]


def _filled(found: Any) -> Any:
    """The likeliest word; of a text with several masks, a list."""
    if isinstance(found[0], dict):
        return found[0]["token_str"]
    return [
        one[0]["token_str"] if isinstance(one[0], dict) else [each[0]["token_str"] for each in one] for one in found
    ]


def _tagged(found: Any) -> Any:
    """The kinds of the words of a text, with commas between them."""
    if found and isinstance(found[0], list):
        return [_tagged(one) for one in found]
    return ",".join(one.get("entity_group", one.get("entity")) for one in found)


def _features(found: Any) -> Any:
    import numpy as np

    return found if isinstance(found, np.ndarray) else np.array(found[0][0])


def _zero_shot(found: Any) -> Any:
    some = found if isinstance(found, list) else [found]
    rows = [
        {"sequence": one["sequence"], "labels": label, "scores": score}
        for one in some
        for label, score in zip(one["labels"], one["scores"], strict=True)
    ]
    return _table(rows)


def _tidied(output: Any, *, collapse: bool) -> Any:
    """A list of texts, without the space around them."""
    if isinstance(output, str):
        return [_trimmed(output, collapse)]
    return [_trimmed(one, collapse) if isinstance(one, str) else _tidied(one, collapse=collapse) for one in output]


def _trimmed(text: str, collapse: bool) -> str:
    return (re.sub(r"\s+", " ", text) if collapse else text).strip()


#: Class of a pipeline -> what makes its input of the data, and the prediction of its output.
TASKS: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "FeatureExtractionPipeline": (_texts, _features),
    "FillMaskPipeline": (_texts, _filled),
    "ImageClassificationPipeline": (_images, _table),
    "TextClassificationPipeline": (_classified, _table),
    "TextGenerationPipeline": (_texts, _generated),
    "TokenClassificationPipeline": (_texts, _tagged),
    "ZeroShotClassificationPipeline": (_questions, _zero_shot),
}
