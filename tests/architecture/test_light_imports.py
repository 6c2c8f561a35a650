"""A command line reads configurations; that alone must not load the libraries that only the work needs."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "pandas", "pyarrow", "mlflow", "ray", "matplotlib", "scipy", "sklearn"}
CONFIGURATIONS = (
    "zsbir.training.config",
    "zsbir.recipes",
    "zsbir.promotion.gate",
    "zsbir.losses.objective_config",
    "zsbir.model.choices",
    "zsbir.data.augmentation",
    "zsbir.evaluation.protocol",
    "zsbir.evaluation.metrics",
)


def loaded_after_importing(*names: str) -> set[str]:
    """Return the top-level modules that a fresh process holds after it imported these."""
    imports = "; ".join(f"import {name}" for name in names)
    program = f"import json, sys; {imports}; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout))


def test_all_configurations_together_load_no_heavy_library():
    assert not loaded_after_importing(*CONFIGURATIONS) & HEAVY


def test_a_heavy_library_that_is_loaded_is_seen():
    assert "pyarrow" in loaded_after_importing("pyarrow") & HEAVY


def test_asking_which_version_is_champion_loads_no_torch_and_no_mlflow_before_it_is_asked():
    assert not loaded_after_importing("zsbir.edge.model_address", "services.jobs.runs.model_inputs") & HEAVY
    assert not loaded_after_importing("zsbir.edge.registered_models") & {"torch", "torchvision", "ray"}
