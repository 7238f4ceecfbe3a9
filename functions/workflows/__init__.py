"""What is deployed: the workflows, and the webhooks that start them."""

from __future__ import annotations

from tinyworkflow_core import Start, WebhookEvent, github_signature, webhook

from .release_train import release_train

__all__ = ["github", "release_train"]


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
