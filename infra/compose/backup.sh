#!/bin/sh
# Make a backup: backup.sh FOLDER. Each is a folder of its own in there, named by its date and there only once it is complete; files of
# the bucket that have not changed since the last one are hard links to it. Databases first: whatever they name is then in the copy
# of the bucket. What an interrupted run has copied lies in `unfinished`, and the next run goes on with it.
set -eu
[ $# -eq 1 ] || { echo "usage: backup.sh FOLDER" >&2; exit 2; }
umask 077
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")"
exec 9>"$folder/lock"
flock --nonblock 9 || { echo "error: another backup to $folder is running" >&2; exit 2; }
new=$folder/unfinished
last=$(cd "$folder" && find . -mindepth 2 -maxdepth 2 -path './2*/complete' | sort | tail -n 1)
last=${last%/complete}
mkdir -p "$new"
rm -f "$new/complete"
for name in jobs mlflow; do
    docker compose exec -T postgres pg_dump --username=postgres --format=custom "$name" >"$new/$name.dump"
done
cp .env "$new/env"
docker compose run --rm -T --no-deps --user "$(id -u):$(id -g)" --volume "$folder:/backup" --volume "$PWD/copy_bucket.py:/opt/copy_bucket.py:ro" \
    setup python /opt/copy_bucket.py down /backup/unfinished ${last:+"/backup/$last"}
made=$folder/$(date -u +%Y-%m-%dT%H%M%SZ)
while [ -e "$made" ]; do  # by a backup of the same second
    sleep 1
    made=$folder/$(date -u +%Y-%m-%dT%H%M%SZ)
done
mv --no-target-directory "$new" "$made"
echo "$made has the databases, the bucket and .env: keep it as safe as the passwords in it"
