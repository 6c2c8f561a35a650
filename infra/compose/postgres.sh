#!/bin/sh
# The databases of the job store and of MLflow, each with a user of its own. PostgreSQL's image runs this once, in an empty volume;
# psql finds the server by the environment.
set -eu
for name in jobs mlflow; do
    case $name in
    jobs) variable=JOBS_DB_PASSWORD ;;
    mlflow) variable=MLFLOW_DB_PASSWORD ;;
    esac
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
        --set=name="$name" --set=variable="$variable" <<'SQL'
\getenv password :variable
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
