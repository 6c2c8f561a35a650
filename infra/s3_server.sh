# To be sourced: starts an S3 server on this machine (moto, objects in memory) with the bucket zsbir-demo, which ends with the shell.
# Sets AWS_ENDPOINT_URL and keys in the environment of every stage and Ray worker started from this shell.
S3_PORT=$(python -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
S3_LOG=$(mktemp)
moto_server -H 127.0.0.1 -p "$S3_PORT" >"$S3_LOG" 2>&1 &
S3_PID=$!
trap 'kill "$S3_PID" 2>/dev/null; rm -f "$S3_LOG"' EXIT
trap 'exit 130' INT TERM
export AWS_ENDPOINT_URL="http://127.0.0.1:$S3_PORT" AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo-secret AWS_REGION=us-east-1
export AWS_EC2_METADATA_DISABLED=true AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
unset AWS_PROFILE AWS_SESSION_TOKEN
python - <<'PYTHON' || { cat "$S3_LOG" >&2; exit 1; }
import os
import time

import boto3
from botocore.exceptions import EndpointConnectionError

store = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
for attempt in range(60):
    try:
        store.create_bucket(Bucket="zsbir-demo")
        break
    except EndpointConnectionError:
        time.sleep(0.5)
else:
    raise SystemExit("the S3 server did not start")
PYTHON
echo "S3 server at $AWS_ENDPOINT_URL" >&2
