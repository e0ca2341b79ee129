"""The modules after the encoder of a sentence encoder, as sentence-transformers defines them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilkit.encoders.sentence_layout import POOLING_MODES, Layout, ModuleFiles
from distilkit.encoders.weights import PRECISIONS
from distilkit.errors import DistilkitError, library_errors


class Pooling(nn.Module):
    """Pool the last hidden states of a text to one vector; the vectors of several modes are concatenated.

    The modes are those of sentence-transformers: cls (the first token), max, mean, mean_sqrt_len_tokens (the sum over
    the root of the length), weightedmean (token n counts n times) and lasttoken.
    """

    def __init__(self, modes: Sequence[str] = ("mean",), *, include_prompt: bool = True) -> None:
        super().__init__()
        self.modes, self.include_prompt = tuple(modes), include_prompt

    def forward(self, states: Tensor, mask: Tensor, prompt_tokens: int = 0) -> Tensor:
        """Pool states (B, T, H), mask (B, T) 0 at padding; return (B, modes · H)."""
        places = torch.arange(mask.shape[1], device=mask.device)  # (T,)
        first = mask.int().argmax(1, keepdim=True)  # (B, 1); not 0 if padding is on the left
        if prompt_tokens and not self.include_prompt:
            mask = mask * (places >= first + prompt_tokens)
        weights = mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
        counted = {"weightedmean": weights * (places - first + 1).unsqueeze(-1)}
        return torch.cat([_pool(mode, states, mask, counted.get(mode, weights)) for mode in self.modes], dim=-1)


def _pool(mode: str, states: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Return one vector for each text (B, H); `weights` (B, T, 1) are 0 at padding."""
    if mode == "cls":
        return states[torch.arange(len(states)), mask.int().argmax(1)]
    if mode == "lasttoken":
        return states[torch.arange(len(states)), mask.shape[1] - 1 - mask.flip(1).int().argmax(1)]
    if mode == "max":
        return states.masked_fill(weights == 0, float("-inf")).amax(1)
    total = weights.sum(1).clamp(min=1e-9)  # (B, 1)
    return (states * weights).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


class Dense(nn.Module):
    """A linear layer with an activation, of sentence-transformers; its weights have the same names."""

    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None = None) -> None:
        super().__init__()
        self.linear, self.activation_function, self.residual = linear, activation, residual

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, D) to (B, D')."""
        output = cast(Tensor, self.activation_function(self.linear(vectors)))
        return output if self.residual is None else output + self.residual(vectors)


class LayerNorm(nn.Module):
    """A layer norm of sentence-transformers."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, D) to (B, D)."""
        return cast(Tensor, self.norm(vectors))


class Normalize(nn.Module):
    """Scale each vector to length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, D) to (B, D)."""
        return F.normalize(vectors, dim=-1)


def _make_pooling(config: Mapping[str, Any]) -> Pooling:
    switched = [mode for key, mode in POOLING_MODES.items() if config.get(key)] or "mean"
    modes = switched if config.get("pooling_mode") is None else config["pooling_mode"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if unknown := [mode for mode in modes or ["none"] if mode not in POOLING_MODES.values()]:
        raise ValueError(f"pooling mode '{unknown[0]}'")
    return Pooling(modes, include_prompt=config.get("include_prompt", True))


def _make_dense(config: Mapping[str, Any]) -> Dense:
    width_in, width_out = config["in_features"], config["out_features"]
    path = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = getattr(nn, path.rpartition(".")[2], None) if path.startswith("torch.nn.") else None
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise KeyError(path)
    linear = nn.Linear(width_in, width_out, bias=config.get("bias", True))
    if not config.get("use_residual"):
        return Dense(linear, activation())
    return Dense(
        linear, activation(), nn.Identity() if width_in == width_out else nn.Linear(width_in, width_out, bias=False)
    )


NEED_SETTINGS = ("Pooling", "Dense", "LayerNorm")
MAKERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "Pooling": _make_pooling,
    "Dense": _make_dense,
    "LayerNorm": lambda config: LayerNorm(config["dimension"]),
    "Normalize": lambda _config: Normalize(),
    "Dropout": lambda config: nn.Dropout(config.get("dropout", 0.2)),
}


class SentenceHead(nn.Module):
    """The modules after the encoder, in their order; the first is Pooling."""

    def __init__(self, modules: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList((modules or {"": Pooling()}).values())
        self.paths = tuple(modules or ())

    def forward(self, states: Tensor, mask: Tensor, prompt_tokens: int = 0) -> Tensor:
        """Map last hidden states (B, T, H) to embeddings (B, D); mask (B, T) is 0 at padding."""
        pooling, *rest = self.parts
        vectors = pooling(states, mask, prompt_tokens)
        for part in rest:
            vectors = part(vectors)
        return cast(Tensor, vectors)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of the modules that have any, by their path in the checkpoint."""
        states = {path: part.state_dict() for path, part in zip(self.paths, self.parts, strict=False)}
        return {path: {name: t.detach().cpu() for name, t in state.items()} for path, state in states.items() if state}


def make_head(name: str, layout: Layout, width: int) -> SentenceHead:
    """Build the modules of a layout with their weights; mean pooling for a bare encoder.

    `width` is that of the encoder's hidden states.
    Raises DistilkitError for a module that is not supported, and for modules that do not fit their weights, each other
    or the encoder.
    """
    check_kinds(name, [module.kind for module in layout.modules])
    head = SentenceHead({module.entry["path"]: _make_module(name, module) for module in layout.modules[1:]}).eval()
    with library_errors(f"'{name}' has modules that do not fit each other", "check modules.json and their folders"):
        shape = head(torch.zeros(1, 1, width), torch.ones(1, 1)).shape
        if len(shape) != 2:
            raise ValueError(f"the embedding of one text has the shape {list(shape)}")
    return head


def is_supported(layout: Layout) -> bool:
    """Say whether all modules of a layout are of kinds, and in an order, that `make_head` builds."""
    try:
        check_kinds("", [module.kind for module in layout.modules])
    except DistilkitError:
        return False
    return True


def check_kinds(name: str, kinds: Sequence[str]) -> None:
    """Raise DistilkitError unless these modules are a Transformer, one Pooling, and others that are supported."""
    expected = ("Transformer", *MAKERS)
    if unknown := [kind for kind in kinds if kind not in expected]:
        raise DistilkitError(
            f"'{name}' has a module {unknown[0]} (modules.json), which is not supported: give a sentence encoder of "
            f"{', '.join(expected)}"
        )
    if kinds and (list(kinds[:2]) != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(kinds[2:])):
        raise DistilkitError(
            f"'{name}' does not have one Transformer, then one Pooling, then the rest (modules.json: "
            f"{', '.join(kinds)}): give another checkpoint"
        )


def _make_module(name: str, files: ModuleFiles) -> nn.Module:
    if files.kind in NEED_SETTINGS and not files.config:
        raise DistilkitError(
            f"'{name}' lacks the settings of its {files.kind} ('{files.entry['path']}/config.json'): copy the "
            "checkpoint again"
        )
    try:
        if wrong := {tensor.dtype for tensor in files.weights.values()} - set(PRECISIONS):
            raise ValueError(f"weights of {wrong.pop()}")
        if files.config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
            raise ValueError(f"module_input_name '{files.config['module_input_name']}'")
        module = MAKERS[files.kind](files.config)
        module.load_state_dict(dict(files.weights))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DistilkitError(f"'{name}' has a {files.kind} that cannot be read ({reason}): check its folder") from None
    return module
