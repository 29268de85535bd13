"""Running on many machines: DDP or FSDP2 by torch's own means, the same codes on every rank, and those of one process.

Run it: torchrun --nproc-per-node 2 docs/guides/many_machines.py [ddp|fsdp] [FOLDER]
On several machines add what torchrun needs to find them (--nnodes, --rdzv-backend c10d, --rdzv-endpoint HOST:PORT);
GPUs are used where each rank has one. What `lns-sim train` trains needs no loop of one's own: `torchrun ... -m lns_sim
train` (docs/jobs.md). Nor does a sweep: start `lns-sim sweep ... --storage FILE_OR_DATABASE` on every machine.
"""

import gc
import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lns_sim
from lns_sim.distributed import global_batch, whole
from lns_sim.studies import models
from lns_sim.studies.training import data

way = sys.argv[1] if len(sys.argv) > 1 else "ddp"
folder = sys.argv[2] if len(sys.argv) > 2 else "runs/many_machines"

# 1. One process a rank. gloo moves tensors between CPUs, NCCL between GPUs.
gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpus else torch.device("cpu")
if gpus:
    torch.cuda.set_device(device)
dist.init_process_group("nccl" if gpus else "gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()

# 2. Convert first, then distribute: DDP gives every rank all codes, FSDP2 some rows of each weight's.
torch.manual_seed(0)
digits = data.load("digits")
model = lns_sim.convert(models.build("mlp", digits.input_shape, digits.classes), "lns-madam").to(device)
if way == "fsdp":
    mesh = dist.init_device_mesh(device.type, (ranks,))
    fully_shard(model, mesh=mesh)
    parallel = model
else:
    parallel = DistributedDataParallel(model)
optimizer = lns_sim.optim.LNSMadam(parallel.parameters(), lr=1 / 16)

# 3. Train. Each rank takes its share of the batch. Left alone, a rank quantizes its share with scales of its own, as a
# chip would; in global_batch() scales, random bits and Q_G are those of the whole batch, so that the number of ranks
# changes nothing but the rounding of float32 sums (of biases and norms).
for step in range(21):
    batch = slice(step * 64 + rank * (64 // ranks), step * 64 + (rank + 1) * (64 // ranks))
    x, y = digits.x_train[batch].to(device), digits.y_train[batch].to(device)
    optimizer.zero_grad()
    with global_batch():
        loss = F.cross_entropy(parallel(x), y)
        loss.backward()
    optimizer.step()

# 4. What every rank can say of the weights: all of them, gathered where they are sharded.
with torch.no_grad():
    values = [whole(p.detach()) for p in model.parameters()]
    total = sum(v.codes.sum() for v in values if isinstance(v, lns_sim.LNSWeight))
sums = [torch.zeros_like(total) for _ in range(ranks)]
dist.all_gather(sums, total)
if rank == 0:
    print(
        f"{way}, {ranks} ranks: loss {loss.item():.3f}, sum of codes {total.item()}, the same on all ranks: "
        f"{len(set(map(int, sums))) == 1}"
    )

# 5. A checkpoint: each rank writes its part; another number of ranks can read it.
weights, moments = get_state_dict(model, optimizer)
dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=os.path.join(folder, "checkpoint"))
if rank == 0:
    print(f"wrote {os.path.join(folder, 'checkpoint')}")
del model, parallel, optimizer
gc.collect()  # what holds the process group goes before it
dist.barrier()
dist.destroy_process_group()
