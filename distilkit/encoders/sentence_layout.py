"""The files that sentence-transformers adds to a checkpoint: read them, and hand them on to a student."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from distilkit.errors import DistilkitError, library_errors
from distilkit.files import replacing, write_text
from distilkit.hub import split_revision

MODULES = "modules.json"  # its presence makes a checkpoint a sentence-transformers model
MODEL_SETTINGS = "config_sentence_transformers.json"
INPUT_SETTINGS = (  # of the Transformer module; all but the first are names of old versions
    "sentence_bert_config.json",
    *(f"sentence_{name}_config.json" for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta")),
    "sentence_xlnet_config.json",
)

PROMPTS = ("query", "document")  # that every model has, as empty texts unless its settings have them
KINDS: dict[type, str] = {dict: "object", list: "list"}
POOLING_MODES = {  # by their switch in Pooling's config, in the order in which several are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class ModuleFiles:
    """A module as modules.json lists it, with its config and weights."""

    entry: Mapping[str, Any]  # idx, name, path, type
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The name of its class, like "Pooling"."""
        return str(self.entry["type"]).rpartition(".")[2]


@dataclass(frozen=True)
class Layout:
    """What a directory of sentence-transformers has beside the encoder and its tokenizer."""

    modules: tuple[ModuleFiles, ...]  # the first is the Transformer
    input_settings: Mapping[str, Any] = field(default_factory=dict)  # max_seq_length, do_lower_case
    model_settings: Mapping[str, Any] = field(default_factory=dict)  # prompts, default_prompt_name, model_type

    @property
    def is_sentence_encoder(self) -> bool:
        """False for the other models that have this layout: cross-encoders and sparse encoders."""
        return self.model_settings.get("model_type") in (None, "SentenceTransformer")

    def with_weights(self, weights: Mapping[str, Mapping[str, Tensor]]) -> "Layout":
        """Return the layout with other weights for some modules, by their path."""
        modules = [
            replace(module, weights=weights.get(module.entry["path"], module.weights)) for module in self.modules
        ]
        return replace(self, modules=tuple(modules))

    def with_dense(self, width_in: int, width_out: int) -> "Layout":
        """Return the layout with a new linear Dense module at the end, before Normalize if that is the last."""
        at = len(self.modules) - (self.modules[-1].kind == "Normalize")
        config = {
            "in_features": width_in,
            "out_features": width_out,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        weights = {f"linear.{name}": t for name, t in nn.Linear(width_in, width_out).state_dict().items()}
        return self.with_module(at, "Dense", config, weights)

    def with_module(
        self, at: int, kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None
    ) -> "Layout":
        """Return the layout with a new module inserted at this position."""
        taken = {module.entry["path"] for module in self.modules}
        path = next(path for number in itertools.count(at) if (path := f"{number}_{kind}") not in taken)
        new = ModuleFiles({"path": path, "type": f"sentence_transformers.models.{kind}"}, config, weights or {})
        modules = [*self.modules[:at], new, *self.modules[at:]]
        numbered = [
            replace(module, entry={**module.entry, "idx": number, "name": str(number)})
            for number, module in enumerate(modules)
        ]
        return replace(self, modules=tuple(numbered))

    def write(self, directory: Path) -> None:
        """Write the files into a checkpoint's directory."""
        write_json(directory / MODULES, [dict(module.entry) for module in self.modules])
        write_json(directory / INPUT_SETTINGS[0], self.input_settings)
        write_json(directory / MODEL_SETTINGS, self.model_settings)
        for module in self.modules[1:]:
            folder = directory / module.entry["path"]
            if module.config or module.weights:
                folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", module.config)
            if module.weights:
                with replacing(folder / "model.safetensors") as partial:
                    save_file({name: tensor.contiguous() for name, tensor in module.weights.items()}, partial)


def new_layout(width: int, modes: Sequence[str], *, normalize: bool) -> Layout:
    """Return the layout of an encoder of this width with Pooling in these modes and, by choice, Normalize."""
    layout = Layout((ModuleFiles({"path": "", "type": "sentence_transformers.models.Transformer"}),))
    pooling = {"word_embedding_dimension": width} | {switch: mode in modes for switch, mode in POOLING_MODES.items()}
    layout = layout.with_module(1, "Pooling", pooling)
    return layout.with_module(2, "Normalize", {}) if normalize else layout


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, unless it would be empty."""
    if content:
        write_text(path, json.dumps(content, indent=2) + "\n")


def read_layout(name: str) -> Layout | None:
    """Return the layout of a checkpoint, a directory or a hub id; None if sentence-transformers did not write it.

    Raises DistilkitError if a file is damaged or holds something else.
    """
    entries = _read_json(name, MODULES, list)
    if entries is None:
        return None
    if not all(isinstance(entry, dict) and _is_text(entry.get("type"), entry.get("path")) for entry in entries):
        raise DistilkitError(f"'{name}' has a {MODULES} that does not list modules: restore it")
    paths = [entry["path"] for entry in entries]
    if not paths or paths[0]:
        raise DistilkitError(
            f"'{name}' does not have its encoder in its top folder "
            f"(modules.json: {paths[0] if paths else 'no modules'}): load it and save it again "
            "with the installed sentence-transformers"
        )
    layout = Layout(
        modules=(ModuleFiles(entries[0]), *_read_modules(name, entries[1:])),
        input_settings=next((found for file in INPUT_SETTINGS if (found := _read_json(name, file, dict))), {}),
        model_settings=_read_json(name, MODEL_SETTINGS, dict) or {},
    )
    check_settings(name, layout)
    return layout


def check_settings(name: str, layout: Layout) -> None:
    """Raise DistilkitError for a setting of another type than sentence-transformers writes."""
    length, settings = layout.input_settings.get("max_seq_length"), layout.model_settings
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    positive = length is None or (type(length) is int and length > 0)
    named = isinstance(prompts, dict) and all(text is None or _is_text(text) for text in prompts.values())
    kind_named = _is_text(settings.get("model_type")) or settings.get("model_type") is None
    known = default is None or (_is_text(default) and named and default in {*prompts, *PROMPTS})
    for file, key, kind, right in (
        (INPUT_SETTINGS[0], "max_seq_length", "a positive integer", positive),
        (MODEL_SETTINGS, "prompts", "a JSON object of names and texts", named),
        (MODEL_SETTINGS, "default_prompt_name", "the name of one of its prompts", known),
        (MODEL_SETTINGS, "model_type", "a name", kind_named),
    ):
        if not right:
            raise DistilkitError(f"'{name}' has a {file} in which '{key}' is not {kind}: correct it")


def _is_text(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _read_modules(name: str, entries: list[dict[str, Any]]) -> Iterator[ModuleFiles]:
    taken = {Path()}
    for entry in entries:
        path = entry["path"]
        folder = Path(path)
        if folder.is_absolute() or ".." in folder.parts or not path.isprintable() or folder in taken:
            raise DistilkitError(
                f"'{name}' has a module outside the checkpoint, or in the folder of another one "
                f"(modules.json: {path!r}): correct its path"
            )
        taken.add(folder)
        yield ModuleFiles(entry, _read_json(name, f"{path}/config.json", dict) or {}, _read_weights(name, path))


def _read_weights(name: str, folder: str) -> dict[str, Tensor]:
    file = _find(name, f"{folder}/model.safetensors")
    if file is None:
        if _find(name, f"{folder}/pytorch_model.bin"):
            raise DistilkitError(
                f"'{name}' has the weights of {folder} in a pickle, and pickles are not read: load it with "
                "sentence-transformers and save it again"
            )
        return {}
    with library_errors(f"'{name}' has unreadable weights in {folder}", "save it again"):
        return load_file(file)


def _read_json(name: str, file: str, kind: type) -> Any:
    """Return what a JSON file of a checkpoint holds, which must be a dict or a list; None if there is no such file."""
    path = _find(name, file)
    if path is None:
        return None
    with library_errors(f"'{name}' has a {file} that cannot be read", "restore it"):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, kind):
        raise DistilkitError(f"'{name}' has a {file} that is not a JSON {KINDS[kind]}: restore it")
    return content


def _find(name: str, file: str) -> str | None:
    """Return the path of a file of a checkpoint, downloaded if it is on the hub, or None."""
    place, revision = split_revision(name)
    return cached_file(
        place,
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
