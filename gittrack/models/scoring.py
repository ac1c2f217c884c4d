"""MLflow's scoring protocol without its sockets: the bytes of a request to a model's input, a prediction to bytes.

Source of the forms and of the error bodies: ``mlflow/pyfunc/scoring_server`` of MLflow 3.17, as it answers.  Where it
changes values in silence, shows them in errors or fails with status 500, this is stricter: see
``gittrack help serving``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from gittrack.data.schema import Schema, TensorSpec
from gittrack.errors import CorruptError, GittrackError, MediaTypeError, PredictionError, SchemaError, UsageError
from gittrack.models import tables
from gittrack.models.enforcement import enforce_params

if TYPE_CHECKING:
    from gittrack.models.model import Model

CSV: Final = "text/csv"
JSON: Final = "application/json"
PARQUET: Final = "application/vnd.apache.parquet"
MEDIA_TYPES: Final = (CSV, JSON, PARQUET)

SPLIT: Final = "dataframe_split"
RECORDS: Final = "dataframe_records"
INSTANCES: Final = "instances"
INPUTS: Final = "inputs"
FORMS: Final = (SPLIT, RECORDS, INPUTS, INSTANCES)
PARAMS: Final = "params"
#: A request with one of these is of a chat model: it is passed on as it is, and so is the answer.
CHAT: Final = frozenset({"messages", "prompt", "input"})

#: What pandas writes, and people, for a value that is missing.
MISSING_TEXTS: Final = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A"})
MAX_CELLS: Final = 20_000_000  #: of a table in a compressed format, which may be small as a file


class Served(Protocol):
    """A loaded model, as far as it is used here: ``pyfunc.PyFuncModel``."""

    @property
    def metadata(self) -> Model:
        """What MLmodel says."""

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """The model's output, after ``data`` was checked."""

    def matrix_predictor(self) -> Any:
        """The predictor, if it takes a matrix with the signature's columns in their order, and answers row by row."""


@dataclass(slots=True)
class Request:
    """What is to be predicted.

    Attributes:
        data: What the model takes.
        params: Parameters of the prediction.
        matrix: ``data`` is a matrix for a predictor that answers row by row.
        unwrapped: The answer is sent as the model gives it.
    """

    data: Any
    params: dict[str, Any] | None = None
    matrix: bool = False
    unwrapped: bool = False


class Scorer:
    """One model behind the protocol.  Its methods may be called by several threads.

    Attributes:
        schema: Of the model's input; None without a signature.
        columns: The schema compiled, if all columns are numbers.
    """

    def __init__(self, model: Served) -> None:
        self.model = model
        self.metadata = model.metadata
        self.schema: Schema | None = self.metadata.get_input_schema()
        self._params = self.metadata.get_params_schema()
        self.columns = tables.numeric_columns(self.schema)
        self.predictor = model.matrix_predictor() if self.columns is not None else None
        signature = self.metadata.signature
        self._as_is = signature is not None and signature.from_type_hints

    # --- in

    def read(self, body: bytes, content_type: str | None) -> Request:
        """The request in ``body``.

        Args:
            body: All of it.
            content_type: The header of that name.

        Raises:
            MediaTypeError: Not JSON, CSV or Parquet, or not UTF-8.
            UsageError: It breaks the protocol, or a value has the wrong type.
            SchemaError: It does not fit the model's signature.
        """
        media = media_type(content_type)
        if media == JSON:
            return self._read_json(body)
        if media == CSV:
            return self._read_csv(body)
        return Request(_parquet(body, self.schema), self.params(None))

    def _read_json(self, body: bytes) -> Request:
        document = parse(body)
        if not CHAT.isdisjoint(document):
            return self._chat(document)
        forms = [form for form in FORMS if form in document]
        if len(forms) != 1:
            found = f"it has {tables.listed(forms)}" if forms else "it has none of them"
            raise UsageError(f"the input must have exactly one of {tables.listed(FORMS)}; {found}")
        form = forms[0]
        value = document[form]
        params = self.params(document[PARAMS]) if PARAMS in document else self.params(None)
        if self._as_is:
            if form != INPUTS:
                raise UsageError(f"the model takes `{INPUTS}`, since its signature comes from type hints")
            return Request(value, params)
        if self.columns is not None:
            return self._numeric(
                self.columns, form, value, params, _has_truths(body, alone=form == SPLIT and len(document) == 1)
            )
        return Request(self._general(form, value), params)

    def params(self, given: Any) -> dict[str, Any] | None:
        """Parameters with their types and defaults; those that the model does not know are left out.

        Raises:
            UsageError: They are no object.
            SchemaError: One has the wrong type.
        """
        if given is not None and not isinstance(given, dict):
            raise UsageError(f"`{PARAMS}` must be an object")
        if self._params is None:
            return None
        known = {spec.name for spec in self._params}
        return enforce_params({name: value for name, value in (given or {}).items() if name in known}, self._params)

    def _chat(self, document: dict[str, Any]) -> Request:
        known = {spec.name for spec in self._params or ()}
        given = {name: value for name, value in document.items() if name in known}
        data = {name: value for name, value in document.items() if name not in known}
        return Request(data, self.params(given), unwrapped=True)

    # numbers: no pandas

    def rows(
        self, names: Sequence[Any] | None, rows: list[list[Any]], params: dict[str, Any] | None, *, truths: bool = True
    ) -> Request:
        """A request for rows of JSON values; for a model that takes a table.

        Args:
            names: Of the columns; None if the rows have none.
            rows: Of equal length.
            params: Checked parameters.
            truths: There may be ``true`` and ``false`` among the values.

        Raises:
            UsageError: A value has the wrong type; the rows differ in length.
            SchemaError: A column is missing.
        """
        columns = self.columns
        if columns is None or (names is not None and columns.lacks_optional(names)):
            return Request(self._table(None if names is None else list(names), rows), params)
        order = None
        if names or rows:
            order = columns.order(names, len(rows[0]) if rows and isinstance(rows[0], list) else 0)
        if self.predictor is not None:
            return Request(columns.matrix(rows, order, truths=truths), params, matrix=True)
        import pandas as pd

        if columns.uniform:
            return Request(pd.DataFrame(columns.matrix(rows, order, truths=truths), columns=columns.labels), params)
        return Request(pd.DataFrame(dict(zip(columns.labels, columns.columns(rows, order), strict=True))), params)

    def _numeric(
        self, columns: tables.Columns, form: str, value: Any, params: dict[str, Any] | None, truths: bool
    ) -> Request:
        if form == SPLIT:
            names, rows = _split(value)
        elif form == RECORDS or _is_records(value):
            names, rows = _records(value)
        else:
            names, rows = _from_lists(value, columns)
        return self.rows(names, rows, params, truths=truths)

    def _read_csv(self, body: bytes) -> Request:
        import csv
        import io

        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise UsageError("the input is not UTF-8") from error
        if self.columns is None:
            return Request(_csv_frame(text, self.schema), self.params(None))
        try:
            lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise UsageError(f"the input is no CSV: {error}") from error
        if not lines:
            raise UsageError("the input is empty", hint="CSV begins with a line of column names")
        names, lines = lines[0], [line for line in lines[1:] if line]
        if any(len(line) != len(names) for line in lines):
            raise UsageError("the rows of the input have more or fewer fields than its first line")
        order = self.columns.order(names, len(names))
        places = range(len(names)) if order is None else order
        turned = list(zip(*lines, strict=True)) or [()] * len(names)
        values = [_csv_numbers(turned[at], self.columns.types[n]) for n, at in enumerate(places)]
        rows = [list(row) for row in zip(*values, strict=True)]
        return self.rows(self.columns.labels, rows, self.params(None))

    # everything else: as MLflow does it, through pandas

    def _general(self, form: str, value: Any) -> Any:
        if form in (SPLIT, RECORDS):
            return self._table(*(_split(value) if form == SPLIT else _records(value)))
        schema = self.schema
        if schema is None:
            return _without_signature(form, value)
        if schema.is_tensor_spec():
            return _tensors(form, value, schema)
        if _is_records(value):
            return self._table(*_records(value))
        return self._column_lists(value, schema)

    def _table(self, names: list[str] | None, rows: list[list[Any]]) -> Any:
        import pandas as pd

        if not all(isinstance(row, list) for row in rows) or len(set(map(len, rows))) > 1:
            raise UsageError("the rows of the input must be lists of the same length")
        if self.schema is not None and self.schema.is_tensor_spec():
            return _table_of_tensors(names, rows, self.schema)
        if self.schema is None:
            return pd.DataFrame(rows, columns=names)
        if names is None and self.schema.has_input_names():
            raise SchemaError(
                "the input has no names of columns", hint=f"the model takes {tables.listed(self.schema.input_names())}"
            )
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(names or ())
        return tables.typed_table(names, columns, self.schema)

    def _column_lists(self, value: Any, schema: Schema) -> Any:
        """``inputs`` or ``instances`` for columns that are not all numbers."""
        if isinstance(value, dict):
            nested = any(not isinstance(kind, str) for kind in schema.input_types())
            lists = all(isinstance(one, list) for one in value.values()) and not nested
            columns = list(value.values()) if lists else [[one] for one in value.values()]
            if len(set(map(len, columns))) > 1:
                raise UsageError("the columns of the input differ in length")
            return tables.typed_table(list(value), columns, schema)
        values = value if isinstance(value, list) else [value]
        if len(schema) == 1:
            return tables.typed_table(schema.input_names(), [values], schema)
        if schema.has_input_names():
            raise SchemaError(
                "the input has no names of columns",
                hint=f"the model takes {tables.listed(schema.input_names())}: send them as `{SPLIT}` or `{RECORDS}`",
            )
        return self._table(None, values)

    # --- the prediction

    def predict(self, request: Request) -> Any:
        """What the model answers.

        Raises:
            SchemaError: The input does not fit the signature.
            PredictionError: The model raised something, which is its cause.
        """
        try:
            if request.matrix and self.predictor is not None:
                return self.predictor.predict(request.data, request.params)
            return self.model.predict(request.data, request.params)
        except GittrackError:
            raise
        except Exception as error:  # a model may raise anything
            raise PredictionError(
                "the model failed on this input", hint="check that the values are what the model can take"
            ) from error

    # --- out

    @staticmethod
    def write(prediction: Any, *, unwrapped: bool = False) -> bytes:
        """The body of the answer.  Raises CorruptError if the prediction cannot be written as JSON."""
        answer = jsonable(prediction)
        return dump(answer if unwrapped else {"predictions": answer})


# --- bytes


@lru_cache(maxsize=64)
def media_type(content_type: str | None) -> str:
    """The media type of a header ``Content-Type``.

    Raises:
        MediaTypeError: It is missing or not one of ``MEDIA_TYPES``, or the text is not UTF-8.
    """
    if content_type is None:
        raise MediaTypeError("the request has no Content-Type", hint=f"one of {', '.join(MEDIA_TYPES)}")
    media, *parameters = (part.strip() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.lower() == "charset" and value.strip('"').lower() != "utf-8":
            raise MediaTypeError("the scoring server only supports UTF-8")
        if name.lower() != "charset":
            raise MediaTypeError("the Content-Type has a parameter other than charset")
    if media.lower() not in MEDIA_TYPES:
        raise MediaTypeError(f"the Content-Type must be one of {', '.join(MEDIA_TYPES)}")
    return media.lower()


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``.

    Raises:
        UsageError: It is none, or an object has a key twice.
    """
    import orjson

    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UsageError(
            f"the body is not JSON: {error.msg} at character {error.pos}",
            hint=f"an object with one of {tables.listed(FORMS)}",
        ) from error
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else "a single value"
        raise UsageError(f"the body must be a JSON object with one of {tables.listed(FORMS)}, not {kind}")
    # The fast parser keeps the last of two equal keys.  There is a colon for each key of the text: if as many keys are
    # there (those that are easily counted do), none was lost.
    if body.count(b":") != _count_keys(document):
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    return document


def _count_keys(document: dict[str, Any]) -> int:
    """At least some of the keys of all objects: of the outer ones."""
    total = len(document)
    for value in document.values():
        if isinstance(value, dict):
            total += len(value) + sum(len(one) for one in value.values() if isinstance(one, dict))
        elif isinstance(value, list):
            total += sum(len(one) for one in value if isinstance(one, dict))
    return total


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise UsageError("an object of the input has a key twice")


def dump(answer: Any) -> bytes:
    """JSON.  Raises CorruptError for what it cannot carry."""
    import orjson

    try:
        return orjson.dumps(answer, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (TypeError, RecursionError) as error:  # orjson's own error is a TypeError
        raise CorruptError("the model's answer has something that JSON cannot carry") from error


def jsonable(prediction: Any) -> Any:
    """A prediction as what can be written: arrays as lists, tables as a list of records.

    Numbers of 32 bits are written with all digits of their value, as MLflow does.
    """
    if hasattr(prediction, "dtype") and hasattr(prediction, "tolist") and not hasattr(prediction, "iloc"):
        if prediction.dtype.kind == "f" and prediction.dtype.itemsize < 8:
            return prediction.astype("float64")
        known = prediction.dtype.kind in "fiub" and prediction.dtype.itemsize <= 8
        return prediction if known and prediction.flags.c_contiguous else prediction.tolist()
    if "pandas" in sys.modules:
        import pandas as pd

        if isinstance(prediction, pd.Series):
            prediction = prediction.to_frame()
        if isinstance(prediction, pd.DataFrame):
            return prediction.to_dict(orient="records")
    return prediction


def _plain(value: Any) -> Any:
    """What orjson does not know, as something that it does."""
    import base64

    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(value).decode()
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return value.tolist()
    if hasattr(value, "to_dict"):
        return jsonable(value)
    raise TypeError(type(value).__name__)


# --- forms


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _split(value: Any) -> tuple[list[str] | None, list[list[Any]]]:
    """Names of columns and rows of ``dataframe_split``.  Raises UsageError."""
    if not isinstance(value, dict):
        raise UsageError(f"`{SPLIT}` must be an object with `data`, and `columns` and `index` if there are any")
    if "data" not in value or not value.keys() <= {"columns", "data", "index"}:
        raise UsageError(f"`{SPLIT}` has `data`, and may have `columns` and `index`, and nothing else")
    names, rows, index = value.get("columns"), value["data"], value.get("index")
    if not isinstance(rows, list) or not all(isinstance(part, (list, type(None))) for part in (names, index)):
        raise UsageError(f"`data`, `columns` and `index` of `{SPLIT}` must be lists")
    if index is not None and len(index) != len(rows):
        raise UsageError(f"`index` of `{SPLIT}` is not as long as `data`")
    if names is not None:
        if len(set(map(repr, names))) != len(names):
            raise UsageError(f"`columns` of `{SPLIT}` has a name twice")
        if any(isinstance(name, (list, dict)) for name in names):
            raise UsageError(f"`columns` of `{SPLIT}` must be names")
        if rows and not (isinstance(rows[0], list) and len(rows[0]) == len(names)):
            raise UsageError(f"the rows of `{SPLIT}` must be lists, as long as `columns`")
    return names, rows


def _records(value: Any) -> tuple[list[str] | None, list[list[Any]]]:
    """Names of columns and rows of a list of objects; what a row lacks is null.  Raises UsageError."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UsageError("the records must be a list of objects")
    if not value:
        return [], []
    names = list(value[0])
    if all(list(row) == names for row in value):
        return names, [list(row.values()) for row in value]
    names = list(dict.fromkeys(name for row in value for name in row))
    if len(names) * len(value) > MAX_CELLS:
        raise UsageError("the records have too many different keys")
    return names, [[row.get(name) for name in names] for row in value]


def _from_lists(value: Any, columns: tables.Columns) -> tuple[list[Any] | None, list[list[Any]]]:
    """``inputs`` or ``instances`` that are no list of objects: names and rows.  Raises UsageError, SchemaError."""
    if isinstance(value, dict):
        lists = {name: one if isinstance(one, list) else [one] for name, one in value.items()}
        if len(set(map(len, lists.values()))) > 1:
            raise UsageError("the columns of the input differ in length")
        return list(lists), [list(row) for row in zip(*lists.values(), strict=True)]
    values = value if isinstance(value, list) else [value]
    if columns.names is None or len(columns) == 1:
        rows = [row if isinstance(row, list) else [row] for row in values]
        if columns.names is not None and any(len(row) != 1 for row in rows):
            raise SchemaError("the model takes one column, the rows of the input have more values")
        return columns.names, rows
    raise SchemaError(
        f"the input has no names of columns, and the model takes {tables.listed(columns.names)}",
        hint=f"send them as `{SPLIT}` or `{RECORDS}`",
    )


def _table_of_tensors(names: list[str] | None, rows: list[list[Any]], schema: Schema) -> Any:
    if not rows:
        raise SchemaError("the input is empty")
    specs = [spec for spec in schema.inputs if isinstance(spec, TensorSpec)]
    if not schema.has_input_names():
        value = [row[0] for row in rows] if len(rows[0]) == 1 else rows
        return _reshaped(value, specs[0])
    missing = [spec.name for spec in specs if spec.name not in (names or ())]
    if missing or names is None:
        raise SchemaError(
            f"the input misses {tables.listed(missing)}",
            hint=f"the model takes {tables.listed(schema.input_names())}",
        )
    return {str(spec.name): _reshaped([row[names.index(str(spec.name))] for row in rows], spec) for spec in specs}


def _tensors(form: str, value: Any, schema: Schema) -> Any:
    specs = [spec for spec in schema.inputs if isinstance(spec, TensorSpec)]
    if not schema.has_input_names():
        if isinstance(value, dict):
            raise UsageError("the model takes one array without a name, not an object")
        return tables.tensor(value, specs[0])
    if form == INSTANCES and _is_records(value):
        value = {name: [row.get(name) for row in value] for name in {name: None for row in value for name in row}}
    if not isinstance(value, dict) and len(specs) == 1:
        value = {str(specs[0].name): value}
    missing = [spec.name for spec in specs if not isinstance(value, dict) or spec.name not in value]
    if missing:
        raise SchemaError(
            f"the input misses {tables.listed(missing)}",
            hint=f"the model takes {tables.listed(schema.input_names())}",
        )
    return {str(spec.name): tables.tensor(value[spec.name], spec) for spec in specs}


def _has_truths(body: bytes, *, alone: bool) -> bool:
    """Whether ``true`` or ``false`` may be among the values; numpy takes them for numbers.

    Args:
        body: JSON that was parsed.
        alone: It has ``dataframe_split`` and nothing else.
    """
    last = body.rfind(b'"')
    if alone and body[last - 5 : last + 2] == b'"data":':  # only numbers and brackets come after: look for one letter
        return body.find(b"u", last) >= 0 or body.find(b"s", last) >= 0
    return b"true" in body or b"false" in body


def _csv_numbers(values: Sequence[str], kind: str) -> list[Any]:
    """Texts of a CSV column as JSON has them; what is no number stays a text, and is refused later."""
    if kind == "boolean":
        known = {"true": True, "false": False, "1": True, "0": False}
        return [known.get(value.strip().lower(), value) for value in values]
    whole = kind in ("integer", "long")
    found: list[Any] = []
    for value in values:
        text = value.strip()
        try:
            found.append(None if text in MISSING_TEXTS else int(text) if whole else float(text))
        except ValueError:
            found.append(text)
    return found


def _csv_frame(text: str, schema: Schema | None) -> Any:
    import io

    import pandas as pd

    texts: Mapping[Any, Any] | None = None
    if schema is not None and not schema.is_tensor_spec() and schema.has_input_names():
        texts = {
            name: str for name, spec in schema.input_dict().items() if spec.type in ("string", "binary", "datetime")
        }
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=texts)
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise UsageError("the input is no CSV with a line of column names") from error
    if schema is None or schema.is_tensor_spec():
        return frame
    values = frame.astype(object).where(frame.notna(), None)
    return tables.typed_table(list(frame.columns), [values[name].tolist() for name in values], schema)


def _parquet(body: bytes, schema: Schema | None) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MediaTypeError("this server cannot read Parquet", hint="install pyarrow beside gittrack") from error
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        if file.metadata.num_rows * max(1, file.metadata.num_columns) > MAX_CELLS:
            raise UsageError(f"the table has more than {MAX_CELLS} cells")
        frame = file.read().to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError("the input is no Parquet file that can be read") from error
    if schema is not None and schema.has_input_names() and not schema.is_tensor_spec():
        known = schema.input_names()
        frame = frame[[name for name in frame.columns if name in known]]
    return frame


def _reshaped(value: list[Any], spec: TensorSpec) -> Any:
    """A column of a table as a tensor: single values, or lists that hold a row each."""
    import math

    sizes = spec.shape[1:]
    if -1 in sizes or spec.shape[0] != -1:
        raise SchemaError(f"a table cannot be made an array of shape {list(spec.shape)}", hint=f"send it as `{INPUTS}`")
    flat = TensorSpec(spec.type, (-1, *((math.prod(sizes),) if isinstance(value[0], list) else ())), spec.name)
    if not isinstance(value[0], list) and math.prod(sizes) != 1:
        raise SchemaError(f"the model takes an array of shape {list(spec.shape)}, the table has single values")
    return tables.tensor(value, flat).reshape((len(value), *sizes))


def _without_signature(form: str, value: Any) -> Any:
    """``inputs`` and ``instances`` of a model that does not say what it takes: arrays, or a dict of them."""
    import numpy as np

    def array(one: Any) -> Any:
        try:
            return np.array(one)
        except (ValueError, OverflowError) as error:
            raise UsageError("the input is no array: its lists differ in length") from error

    if _is_records(value):
        if form == INPUTS:
            return [{name: array(one) for name, one in row.items()} for row in value]
        names = dict.fromkeys(name for row in value for name in row)
        return {name: array([row[name] for row in value if name in row]) for name in names}
    if isinstance(value, dict):
        return {name: array(one) for name, one in value.items()}
    return array(value)
