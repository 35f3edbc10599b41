"""`switchyard train` by two ranks, one of which is killed, stopped, cut off, out of memory, or not the same as the other.

The other one has to end in time, with a message that names it. Ranks are started as a launcher would, by variables."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import PROGRAM, SOURCE, metrics

PATIENCE = 60  # seconds, on a busy machine
TWO_RANKS = ["routing.group_size=48", "parallel.data=2", "train.steps=100000", "train.eval_every=0", "parallel.timeout_seconds=3"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Rank:
    """A process of `switchyard train`; its messages are in a file."""

    def __init__(self, workshop, out, rank, port, settings=TWO_RANKS, program=PROGRAM, before=(), **variables):
        self.messages = out.parent / f"{out.name}-rank-{rank}.txt"
        self.out = out
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                           MASTER_PORT=str(port), OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
        words = [word for setting in settings for word in ("--set", setting)]
        with open(self.messages, "w") as messages:
            self.process = subprocess.Popen([*before, program, "train", workshop / "tiny.toml", "--out", out, "--quiet", *words],
                                            env=environment | variables, stdout=messages, stderr=messages)

    def end(self):
        """Its code and messages."""
        code = self.process.wait(PATIENCE)
        return code, self.messages.read_text()


@contextlib.contextmanager
def two_ranks(workshop, out, **options):
    port = free_port()
    ranks = [Rank(workshop, out, rank, port, **{key: value[rank] for key, value in options.items()}) for rank in range(2)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.wait()


def wait_for_steps(ranks):
    deadline = time.time() + PATIENCE
    path = ranks[0].out / "metrics.jsonl"
    while not (path.exists() and path.read_bytes().count(b"\n") > 8):
        assert time.time() < deadline and all(rank.process.poll() is None for rank in ranks), [rank.messages.read_text() for rank in ranks]
        time.sleep(0.01)


def test_a_killed_rank_is_named(workshop, tmp_path):
    with two_ranks(workshop, tmp_path / "run") as ranks:
        wait_for_steps(ranks)
        ranks[1].process.kill()
        code, messages = ranks[0].end()
    assert code == 1
    assert messages.startswith("switchyard: rank 0 of 2: ") and "rank 1 has not been heard of for" in messages, messages


def test_a_stopped_rank_is_named(workshop, tmp_path):
    with two_ranks(workshop, tmp_path / "run") as ranks:
        wait_for_steps(ranks)
        ranks[1].process.send_signal(signal.SIGSTOP)
        since = time.time()
        code, messages = ranks[0].end()
        assert time.time() - since < 30  # the timeout is 3 s
    assert code == 1 and "rank 1 has not been heard of for" in messages, messages


def test_the_rank_that_held_the_store_is_named(workshop, tmp_path):
    with two_ranks(workshop, tmp_path / "run") as ranks:
        wait_for_steps(ranks)
        ranks[0].process.kill()
        code, messages = ranks[1].end()
    assert code == 1 and "is gone: rank 0 (127.0.0.1:" in messages, messages


def test_a_rank_without_memory_is_named(workshop, tmp_path):
    with two_ranks(workshop, tmp_path / "run") as ranks:
        wait_for_steps(ranks)
        subprocess.run(["prlimit", "--pid", str(ranks[1].process.pid), "--data=1000000"], check=True)
        code, messages = ranks[0].end()
        assert ranks[1].end()[0] != 0  # how it dies is up to where it asks for memory next
    assert code == 1, messages
    assert "rank 1 has ended with an error of its own" in messages or "rank 1 has not been heard of for" in messages, messages


def test_ranks_of_another_run_file_are_told(workshop, tmp_path):
    settings = [TWO_RANKS, [*TWO_RANKS, "optimizer.learning_rate=0.5"]]
    with two_ranks(workshop, tmp_path / "run", settings=settings) as ranks:
        for code, messages in [rank.end() for rank in ranks]:
            assert code == 2 and "rank 1 has another run file than rank 0" in messages and "learning_rate = 0.5" in messages, messages


def test_ranks_of_another_program_are_told(workshop, tmp_path):
    other = tmp_path / "switchyard"
    shutil.copy(PROGRAM, other)
    with open(other, "ab") as program:
        program.write(b"\0")
    with two_ranks(workshop, tmp_path / "run", program=[PROGRAM, other]) as ranks:
        for code, messages in [rank.end() for rank in ranks]:
            assert code == 2 and "rank 1 has another program than rank 0" in messages, messages


def test_a_broken_network_is_noticed_on_both_sides(workshop, tmp_path):
    """Two network namespaces with a cable between them, which is pulled."""
    name = f"swy{os.getpid()}"

    def ip(*words, **options):
        return subprocess.run(["ip", *words], capture_output=True, **options)

    if not shutil.which("ip") or ip("netns", "add", f"{name}a").returncode != 0:
        pytest.skip("this machine lets nobody make network namespaces (iproute2, CAP_NET_ADMIN)")
    try:
        ip("netns", "add", f"{name}b", check=True)
        ip("link", "add", f"{name}a", "netns", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", f"{name}b", check=True)
        for side, address in (("a", "10.213.0.1/24"), ("b", "10.213.0.2/24")):
            for words in (["addr", "add", address, "dev", f"{name}{side}"], ["link", "set", f"{name}{side}", "up"], ["link", "set", "lo", "up"]):
                ip("-n", f"{name}{side}", *words, check=True)
        ranks = [Rank(workshop, tmp_path / "run", rank, 29400, before=["ip", "netns", "exec", f"{name}{side}"], MASTER_ADDR="10.213.0.1",
                      LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", GLOO_SOCKET_IFNAME=f"{name}{side}") for rank, side in enumerate("ab")]
        try:
            wait_for_steps(ranks)
            ip("-n", f"{name}a", "link", "set", f"{name}a", "down", check=True)
            ends = [rank.end() for rank in ranks]
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()
    finally:
        for side in "ab":
            ip("netns", "del", f"{name}{side}")
    assert ends[0][0] == 1 and "rank 1 has not been heard of for" in ends[0][1], ends
    assert ends[1][0] == 1 and "does not answer: rank 0 (10.213.0.1:29400)" in ends[1][1], ends


def test_sigterm_to_all_ranks_saves(workshop, tmp_path):
    with two_ranks(workshop, tmp_path / "run") as ranks:
        wait_for_steps(ranks)
        for rank in ranks:
            rank.process.terminate()
        ends = [rank.end() for rank in ranks]
    assert [code for code, _ in ends] == [130, 130], ends
    last = metrics(tmp_path / "run")[-1]["step"]
    assert (tmp_path / "run/checkpoints" / f"step-{last:06d}").is_dir()


def test_killed_ranks_are_started_again_to_the_same_weights():
    done = subprocess.run([sys.executable, SOURCE / "scripts/soak.py", "--kills=5", "--steps=40", "--seed=3", "--json", "--program", PROGRAM],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and '"same": true' in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("mpirun"), reason="Open MPI is not installed")
def test_open_mpi_starts_ranks(workshop, tmp_path):
    words = [word for setting in [*TWO_RANKS, "train.steps=3"] for word in ("--set", setting)]
    done = subprocess.run(["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", PROGRAM, "train", workshop / "tiny.toml", "--out",
                           tmp_path / "run", "--quiet", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run")[-1]["step"] == 3
