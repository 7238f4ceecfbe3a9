# What several files need. All names are known before anything exists, so that services can name each other: a Cloud Run
# service has the address https://SERVICE-PROJECTNUMBER.REGION.run.app besides the one that it is given.
locals {
  targets = ["api", "approvals", "hooks", "tick", "ui", "worker"]
  public  = ["approvals", "hooks", "ui"]

  service_names = { for target in local.targets : target => "${var.name}-${target}" }
  urls = {
    for target, name in local.service_names :
    target => "https://${name}-${data.google_project.this.number}.${var.region}.run.app"
  }

  queue_names = { advance = "${var.name}-advance", activity = "${var.name}-activity" }
  queue_paths = {
    for purpose, name in local.queue_names :
    purpose => "projects/${var.project}/locations/${var.region}/queues/${name}"
  }
}
