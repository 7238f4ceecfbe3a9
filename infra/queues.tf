# A queue tries again until a call is answered with 2xx. It gives up in the end, and nothing is lost by that: the tick
# finds the run by the moment at which it wants to be looked at.
resource "google_cloud_tasks_queue" "this" {
  for_each = local.queue_names

  project  = var.project
  location = var.region
  name     = each.value

  rate_limits {
    max_dispatches_per_second = 500 # the most that Cloud Tasks takes
    max_concurrent_dispatches = var.max_instances["worker"] * var.worker_concurrency
  }

  retry_config {
    max_attempts  = 30
    min_backoff   = "1s"
    max_backoff   = "300s"
    max_doublings = 8
  }

  depends_on = [google_project_service.this]
}
