"""What a GraphQL answer says of itself in its body: whether it has errors.

Rules of this file: an answer of 200 with ``errors`` (GraphQL, §7.1.2) is a failure of this moment, or "send
the document, I do not know its hash": not an answer to keep. What cannot be looked into counts as having
some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from edgeproxy.policy.content import ContentForm

if TYPE_CHECKING:
    from edgeproxy.policy.stored import Stored
    from edgeproxy.rules.model import Rule

LARGEST = 1024 * 1024
"""Octets of an answer that is parsed. A larger one is only looked through for the word."""


def has_errors(rule: Rule, stored: Stored, body: bytes) -> bool:
    """Whether a whole answer under ``rule`` is a GraphQL answer with errors. False under other rules. A
    part may have them where nobody sees."""
    policy = rule.key.body
    if policy is None or policy.form is not ContentForm.GRAPHQL:
        return False
    if stored.coding or stored.part is not None:
        return True
    if b'"errors"' not in body:
        return False
    if len(body) > LARGEST:
        return True
    try:
        said = orjson.loads(body)
    except ValueError:
        return True
    return not isinstance(said, dict) or bool(said.get("errors"))
