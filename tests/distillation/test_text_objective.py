"""The objectives against a plain implementation: full logits, boolean selection, textbook losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AlbertConfig, AlbertForMaskedLM, AutoModelForMaskedLM, PreTrainedModel

from distilkit.distillation.text_objective import WEIGHTS, Distillation
from distilkit.encoders.layers import extract
from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions
from distilkit.training.devices import open_accelerator
from distilkit.training.loop import make_optimizer, update

FAMILIES = ["bert", "roberta", "distilbert"]
Models = tuple[PreTrainedModel, PreTrainedModel]


@pytest.fixture(params=FAMILIES)
def models(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> Models:
    """A teacher of four layers and a student of its layers 0 and 3, without dropout."""
    teacher = AutoModelForMaskedLM.from_pretrained(make_checkpoint(request.param, 4)).eval()
    return extract(teacher, [0, 3]), teacher


def padded_batch(seed: int) -> dict[str, Tensor]:
    """Three sequences of 12, 9 and 5 tokens with about one token in three to predict."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 400, (3, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([[12], [9], [5]])).long()
    chosen = (torch.rand(3, 12, generator=generator) < 0.35) & mask.bool()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.where(chosen, ids, -100)}


def plain(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor], masked_only: bool
) -> dict[str, Tensor]:
    """The triple loss as written in the paper and its published code, with every logit held."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        t = teacher(**inputs, output_hidden_states=True)
    s = student(**inputs, output_hidden_states=True)
    tokens = batch["attention_mask"].bool()  # (B, T)
    rows = batch["labels"] > -1 if masked_only else tokens
    p_t = torch.softmax(t.logits[rows] / 2, -1)  # (R, V)
    ce = (p_t * (p_t.log() - torch.log_softmax(s.logits[rows] / 2, -1))).sum() / rows.sum() * 4
    mlm = F.cross_entropy(s.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    ones = torch.ones(int(tokens.sum()))
    cos = F.cosine_embedding_loss(s.hidden_states[-1][tokens], t.hidden_states[-1][tokens], ones)
    return {"ce": ce, "mlm": mlm, "cos": cos, "loss": 5 * ce + 2 * mlm + cos}


@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("positions", ["all", "masked"])
def test_triple_loss_equals_the_plain_one(
    models: Models, positions: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, gradients and the weights after four updates agree with the plain ones to 1e-5, in one chunk or many."""
    monkeypatch.setattr("distilkit.distillation.fused_loss.CHUNK", (rows * 400, rows * 400))
    student, teacher = models
    twin = extract(teacher, [0, 3])
    objective = Distillation(student, teacher, WEIGHTS["triple"], ce_positions=positions)
    ours, theirs = (
        torch.optim.AdamW(m.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0) for m in (student, twin)
    )
    for seed in range(4):
        batch = padded_batch(seed)
        found, expected = objective(batch), plain(twin, teacher, batch, positions == "masked")
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        found["loss"].backward()
        expected["loss"].backward()
        for (name, mine), other in zip(student.named_parameters(), twin.parameters(), strict=True):
            if other.grad is not None:
                torch.testing.assert_close(
                    mine.grad, other.grad, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
                )
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
    for mine, other in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_masked_lm_equals_the_models_own_loss(models: Models) -> None:
    """The head run at masked positions only gives what transformers computes from all of them."""
    student, _ = models
    batch = padded_batch(1)

    assert Distillation(student, None, {"mlm": 1.0})(batch)["loss"].item() == pytest.approx(
        student(**batch).loss.item(), rel=1e-5
    )


def test_weights_scale_the_parts(models: Models) -> None:
    """Each alpha multiplies its own part."""
    student, teacher = models
    parts = Distillation(student, teacher, {"ce": 0.5, "mlm": 0.0, "cos": 3.0})(padded_batch(2))

    assert parts["loss"].item() == pytest.approx(0.5 * parts["ce"].item() + 3 * parts["cos"].item(), rel=1e-5)


def test_teacher_is_neither_trained_nor_saved(models: Models) -> None:
    """The teacher is no parameter and no state of the objective, and goes where it is put."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"])
    objective.place_teacher(torch.device("cpu"), torch.float64, whole=True)

    assert len(list(objective.parameters())) == len(list(student.parameters()))
    assert not any("teacher" in name for name in objective.state_dict())
    assert next(teacher.parameters()).dtype == torch.float64
    objective.train()
    assert not teacher.training


def inside(model: PreTrainedModel, batch: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """What transformers itself says of a layer: its hidden state, its attention map, its queries, keys and values."""
    model.set_attn_implementation("eager")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    output = model.bert(**inputs, output_hidden_states=True, output_attentions=True)
    attention = model.bert.encoder.layer[layer].attention.self
    states = [part(output.hidden_states[layer]) for part in (attention.query, attention.key, attention.value)]
    return output.hidden_states[layer + 1], output.attentions[layer], states


def relation(mine: Tensor, other: Tensor, tokens: Tensor, heads: int) -> Tensor:
    """MiniLMv2's equation 5 for one of queries, keys and values (B, T, H), a sequence and a head at a time."""
    total = torch.zeros(())
    for row, present in enumerate(tokens):
        for head in range(heads):
            s, t = (states[row, present].chunk(heads, -1)[head] for states in (mine, other))
            log_s, log_t = (torch.log_softmax(x @ x.T / x.shape[-1] ** 0.5, -1) for x in (s, t))
            total = total + (log_t.exp() * (log_t - log_s)).sum()
    return total / heads / tokens.sum()


@pytest.fixture
def berts(make_checkpoint: Callable[..., Path]) -> tuple[Models, Models]:
    """A student and a teacher without dropout, and the same two again."""
    teacher = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4)).eval()
    twin = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4)).eval()
    return (extract(teacher, [0, 3]), teacher), (extract(teacher, [0, 3]), twin)


@pytest.mark.parametrize("name", ["hidden", "attention", "minilm"])
def test_what_goes_on_inside_equals_the_plain_losses(berts: tuple[Models, Models], name: str) -> None:
    """Losses and gradients agree with those of the states that transformers hands out; layers 0, 1 learn from 1, 3."""
    (student, teacher), (twin, other) = berts
    batch = padded_batch(3)
    tokens = batch["attention_mask"].bool()
    mine, theirs = (
        [inside(model, batch, layer) for layer in layers] for model, layers in ((twin, (0, 1)), (other, (1, 3)))
    )
    hidden = torch.stack([F.mse_loss(s[0][tokens], t[0][tokens]) for s, t in zip(mine, theirs, strict=True)]).mean()
    maps = torch.stack(
        [(t[1] * (t[1].clamp(min=1e-30).log() - s[1].clamp(min=1e-30).log())).sum(-1).mean(1)[tokens].mean()
         for s, t in zip(mine, theirs, strict=True)]
    ).mean()  # fmt: skip
    related = torch.stack([relation(s, t, tokens, 32) for s, t in zip(mine[1][2], theirs[1][2], strict=True)]).sum()
    expected = {"hidden": hidden, "attention": maps + hidden, "minilm": related}[name]

    found = Distillation(student, teacher, WEIGHTS[name], layer_map=[1, 3])(batch)["loss"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()
    expected.backward()
    compared = 0
    for (label, parameter), plainly in zip(student.named_parameters(), twin.parameters(), strict=True):
        if plainly.grad is not None and parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad, plainly.grad, rtol=1e-4, atol=1e-6, msg=lambda text, label=label: f"{label}: {text}"
            )
            compared += 1
    assert compared > 10


def test_hidden_states_by_their_angle(berts: tuple[Models, Models]) -> None:
    """hidden_loss "cosine" is one minus the cosine of every token's two states, a mean over tokens and pairs."""
    (student, teacher), (twin, other) = berts
    batch = padded_batch(3)
    tokens = batch["attention_mask"].bool()
    pairs = [(inside(twin, batch, s)[0][tokens], inside(other, batch, t)[0][tokens]) for s, t in ((0, 1), (1, 3))]
    cosines = [(s * t).sum(-1) / (s.norm(dim=-1) * t.norm(dim=-1)) for s, t in pairs]

    found = Distillation(student, teacher, WEIGHTS["hidden"], layer_map=[1, 3], hidden_loss="cosine")(batch)["loss"]
    torch.testing.assert_close(found, torch.stack([1 - cosine.mean() for cosine in cosines]).mean())


class Waits(TorchDispatchMode):
    """Notes the operations whose result the CPU has to know before it can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(operation) for name in ("nonzero", "_local_scalar_dense", "masked_select", "unique")):
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["triple", "attention", "minilm", "mlm"])
def test_nothing_in_an_update_waits_for_a_gpu(berts: tuple[Models, Models], name: str) -> None:
    """From batches that were made ready to the optimizer's step (transformers itself looks at a padding mask)."""
    (student, teacher), _ = berts
    objective = Distillation(student, None if name == "mlm" else teacher, WEIGHTS[name], layer_map=[1, 3])
    accelerator, config = open_accelerator(TrainOptions()), TrainOptions(lr=1e-3, accumulate=2)
    optimizer, _ = make_optimizer(objective, config, 10)
    batch = padded_batch(0)
    del batch["attention_mask"]
    ready = [objective.ready(batch), objective.ready(padded_batch(1) | {"attention_mask": torch.ones(3, 12).long()})]
    del ready[1]["attention_mask"]
    with Waits() as seen:
        update(accelerator, objective, objective, optimizer, config, ready)

    assert seen.found == []


def test_a_narrower_student_learns_a_projection(make_checkpoint: Callable[..., Path]) -> None:
    """Hidden states of other widths are compared after a matrix that is trained, and MiniLM needs none."""
    teacher, student = (
        AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", layers, hidden_size=width)).eval()
        for layers, width in ((4, 32), (2, 16))
    )
    objective = Distillation(student, teacher, {"hidden": 1.0, "relation": 1.0}, layer_map=[1, 3])
    objective(padded_batch(0))["loss"].backward()

    assert objective.alignment.projection.weight.shape == (32, 16)
    assert objective.alignment.projection.weight.grad.abs().sum() > 0
    assert objective.alignment.relation_heads == 16


def test_the_teacher_goes_no_further_than_it_is_looked_at(berts: tuple[Models, Models]) -> None:
    """For relations of layer 1 of 4 the teacher keeps two layers."""
    (student, teacher), _ = berts
    objective = Distillation(student, teacher, WEIGHTS["minilm"], layer_map=[0, 1])

    assert objective.teacher is not None
    assert objective.teacher.config.num_hidden_layers == 2


def test_masked_lm_alone_is_left_after_its_share(models: Models) -> None:
    """With until=0.5 the second half of a run asks the student only."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"], until=0.5)
    objective.progress(0.49)
    assert set(objective(padded_batch(0))) == {"loss", "ce", "mlm", "cos"}
    objective.progress(0.5)
    alone = objective(padded_batch(0))
    assert set(alone) == {"loss", "mlm"}
    assert alone["loss"].item() == pytest.approx(2 * alone["mlm"].item(), rel=1e-5)


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_two_halves_with_their_shares_equal_the_whole(models: Models, positions: str) -> None:
    """Micro-batches of unequal numbers of tokens add up to the batch that they are made of: a mean over tokens."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"], ce_positions=positions)
    whole = padded_batch(4)
    halves = [{name: tensor[rows] for name, tensor in whole.items()} for rows in (slice(0, 1), slice(1, 3))]
    counts = [objective.counts(half) for half in halves]
    shares = [{name: count[name] / sum(each[name] for each in counts) for name in count} for count in counts]
    parts = [objective(half, share) for half, share in zip(halves, shares, strict=True)]

    for name, value in objective(whole).items():
        assert sum(part[name].item() for part in parts) == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["triple", "attention"])
def test_a_cast_teacher_says_the_same_under_autocast(berts: tuple[Models, Models], name: str) -> None:
    """Matrices cast once give what autocast gives by casting them at every step; embeddings and norms stay."""
    results = []
    for (student, teacher), cast in zip(berts, (True, False), strict=True):
        objective = Distillation(student, teacher, WEIGHTS[name], layer_map=[1, 3])
        if cast:
            objective.place_teacher(torch.device("cpu"), torch.bfloat16)
            body = objective.teacher.bert
            assert body.embeddings.word_embeddings.weight.dtype == torch.float32
            assert body.encoder.layer[0].intermediate.dense.weight.dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            results.append(objective(padded_batch(5)))

    for part, value in results[0].items():
        torch.testing.assert_close(value, results[1][part], rtol=1e-6, atol=0, msg=part)


@pytest.mark.parametrize("name", ["hidden", "minilm"])
def test_a_repeated_layer_is_refused(name: str) -> None:
    """ALBERT's one layer would only show its last turn, whichever layer is asked for."""
    shape = {"vocab_size": 400, "embedding_size": 16, "hidden_size": 32, "num_attention_heads": 4}
    teacher, student = (AlbertForMaskedLM(AlbertConfig(num_hidden_layers=n, **shape)).eval() for n in (4, 2))
    with pytest.raises(DistilkitError, match=r"repeats one layer.*for distill choose another --objective"):
        Distillation(student, teacher, WEIGHTS[name], layer_map=[1, 3])(padded_batch(0))


def test_a_config_does_not_tell_how_attention_was_watched(berts: tuple[Models, Models], tmp_path: Path) -> None:
    """What another tool reads of a student that learnt relations names no implementation of ours."""
    (student, teacher), _ = berts
    Distillation(student, teacher, WEIGHTS["minilm"], layer_map=[1, 3])
    student.save_pretrained(tmp_path)

    assert "distilkit" not in (tmp_path / "config.json").read_text()
