"""A user who asks for help waits for no library that only the work needs."""

import json
import subprocess
import sys
from pathlib import Path

from zsbir.__main__ import MODULES

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "mlflow", "ray", "pandas", "matplotlib", "pyarrow", "scipy", "optuna", "plotly", "boto3"}
JOBS = ("up", "down", "serve", "dispatch", "limits", "tokens", "submit", "list", "show", "logs", "cancel", "retry", "queue")
ARTIFACTS = ("list", "show", "verify", "copy", "gc")
COMMANDS = [
    *([verb] for verb in MODULES),
    *(["promote", command] for command in ("rollback", "list")),
    *(["artifacts", command] for command in ARTIFACTS),
    *(["jobs", command] for command in JOBS),
]

PRINT_HELP_OF_EACH = """
import importlib, importlib.util, json, sys
from zsbir.__main__ import MODULES
from zsbir.base.cli import HelpAsked
loaded = {}
for verb, *words in json.loads(sys.argv[1]):
    module = MODULES[verb]
    if importlib.util.find_spec(module).submodule_search_locations:
        module += ".__main__"
    try:
        importlib.import_module(module)._parse([*words, "--help"])
    except HelpAsked as asked:
        assert "usage: " in str(asked) or "commands" in str(asked), str(asked)
        loaded[" ".join([verb, *words])] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(loaded))
"""


def test_no_command_loads_a_heavy_library_to_print_its_help():
    words = [sys.executable, "-c", PRINT_HELP_OF_EACH, json.dumps(COMMANDS)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert list(loaded) == [" ".join(command) for command in COMMANDS]
    heavy = {command: sorted(HEAVY & set(names)) for command, names in loaded.items()}
    assert not any(heavy.values()), f"the first command that names one has loaded it: {heavy}"
