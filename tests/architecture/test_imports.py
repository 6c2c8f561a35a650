import json
import subprocess
import sys
from pathlib import Path

import zsbir
from zsbir.__main__ import STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("ray", "mlflow")

LOADED_AFTER_EACH = """
import importlib, json, sys
loaded = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    loaded[name] = sorted({module.partition(".")[0] for module in sys.modules})
print(json.dumps(loaded))
"""


def loaded_after(*names: str) -> dict[str, list[str]]:
    """Top-level modules that a fresh process holds after each of these imports, one after the other."""
    words = [sys.executable, "-c", LOADED_AFTER_EACH, *names]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def test_importing_the_package_loads_none_of_the_heavy_libraries():
    loaded = loaded_after("zsbir")["zsbir"]
    assert "zsbir" in loaded
    assert not {*HEAVY, "torch", "torchvision", "numpy", "pyarrow", "boto3", "matplotlib"} & set(loaded)


def test_no_verb_loads_ray_or_mlflow_before_it_is_asked_to():
    for name, loaded in loaded_after(*(f"zsbir.{verb}" for verb in STAGES)).items():
        assert not set(HEAVY) & set(loaded), name


def test_a_command_line_that_needs_no_network_loads_no_torch():
    assert "torch" not in loaded_after("zsbir.base.cli", "zsbir.base.artifact", "zsbir.base.storage")["zsbir.base.storage"]


def test_the_verbs_are_all_the_commands_there_are():
    commands = {
        path.stem for path in Path(zsbir.__file__).parent.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")
    }
    assert commands == {*STAGES, "__main__"}


def test_who_imports_whom_is_as_the_contracts_say():
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(tool), "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
