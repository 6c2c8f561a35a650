#!/bin/sh
# Fill empty volumes from a backup: restore.sh FOLDER/DATE, as backup.sh has named it. Refuses a backup that is not complete, and
# databases that are not empty. The bucket comes first, since it can be interrupted and repeated; each database is one transaction.
set -eu
[ $# -eq 1 ] || { echo "usage: restore.sh FOLDER/DATE" >&2; exit 2; }
fail() { echo "error: $1" >&2; exit 2; }
[ -d "$1" ] || fail "$1 is no folder"
backup=$(cd "$1" && pwd)
cd "$(dirname "$0")"
for part in complete jobs.dump mlflow.dump bucket; do
    [ -e "$backup/$part" ] || fail "$backup is no complete backup, it has no $part; backup.sh makes folders named by their date, such as 2026-11-30T120000Z"
done
[ -e .env ] || fail "put the .env of the backup here first: cp $backup/env $PWD/.env"
docker compose up --detach --wait postgres s3
for name in jobs mlflow; do
    tables=$(docker compose exec -T postgres psql --username=postgres --dbname="$name" --tuples-only --no-align \
        --command="SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    [ "$tables" = 0 ] || fail "the database $name is not empty, by a deployment in use or a restore that was interrupted; to lose everything in all volumes and begin again: docker compose down --volumes"
done
docker compose run --rm -T --no-deps --user "$(id -u):$(id -g)" --volume "$backup:/backup:ro" --volume "$PWD/copy_bucket.py:/opt/copy_bucket.py:ro" \
    setup python /opt/copy_bucket.py up /backup
for name in jobs mlflow; do
    docker compose exec -T postgres pg_restore --username=postgres --single-transaction --exit-on-error --dbname="$name" <"$backup/$name.dump"
done
echo "restored; next: docker compose up --detach"
