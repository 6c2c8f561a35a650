"""The health check of the images: ask the addresses in ZSBIR_HEALTH_URL; end with 0 if each answer is a good one, else with 1.

Spaces separate them. Without that variable there is nothing to ask: a command that computes is healthy as long as it runs. The
tokens of the deployment are not sent; what is asked (/healthz, MLflow's /health, the health addresses of Ray's nodes) is open to
everybody.
"""

import os
import sys
import urllib.request

WAIT_S = 4.0


def main() -> int:
    """Return the exit code; a line on standard error says what was wrong."""
    # Not by a proxy that the environment names: this container is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for address in os.environ.get("ZSBIR_HEALTH_URL", "").split():
        try:
            with opener.open(address, timeout=WAIT_S) as answer:
                answer.read(1000)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{address}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
