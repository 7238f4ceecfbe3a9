"""What people feel about something: one text looked at from two sides at once, or a whole batch of texts.

The batch goes on when single texts cannot be judged: `ctx.map` tolerates as many as the input says.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tinyworkflow_core import ApplicationError, RetryPolicy, WorkflowContext, activity, workflow

from . import local_model


@activity(retry_policy=RetryPolicy(max_retries=3), timeout="30s")
async def judge(text: str) -> dict[str, Any]:
    """Ask the model how a text sounds."""
    if not text.strip():
        raise ApplicationError("there is no text to judge", type="NoText")
    label, clarity = local_model.sentiment(text)
    return {"sentiment": label, "clarity": clarity}


@activity
async def measure(text: str) -> dict[str, Any]:
    """What can be said without a model."""
    return {"words": len(local_model.words(text)), "keywords": local_model.keywords(text, 3)}


@workflow
async def sentiment_analysis(ctx: WorkflowContext, text: str) -> dict[str, Any]:
    """One text: the model's judgement and the measurements at once."""
    judged, measured = await ctx.execute_parallel((judge, (text,)), (measure, (text,)))
    return {**judged, **measured}


@workflow
async def batch_sentiment_analysis(ctx: WorkflowContext) -> dict[str, Any]:
    """`texts` of the input, at most `at_once` of them at a time; fails when more than `tolerated` cannot be judged."""
    batch = await ctx.map(
        judge,
        ctx.get_input("texts", []),
        max_concurrency=ctx.get_input("at_once", 10),
        tolerated_failures=ctx.get_input("tolerated", 0),
    )
    batch.raise_if_failed()
    sentiments = Counter(one["sentiment"] for one in batch.results)
    return {"judged": batch.success_count, "failed": batch.failure_count, "sentiments": dict(sentiments)}
