#!/bin/sh
# Fill empty volumes from what backup.sh has made: restore.sh FOLDER. Refuses where there are jobs already.
set -eu
[ $# -eq 1 ] || { echo "usage: restore.sh FOLDER" >&2; exit 2; }
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")"
[ -e .env ] || { echo "error: put the .env of the backup here first: cp $folder/env $PWD/.env" >&2; exit 2; }
docker compose up --detach --wait postgres s3
for name in jobs mlflow; do
    tables=$(docker compose exec -T postgres psql --username=postgres --dbname="$name" --tuples-only --no-align \
        --command="SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    [ "$tables" = 0 ] || { echo "error: the database $name is not empty" >&2; exit 2; }
    docker compose exec -T postgres pg_restore --username=postgres --exit-on-error --dbname="$name" <"$folder/$name.dump"
done
docker compose run --rm -T --no-deps --user "$(id -u):$(id -g)" --volume "$folder:/backup:ro" --volume "$PWD/copy_bucket.py:/opt/copy_bucket.py:ro" \
    setup python /opt/copy_bucket.py up /backup/bucket
echo "restored; next: docker compose up --detach"
