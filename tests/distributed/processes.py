"""The work of each process of a test: one start for all forms of parallelism, since a process costs seconds."""

import json
import logging
import os
import traceback

import torch
from torch import distributed, nn

from stabmon import Race, watch
from stabmon.distributed import meeting
from stabmon.errors import ArgumentError
from stabmon.hooks.streams import OutputHook
from tests.distributed.model import EVERYTHING, STEPS, Decoder, parallel, tokens, train


def every_kind(rank, world, kinds, folder, device):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=world)
    for kind in kinds:
        found = {}
        try:
            found = _one_kind(kind, rank, world, folder, device)
        except Exception:
            found = {"error": traceback.format_exc()}
        (folder / f"{kind}-{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def _one_kind(kind, rank, world, folder, device):
    trained = []
    for watched in ({}, {"dir": folder / "runs", "name": kind}):
        model, spread = parallel(kind, Decoder().to(device), world, device)
        at = rank // (world // spread)
        batches = [tokens(step).chunk(spread)[at].to(device) for step in range(STEPS)]
        trained.append(train(model, batches, **watched))
    (plain, _), (weights, monitor) = trained
    return {
        "same bits": all(torch.equal(a, b) for a, b in zip(plain, weights, strict=True)),
        "failures": monitor.failures,
        "path": None if monitor.path is None else str(monitor.path),
        "heads": [attention.heads for attention in monitor.map.attentions],
        "findings": [finding.code for finding in monitor.findings],
    }


def every_fault(rank, world, folder):
    torch.set_num_threads(1)
    logging.getLogger("stabmon").setLevel(logging.CRITICAL)
    meeting.PATIENCE = 2.0
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    for fault in (nan, dropped, failing, closing, racing, counting, one_watches, one_watches_shards, dying):
        try:
            found = fault(rank, folder / "runs")
        except Exception:
            found = {"error": traceback.format_exc()}
        (folder / f"{fault.__name__}-{rank}.json").write_text(json.dumps(found))


def _steps(model, monitor, steps, begin=lambda step: None):
    """Train each rank on rows of its own."""
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), 0.1) if monitor is None else monitor._optimizers[0]
    for step in range(steps):
        begin(step)
        loss = model(tokens(step).chunk(2)[distributed.get_rank()])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if monitor is not None and not monitor._closed:
            monitor.log(loss=loss.detach())
    return losses


def _watched(kind, folder, name):
    model, _ = parallel(kind, Decoder(), 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return model, watch(model, optimizer, dir=folder, name=name, schedule=EVERYTHING, console=False)


def _report(monitor):
    return {
        "failures": monitor.failures,
        "findings": [[one.code, one.opened, one.message, one.cause] for one in monitor.findings],
    }


def nan(rank, folder):
    model, monitor = _watched("ddp", folder, "nan")

    def spoil(step):
        if step == 2 and rank == 1:
            model.module.embedding.weight.data[tokens(2)[-1, 0]] = torch.nan  # of a token in a row of rank 1

    _steps(model, monitor, 3, spoil)
    monitor.close()
    return _report(monitor)


def dropped(rank, folder):
    model, monitor = _watched("ddp", folder, "dropped")

    def full(step):
        ring = getattr(monitor._recorder, "_ring", None)
        if step == 2 and rank == 1:
            ring.put = lambda buffer: None
        elif ring is not None:
            vars(ring).pop("put", None)

    _steps(model, monitor, 5, full)
    monitor.close()
    return _report(monitor)


def failing(rank, folder):
    model, monitor = _watched("ddp", folder, "failing")
    layer = model.module.layers[0]

    def breaks(step):
        if step == 1 and rank == 1:
            for hook in layer._forward_hooks.values():
                if isinstance(hook, OutputHook):
                    hook.add = lambda x: 1 / 0

    _steps(model, monitor, 3, breaks)
    monitor.close()
    return _report(monitor)


def closing(rank, folder):
    model, monitor = _watched("ddp", folder, "closing")
    _steps(model, monitor, 4, lambda step: monitor.close() if (step, rank) == (2, 1) else None)
    monitor.close()
    return _report(monitor)


def racing(rank, folder):
    model, _ = parallel("ddp", Decoder(), 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    options = {"dir": None, "console": False, "race": Race(every=1)}
    refused = ""
    try:
        watch(model, optimizer, **options)
    except ArgumentError as error:
        refused = str(error)
    with watch(model.module, optimizer, **options) as monitor:
        model.module.unused = nn.SyncBatchNorm(1)
        _steps(model, monitor, 2)
    return {"refused": refused} | _report(monitor)


def counting(rank, folder):
    model, _ = parallel("ddp", Decoder(), 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    first = 3 if rank == 0 else 0
    options = {"dir": folder, "name": "counting", "schedule": EVERYTHING, "console": False}
    with watch(model, optimizer, first_step=first, **options) as monitor:
        losses = _steps(model, monitor, 4)
    return {"losses": losses, "steps": monitor.steps} | _report(monitor)


def one_watches(rank, folder, kind="ddp", name="one"):
    plain, _ = parallel(kind, Decoder(), 2)
    losses = _steps(plain, None, 3)
    if rank == 0:
        model, monitor = _watched(kind, folder, name)
    else:
        (model, _), monitor = parallel(kind, Decoder(), 2), None
    same = _steps(model, monitor, 3) == losses
    if monitor is not None:
        monitor.close()
    return {"same": same} | ({} if monitor is None else _report(monitor))


def one_watches_shards(rank, folder):
    return one_watches(rank, folder, "fsdp2", "shards")


def dying(rank, folder):
    model, monitor = _watched("ddp", folder, "dying")

    def die(step):
        if (step, rank) == (3, 1):
            monitor._recorder.flush()  # steps 0 and 1 are handed over by then
            os._exit(0)

    try:
        with monitor:
            _steps(model, monitor, 5, die)
    except Exception as error:
        return {"raised": type(error).__module__ + str(error)} | _report(monitor)
    return {"raised": ""}
