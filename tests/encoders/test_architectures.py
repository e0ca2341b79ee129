"""Run init on a tiny teacher of every architecture that transformers maps to masked LM."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import KEEP, LAYERS, NAMES, VOCABULARY, try_init, write_teacher
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from distilkit.distillation.text_objective import Distillation
from distilkit.encoders.layers import extract
from distilkit.record import read_biography

PAGE = (Path(__file__).parents[2] / "docs/architectures.md").read_text(encoding="utf-8")
REFUSED = {"bart", "mbart", "mvp", "perceiver", "reformer", "modernvbert", "ultravbert"}
BY_LAYER = ("layer_types", "attention_window", "per_layer_config")
FAST = {  # common ones, each way of nesting layers, both kinds of refusal; the others run in the slow suite
    *("bert", "roberta", "distilbert", "albert", "deberta-v2", "electra", "modernbert", "mpnet"),
    *("funnel", "mobilebert", "xlm", "xmod", "bart", "modernvbert"),
}
ROUNDED = {"esmc": ("o_proj", "down_proj")}  # √(layers / 36) divides what these put out


def sweep(names: Iterable[str]) -> list[Any]:
    """Return the parameters of a test over architectures, in the slow suite for those that aren't in FAST."""
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in sorted(names)]


def digits_out(name: str) -> str:
    return re.sub(r"\.\d+\.", ".#.", name)


def truncate(teacher: PreTrainedModel, student: PreTrainedModel, kept: list[int]) -> None:
    """Cut the teacher's module lists in memory, without distilkit's code; only the config is the student's."""
    for parent in list(teacher.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ModuleList) and len(child) == LAYERS:
                setattr(parent, name, nn.ModuleList([child[i] for i in kept]))
        if hasattr(parent, "n_layers"):
            parent.n_layers = len(kept)
    for module in teacher.modules():
        if hasattr(module, "config"):
            module.config = student.config
        for attribute in {"layer_idx", "layer_id"} & vars(module).keys():  # XLM: a place in a cache
            if getattr(module, attribute) in kept:
                setattr(module, attribute, kept.index(getattr(module, attribute)))
    if hasattr(teacher.base_model, "value_embedding_layers"):  # NeoMME: by their old places
        old = teacher.base_model.value_embedding_layers
        teacher.base_model.value_embedding_layers = {new for new, i in enumerate(kept) if i in old}


@pytest.mark.parametrize("model_type", sweep(NAMES))
def test_a_student_of_every_architecture(model_type: str, tmp_path: Path) -> None:
    """The student equals the truncated teacher in every weight and logit, or is refused by name. The documentation
    says which.
    """
    row = try_init(model_type, tmp_path)

    assert row.markdown() in PAGE.splitlines()
    if row.difference is None:
        assert model_type in REFUSED
        assert not (tmp_path / "student").exists()
        return
    assert model_type not in REFUSED
    kept = [int(i) for i in read_biography(tmp_path / "student")[-1].environment["kept_layers"].split(",")]
    assert len(kept) == LAYERS // 2
    model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    same_tensors(tmp_path, model_type, kept)
    if model_type in ("albert", "funnel"):  # their lists aren't as long as the model is deep: see below
        return
    teacher = AutoModelForMaskedLM.from_pretrained(tmp_path / "teacher").eval()
    truncate(teacher, model, kept)
    model.eval()
    ids = torch.randint(5, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(1))
    extra = {"lang_ids": torch.ones(2, dtype=torch.long)} if model_type == "xmod" else {}
    with torch.no_grad():
        difference = (model(input_ids=ids, **extra).logits - teacher(input_ids=ids, **extra).logits).abs().max()
    assert difference <= (1e-5 if model_type in ROUNDED else 0)


def same_tensors(place: Path, model_type: str, kept: list[int]) -> None:
    """Assert that every tensor of the student is the teacher's, from the right layer."""
    teacher = load_file(place / "teacher/model.safetensors")
    by_content: dict[bytes, set[str]] = {}
    for name, tensor in teacher.items():
        by_content.setdefault(content(tensor), set()).add(name)
    for name, tensor in load_file(place / "student/model.safetensors").items():
        if any(part in name for part in ROUNDED.get(model_type, ())):
            continue
        if model_type == "esm" and "contact_head.regression.weight" in name:
            by_layer = teacher[name].view(LAYERS, -1)
            assert torch.equal(tensor.view(len(kept), -1), by_layer[kept])
            continue
        found = by_content.get(content(tensor), set())
        assert digits_out(name) in {digits_out(other) for other in found}, name
        place_in_stack = re.search(r"\.(?:layers?|attentions|ffns|layer_norm[12])\.(\d+)\.", name)
        if place_in_stack and model_type not in ("albert", "funnel"):
            start, end = place_in_stack.span(1)
            assert f"{name[:start]}{kept[int(name[start:end])]}{name[end:]}" in found, name


def content(tensor: Tensor) -> bytes:
    return str(tuple(tensor.shape)).encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_albert_repeats_its_layer_less_often(tmp_path: Path) -> None:
    """All weights are the teacher's, and the logits are those of a teacher with a smaller depth in its config."""
    try_init("albert", tmp_path)
    ids = torch.randint(5, VOCABULARY, (2, 20))
    student = AutoModelForMaskedLM.from_pretrained(tmp_path / "student").eval()
    shallow = AutoModelForMaskedLM.from_pretrained(tmp_path / "teacher", num_hidden_layers=LAYERS // 2).eval()
    with torch.no_grad():
        assert torch.equal(student(input_ids=ids).logits, shallow(input_ids=ids).logits)


def test_funnel_keeps_a_layer_of_each_block(tmp_path: Path) -> None:
    """The logits are those of a teacher whose blocks were cut in memory."""
    try_init("funnel", tmp_path)
    ids = torch.randint(5, VOCABULARY, (2, 20))
    student = AutoModelForMaskedLM.from_pretrained(tmp_path / "student").eval()
    teacher = AutoModelForMaskedLM.from_pretrained(tmp_path / "teacher").eval()
    teacher.config.block_sizes = [1, 1, 1]  # which says where the decoder's shortcut starts
    blocks = teacher.base_model.encoder.blocks
    for i, block in enumerate(blocks):
        blocks[i] = nn.ModuleList([block[0]])
    with torch.no_grad():
        assert student.config.block_sizes == [1, 1, 1]
        assert torch.equal(student(input_ids=ids).logits, teacher(input_ids=ids).logits)


@pytest.mark.parametrize("positions", ["all", "masked"])
@pytest.mark.parametrize("model_type", sweep(set(NAMES) - REFUSED))
def test_the_objective_reaches_every_architecture_s_head(model_type: str, positions: str, tmp_path: Path) -> None:
    """Soft-target and masked-LM losses and their gradients equal those computed from full logits, for every head."""
    write_teacher(model_type, tmp_path / "teacher")
    teacher = AutoModelForMaskedLM.from_pretrained(tmp_path / "teacher").eval()
    if model_type == "xmod":
        teacher.set_default_language("en_XX")
    student = extract(teacher, KEEP.get(model_type, (0, 2, 5)))
    twin = extract(teacher, KEEP.get(model_type, (0, 2, 5)))
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCABULARY, (2, 32), generator=generator)
    chosen = torch.rand(ids.shape, generator=generator) < 0.3
    labels = torch.where(chosen, ids, -100)
    parts = Distillation(student, teacher, {"ce": 5, "mlm": 2}, ce_positions=positions)(
        {"input_ids": ids, "labels": labels}
    )
    rows = chosen if positions == "masked" else torch.ones_like(chosen)
    with torch.no_grad():
        target = torch.softmax(teacher(input_ids=ids).logits[rows] / 2, -1)
    logits = twin(input_ids=ids).logits
    ce = F.cross_entropy(logits[rows] / 2, target) - F.cross_entropy((target + 1e-30).log(), target)
    mlm = F.cross_entropy(logits[chosen], ids[chosen])
    loss = 5 * 4 * ce + 2 * mlm
    parts["loss"].backward()
    loss.backward()

    torch.testing.assert_close(parts["ce"], 4 * ce, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts["mlm"], mlm, rtol=1e-5, atol=1e-5)
    for (name, mine), other in zip(student.named_parameters(), twin.parameters(), strict=True):
        if not mine.numel():  # MobileBERT's extra projection where widths are equal
            continue
        scale = 0.0 if other.grad is None else float(other.grad.abs().max())
        wanted = torch.zeros_like(other) if other.grad is None else other.grad
        found = torch.zeros_like(mine) if mine.grad is None else mine.grad
        assert float((found - wanted).abs().max()) <= 1e-5 + 1e-4 * scale, name
