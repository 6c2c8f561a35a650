"""What must be there before the services start: the bucket, the tables of the job store, and a token for Prometheus.

Runs at each start of the deployment, and changes nothing that is there. Prometheus's token may see the queue and change nothing; it
is in a volume that nothing but Prometheus has.
"""

import os
import sys
from pathlib import Path

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from services.common.tokens import Tokens
from services.jobs.queue.store import open_store

TOKEN = Path(os.environ["TOKENS"]) / "prometheus"


def main() -> None:
    """Make the bucket, the tables of the job store and the token of Prometheus, where they are missing."""
    bucket = os.environ["ZSBIR_ROOT"].removeprefix("s3://").partition("/")[0]
    try:
        boto3.client("s3", config=BotoConfig(s3={"addressing_style": "path"})).create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    store = open_store(os.environ["ZSBIR_JOBS_STORE"])
    tokens = Tokens(store)
    if not TOKEN.is_file() or tokens.bearer(TOKEN.read_text("utf-8")) is None:
        unfinished = TOKEN.with_suffix(".new")
        unfinished.write_text(tokens.make("prometheus", "viewer", "setup"), "utf-8")
        unfinished.replace(TOKEN)  # readable by Prometheus, which runs as another user
    sys.stderr.write("the bucket, the job store and Prometheus's token are there\n")


if __name__ == "__main__":
    main()
