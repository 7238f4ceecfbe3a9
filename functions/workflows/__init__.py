"""What is deployed: the workflows, and the webhooks that start them.

- release_train: a release from a webhook to publication.
- etl, user_report, expenses, purchases, retries, scheduled, reminders: what business programs are made of.
- sentiment, content, documents: programs around a model, with `local_model` in its place.
- forms: what people fill in.
"""

from __future__ import annotations

from tinyworkflow_core import Start, WebhookEvent, github_signature, webhook

from .content import content_in_parallel, content_pipeline, content_with_approval
from .documents import process_document, process_document_in_parallel, process_documents
from .etl import simple_etl
from .expenses import expense_approval
from .purchases import purchase_approval
from .release_train import release_train
from .reminders import delayed_reminder
from .retries import api_with_retries, parallel_with_retries, policy_per_activity, workflow_level_retry
from .scheduled import daily_backup, hourly_health_check, monthly_cleanup, weekly_report
from .sentiment import batch_sentiment_analysis, sentiment_analysis
from .user_report import user_report

__all__ = [
    "api_with_retries",
    "batch_sentiment_analysis",
    "content_in_parallel",
    "content_pipeline",
    "content_with_approval",
    "daily_backup",
    "delayed_reminder",
    "expense_approval",
    "github",
    "hourly_health_check",
    "monthly_cleanup",
    "parallel_with_retries",
    "policy_per_activity",
    "process_document",
    "process_document_in_parallel",
    "process_documents",
    "purchase_approval",
    "release_train",
    "sentiment_analysis",
    "simple_etl",
    "user_report",
    "weekly_report",
    "workflow_level_retry",
]


@webhook("github", verify=github_signature(secret_env="GITHUB_WEBHOOK_SECRET"))
def github(event: WebhookEvent) -> Start | None:
    """A release that is published on GitHub sends its train off. Other events are not of interest."""
    if event.type != "release" or event.body["action"] != "published":
        return None
    release, repository = event.body["release"], event.body["repository"]["full_name"]
    return Start(
        release_train,
        {
            "repository": repository,
            "tag": release["tag_name"],
            "url": release["html_url"],
            "author": release["author"]["login"],
            "body": release["body"],
        },
        workflow_id=f"{repository}@{release['tag_name']}",
        attributes={"repository": repository},
    )
