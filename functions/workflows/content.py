"""Texts written by a model: in a row, with everything that can go at once at once, and with a person who has the last
word.

`generate` and the other activities ask `local_model`; put your model's client there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinyworkflow_core import ApplicationError, RetryPolicy, WorkflowContext, activity, activity_context, workflow

from . import local_model

MODEL = RetryPolicy(max_retries=5, initial_delay=1.0, max_delay=30.0)
"""For calls of a model, which is now and then overloaded."""


@dataclass
class Brief:
    """What is to be written, into which languages, and who looks at it."""

    prompt: str
    languages: list[str] = field(default_factory=lambda: ["de", "fr"])
    reviewers: list[str] = field(default_factory=list)
    rounds: int = 2
    """How often a text is written anew when its reviewer says no."""


@activity(retry_policy=MODEL, timeout="2m")
async def generate(prompt: str) -> str:
    """Have a text written."""
    return local_model.write(prompt)


@activity(retry_policy=MODEL, timeout="1m")
async def moderate(text: str) -> list[str]:
    """Why a text should not be published; nothing when it may be."""
    return local_model.objections(text)


@activity(retry_policy=MODEL, timeout="1m")
async def feel(text: str) -> str:
    """How a text sounds."""
    return local_model.sentiment(text)[0]


@activity(retry_policy=MODEL, timeout="1m")
async def find_keywords(text: str) -> list[str]:
    """What a text is about."""
    return local_model.keywords(text)


@activity(retry_policy=MODEL, timeout="2m")
async def translate(text: str, language: str) -> str:
    """The text in another language; one that the model does not speak it will not speak the next time either."""
    try:
        return local_model.translate(text, language)
    except KeyError:
        raise ApplicationError(f"the model does not speak {language!r}", type="UnknownLanguage") from None


@activity
async def publish_text(text: str, about: dict[str, Any]) -> str:
    """Publish; returns where. The key of the step makes a repetition land in the same place."""
    return f"https://example.org/texts/{activity_context().idempotency_key}"


@workflow
async def content_pipeline(ctx: WorkflowContext, brief: Brief) -> dict[str, Any]:
    """Write, moderate, publish: one step after the other."""
    text = await ctx.execute_activity(generate, brief.prompt)
    if objections := await ctx.execute_activity(moderate, text):
        return {"status": "refused", "objections": objections}
    url = await ctx.execute_activity(publish_text, text, {"prompt": brief.prompt})
    return {"status": "published", "text": text, "url": url}


@workflow
async def content_in_parallel(ctx: WorkflowContext, brief: Brief) -> dict[str, Any]:
    """The same with analysis, and translations into all languages, at once."""
    text = await ctx.execute_activity(generate, brief.prompt)
    objections, feeling, found = await ctx.execute_parallel(
        (moderate, (text,)), (feel, (text,)), (find_keywords, (text,))
    )
    if objections:
        return {"status": "refused", "objections": objections}
    translated = await ctx.execute_parallel(*((translate, (text, language)) for language in brief.languages))
    translations = dict(zip(brief.languages, translated, strict=True))
    about = {"sentiment": feeling, "keywords": found, "translations": translations}
    url = await ctx.execute_activity(publish_text, text, about)
    return {"status": "published", "text": text, "url": url, **about}


@workflow
async def content_with_approval(ctx: WorkflowContext, brief: Brief) -> dict[str, Any]:
    """Nothing is published without a person's word. A no with a comment has the text written anew, with that comment
    in the prompt, until the rounds are used up."""
    prompt = brief.prompt
    for number in range(1, brief.rounds + 1):
        text = await ctx.execute_activity(generate, prompt)
        objections, feeling = await ctx.execute_parallel((moderate, (text,)), (feel, (text,)))
        if objections:
            return {"status": "refused", "objections": objections}
        ctx.logger.info("round %d is with the reviewers", number)
        try:
            decision = await ctx.wait_for_approval(
                f"review-{number}",
                timeout="3d",
                title=f"Publish this {feeling} text?",
                details={"text": text, "sentiment": feeling},
                approvers=brief.reviewers,
            )
        except TimeoutError:
            return {"status": "lapsed", "text": text}
        if decision:
            url = await ctx.execute_activity(publish_text, text, {"by": decision.by})
            return {"status": "published", "text": text, "url": url, "by": decision.by, "rounds": number}
        prompt = f"{brief.prompt}, but {decision.comment or 'otherwise'}"
    return {"status": "rejected", "rounds": brief.rounds}
