"""Models on their way to files and back, by torch and by other tools, from the meta device, and between processes."""

import copy
import io

import pytest
import torch
import torch.multiprocessing
from tools import require_module
from torch import nn

import lns_sim
from lns_sim import LNSWeight, recipes


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 2))


def converted(seed=0, **kwargs):
    torch.manual_seed(seed)
    return lns_sim.convert(net(), recipes.lns_madam(**kwargs))


def on_meta(**kwargs):
    with torch.device("meta"):
        model = net()
    return lns_sim.convert(model, recipes.lns_madam(**kwargs))


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def step(model, optimizer=None):
    """One of training, after which no scale is what the values alone would give."""
    optimizer = optimizer or lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 8)
    model(X).square().mean().backward()
    optimizer.step()
    return optimizer


def weights(model):
    return {name: p for name, p in model.named_parameters() if isinstance(p, LNSWeight)}


def assert_same(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys() and a
    for name in a:
        assert torch.equal(a[name].codes, b[name].codes) and torch.equal(a[name].scale, b[name].scale), name
        assert a[name].recipe == b[name].recipe


# ---- torch: meta device, assign.


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", ["codes", "float32"])
@pytest.mark.parametrize("start", ["here", "meta"])
def test_state_dicts_become_codes(assign, kind, start):
    source = converted(stochastic_gradients=True, seed=5)
    state = source.state_dict() if kind == "codes" else lns_sim.nn.to_float(source).state_dict()
    model = on_meta(stochastic_gradients=True) if start == "meta" else converted(1, stochastic_gradients=True)
    if start == "meta" and not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(copy.deepcopy(state), assign=assign)
    for name, w in weights(model).items():
        assert torch.equal(w.codes, weights(source)[name].codes) and w.recipe.seed == 0 and not w.rng.is_meta
    assert len(weights(model)) == 3 and lns_sim.optim.LNSMadam(model.parameters()).param_groups[0]["own"]
    step(model)


def test_a_model_that_is_not_converted_takes_no_codes():
    with pytest.raises(RuntimeError, match="convert the model before"):
        net().load_state_dict(converted().state_dict())
    with pytest.raises(ValueError, match="0.weight has .*, but the state_dict holds"):
        converted(update_bits=12).load_state_dict(converted().state_dict(), assign=True)


def test_what_has_no_weight_yet_is_not_converted():
    with pytest.raises(ValueError, match="run the model once"):
        lns_sim.convert(nn.Sequential(nn.LazyLinear(4)), "lns-madam")


def test_to_float_leaves_no_hooks():
    model = lns_sim.nn.to_float(converted())
    model.load_state_dict(net().state_dict(), assign=True)
    assert all(type(p) is nn.Parameter for p in model.parameters())


# ---- Processes.


def _write(model, done, go):
    model[0].weight.codes.fill_(3)
    done.put(model[0].weight.detach())
    go.get(timeout=60)


def test_processes_share_codes():
    model, context = converted(), torch.multiprocessing.get_context("fork")
    assert model.share_memory() is model
    done, go = context.SimpleQueue(), context.Queue()
    child = context.Process(target=_write, args=(model, done, go))
    child.start()
    sent = done.get()
    assert torch.equal(sent.codes, model[0].weight.codes) and (sent.codes == 3).all()
    go.put(None)
    child.join()


# ---- Tools: float32 files of the values, and the same codes from them.


def test_safetensors(tmp_path):
    library = require_module("safetensors.torch")
    model, path = converted(), tmp_path / "x.safetensors"
    step(model)
    model.to(memory_format=torch.channels_last)
    library.save_model(model, path)
    file = library.load_file(path)
    assert all(torch.equal(file[name], w.dequantize()) for name, w in weights(model).items())
    other = converted()
    library.load_model(other, path)
    assert_same(model, other)
    library.save_file({name: p.contiguous() for name, p in model.state_dict().items()}, path)
    with pytest.raises(RuntimeError, match="state_dict"):
        library.save_file({"w": model[0].weight.contiguous()}, path)


def test_tied_weights_are_written_once(tmp_path):
    library = require_module("safetensors.torch")
    tied = nn.ModuleDict({"a": nn.Embedding(5, 4), "b": nn.Linear(4, 5)})
    tied["b"].weight = tied["a"].weight
    model = lns_sim.convert(tied, "lns-madam")
    library.save_model(model, tmp_path / "x.safetensors")
    assert len(library.load_file(tmp_path / "x.safetensors")) == 2


@pytest.fixture
def transformers():
    return require_module("transformers")


def llama(transformers, tied):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    config.tie_word_embeddings = tied
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("tied", [False, True])
def test_save_pretrained(transformers, tied, tmp_path):
    model = lns_sim.convert(llama(transformers, tied), "lns-madam")
    model.save_pretrained(tmp_path)
    assert_same(model, lns_sim.convert(transformers.LlamaForCausalLM.from_pretrained(tmp_path), "lns-madam"))


@pytest.mark.parametrize("tied", [False, True])
def test_trainer_saves_and_resumes(transformers, tied, tmp_path):
    require_module("accelerate")
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])

    def trainer(steps):
        model = lns_sim.convert(llama(transformers, tied), "lns-madam")
        optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 32)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        options = dict(report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no")
        arguments = transformers.TrainingArguments(output_dir=tmp_path, max_steps=steps, save_steps=2, **options)
        data = [dict(input_ids=ids, labels=ids)] * 8
        return transformers.Trainer(model=model, args=arguments, train_dataset=data, optimizers=(optimizer, scheduler))

    whole, second = trainer(4), trainer(4)
    whole.train()
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same(whole.model, second.model)


def test_accelerate(tmp_path):
    accelerate = require_module("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = converted()
    model, optimizer = accelerator.prepare(model, lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 8))
    step(model, optimizer)
    saved = copy.deepcopy(model)
    accelerator.save_state(str(tmp_path))
    step(model, optimizer)
    accelerator.load_state(str(tmp_path))
    assert_same(saved, model)
    expected = saved(X)
    accelerate.cpu_offload(saved, execution_device="cpu")
    assert torch.equal(saved(X), expected) and torch.equal(saved(X), expected)


def test_lightning_resumes(tmp_path):
    lightning = require_module("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = converted()

        def training_step(self, batch, index):
            return self.net(batch).square().mean()

        def configure_optimizers(self):
            return lns_sim.optim.LNSMadam(self.parameters(), lr=1 / 8)

    def trainer(epochs):
        quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
        return lightning.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path, **quiet)

    batches = torch.utils.data.DataLoader(X, batch_size=2)
    first, whole, second = Module(), Module(), Module()
    half = trainer(1)
    half.fit(first, batches)
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer(2).fit(whole, batches)
    trainer(2).fit(second, batches, ckpt_path=tmp_path / "half.ckpt")
    assert_same(whole, second)


def test_peft_adapts_and_merges(tmp_path):
    peft = require_module("peft")
    model = converted()
    before = model[4].weight.codes.clone()
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["4"], r=2, init_lora_weights=False))
    adapted(X).square().mean().backward()
    adapted.save_pretrained(tmp_path)
    merged = adapted.merge_and_unload()
    assert isinstance(merged[4].weight, LNSWeight) and not torch.equal(merged[4].weight.codes, before)


def test_a_state_dict_in_a_file_shows_values_too():
    model, file = converted(), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    library = require_module("safetensors.torch")
    written = library.load(library.save(torch.load(file)))
    assert all(torch.equal(written[name], w.dequantize()) for name, w in weights(model).items())
