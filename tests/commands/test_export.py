"""export: what it writes, what it proves, and what it refuses before it writes anything."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import installed
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from distilkit.commands import export as command
from distilkit.commands.distill import distill
from distilkit.commands.evaluate import evaluate
from distilkit.commands.export import export
from distilkit.commands.finetune import finetune
from distilkit.commands.init import init
from distilkit.encoders import sentence_layout
from distilkit.errors import DistilkitError
from distilkit.evaluation.retention import Result
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.export import ExportOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.record import read_biography
from distilkit.runtimes import formats
from distilkit.runtimes.exported import open_exported
from distilkit.tasks.catalogue import resolve

if not installed("onnx"):
    pytest.skip("requires distilkit[onnx]", allow_module_level=True)
onnxruntime = pytest.importorskip("onnxruntime")

HEADS = {
    "masked-lm": AutoModelForMaskedLM,
    "question-answering": AutoModelForQuestionAnswering,
    "token-classification": AutoModelForTokenClassification,
    "encoder": AutoModel,
}


TASK = {"task": "custom", "text": ("text",), "label": "label"}


def tickets(folder: Path, prose: list[str]) -> Path:
    """Write a folder of labelled rows; a third of the labels is yes."""
    folder.mkdir()
    rows = [{"text": line, "label": "no" if number % 3 else "yes"} for number, line in enumerate(prose[:60])]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_program_runs_without_torch_on_any_batch(classifier: Path, exported: Path) -> None:
    """onnxruntime and tokenizers give the logits of the checkpoint, for a batch size and a length of the user's own."""
    texts = ["encode the object", "return a random element from the non-empty sequence", "wrap"]
    core = Tokenizer.from_file(str(exported / "tokenizer.json"))
    core.enable_padding(pad_id=0, pad_token="[PAD]")
    encoded = core.encode_batch(texts)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    feeds = {"input_ids": [row.ids for row in encoded], "attention_mask": [row.attention_mask for row in encoded]}
    (logits,) = session.run(["logits"], {name: np.array(rows) for name, rows in feeds.items()})

    tokenizer, model = (
        AutoTokenizer.from_pretrained(classifier),
        AutoModelForSequenceClassification.from_pretrained(classifier),
    )
    with torch.no_grad():
        expected = model.eval()(
            **tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        ).logits
    assert np.allclose(logits, expected.numpy(), atol=1e-4)


def test_what_a_reader_needs_lies_beside_it(classifier: Path, exported: Path) -> None:
    """Label names, the number of tokens that the model takes (RoBERTa reserves positions), and the record."""
    (done,) = read_biography(exported)
    sizes = [(exported / name).stat().st_size for name in ("model.onnx", "model.onnx.data")]

    assert AutoConfig.from_pretrained(exported).id2label == {0: "no", 1: "yes"}
    assert json.loads((exported / "tokenizer_config.json").read_text())["model_max_length"] == 96
    assert done.command == "export"
    assert done.metrics["bytes"] == sum(sizes)
    assert done.metrics["max_difference"] < 1e-4
    assert done.environment["head"] == "sequence-classification"


def test_eval_takes_an_export(classifier: Path, exported: Path, prose: list[str], tmp_path: Path) -> None:
    """It scores what its checkpoint scores, row by row."""
    options = TASK | {"data": tickets(tmp_path / "tickets", prose)}
    found = evaluate(EvalOptions(models=(str(exported),), against=str(classifier), **options)).metrics  # type: ignore[arg-type]

    assert found["custom/accuracy"] == found["teacher/custom/accuracy"]
    assert found["retention/custom/low"] == found["retention/custom/high"] == 1.0
    with pytest.raises(DistilkitError, match="sequence-classification head, but a question-answering head is needed"):
        evaluate(EvalOptions(models=(str(exported),), task="squad"))


def test_an_export_is_no_checkpoint(exported: Path, corpus: Path, prose: list[str], tmp_path: Path) -> None:
    """Every command that trains or changes weights says so in one line."""
    model, out = str(exported), tmp_path / "out"
    task = TASK | {"data": tickets(tmp_path / "tickets", prose)}
    calls: list[Callable[[], object]] = [
        lambda: init(InitOptions(teacher=model, output=out)),
        lambda: distill(DistillOptions(student=model, teacher=model, corpus=str(corpus), output=out)),
        lambda: finetune(FinetuneOptions(model=model, output=out, **task)),  # type: ignore[arg-type]
        lambda: export(ExportOptions(model=model, output=out)),
    ]
    for call in calls:
        with pytest.raises(DistilkitError, match=r"is an exported model: give the checkpoint"):
            call()
        assert not out.exists()


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data", "export.json", "config.json"])
def test_damaged_exports_are_one_line(exported: Path, file: str, tmp_path: Path) -> None:
    """A file of an export that is cut in half, or is not there, is named with its directory."""
    for content in (b"", (exported / file).read_bytes()[:-200]):
        directory = tmp_path / f"broken-{len(content)}"
        shutil.copytree(exported, directory)
        (directory / file).write_bytes(content)
        with pytest.raises(DistilkitError, match=r"broken-\d+' (cannot be read|has a config.json)") as caught:
            evaluate(EvalOptions(models=(str(directory),), task="sst2"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"id2label": {"0": "a", "1": "b", "2": "c"}}, r"logits of shape \[1, 3\], .* \[1, 2\]"),
        ("config.json", {"id2label": {"0": "a"}}, r"logits of shape \[1, 1\], .* \[1, 2\]"),
        ("config.json", {"architectures": ["RobertaForTokenClassification"]}, r"logits of shape \[1, 1, 2\]"),
        ("config.json", {"architectures": ["RobertaForQuestionAnswering"]}, "start_logits .* absent"),
        ("export.json", {"components": {}}, "lists no program"),
        *(("tokenizer_config.json", {"model_max_length": n}, f"model_max_length {n}") for n in (-3, 0, 5000)),
    ],
)
def test_files_of_an_export_that_do_not_fit_are_one_line(
    file: str, changes: dict[str, object], words: str, exported: Path, tmp_path: Path
) -> None:
    """The program runs once when it is opened, so outputs of another shape are found before any row."""
    shutil.copytree(exported, tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DistilkitError, match=f"m' cannot be read .*{words}"):
        open_exported(str(tmp_path / "m"))


def test_what_cannot_be_exported_is_refused_first(
    classifier: Path, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A format whose packages are missing, a head that has no export, options without effect, a directory in use."""
    out = tmp_path / "out"
    choices = make_checkpoint("bert", 1, AutoModelForMultipleChoice)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"model": str(choices)}, "multiple-choice head"),
        ({"format": "onnxx"}, "--format"),
        ({"max_drop": 0.5}, "--max-drop requires --task"),
        ({"int8": True, "format": "openvino"}, "--int8 requires --format onnx"),
        ({"task": "glue"}, "give one task"),
        ({"output": classifier}, "not empty"),
    ]
    for changes, message in wrong:
        with pytest.raises(DistilkitError, match=message):
            export(ExportOptions(**({"model": str(classifier), "output": out} | changes)))  # type: ignore[arg-type]
    monkeypatch.setitem(formats.PACKAGES, "onnx", ("onnx", "onnx_not_here"))
    with pytest.raises(DistilkitError, match=r"onnx requires onnx_not_here: pip install 'distilkit\[onnx\]'"):
        export(ExportOptions(model=str(classifier), output=out))
    assert not out.exists()


@pytest.mark.parametrize(("limit", "refused"), [(0.04, True), (0.06, False)])
def test_a_loss_above_max_drop_is_refused(
    limit: float, refused: bool, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fall from 0.80 to 0.76 is 5 % of the checkpoint's score."""
    scores = {str(classifier): 0.80, str(tmp_path): 0.76}
    monkeypatch.setattr(
        command, "score_checkpoint", lambda name, *_, **__: Result({}, {"custom/accuracy": scores[name]})
    )
    monkeypatch.setattr(command, "compare", lambda *_: {})
    options = ExportOptions(
        model=str(classifier),
        output=tmp_path,
        max_drop=limit,
        data=tmp_path,
        **TASK,  # type: ignore[arg-type]
    )
    (task,) = resolve(options)
    if refused:
        with pytest.raises(DistilkitError, match=r"custom/accuracy falls from 0.8 to 0.76, .*--max-drop 0.04"):
            command.score_both(options, task, tmp_path)
    else:
        assert command.score_both(options, task, tmp_path)["custom/accuracy"] == 0.76


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_every_head(family: str, head: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Each has the outputs of its checkpoint, to 1e-4."""
    done = export(ExportOptions(model=str(make_checkpoint(family, 2, HEADS[head])), output=tmp_path / "out"))
    assert done.metrics["max_difference"] < 1e-4
    assert done.environment["head"] == head


@pytest.mark.slow
def test_a_sentence_encoder_has_its_pooling_inside(
    make_checkpoint: Callable[..., Path], prose: list[str], tmp_path: Path
) -> None:
    """The program gives the embeddings that the sentence-transformers library computes, and lies in its layout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as library

    bare = make_checkpoint("bert", 2, AutoModel)
    parts = [library.Transformer(str(bare), max_seq_length=24), library.Pooling(32, "mean"), library.Normalize()]
    model = SentenceTransformer(modules=parts, device="cpu").eval()
    model.save(str(tmp_path / "model"), create_model_card=False)
    done = export(ExportOptions(model=str(tmp_path / "model"), output=tmp_path / "out"))
    core = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    length = json.loads((tmp_path / "out/tokenizer_config.json").read_text())["model_max_length"]
    core.enable_truncation(length)
    core.enable_padding(pad_id=0, pad_token="[PAD]")
    encoded = core.encode_batch(prose[:5])
    feeds = {
        "input_ids": np.array([row.ids for row in encoded]),
        "attention_mask": np.array([row.attention_mask for row in encoded]),
        "token_type_ids": np.array([row.type_ids for row in encoded]),
    }
    (vectors,) = onnxruntime.InferenceSession(tmp_path / "out/model.onnx").run(["sentence_embedding"], feeds)

    assert length == 24
    assert done.environment["head"] == "sentence"
    assert np.allclose(vectors, model.encode(prose[:5]), atol=1e-5)
    pairs = [{"sentence1": text, "sentence2": prose[n + 1], "score": float(n)} for n, text in enumerate(prose[:9])]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    scores = [
        evaluate(EvalOptions(models=(str(tmp_path / name),), task="sts", data=tmp_path / "pairs.jsonl")).metrics
        for name in ("model", "out")
    ]
    assert scores[0] == pytest.approx(scores[1])
    assert sentence_layout.read_layout(str(tmp_path / "out")) is not None


@pytest.mark.slow
def test_int8_is_measured(classifier: Path, prose: list[str], tmp_path: Path) -> None:
    """The loss is the checkpoint's score minus the export's, and the weights are smaller."""
    task = TASK | {"data": tickets(tmp_path / "tickets", prose)}
    trained = tmp_path / "trained"
    finetune(FinetuneOptions(model=str(classifier), output=trained, steps=20, lr=1e-3, **task))  # type: ignore[arg-type]
    options = {"model": str(trained), "int8": True, "max_drop": 1.0} | task
    done = export(ExportOptions(output=tmp_path / "int8", **options))  # type: ignore[arg-type]
    loss = done.metrics["teacher/custom/accuracy"] - done.metrics["custom/accuracy"]

    assert done.metrics["difference/custom/teacher"] == pytest.approx(-loss)
    assert done.metrics["max_difference"] > 1e-4
    weights = (tmp_path / "int8/model.onnx.data").stat().st_size
    assert weights < 0.5 * (trained / "model.safetensors").stat().st_size
    assert [entry.command for entry in read_biography(tmp_path / "int8")] == ["finetune", "export"]
