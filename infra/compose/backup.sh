#!/bin/sh
# Copy what cannot be made again to a folder: backup.sh FOLDER. Databases first: whatever they name is then in the copy of the bucket.
set -eu
[ $# -eq 1 ] || { echo "usage: backup.sh FOLDER" >&2; exit 2; }
umask 077
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")"
for name in jobs mlflow; do
    docker compose exec -T postgres pg_dump --username=postgres --format=custom "$name" >"$folder/$name.dump.new"
    mv "$folder/$name.dump.new" "$folder/$name.dump"
done
docker compose run --rm -T --no-deps --user "$(id -u):$(id -g)" --volume "$folder:/backup" --volume "$PWD/copy_bucket.py:/opt/copy_bucket.py:ro" \
    setup python /opt/copy_bucket.py down /backup/bucket
cp .env "$folder/env"
echo "$folder has the databases, the bucket and .env: keep it as safe as the passwords in it"
