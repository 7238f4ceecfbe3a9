#!/usr/bin/env bash
# Deploys everything as ONE service (the target `app`) with gcloud: database, indexes, queues, accounts, secrets, service,
# scheduler job. Run it again to deploy a change: what is there already is left as it is. Terraform (docs/deploy.md) makes
# one service per target instead, with narrower rights, index exemptions and alerts.
#
#     PROJECT=my-project-123 infra/deploy.sh
#
# Also read from the environment: REGION, NAME, RUNTIME, MAX_INSTANCES, TIMEOUT (seconds), LEASE, and SECRETS, names of
# environment variables that webhooks and activities read, separated by spaces; the secret of each (NAME-github-token for
# GITHUB_TOKEN) has to exist. Keys are made here on the first run, and go to Secret Manager and nowhere else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${PROJECT:?the id of the Google Cloud project, such as PROJECT=my-project-123}"
REGION=${REGION:-us-central1}
NAME=${NAME:-tinyworkflow}
RUNTIME=${RUNTIME:-python313}
MAX_INSTANCES=${MAX_INSTANCES:-20}
TIMEOUT=${TIMEOUT:-900}
LEASE=${LEASE:-30s}
SECRETS=${SECRETS:-}

RUNS_AS=$NAME-app@$PROJECT.iam.gserviceaccount.com
QUEUE_CALLS_AS=$NAME-tasks@$PROJECT.iam.gserviceaccount.com
SCHEDULER_CALLS_AS=$NAME-scheduler@$PROJECT.iam.gserviceaccount.com
FIRESTORE=https://firestore.googleapis.com/v1
QUEUES=projects/$PROJECT/locations/$REGION/queues

in_project() { gcloud --project="$PROJECT" --quiet "$@"; }
there_is() { in_project "$@" >/dev/null 2>&1; }

secret_of() { # the secret that an environment variable is mounted from
    local name=${1#TINYWORKFLOW_}
    name=${name,,}
    printf '%s-%s' "$NAME" "${name//_/-}"
}

apis() {
    in_project services enable artifactregistry.googleapis.com cloudbuild.googleapis.com cloudfunctions.googleapis.com \
        cloudscheduler.googleapis.com cloudtasks.googleapis.com firestore.googleapis.com run.googleapis.com \
        secretmanager.googleapis.com
}

database() {
    there_is firestore databases describe --database="$NAME" && return
    in_project firestore databases create --database="$NAME" --location="$REGION" --type=firestore-native \
        --delete-protection
    local filter
    for filter in name parent_run_id status waits_for_approval workflow_id; do
        in_project firestore indexes composite create --database="$NAME" --collection-group=tinyworkflow_runs \
            --query-scope=collection --field-config="field-path=$filter,order=ascending" \
            --field-config=field-path=created_at,order=descending --async
    done
    # gcloud has no word for the scope of a single field's index. The token goes through a pipe: a command line can be
    # seen by every process.
    gcloud auth print-access-token | sed 's/.*/header = "Authorization: Bearer &"/' | curl --config - \
        --fail --silent --show-error --output /dev/null --request PATCH --header 'Content-Type: application/json' \
        --data '{"indexConfig": {"indexes": [{"queryScope": "COLLECTION_GROUP",
            "fields": [{"fieldPath": "received_at", "order": "ASCENDING"}]}]}}' \
        "$FIRESTORE/projects/$PROJECT/databases/$NAME/collectionGroups/tinyworkflow_inbox/fields/received_at?updateMask=indexConfig"
}

accounts() {
    local name account
    for name in app tasks scheduler; do
        account=$NAME-$name@$PROJECT.iam.gserviceaccount.com
        there_is iam service-accounts describe "$account" || in_project iam service-accounts create "$NAME-$name"
    done
    in_project projects add-iam-policy-binding "$PROJECT" --role=roles/datastore.user \
        --member="serviceAccount:$RUNS_AS" --format=none \
        --condition="title=$NAME-database,expression=resource.name==\"projects/$PROJECT/databases/$NAME\""
    in_project iam service-accounts add-iam-policy-binding "$QUEUE_CALLS_AS" --role=roles/iam.serviceAccountUser \
        --member="serviceAccount:$RUNS_AS" --format=none
}

queues() {
    local name
    for name in "$NAME-advance" "$NAME-activity"; do
        there_is tasks queues describe "$name" --location="$REGION" ||
            in_project tasks queues create "$name" --location="$REGION" --max-dispatches-per-second=500 \
                --max-attempts=30 --min-backoff=1s --max-backoff=300s --max-doublings=8
        in_project tasks queues add-iam-policy-binding "$name" --location="$REGION" \
            --role=roles/cloudtasks.enqueuer --member="serviceAccount:$RUNS_AS" --format=none
    done
}

secrets() {
    local variable secret
    for variable in TINYWORKFLOW_API_KEYS TINYWORKFLOW_LINK_KEYS; do
        secret=$(secret_of "$variable")
        there_is secrets describe "$secret" ||
            python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")' |
            in_project secrets create "$secret" --data-file=-
    done
    for variable in TINYWORKFLOW_API_KEYS TINYWORKFLOW_LINK_KEYS $SECRETS; do
        in_project secrets add-iam-policy-binding "$(secret_of "$variable")" --format=none \
            --role=roles/secretmanager.secretAccessor --member="serviceAccount:$RUNS_AS"
    done
}

service() {
    local number url variable mounted environment
    number=$(gcloud projects describe "$PROJECT" --format='value(projectNumber)')
    url=https://$NAME-$number.$REGION.run.app
    environment=(
        "TINYWORKFLOW_DATABASE_URL=firestore://$PROJECT/$NAME"
        "TINYWORKFLOW_DISPATCHER=cloud-tasks"
        "TINYWORKFLOW_QUEUE=$QUEUES/$NAME-advance"
        "TINYWORKFLOW_ACTIVITY_QUEUE=$QUEUES/$NAME-activity"
        "TINYWORKFLOW_WORKER_URL=$url"
        "TINYWORKFLOW_INVOKER=$QUEUE_CALLS_AS"
        "TINYWORKFLOW_AUDIENCE=$url"
        "TINYWORKFLOW_INVOKERS=$QUEUE_CALLS_AS,$SCHEDULER_CALLS_AS"
        "TINYWORKFLOW_PUBLIC_URL=$url"
        "TINYWORKFLOW_REQUEST_TIMEOUT=$((TIMEOUT - 60))s"
        "TINYWORKFLOW_LEASE=$LEASE"
    )
    for variable in TINYWORKFLOW_API_KEYS TINYWORKFLOW_LINK_KEYS $SECRETS; do
        mounted+=${mounted:+,}$variable=$(secret_of "$variable"):latest
    done
    # Public, because people and senders of webhooks reach it: /internal/* and the API check their callers themselves.
    # The ^|^ says that | separates, since a value has a comma in it.
    in_project functions deploy "$NAME" --gen2 --region="$REGION" --runtime="$RUNTIME" --source=. --entry-point=app \
        --trigger-http --allow-unauthenticated --service-account="$RUNS_AS" \
        --set-build-env-vars=GOOGLE_FUNCTION_SOURCE=functions/main.py \
        --set-env-vars="^|^$(IFS='|' && printf '%s' "${environment[*]}")" --set-secrets="$mounted" \
        --timeout="${TIMEOUT}s" --memory=512Mi --cpu=1 --concurrency=20 --min-instances=0 \
        --max-instances="$MAX_INSTANCES"
    there_is scheduler jobs describe "$NAME-tick" --location="$REGION" ||
        in_project scheduler jobs create http "$NAME-tick" --location="$REGION" --schedule='* * * * *' \
            --time-zone=Etc/UTC --http-method=POST --uri="$url/internal/tick" --attempt-deadline=60s \
            --max-retry-attempts=0 --oidc-service-account-email="$SCHEDULER_CALLS_AS" --oidc-token-audience="$url"
    printf '\n%s/healthz\nThe API key: gcloud --project=%s secrets versions access latest --secret=%s\n' \
        "$url" "$PROJECT" "$(secret_of TINYWORKFLOW_API_KEYS)"
}

apis
database
accounts
queues
secrets
service
