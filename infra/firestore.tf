resource "google_firestore_database" "this" {
  project                           = var.project
  name                              = var.database
  location_id                       = var.region
  type                              = "FIRESTORE_NATIVE"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.delete_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.delete_protection ? "ABANDON" : "DELETE"

  depends_on = [google_project_service.this]
}

resource "google_firestore_backup_schedule" "daily" {
  count = var.backup_days > 0 ? 1 : 0

  project   = var.project
  database  = google_firestore_database.this.name
  retention = "${var.backup_days * 86400}s"

  daily_recurrence {}
}

# --- indexes ---------------------------------------------------------------------------------------------
# tests/infra/test_indexes.py compares them with what the store asks and writes. There is no TTL policy, because nothing
# that is stored carries the moment at which it may go, and TTL would leave the subcollections of a run behind: old runs
# are removed by `tinyworkflow cleanup`. What is stored, and why it may not expire: docs/stores.md.

locals {
  runs      = "${var.collection}_runs"
  inbox     = "${var.collection}_inbox"
  history   = "${var.collection}_history"
  results   = "${var.collection}_result"
  schedules = "${var.collection}_schedules"

  # Lists: one filter each, newest first. Several filters at once are merged from these by Firestore.
  list_filters = concat(
    ["name", "parent_run_id", "status", "waits_for_approval", "workflow_id"],
    [for key in var.filtered_attributes : "attributes.`=${key}`"],
  )

  # What is found or sorted by one field alone. Everything else that is stored has no index of its own: it would make each
  # write slower and larger, and moments that only rise bound a collection at some 500 writes a second.
  single_indexes = {
    (local.runs)      = { created_at = ["DESCENDING"], wake_at = ["ASCENDING"] }
    (local.inbox)     = { received_at = ["ASCENDING"] }
    (local.history)   = { position = ["ASCENDING", "DESCENDING"] }
    (local.schedules) = { due_at = ["ASCENDING"], id = ["ASCENDING"] }
  }
  index_scopes = { (local.inbox) = "COLLECTION_GROUP" }

  unindexed = {
    (local.runs) = [
      "attributes", "attributes_json", "closed_at", "closing", "continuation", "creation", "custom_status",
      "error", "generation", "input", "last_commit", "lease_owner", "lease_token", "lease_until", "name", "open_approvals", "opening",
      "output", "parent_run_id", "problem", "request_digest", "result_apart", "retry_count", "run_id", "sequence",
      "started_at", "status", "version", "waits_for_approval", "workflow_id",
    ]
    (local.inbox)     = ["attempt", "body", "id", "kind", "run_id"]
    (local.history)   = ["copied", "events", "first", "key", "sequence"]
    (local.results)   = ["error", "output"]
    (local.schedules) = ["etag", "record"]
  }

  fields = merge(
    { for pair in flatten([
      for collection, fields in local.single_indexes : [
        for field, orders in fields : { collection = collection, field = field, orders = orders }
      ]
    ]) : "${pair.collection}/${pair.field}" => pair },
    { for pair in flatten([
      for collection, fields in local.unindexed : [
        for field in fields : { collection = collection, field = field, orders = [] }
      ]
    ]) : "${pair.collection}/${pair.field}" => pair },
  )
}

resource "google_firestore_index" "list" {
  for_each = toset(local.list_filters)

  project     = var.project
  database    = google_firestore_database.this.name
  collection  = local.runs
  query_scope = "COLLECTION"

  fields {
    field_path = each.key
    order      = "ASCENDING"
  }

  fields {
    field_path = "created_at"
    order      = "DESCENDING"
  }
}

resource "google_firestore_field" "this" {
  for_each = local.fields

  project    = var.project
  database   = google_firestore_database.this.name
  collection = each.value.collection
  field      = each.value.field

  index_config {
    dynamic "indexes" {
      for_each = toset(each.value.orders)

      content {
        order       = indexes.value
        query_scope = lookup(local.index_scopes, each.value.collection, "COLLECTION")
      }
    }
  }
}
