"""The verify route in the server's OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from toploc.report import Report

_ITEM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "request": {"type": "object", "description": "the body that was sent"},
        "response": {"type": "object", "description": "the object that came back"},
        "request_body": {"type": "string", "description": "the body exactly as it was sent, for its receipt"},
        "partial": {"type": "boolean", "description": "whether the response is only what was kept of it"},
        "proofs": {"const": "none", "description": "hold the response to its text alone"},
        "sampling": {
            "type": "array",
            "items": {"type": "object"},
            "description": "with `proofs`: options it may have been drawn under, where the request does not say them",
        },
    },
    "required": ["request", "response"],
    "additionalProperties": False,
}
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": ["string", "integer", "null"]},
    },
    "required": ["message", "type", "param", "code"],
}


def _refused(description: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"error": _ERROR}, "required": ["error"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _report_schema() -> dict[str, Any]:
    """The report's, with its definitions in place: they have no room of their own in the document."""
    schema = Report.model_json_schema(mode="serialization")
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("$ref", "").rpartition("/")[2]
            if name:
                return {} if name == "JsonValue" else inline(definitions[name])
            return {key: inline(item) for key, item in value.items()}
        return [inline(item) for item in value] if isinstance(value, list) else value

    return inline(schema)  # type: ignore[no-any-return]


OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        _ITEM,
                        {
                            "type": "object",
                            "properties": {"items": {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": 1000}},
                            "required": ["items"],
                            "additionalProperties": False,
                        },
                    ]
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "a report, or a line for each item as they are done",
            "content": {
                "application/json": {"schema": _report_schema()},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
        "400": _refused("malformed evidence; `param` is the field"),
        "413": _refused("beyond a limit of size"),
        "429": _refused("as many verifications as the server does at once are in progress"),
        "500": _refused("the engine failed"),
        "501": _refused("the server has no tokenizer"),
        "503": _refused("the engine takes no more requests now"),
    },
}
