"""Sweeps in pieces: the same numbers however they are cut and wherever they run, also when processes die."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from distributed import LocalCluster

from conslaw import Adam, Momentum, draw, gradient_descent
from conslaw.paper.commands import main
from conslaw.paper.provenance import cores
from conslaw.paper.sweep import cluster, sweep
from conslaw.paper.tables import run_table

SEEDS = [42, 137, 256, 512, 1024, 1, 2, 3]
RATES, STEPS = [0.01, 0.1], 60
NETWORKS = {"widths": (20, 16, 5), "samples": 60, "loss": "mse"}


@pytest.fixture(scope="module")
def expected():
    run = gradient_descent(draw(SEEDS, **NETWORKS), RATES, STEPS)
    return run_table(run).sort_values(["seed", "eta"], ignore_index=True)


def compare(found, expected):
    pd.testing.assert_frame_equal(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_pieces_change_nothing(expected, piece):
    with ThreadPoolExecutor(1) as executor:
        found = sweep(SEEDS, RATES, STEPS, networks=NETWORKS, executor=executor, piece=piece)
    compare(found, expected)


def test_a_pool_of_processes_survives_the_death_of_one(expected):
    killed = []

    def kill():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.05)
        killed.append(children[0].pid)
        os.kill(children[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    compare(sweep(SEEDS, RATES, STEPS, networks=NETWORKS, piece=2), expected)
    killer.join()
    assert killed


class Breaking(ThreadPoolExecutor):
    """An executor that breaks."""

    def submit(self, *arguments):
        raise BrokenExecutor("the cluster is gone")


def test_a_broken_executor_is_reported():
    with Breaking() as executor, pytest.raises(BrokenExecutor, match="the cluster is gone"):
        sweep([1], RATES, 1, executor=executor)


class Cancelling(ThreadPoolExecutor):
    """An executor that cancels what it was given, as a cluster whose scheduler has died."""

    def submit(self, *arguments):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_a_scheduler_that_is_gone_is_reported():
    with Cancelling() as executor, pytest.raises(BrokenExecutor, match="1 pieces were given up: the scheduler is gone"):
        sweep([1], RATES, 1, executor=executor)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_takes_its_processes_along(tmp_path, ending):
    command = [sys.executable, "-m", "conslaw", "sweep", str(tmp_path / "x.csv"), "--seeds", "5000"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=interruptible)
    end = time.monotonic() + 60
    while sum(is_worker(child) for child in children(process.pid)) < cores():
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(5)  # they are at work
    workers = children(process.pid)
    process.send_signal(ending)
    begun = time.monotonic()
    assert process.wait(30) == {signal.SIGINT: 1, signal.SIGTERM: 143, signal.SIGKILL: -9}[ending]
    while any(map(is_running, workers)):
        assert time.monotonic() < begun + 10
        time.sleep(0.1)
    assert not (tmp_path / "x.csv").exists()


def interruptible():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal


def is_worker(pid):
    return "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")


def test_optimizers_travel_to_other_processes():
    for optimizer in (Momentum(0.5), Adam()):
        assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    with ThreadPoolExecutor(1) as executor:
        [name] = sweep([1], [0.1], 2, options={"optimizer": "adam"}, executor=executor).optimizer
    assert name == "adam"


def test_a_cluster_survives_the_death_of_a_worker():
    """Half-way through, one of two workers is killed: nothing is lost and no number changes."""
    seeds, steps = list(range(24)), 400
    with ThreadPoolExecutor(1) as executor:
        expected = sweep(seeds, RATES, steps, networks=NETWORKS, executor=executor)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as workers, cluster(workers.scheduler_address) as client:
        done = []

        def kill():
            while len(done) < 3:
                time.sleep(0.01)
            os.kill(next(iter(workers.workers.values())).pid, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        executor = client.get_executor()
        submit = executor.submit

        def counted(*arguments):
            future = submit(*arguments)
            future.add_done_callback(done.append)
            return future

        executor.submit = counted
        found = sweep(seeds, RATES, steps, networks=NETWORKS, executor=executor, piece=1)
        killer.join()
    compare(found, expected)


def test_command_line(tmp_path):
    output = tmp_path / "runs.csv"
    arguments = ["sweep", str(output), "--seeds", "3", "--rate", "0.01", "--rate", "0.1", "--steps", "20"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    runs = pd.read_csv(output, encoding="utf-8")
    assert sorted(runs.seed.unique()) == [0, 1, 2]
    assert len(runs) == 6
    straight = gradient_descent(draw([0, 1, 2]), [0.01, 0.1], 20)
    assert runs.drift.tolist() == pytest.approx(straight.drift[..., 0].T.flatten().tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "x>=1"),
        (["--loss", "None"], "loss must be one of mse, cross_entropy or a weight from 0 to 1, got None"),
        (["--activation", "{}"], "activation must be one of relu"),
        (["--activation", "rel"], "or a weight from 0 to 1, got 'rel'"),
        (["--loss", "1.5"], "a weight from 0 to 1, got 1.5"),
        (["--rate", "-1"], "learning_rates must be positive"),
        (["--scheduler", "tcp://127.0.0.1:9"], "127.0.0.1:9"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message, monkeypatch):
    output = tmp_path / "runs.csv"
    result = CliRunner().invoke(main, ["sweep", str(output), "--seeds", "1", "--steps", "2", *arguments])
    assert result.exit_code != 0
    assert message in result.output
    assert not output.exists()


def test_a_folder_that_is_not_there_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["sweep", "nodir/x.csv", "--seeds", "100000"])
    assert result.exit_code == 1
    assert "cannot write x.csv into the folder nodir: No such file or directory" in result.output


def test_bad_pieces():
    with pytest.raises(ValueError, match="piece must be at least 1"):
        sweep([1], RATES, 1, piece=0)
    with pytest.raises(ValueError, match="seeds must be"):
        sweep([1, 1], RATES, 1)
