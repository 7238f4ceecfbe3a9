resource "google_monitoring_notification_channel" "email" {
  count = var.alert_email == "" ? 0 : 1

  project      = var.project
  display_name = "TinyWorkflow: ${var.alert_email}"
  type         = "email"
  labels       = { email_address = var.alert_email }

  depends_on = [google_project_service.this]
}

locals {
  channels = google_monitoring_notification_channel.email[*].id

  # A revision's metric, by the names of the services here.
  of_services = "resource.type = \"cloud_run_revision\" AND metric.type = \"run.googleapis.com/request_count\""
  of_queues   = "resource.type = \"cloud_tasks_queue\" AND resource.labels.queue_id = starts_with(\"${var.name}-\")"
}

resource "google_monitoring_alert_policy" "tick_silent" {
  project               = var.project
  display_name          = "TinyWorkflow ${var.name}: no tick has succeeded for 10 minutes"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "no 2xx from ${local.service_names["tick"]}"

    condition_absent {
      filter   = "${local.of_services} AND resource.labels.service_name = \"${local.service_names["tick"]}\" AND metric.labels.response_code_class = \"2xx\""
      duration = "600s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "Timers whose task was lost, schedules, and runs whose worker died wait for the tick. Look at the logs of the service and of the scheduler job ${google_cloud_scheduler_job.tick.name}: a 401 or 403 is a wrong service account or audience."
  }
}

resource "google_monitoring_alert_policy" "errors" {
  for_each = local.service_names

  project               = var.project
  display_name          = "TinyWorkflow ${var.name}: ${each.key} answers with 5xx"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "more than 5 in 5 minutes from ${each.value}"

    condition_threshold {
      filter          = "${local.of_services} AND resource.labels.service_name = \"${each.value}\" AND metric.labels.response_code_class = \"5xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 5
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "The log has the error; the answer has not. Calls of the queue are made again by themselves, and no run is lost."
  }

  depends_on = [google_cloudfunctions2_function.this]
}

resource "google_monitoring_alert_policy" "queue_depth" {
  project               = var.project
  display_name          = "TinyWorkflow ${var.name}: a queue grows"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "more than ${var.alert_queue_depth} tasks for 10 minutes"

    condition_threshold {
      filter          = "${local.of_queues} AND metric.type = \"cloudtasks.googleapis.com/queue/depth\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.alert_queue_depth
      duration        = "600s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content = "A queue also holds a task for each run that sleeps. See the delay of tasks: if that is small, nothing is late."
  }

  depends_on = [google_cloud_tasks_queue.this]
}

resource "google_monitoring_alert_policy" "queue_delay" {
  project               = var.project
  display_name          = "TinyWorkflow ${var.name}: tasks start late"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "95th percentile over ${var.alert_queue_delay_seconds} s for 10 minutes"

    condition_threshold {
      filter          = "${local.of_queues} AND metric.type = \"cloudtasks.googleapis.com/queue/task_attempt_delays\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.alert_queue_delay_seconds * 1000
      duration        = "600s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_PERCENTILE_95"
      }
    }
  }

  documentation {
    content = "The worker does not keep up: raise max_instances.worker or worker_concurrency, or look for calls that fail and are made again."
  }

  depends_on = [google_cloud_tasks_queue.this]
}
