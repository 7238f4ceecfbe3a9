"""Documents read and understood: one in a row of steps, one with all analyses at once, and a batch of many.

In a batch single documents may fail: they are named in the result, and the others are done all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyworkflow_core import ApplicationError, RetryPolicy, WorkflowContext, activity, workflow

from . import local_model


@activity(retry_policy=RetryPolicy(max_retries=3, initial_delay=2.0, never_on=(FileNotFoundError,)), timeout="1m")
def read_text(path: str) -> str:
    """The text of a document. Put text recognition here; this reads `.txt` and `.md` only."""
    if Path(path).suffix not in (".txt", ".md"):
        raise ApplicationError(f"{path}: only .txt and .md can be read here", type="UnknownFormat")
    return Path(path).read_text()


@activity
async def classify(text: str) -> str:
    """What kind of document this is."""
    return local_model.kind_of(text)


@activity
async def find_entities(text: str) -> dict[str, list[str]]:
    """What a document names."""
    return local_model.entities(text)


@activity
async def summarise(text: str) -> str:
    """A document in a sentence."""
    return local_model.summarise(text)


@activity
async def check_compliance(text: str, kind: str) -> list[str]:
    """What a document of that kind lacks."""
    lacking = []
    if kind in ("invoice", "contract") and not local_model.entities(text)["dates"]:
        lacking.append("a date")
    if kind == "invoice" and not local_model.entities(text)["amounts"]:
        lacking.append("an amount")
    return lacking


@activity(retry_policy=RetryPolicy(max_retries=3, never_on=(FileNotFoundError,)))
def read_and_classify(path: str) -> dict[str, Any]:
    """One document of a batch."""
    text = read_text(path)
    return {"path": path, "kind": local_model.kind_of(text), "words": len(local_model.words(text))}


@workflow
async def process_document(ctx: WorkflowContext, path: str) -> dict[str, Any]:
    """One document, one step after the other."""
    text = await ctx.execute_activity(read_text, path)
    kind = await ctx.execute_activity(classify, text)
    entities = await ctx.execute_activity(find_entities, text)
    summary = await ctx.execute_activity(summarise, text)
    return {"kind": kind, "entities": entities, "summary": summary}


@workflow
async def process_document_in_parallel(ctx: WorkflowContext, path: str) -> dict[str, Any]:
    """One document, all analyses at once; what depends on one of them comes after."""
    text = await ctx.execute_activity(read_text, path)
    kind, entities, summary = await ctx.execute_parallel(
        (classify, (text,)), (find_entities, (text,)), (summarise, (text,))
    )
    lacking = await ctx.execute_activity(check_compliance, text, kind)
    return {"kind": kind, "entities": entities, "summary": summary, "lacking": lacking}


@workflow
async def process_documents(ctx: WorkflowContext, paths: list[str]) -> dict[str, Any]:
    """Many documents, five at a time."""
    batch = await ctx.map(read_and_classify, paths, max_concurrency=5, tolerated_failures=None)
    failed = {path: str(one.error) for path, one in zip(paths, batch.items, strict=True) if one.status == "failed"}
    return {"done": batch.results, "failed": failed}
