"""A request's content under a rule: the head with its name, or with the reason why it has none.

Rules of this file: pure; the engine, ``explain`` and rule examples ask the same function.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy.policy.content import ContentForm, with_content
from edgeproxy.policy.vocabulary import PassReason

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import BodyPolicy, Rule


def body_policy(rule: Rule, request: RequestHead) -> BodyPolicy | None:
    """What the rule does with this request's content, None where it is no part of the key."""
    policy = rule.key.body
    return policy if policy is not None and request.method in policy.methods else None


def named(rule: Rule, request: RequestHead, content: bytes | None) -> RequestHead:
    """``content`` None: the request has none."""
    policy = body_policy(rule, request)
    if content is None or policy is None:
        return request
    if len(content) > policy.limit:
        return replace(request, unkeyed=PassReason.CONTENT_TOO_LARGE)
    return with_content(request, content, policy.form, persisted=policy.persisted)


def only_asks(rule: Rule, request: RequestHead) -> bool:
    """Whether the rule says of this request that it changes nothing, whatever its method: one whose content
    has a name, and one whose content was not looked at, unless it would have been for that very question."""
    if request.content_key:
        return True
    policy = body_policy(rule, request)
    unread = request.unkeyed in (PassReason.CONTENT_TOO_LARGE, PassReason.CONTENT_MEMORY)
    return policy is not None and unread and policy.form is not ContentForm.GRAPHQL
