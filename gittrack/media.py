"""What `log_dict`, `log_figure`, `log_image` and `log_table` store: objects of Python turned into the bytes of a file.

Pure conversions, nothing is written here.  The libraries belong to the user's objects and are imported on use.
"""

from __future__ import annotations

import importlib
import io
import json
import posixpath
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from PIL import Image as PILImage

#: Longer side of the small copy of an image that is kept beside it, in pixels (MLflow's).
SMALL_IMAGE: Final = 256

_TABLE_SUFFIXES: Final = (".json", ".parquet")
#: A table's file name is looked up inside a JSON list in a tag, which these would break.
_NOT_IN_TABLE_NAMES: Final = "\"',:[]{}"


def require(module: str, call: str, package: str | None = None) -> Any:
    """Import ``module`` for ``call``.

    Raises:
        MissingDependencyError: It is not installed; the hint says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = package or module
        raise MissingDependencyError(f"`{call}` needs {name}", hint=f"pip install {name}") from error


def dict_bytes(value: Any, path: str) -> bytes:
    """``value`` as YAML if ``path`` ends in ``.yml`` or ``.yaml``, otherwise as JSON; what JSON does not know, as text.

    Without PyYAML a YAML file gets the JSON text, which is YAML too.

    Raises:
        InvalidValueError: Something in it is in itself, is nested too deeply, or cannot be turned into text.
    """
    try:
        text = json.dumps(value, indent=2, default=str)
    except Exception as error:  # `__str__` is the user's code: it can raise anything
        raise InvalidValueError(f"cannot store the dict as `{path}`: {error}") from error
    if posixpath.splitext(path)[1] in (".yml", ".yaml"):
        try:
            yaml = importlib.import_module("yaml")
        except ImportError:
            return text.encode()
        # Through JSON and with the safe dumper: never a `!!python/object` that a reader would run.
        return bytes(yaml.safe_dump(json.loads(text), indent=2, sort_keys=True, encoding="utf-8"))
    return text.encode()


def figure_bytes(figure: Any, path: str, save_kwargs: dict[str, Any] | None = None) -> bytes:
    """A matplotlib or plotly figure in the format that ``path``'s extension names.

    Raises:
        InvalidValueError: Another kind of object, or an extension that the library does not write.
    """
    options = save_kwargs or {}
    extension = posixpath.splitext(path)[1].lstrip(".").lower()
    library = next(
        (name for cls in type(figure).__mro__ for name in ("matplotlib", "plotly") if _is_of(cls, name)), None
    )
    if library == "matplotlib":
        buffer = io.BytesIO()
        try:
            figure.savefig(buffer, **{"format": extension or "png", **options})
        except ValueError as error:
            raise InvalidValueError(
                f"cannot save the figure as `{path}`: {error}", hint="use .png, .svg or .pdf"
            ) from error
        return buffer.getvalue()
    if library == "plotly":
        if extension == "html":
            return str(figure.to_html(**{"include_plotlyjs": "cdn", **options})).encode()
        if extension in ("png", "jpeg", "jpg", "webp", "svg", "pdf"):
            return bytes(figure.to_image(**{"format": extension, **options}))
        raise InvalidValueError(f"plotly cannot save `{path}`", hint="use .html, .png, .jpeg, .webp, .svg or .pdf")
    raise InvalidValueError(
        f"log_figure takes a figure of matplotlib or plotly, got {type(figure).__name__}",
        hint="for pixels use log_image",
    )


def _is_of(cls: type, library: str) -> bool:
    return cls.__module__.partition(".")[0] == library and "Figure" in cls.__name__


def array_to_image(array: np.ndarray[Any, Any]) -> PILImage.Image:
    """A picture from an array of shape (height, width) or (height, width, 1 | 3 | 4).

    Integers are levels 0 to 255, floats and bools 0 to 1; floats outside of that are scaled by their least and greatest
    value, with a warning.

    Raises:
        InvalidValueError: Another shape or type of element, or integers outside of 0 to 255.
    """
    np = require("numpy", "log_image")
    image = require("PIL.Image", "log_image", "Pillow")
    if array.dtype.kind not in "biuf":
        raise InvalidValueError(f"an image's array has numbers or bools, got `{array.dtype}`")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InvalidValueError(
            f"an image's array has the shape (height, width) or (height, width, 1 | 3 | 4), got {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0:
        raise InvalidValueError(f"an image's array is empty: its shape is {array.shape}")
    low, high = array.min(), array.max()
    if array.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise InvalidValueError(f"an image's integers are 0 to 255, got {low} to {high}")
        return image.fromarray(array.astype(np.uint8))  # type: ignore[no-any-return]
    if not (low >= 0 and high <= 1):
        warnings.warn(f"image values {low} to {high} are scaled to 0 to 1", stacklevel=4)
        array = (array - low) / ((high - low) or 1)
    return image.fromarray((array * 255).astype(np.uint8))  # type: ignore[no-any-return]


class Image:
    """A picture to be logged with ``log_image`` or in a column of ``log_table``.

    Args:
        image: A numpy array or nested lists (see ``array_to_image``), a PIL image, or the path of an image file.
    """

    def __init__(self, image: np.ndarray[Any, Any] | PILImage.Image | str | Path | list[Any]) -> None:
        self.image: PILImage.Image = _pil_image(image)

    def to_pil(self) -> PILImage.Image:
        """The PIL image."""
        return self.image

    def to_array(self) -> np.ndarray[Any, Any]:
        """The pixels as an array of uint8."""
        return require("numpy", "Image.to_array").array(self.image)  # type: ignore[no-any-return]

    def to_list(self) -> list[Any]:
        """The pixels as nested lists."""
        return list(self.to_array().tolist())

    def save(self, path: str) -> None:
        """Write the picture to a file; the extension says the format."""
        self.image.save(path)

    def resize(self, size: tuple[int, int]) -> Image:
        """A copy of ``size`` (width, height) pixels."""
        return Image(self.image.resize(size))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size


def _pil_image(image: Any) -> PILImage.Image:
    pil = require("PIL.Image", "log_image", "Pillow")
    if isinstance(image, Image):
        return image.image
    if isinstance(image, pil.Image):
        return image  # type: ignore[no-any-return]
    if isinstance(image, (str, Path)):
        try:
            opened: PILImage.Image = pil.open(image)
            opened.load()  # now, which also closes the file
        except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:  # what PIL raises for bad files
            raise InvalidValueError(f"`{image}` cannot be read as an image: {error}") from error
        return opened
    if isinstance(image, list):
        image = require("numpy", "log_image").array(image)
    if not hasattr(getattr(image, "dtype", None), "kind"):  # also a tensor of torch
        raise InvalidValueError(
            f"not an image: {type(image).__name__}", hint="pass a numpy array, a PIL image or a gittrack.Image"
        )
    return array_to_image(image)


def image_bytes(image: Any, path: str) -> bytes:
    """A picture (array, PIL image or ``Image``) in the format that ``path``'s extension names."""
    return _encode(_pil_image(image), path)


def small_image_bytes(image: Any) -> bytes:
    """The picture fitted into a square of ``SMALL_IMAGE`` pixels, as WebP."""
    full = _pil_image(image)
    scale = SMALL_IMAGE / max(full.size)
    width, height = (max(1, int(side * scale)) for side in full.size)
    return _encode(full.resize((width, height)), "small.webp")


def _encode(image: PILImage.Image, path: str) -> bytes:
    pil = require("PIL.Image", "log_image", "Pillow")
    extension = posixpath.splitext(path)[1].lower()
    kind = pil.registered_extensions().get(extension)
    if kind is None:
        raise InvalidValueError(f"cannot save an image as `{path}`", hint="use .png, .jpg or .webp")
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=kind)
    except (OSError, KeyError) as error:  # KeyError: the format can be read only; OSError: not with these channels
        raise InvalidValueError(f"cannot save the image as `{path}`: {error}", hint="use .png") from error
    return buffer.getvalue()


def is_image(value: Any) -> bool:
    """True for what ``log_table`` stores as a picture: a PIL image, an ``Image``."""
    return isinstance(value, Image) or any(cls.__module__.startswith("PIL.") for cls in type(value).__mro__)


def check_table_path(path: str) -> str:
    """The file name of a table: ``.json`` or ``.parquet``.  Raises InvalidValueError."""
    if not path.endswith(_TABLE_SUFFIXES):
        raise InvalidValueError(f"a table cannot be stored as `{path}`", hint="end its name in .json or .parquet")
    bad = next((c for c in path if c in _NOT_IN_TABLE_NAMES), None)
    if bad is not None:
        raise InvalidValueError(f"a table's name cannot have the character `{bad}`: `{path}`")
    return path


def table_frame(data: Any) -> pd.DataFrame:
    """The rows of a table from a DataFrame (copied), a dict of columns, or a dict of scalars (one row)."""
    pd = require("pandas", "log_table")
    if isinstance(data, pd.DataFrame):
        return data.copy()  # type: ignore[no-any-return]
    if not isinstance(data, dict):
        raise InvalidValueError(f"a table is a DataFrame or a dict, got {type(data).__name__}")
    try:
        return pd.DataFrame(data)  # type: ignore[no-any-return]
    except ValueError:  # only scalars: pandas would want an index
        return pd.DataFrame([data])  # type: ignore[no-any-return]


def table_bytes(frame: pd.DataFrame, path: str) -> bytes:
    """A table as ``path``'s extension says: JSON (``columns`` and ``data``) or Parquet."""
    try:
        if path.endswith(".parquet"):
            return bytes(frame.to_parquet(None, index=False))
        return str(frame.to_json(orient="split", index=False, date_format="iso")).encode()
    except ImportError as error:
        raise MissingDependencyError("a .parquet table needs pyarrow", hint="pip install pyarrow") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValueError(f"cannot store the table as `{path}`: {error}") from error


def read_table(data: bytes, path: str) -> pd.DataFrame:
    """The table that ``table_bytes`` made."""
    pd = require("pandas", "load_table")
    try:
        if path.endswith(".parquet"):
            return pd.read_parquet(io.BytesIO(data))  # type: ignore[no-any-return]
        return pd.read_json(io.BytesIO(data), orient="split")  # type: ignore[no-any-return]
    except ImportError as error:
        raise MissingDependencyError("a .parquet table needs pyarrow", hint="pip install pyarrow") from error
    except ValueError as error:
        raise InvalidValueError(f"`{path}` is not a table: {error}") from error


def concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several tables one after the other."""
    return require("pandas", "load_table").concat(list(frames), ignore_index=True)  # type: ignore[no-any-return]
