"""The JSON Schema of rule files, for editors: made from the key table.

Rules of this file:

- The schema says no more than the key table does: what a value means is checked by the loader alone.
- It is shipped as rules/schema.json; a test holds that it is this.
"""

from __future__ import annotations

import json
from typing import Any

from edgeproxy.rules.keys import DEFAULTS, RULE, WARM
from edgeproxy.rules.pool_keys import POOL_TABLE


def json_schema() -> dict[str, Any]:
    """Draft 2020-12, about the file as YAML 1.2 reads it."""
    # "match" may come from the defaults, which a schema cannot see.
    rule = {**RULE.schema(), "required": [k.name for k in RULE.keys if k.required and k.name != "match"]}
    shared = {k.name: {"$ref": f"#/$defs/rule/properties/{k.name}"} for k in DEFAULTS.keys}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgeproxy rule file",
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["rules"]}, {"required": ["pools"]}, {"required": ["warm"]}],
        "properties": {
            "defaults": {
                "type": "object",
                "additionalProperties": False,
                "properties": shared,
                "description": "Keys of a rule, beneath each rule of this file; mappings are merged.",
            },
            "rules": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": "#/$defs/rule"},
                "description": "In order: the first rule that matches answers.",
            },
            "pools": {
                "type": "object",
                "additionalProperties": POOL_TABLE.schema(),
                "description": "Origins by name, for the key origin of rules.",
            },
            "warm": {
                "type": "array",
                "items": WARM.schema(),
                "description": "What is asked for before clients do, and when.",
            },
        },
        "$defs": {"rule": rule},
    }


def schema_text() -> str:
    """As shipped: indented, with a newline at the end."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
