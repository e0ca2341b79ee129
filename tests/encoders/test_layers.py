"""Keep and skip layers: shared weights are the teacher's, skipped layers do nothing, unsuitable models are refused."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    AutoModelForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    TapasConfig,
    TapasForMaskedLM,
    XmodConfig,
    XmodForMaskedLM,
)

from distilkit.encoders.layers import extract, find_stack, skip_layers, truncate_shared
from distilkit.errors import DistilkitError

TINY = {"vocab_size": 60, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
IDS = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(0))


def test_share_copies_nothing_and_extract_everything(make_checkpoint: Callable[..., Path]) -> None:
    """truncate_shared() uses the teacher's memory, extract() its own; both keep tied weights tied."""
    teacher = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4))
    layer = teacher.bert.encoder.layer[3].output.dense.weight
    shared, copied = truncate_shared(teacher, [0, 3]), extract(teacher, [0, 3])

    assert shared.bert.encoder.layer[1].output.dense.weight.data_ptr() == layer.data_ptr()
    assert copied.bert.encoder.layer[1].output.dense.weight.data_ptr() != layer.data_ptr()
    assert torch.equal(copied.bert.encoder.layer[1].output.dense.weight, layer)
    for student in (shared, copied):
        assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight


def test_passing_over_ends_with_the_block(make_checkpoint: Callable[..., Path]) -> None:
    """After the context manager the teacher runs all layers again, even after an error."""
    teacher = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4)).eval()
    ids = IDS % 60
    with torch.no_grad():
        before = teacher(input_ids=ids).logits
        with contextlib.suppress(ZeroDivisionError), skip_layers(teacher, [0]):
            assert not torch.equal(teacher(input_ids=ids).logits, before)
            _ = 1 / 0
        assert torch.equal(teacher(input_ids=ids).logits, before)


def test_modernbert_s_first_layer_has_no_attention_norm() -> None:
    """Another layer cannot come first, nor the first layer later: the error names the weight."""
    model = ModernBertForMaskedLM(ModernBertConfig(num_hidden_layers=6, pad_token_id=0, **TINY))
    with pytest.raises(DistilkitError, match=r"layers 3,4,5 put 'model\.layers\.3\.attn_norm\.weight'"):
        truncate_shared(model, [3, 4, 5])

    assert truncate_shared(model, [0, 4, 5]).config.layer_types == [model.config.layer_types[i] for i in (0, 4, 5)]


def test_a_list_that_only_looks_like_one_by_layer_stays_whole() -> None:
    """X-MOD with as many languages as layers, and TAPAS with as many token types, keep these lists."""
    languages = [f"l{i}" for i in range(4)]
    xmod = XmodForMaskedLM(XmodConfig(num_hidden_layers=4, languages=languages, default_language="l0", **TINY))
    tapas = TapasForMaskedLM(TapasConfig(num_hidden_layers=3, type_vocab_sizes=[3, 5, 7], **TINY))

    assert truncate_shared(xmod, [0, 3]).config.languages == languages
    assert truncate_shared(tapas, [0, 2]).config.type_vocab_sizes == [3, 5, 7]


@pytest.mark.skipif(not hasattr(transformers, "EsmcConfig"), reason="this version of transformers has no ESM C")
def test_esmc_folds_its_residual_scaling() -> None:
    """The branch weights are scaled by √(new depth / old depth); half-precision weights only if that does not round."""
    model = transformers.EsmcForMaskedLM(
        transformers.EsmcConfig(num_hidden_layers=8, num_key_value_heads=2, **TINY)
    ).eval()
    student = truncate_shared(model, [0, 7])
    old, new = model.esmc.layers[7].mlp.down_proj.weight, student.esmc.layers[1].mlp.down_proj.weight
    torch.testing.assert_close(new, old * 0.5, rtol=0, atol=0)
    with torch.no_grad(), skip_layers(model, [0, 7]):
        torch.testing.assert_close(student(input_ids=IDS).logits, model(input_ids=IDS).logits, rtol=0, atol=1e-5)
    half = model.to(torch.bfloat16)

    assert truncate_shared(half, [0, 7]).dtype == torch.bfloat16
    with pytest.raises(DistilkitError, match="fp32"):
        truncate_shared(half, [0, 2, 4, 6])


def test_deberta_s_convolution_belongs_to_the_first_layer() -> None:
    """The convolution runs beside the first layer, so skipping layer 0 differs from removing it."""
    model = DebertaV2ForMaskedLM(DebertaV2Config(num_hidden_layers=4, conv_kernel_size=3, **TINY)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for layers, same in (([0, 2], True), ([1, 2], False)):
            with skip_layers(model, layers):
                expected = model(input_ids=IDS).logits
            assert torch.equal(truncate_shared(model, layers)(input_ids=IDS).logits, expected) is same


def test_two_stacks_are_refused(make_checkpoint: Callable[..., Path]) -> None:
    """It is unknown which one to shorten."""
    model = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4))
    model.bert.other = torch.nn.Module()
    model.bert.other.layer = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(4))
    with pytest.raises(DistilkitError, match="2 stacks"):
        find_stack(model)
