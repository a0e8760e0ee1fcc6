"""The example notebook, run as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from deadlines import WAIT

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "experiments" / "notebook" / "own_model.ipynb"
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=WAIT, startup_timeout=WAIT).execute()
nbformat.write(notebook, "run.ipynb")
""".replace("WAIT", str(int(WAIT)))


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    # in a process of its own: Jupyter's own warnings are not ours to make errors of
    command = [sys.executable, "-c", RUN, str(NOTEBOOK)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    cells = [cell for cell in json.loads((tmp_path / "run.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    printed = ["".join(part.get("data", {}).get("text/plain", "")) for cell in cells for part in cell["outputs"]]
    assert any("compression" in one and "test_error" in one for one in printed)
    assert any("weights are zero" in one for one in printed)
    assert any("without retraining" in one for one in printed)
    assert (tmp_path / "runs").is_dir()  # beside the notebook's working directory, where a new run goes
