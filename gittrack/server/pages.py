"""What a served model says about itself: an OpenAPI document and a page, both made once when it is put in.

The page has no script and loads nothing.  Everything on it that comes from the model is escaped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from gittrack._version import __version__
from gittrack.data.schema import Schema, TensorSpec
from gittrack.models.scoring import CSV, FORMS, JSON, PARQUET

if TYPE_CHECKING:
    from gittrack.models.scoring import Scorer

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2024;"
    "background:#fff}code,pre{font:14px/1.5 ui-monospace,monospace;background:#f3f5f7;border-radius:4px}"
    "code{padding:.1em .3em}pre{padding:1em;overflow:auto}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3em .8em .3em 0;border-bottom:1px solid #dde1e6;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#16181b}code,pre{background:#22262a}"
    "th,td{border-color:#363b41}}"
)


def _style_hash() -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_style_hash()}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

_JSON_TYPES: Final = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "binary": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
}
#: Paths with a line about each.
PATHS: Final = {
    "/invocations": ("post", "Predict: MLflow's scoring protocol."),
    "/ping": ("get", "200 if the server can answer."),
    "/health": ("get", "The same as /ping."),
    "/version": ("get", "The version of gittrack."),
    "/metrics": ("get", "Counters for Prometheus."),
    "/docs": ("get", "The page about this model."),
    "/openapi.json": ("get", "This document."),
    "/v2": ("get", "The server, by the Open Inference Protocol."),
    "/v2/health/live": ("get", "200 if the server runs."),
    "/v2/health/ready": ("get", "200 if the model is loaded."),
    "/v2/models/{model}": ("get", "Tensors that the model takes and gives."),
    "/v2/models/{model}/ready": ("get", "200 if the model is loaded."),
    "/v2/models/{model}/infer": ("post", "Predict: the Open Inference Protocol."),
    "/v2/models/{model}/versions/{version}": ("get", "The same, for one version."),
    "/v2/models/{model}/versions/{version}/ready": ("get", "The same, for one version."),
    "/v2/models/{model}/versions/{version}/infer": ("post", "The same, for one version."),
}


@dataclass(frozen=True)
class Description:
    """The two documents, as they are sent."""

    openapi: bytes
    page: bytes


def describe(scorer: Scorer, name: str, version: str | None) -> Description:
    """The documents about a model."""
    return Description(
        json.dumps(_openapi(scorer, name, version), ensure_ascii=False).encode("utf-8", "replace"),
        _page(scorer, name, version).encode("utf-8", "replace"),
    )


# --- OpenAPI 3.1: https://spec.openapis.org/oas/v3.1.0


def _openapi(scorer: Scorer, name: str, version: str | None) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for path, (method, text) in PATHS.items():
        operation: dict[str, Any] = {"summary": text, "responses": {"200": {"description": "Success."}}}
        parameters = [part for part in ("model", "version") if f"{{{part}}}" in path]
        if parameters:
            operation["parameters"] = [
                {"name": part, "in": "path", "required": True, "schema": {"type": "string"}} for part in parameters
            ]
            operation["responses"]["404"] = {"description": "No such model or version."}
        paths[path] = {method: operation}
    paths["/invocations"]["post"] |= {
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": _request_schema(scorer), **_example(scorer.schema)},
                CSV: {"schema": {"type": "string"}},
                PARQUET: {"schema": {"type": "string", "contentEncoding": "binary"}},
            },
        },
        "responses": {
            "200": {
                "description": "The predictions.",
                "content": {
                    JSON: {"schema": {"type": "object", "required": ["predictions"], "properties": {"predictions": {}}}}
                },
            },
            **{
                status: {"description": text, "content": {JSON: {"schema": _ERROR}}}
                for status, text in (
                    ("400", "The input cannot be read, does not fit the signature, or the model failed on it."),
                    ("413", "The body is too large."),
                    ("415", "Not JSON, CSV or Parquet in UTF-8."),
                    ("503", "Too many requests wait."),
                    ("504", "The prediction was not there in time."),
                )
            },
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": version or "0",
            "description": f"A model served by gittrack {__version__}.",
        },
        "paths": paths,
    }


_ERROR: Final = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}


def _request_schema(scorer: Scorer) -> dict[str, Any]:
    properties: dict[str, Any] = {form: {} for form in FORMS}
    properties["dataframe_split"] = {
        "type": "object",
        "required": ["data"],
        "additionalProperties": False,
        "properties": {
            "columns": {"type": "array", "items": {"type": ["string", "integer"]}},
            "index": {"type": "array"},
            "data": {"type": "array", "items": {"type": "array"}},
        },
    }
    properties["dataframe_records"] = {"type": "array", "items": _row_schema(scorer.schema)}
    parameters = scorer.metadata.get_params_schema()
    if parameters is not None:
        properties["params"] = {
            "type": "object",
            "properties": {spec.name: _JSON_TYPES.get(str(spec.dtype), {}) for spec in parameters},
        }
    return {"type": "object", "properties": properties, "oneOf": [{"required": [form]} for form in FORMS]}


def _row_schema(schema: Schema | None) -> dict[str, Any]:
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return {"type": "object"}
    return {
        "type": "object",
        "required": [str(name) for name in schema.required_input_names()],
        "properties": {
            str(spec.name): _JSON_TYPES.get(spec.type, {}) if isinstance(spec.type, str) else {} for spec in schema
        },
    }


_SAMPLES: Final = {"boolean": True, "string": "a", "datetime": "2026-01-31T12:00:00", "binary": "aGk=", "any": None}


def _sample(schema: Schema | None) -> dict[str, Any] | None:
    """A request that fits the schema, for people to change; None if there is no telling."""
    if schema is None or not len(schema):
        return None
    if schema.is_tensor_spec() or not all(isinstance(spec.type, str) for spec in schema):
        return None
    row = [_SAMPLES.get(str(spec.type), 0 if spec.type in ("integer", "long") else 0.5) for spec in schema]
    names = {"columns": schema.input_names()} if schema.has_input_names() else {}
    return {"dataframe_split": {**names, "data": [row]}}


def _example(schema: Schema | None) -> dict[str, Any]:
    sample = _sample(schema)
    return {} if sample is None else {"example": sample}


# --- the page


def _page(scorer: Scorer, name: str, version: str | None) -> str:
    title = escape(name if version is None else f"{name} version {version}")
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        _schema_table("Input", scorer.schema),
        _schema_table("Output", scorer.metadata.get_output_schema()),
    ]
    parameters = scorer.metadata.get_params_schema()
    if parameters is not None:
        rows = "".join(
            f"<tr><td><code>{escape(spec.name)}</code><td>{escape(str(spec.dtype))}<td>{escape(str(spec.default))}"
            for spec in parameters
        )
        parts.append(f"<h2>Parameters</h2><table><tr><th>name<th>type<th>default{rows}</table>")
    sample = _sample(scorer.schema)
    if sample is not None:
        body = json.dumps(sample, ensure_ascii=False).replace("'", r"'\''")
        command = f"curl http://ADDRESS/invocations -H 'Content-Type: {JSON}' -d '{body}'"
        parts.append(f"<h2>Ask it</h2><pre>{escape(command)}</pre>")
    rows = "".join(
        f"<tr><td>{method.upper()}<td><code>{escape(path)}</code><td>{escape(text)}"
        for path, (method, text) in PATHS.items()
    )
    parts.append(f"<h2>Paths</h2><table>{rows}</table><p>gittrack {escape(__version__)}</p></html>")
    return "\n".join(parts)


def _schema_table(heading: str, schema: Schema | None) -> str:
    if schema is None:
        return f"<h2>{heading}</h2><p>The model does not say."
    rows = "".join(
        f"<tr><td><code>{escape(str(position if spec.name is None else spec.name))}</code>"
        f"<td>{escape(_shown_type(spec))}<td>{'' if spec.required else 'may be left out'}"
        for position, spec in enumerate(schema)
    )
    return f"<h2>{heading}</h2><table>{rows}</table>"


def _shown_type(spec: Any) -> str:
    if isinstance(spec, TensorSpec):
        return f"{spec.type} {list(spec.shape)}"
    return spec.type if isinstance(spec.type, str) else json.dumps(spec.type)
