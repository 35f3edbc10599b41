"""tools/profile.sh: what it makes of perf's samples, and what it says where it cannot run."""

import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
SAMPLES = """switchyard 11
\t  1f switchyard::kernels::(anonymous namespace)::adafactor_update(switchyard::kernels::Update const&)+0x10 (/p/switchyard)
\t  2f main+0x4 (/p/switchyard)

switchyard 12
\t  3f [unknown] (/tmp/perf-77.map)

switchyard 11
\t  4f futex_wait_setup+0x5 ([kernel.kallsyms])
\t  5f switchyard::kernels::multiply<float>(float const*)+0x9 (/p/switchyard)
\t  2f main+0x4 (/p/switchyard)

switchyard 11
\t  6f c10::function_ref<void (char**)>::callback_fn(long)+0x5 (/p/libtorch_cpu.so)
\t  7f at::native::sum(at::Tensor const&)+0x5 (/p/libtorch_cpu.so)
\t  2f main+0x4 (/p/switchyard)

"""


def test_table_stacks_and_flame_graph(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps({"step_seconds": 0.25, "tokens_per_second": 5000}))
    done = subprocess.run([sys.executable, TOOLS / "profile_stacks.py", "--bench", tmp_path / "bench.json", "--stacks", tmp_path / "stacks.txt",
                           "--svg", tmp_path / "flame.svg"], input=SAMPLES, capture_output=True, text=True, check=True)  # fmt: skip
    first, *rows = done.stdout.splitlines()
    assert first == "4 samples, 250.0 ms a step, 5,000 tokens/s"
    shares = {row[:26].strip(): row[26:].split()[0] for row in rows}
    assert shares == {"optimizer": "25.0", "products": "25.0", "waiting of threads": "25.0", "the rest of ATen": "25.0"}
    stacks = (tmp_path / "stacks.txt").read_text().splitlines()
    assert "main;kernels::adafactor_update 1" in stacks and len(stacks) == 4
    svg = xml.etree.ElementTree.parse(tmp_path / "flame.svg").getroot()
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert "all: 100.00 %" in titles and "main: 75.00 %" in titles and "kernels::multiply: 25.00 %" in titles


def test_no_samples_are_an_error():
    done = subprocess.run([sys.executable, TOOLS / "profile_stacks.py"], input="", capture_output=True, text=True)
    assert done.returncode == 1 and "no samples" in done.stderr


def test_missing_parts_are_named(tmp_path):
    for name in ("bash", "dirname", "sed"):
        os.symlink(f"/bin/{name}" if pathlib.Path(f"/bin/{name}").exists() else f"/usr/bin/{name}", tmp_path / name)

    def run(program):
        environment = dict(os.environ, PATH=str(tmp_path), SWITCHYARD_PROGRAM=str(program))
        return subprocess.run(["/bin/bash", TOOLS / "profile.sh"], capture_output=True, text=True, env=environment)

    done = run("/nowhere/switchyard")
    assert done.returncode == 2 and "run `make build`" in done.stderr
    done = run(sys.executable)
    assert done.returncode == 2 and "perf is missing" in done.stderr
