from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, GPT2Config, GPT2LMHeadModel

from distilkit.config import InitConfig
from distilkit.errors import DistilkitError
from distilkit.record import read_biography
from distilkit.selection import alternate, spread
from distilkit.student import choose, init

FAMILIES = ["bert", "roberta", "distilbert"]


@pytest.mark.parametrize(
    ("teacher", "student", "kept"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (24, 12, [0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23]),
        (6, 3, [0, 2, 5]),
        (4, 2, [0, 3]),
        (5, 5, [0, 1, 2, 3, 4]),
        (12, 1, [0]),
    ],
)
def test_spread_is_the_published_choice(teacher: int, student: int, kept: list[int]) -> None:
    """DistilBERT's own layers for 12 to 6, and the same rule elsewhere."""
    assert spread(teacher, student) == kept


def test_alternate_is_every_other_layer() -> None:
    """Counted from the first."""
    assert alternate(12, 6) == [0, 2, 4, 6, 8, 10]
    assert alternate(12, 4) == [0, 3, 6, 9]


@pytest.mark.parametrize(("strategy", "kept"), [("first", [0, 1, 2]), ("last", [3, 4, 5]), ("spread", [0, 2, 5])])
def test_strategies(strategy: str, kept: list[int]) -> None:
    """Half the layers by default."""
    assert choose(InitConfig(teacher="t", output=Path("o"), strategy=strategy), 6) == kept  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_student_is_the_teacher_less_its_layers(
    make_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    """Every tensor is the teacher's own, bit by bit; plain from_pretrained finds no key missing or unexpected."""
    teacher = make_checkpoint(family, 4)
    record = init(InitConfig(teacher=str(teacher), output=tmp_path / "student", keep=(1, 3)))
    model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    ours, theirs = load_file(tmp_path / "student" / "model.safetensors"), load_file(teacher / "model.safetensors")

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert record.metrics["max_difference"] == 0.0
    assert record.metrics["student/layers"] == 2
    for name, tensor in ours.items():
        source = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
        assert torch.equal(tensor, theirs[source]), name
    assert record.metrics["student/parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_student_computes_what_the_truncated_teacher_does(
    make_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    """Logits equal those of the teacher with the dropped layers turned into identities, which no code of ours made."""
    directory = make_checkpoint(family, 4)
    init(InitConfig(teacher=str(directory), output=tmp_path / "student", layers=2))
    teacher, student = (AutoModelForMaskedLM.from_pretrained(d).eval() for d in (directory, tmp_path / "student"))
    stack = teacher.base_model.transformer.layer if family == "distilbert" else teacher.base_model.encoder.layer
    for dropped in (1, 2):
        stack[dropped].forward = lambda hidden, *args, **kwargs: hidden
    ids = torch.randint(5, 400, (2, 20))

    with torch.no_grad():
        assert torch.equal(teacher(input_ids=ids).logits, student(input_ids=ids).logits)


def test_biography_remembers_the_teacher(teacher: Path, tmp_path: Path) -> None:
    """distilkit.json is there at the end and names teacher and layers."""
    init(InitConfig(teacher=str(teacher), output=tmp_path / "student"))
    (entry,) = read_biography(tmp_path / "student")

    assert entry.command == "init"
    assert entry.config["teacher"] == str(teacher)
    assert entry.environment["kept_layers"] == "0,3"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 5}, "--layers 5 is more than the teacher's 4"),
        ({"keep": (0, 4)}, "--keep takes rising numbers from 0 to 3"),
        ({"keep": (2, 1)}, "--keep takes rising numbers"),
        ({"keep": (0, 1), "layers": 3}, "give one of them"),
    ],
)
def test_impossible_layers_are_refused(teacher: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    """In one line, with nothing written."""
    with pytest.raises(DistilkitError, match=words):
        init(InitConfig(teacher=str(teacher), output=tmp_path / "student", **options))  # type: ignore[arg-type]

    assert not (tmp_path / "student").exists()


def test_a_decoder_is_refused_by_name(tmp_path: Path) -> None:
    """GPT-2 is no masked-LM encoder."""
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=50)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(DistilkitError, match="gpt2 checkpoint, not a masked-LM encoder"):
        init(InitConfig(teacher=str(tmp_path / "gpt2"), output=tmp_path / "student"))
