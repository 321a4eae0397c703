"""What an HTTP server for one model says of itself: OpenAPI, and the headers of its page."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

PATHS = ("/predict", "/health", "/ready", "/metrics", "/info", "/openapi.json", "/")


def page_headers(page: str) -> dict[str, str]:
    """What lets the page run its own script and style, and ask this server alone."""
    allowed = {"default": "'none'", "connect": "'self'", "img": "blob: data:", "base-uri": "'none'"}
    for tag in ("script", "style"):
        text = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[tag] = f"'sha256-{digest}'"
    policy = "; ".join(f"{name if '-' in name else name + '-src'} {value}" for name, value in allowed.items())
    return {
        "content-security-policy": f"{policy}; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


def describe_interface(model: Any, options: Any) -> dict[str, Any]:
    """OpenAPI 3.1."""
    pair = {"label": {"type": "string"}, "probability": {"type": ["number", "null"]}}
    value = {"values": {"type": "object", "additionalProperties": {"type": ["number", "null"]}}}
    one = {**pair, "top": {"type": "array", "items": {"type": "object", "properties": pair}}} if model.labels else value
    filled = {"filled": {"type": "array", "items": {"type": "string"}}} if model.kind == "table" else {}
    said = {"source": {"type": "string"}, **one, **filled, "error": {"type": "string"}}
    prediction = {"type": "object", "properties": said}
    error = {"type": "object", "properties": {"message": {"type": "string"}}}
    answer = {"type": "object", "properties": {"predictions": {"type": "array", "items": prediction}, "error": error}}
    files = {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
    bodies: dict[str, Any] = {"multipart/form-data": {"schema": files}}
    if model.kind == "image":
        bodies |= {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", "application/octet-stream")
        }
    else:
        cells = {column["name"]: {"type": ["number", "string", "boolean", "null"]} for column in model.about["columns"]}
        rows = {"type": "array", "items": {"type": "object", "properties": cells}}
        bodies |= {"application/json": {"schema": rows}, "text/csv": {"schema": {"type": "string"}}}
    whys = {
        401: "the token is missing or wrong",
        408: "the body came too slowly",
        413: "the body is too large",
        422: "an input cannot be used; the others are answered",
        429: "the queue is full",
        503: "the server is stopping",
        504: f"no answer within {options.timeout:g} s",
    }
    content = {"application/json": {"schema": answer}}
    responses = {"200": {"description": "A prediction for each input, in their order", "content": content}}
    responses |= {str(code): {"description": why, "content": content} for code, why in whys.items()}
    parameters = [
        {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 3}},
        {"name": "resize", "in": "query", "schema": {"type": "boolean", "default": False}},
    ]
    predict = {"parameters": parameters, "requestBody": {"content": bodies}, "responses": responses}
    others = {path: {"get": {"responses": {"200": {"description": "OK"}}}} for path in PATHS if path != "/predict"}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": model.about["name"], "version": model.about["sha256"][:12]},
        "paths": {"/predict": {"post": predict}, **others},
    }
    if options.token is not None:
        described["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        described["security"] = [{"token": []}]
    return described
