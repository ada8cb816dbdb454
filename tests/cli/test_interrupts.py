"""SIGINT and SIGTERM, full, read-only and vanished disks, too little memory."""

import json
import resource
import signal
import subprocess
import time

import pytest
import toy
from program import BIN, run, train_arguments, write_rows
from test_kills import ENVIRONMENT, finish, result, settings, start  # noqa: F401

LONG = {"max_steps": 100_000, "save_steps": 100_000, "num_train_epochs": 1}


def wait_for(path, process, contains=""):
    for _ in range(3000):
        if path.exists() and contains in path.read_text():
            return
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.01)
    raise AssertionError(f"no {path}")


def steps_of(out):
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_after_saving(tmp_path, settings, sent, code):
    """The checkpoint is of the step it reached, and the resumed run is the uninterrupted one."""
    arguments = [str(word) for word in train_arguments(tmp_path / "a", **{**settings, **LONG})]
    process = start(arguments)
    wait_for(tmp_path / "a/out/metrics.jsonl", process, '"step":5,')
    began = time.monotonic()
    process.send_signal(sent)
    _, text = process.communicate(timeout=60)
    assert process.returncode == code and time.monotonic() - began < 20, text.decode()
    assert "--resume continues" in text.decode()
    out = tmp_path / "a/out"
    (checkpoint,) = out.glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{steps_of(out)[-1]}"
    assert not (out / "adapter_model.safetensors").exists()


def test_interrupted_and_resumed_is_never_interrupted(tmp_path, settings):
    keys = {**settings, "max_steps": 40, "gradient_accumulation_steps": 4}
    whole, part = ([str(word) for word in train_arguments(tmp_path / name, **keys)] for name in ("whole", "part"))
    finish(whole)
    interrupted = 0
    for at in (2, 9, 17, 30):
        process = start([*part, "--resume"])
        wait_for(tmp_path / "part/out/metrics.jsonl", process, f'"step":{at},')
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        interrupted += process.returncode == 143
    finish(part)
    assert interrupted >= 2
    assert result(tmp_path / "part/out") == result(tmp_path / "whole/out")


def test_a_second_interrupt_aborts(tmp_path, settings):
    """While the first waits for a disk that refuses everything."""
    process = start([str(word) for word in train_arguments(tmp_path, **{**settings, **LONG, "save_steps": 2})],
                    FINETUNE_WRITE_FAULT="28@30x1000000")
    while b"The run waits" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (130, 5)


def test_the_grace_period_ends_the_process(tmp_path, model, settings):
    """One step of several seconds: no checkpoint is possible before it ends."""
    rows = write_rows(tmp_path / "rows.jsonl", toy.rows(4000, seed=3))
    keys = {**settings, **LONG, "datasets": [rows], "per_device_train_batch_size": 4000, "num_threads": 1,
            "interrupt_grace_seconds": 1}
    process = start([str(word) for word in train_arguments(tmp_path, **keys)])
    wait_for(tmp_path / "out/metrics.jsonl", process)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143 and time.monotonic() - began < 2.5
    if b"interrupt_grace_seconds" not in text:
        assert b"--resume continues" in text  # the step ended within it after all


# The disk.

def test_space_is_checked_before_the_start(tmp_path, settings):
    small = small_disk(tmp_path, "64k")
    done = in_namespace(small, [BIN, *train_arguments(tmp_path / "run", **{**settings, "output_dir": small / "out"})],
                        "df --output=avail {disk} >&2")
    assert done.returncode == 5, done.stderr
    assert "free" in done.stderr and "checkpoints of" in done.stderr and "step 1/" not in done.stderr


def small_disk(tmp_path, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "size").write_text(size)
    return disk


def in_namespace(disk, command, around="", during=""):
    """Runs the command with a small tmpfs at `disk`, in a mount namespace of its own; `during` runs beside it."""
    size = (disk.parent / "size").read_text()
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("mount namespaces are not permitted here")
    script = f"""
        mount -t tmpfs -o size={size} tmpfs {disk} || exit 99
        {around.format(disk=disk)}
        "$@" & pid=$!
        {during.format(disk=disk)}
        wait $pid; code=$?
        mkdir -p {disk.parent}/after; cp -r {disk}/. {disk.parent}/after/ 2>/dev/null
        exit $code"""
    done = subprocess.run(["unshare", "-m", "bash", "-c", script, "bash", *map(str, command)], env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=120)
    if done.returncode == 99:
        pytest.skip("no tmpfs can be mounted here")
    return done


def waits_for(text, disk):
    """Shell: until the log says so."""
    return f"for i in $(seq 2000); do grep -q '{text}' {disk.parent}/log && break; sleep 0.01; done"


TROUBLE = {
    "full": ("dd if=/dev/zero of={disk}/ballast bs=1k 2>/dev/null", "rm {disk}/ballast"),
    "read-only": ("mount --bind {disk}/out {disk}/out; mount -o remount,bind,ro {disk}/out", "umount {disk}/out"),
    "vanished": ("mv {disk}/out {disk}/away", "mv {disk}/away {disk}/out"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("ends", ["goes away", "stays"])
def test_the_disk_refuses_in_the_middle(tmp_path, settings, trouble, ends):
    """It waits, says so, and goes on with the same bytes when the trouble goes away; else exit code 5."""
    keys = {**settings, "max_steps": 300, "save_steps": 20}
    plain = [str(word) for word in train_arguments(tmp_path / "whole", **keys)]
    if ends == "goes away":
        finish(plain)
    disk = small_disk(tmp_path, "3m")
    arguments = train_arguments(tmp_path / "run", **{**keys, "output_dir": disk / "out"})
    begin, end = TROUBLE[trouble]
    log = tmp_path / "log"
    log.touch()
    seconds = 30 if ends == "goes away" else 1
    command = ["bash", "-c", f'exec "$@" disk_retry_seconds={seconds} 2>{log}', "bash", BIN, *arguments]
    during = (f"for i in $(seq 2000); do grep -q '\"step\":25,' {disk}/out/metrics.jsonl 2>/dev/null && break; "
              f"sleep 0.01; done; {begin}; {waits_for('The run waits', disk)}; "
              + (f"{end}" if ends == "goes away" else ""))
    done = in_namespace(disk, command, during=during.replace("{disk}", str(disk)))
    text = log.read_text()
    assert "The run waits with its state in memory" in text, text
    if ends == "stays":
        assert done.returncode == 5 and "disk_retry_seconds" in text.splitlines()[-1], text
        kept = tmp_path / "after" / ("away" if trouble == "vanished" else "out")
        newest = max(int(path.parent.name.split("-")[1]) for path in kept.glob("checkpoint-*/trainer_state.json"))
        assert newest >= 20  # the earlier checkpoint is whole
        return
    assert done.returncode == 0, text
    assert "written after" in text
    assert result(tmp_path / "after/out")[0].keys() == result(tmp_path / "whole/out")[0].keys()
    same = {name for name, content in result(tmp_path / "whole/out")[0].items()
            if result(tmp_path / "after/out")[0][name] == content}
    assert {"out/adapter_model.safetensors", "checkpoint-300/optimizer.safetensors"} <= same
    assert steps_of(tmp_path / "after/out") == steps_of(tmp_path / "whole/out")


# Memory.

def test_too_little_memory_ends_with_advice(tmp_path, settings):
    limit = 700 << 20

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    rows = write_rows(tmp_path / "rows.jsonl", toy.rows(20_000, seed=3))
    keys = {**settings, "datasets": [rows], "per_device_train_batch_size": 20_000}
    done = subprocess.run([BIN, *map(str, train_arguments(tmp_path, **keys))], env=ENVIRONMENT, preexec_fn=limited,
                          capture_output=True, text=True, timeout=120)
    if "cannot allocate" in done.stderr and "shared object" in done.stderr:
        pytest.skip("the program itself needs more than this")
    assert done.returncode == 5, done.stderr
    assert "memory" in done.stderr and "per_device_train_batch_size" in done.stderr
