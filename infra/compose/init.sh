#!/bin/sh
# Write .env, with random passwords and keys that nobody but its owner can read. Run it once; an .env that is there stays as it is.
set -eu
cd "$(dirname "$0")"
# Containers read these files as users of their own, also where a checkout was made under a umask that is only for its owner.
chmod -R go+rX Caddyfile copy_bucket.py grafana postgres.sh prometheus setup.py
[ ! -e .env ] || { echo "error: $PWD/.env is there already, and the databases know its passwords; remove it only with their volumes" >&2; exit 2; }
umask 077
secret() { LC_ALL=C tr -dc a-f0-9 </dev/urandom | head -c "$1"; }
cat >.env.new <<END
# Written by init.sh. Keep a copy with the backups: without it they cannot be read.
POSTGRES_PASSWORD=$(secret 48)
JOBS_DB_PASSWORD=$(secret 48)
MLFLOW_DB_PASSWORD=$(secret 48)
S3_ACCESS_KEY=$(secret 20)
S3_SECRET_KEY=$(secret 48)
MLFLOW_PASSWORD=$(secret 32)
RAY_TOKEN=$(secret 64)
GRAFANA_PASSWORD=$(secret 32)

# What one worker may use; as many CPUs as this machine has may be shared by all.
ZSBIR_WORKER_CPUS=$(nproc 2>/dev/null || echo 2)
ZSBIR_WORKER_MEMORY=8g
ZSBIR_WORKER_CACHE_GB=50
END
mv .env.new .env
echo "$PWD/.env is written. Next: docker compose up --detach"
