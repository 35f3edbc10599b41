"""Small random models in HF's own form, one for each feature of the family.

Every parameter is drawn so that its part acts: norm scales are not 1, the position bias is as large as the attention
scores, routers spread their choices. As transformers initialises them, several of these would be invisible.
"""

import json
import pathlib

import torch
import transformers

_SHAPE = dict(
    vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_heads=3, num_layers=2, num_decoder_layers=2,
    relative_attention_num_buckets=32, relative_attention_max_distance=128,
    decoder_start_token_id=0, dropout_rate=0.1,
)  # fmt: skip
_SPARSE = dict(num_experts=4, expert_capacity=512, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1)

# name: (model_type, what differs from _SHAPE). "untied" gives the output its own table, "own_tables" stacks theirs.
MODELS = {
    "t5": ("t5", dict(feed_forward_proj="relu")),
    "t5_v1_1": ("t5", dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, untied=True)),
    "t5_unscaled": ("t5", dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),  # and tied all the same
    "t5_scaled_head": ("t5", dict(feed_forward_proj="relu", untied=True)),
    "t5_own_tables": ("t5", dict(feed_forward_proj="relu", own_tables=("encoder", "decoder"))),
    "t5_decoder_table": ("t5", dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, own_tables=("decoder",))),
    "t5_gated_silu": ("t5", dict(feed_forward_proj="gated-silu", num_heads=2, d_kv=16, num_decoder_layers=3)),
    "t5_buckets": ("t5", dict(feed_forward_proj="relu", relative_attention_num_buckets=12, relative_attention_max_distance=20)),
    "t5_gelu": ("t5", dict(feed_forward_proj="gelu", num_layers=1)),
    "mt5_tied": ("mt5", dict(feed_forward_proj="gated-gelu", tie_word_embeddings=True)),
    "mt5": ("mt5", dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, untied=True)),
    "umt5": ("umt5", dict(feed_forward_proj="gated-gelu", num_layers=3, num_decoder_layers=3)),
    "switch": ("switch_transformers", _SPARSE),
    "switch_overflow": ("switch_transformers", _SPARSE | dict(expert_capacity=2)),
    "switch_all_sparse": (
        "switch_transformers",
        _SPARSE | dict(num_sparse_encoder_layers=2, num_sparse_decoder_layers=2, expert_capacity=3),
    ),
    # transformers makes block 1 of 3 sparse in the encoder and blocks 1 and 3 of 4 in the decoder.
    "switch_uneven": (
        "switch_transformers",
        _SPARSE | dict(num_layers=3, num_decoder_layers=4, num_sparse_decoder_layers=2, num_experts=9),
    ),
    "switch_router_bias": ("switch_transformers", _SPARSE | dict(router_bias=True, dense_act_fn="gelu_new")),
    # Blocks 1 and 4 of 6: every third, one before where T5X puts them.
    "switch_thirds": (
        "switch_transformers",
        _SPARSE | dict(num_layers=6, num_decoder_layers=6, num_sparse_encoder_layers=2, num_sparse_decoder_layers=2, num_heads=2),
    ),
    # A count above the number of layers makes none sparse in transformers; 0 makes block 1 so.
    "switch_encoder_only": ("switch_transformers", _SPARSE | dict(num_sparse_decoder_layers=3)),
    "switch_none_sparse": ("switch_transformers", _SPARSE | dict(num_sparse_encoder_layers=3, num_sparse_decoder_layers=3)),
    "switch_count_zero": ("switch_transformers", _SPARSE | dict(num_sparse_encoder_layers=0, num_sparse_decoder_layers=0)),
    "switch_scaled_head": ("switch_transformers", _SPARSE | dict(untied=True)),
    # What transformers itself makes of an untied config.
    "switch_own_tables": (
        "switch_transformers",
        _SPARSE | dict(tie_word_embeddings=False, untied=True, own_tables=("encoder", "decoder")),
    ),
    "switch_untied": ("switch_transformers", _SPARSE | dict(tie_word_embeddings=False, untied=True)),
}

# Sizes that the fast products take: multiples of 64, but for the vocabulary, which may be any.
_FAST = dict(vocab_size=200, d_model=64, d_kv=16, d_ff=128, num_heads=4)
FAST_MODELS = {
    "fast_t5_v1_1": ("t5", _FAST | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, untied=True)),
    "fast_switch": ("switch_transformers", _SPARSE | _FAST),
    "fast_switch_overflow": ("switch_transformers", _SPARSE | _FAST | dict(expert_capacity=2)),
}

_CLASSES = {
    "t5": (transformers.T5Config, transformers.T5ForConditionalGeneration),
    "mt5": (transformers.MT5Config, transformers.MT5ForConditionalGeneration),
    "umt5": (transformers.UMT5Config, transformers.UMT5ForConditionalGeneration),
    "switch_transformers": (transformers.SwitchTransformersConfig, transformers.SwitchTransformersForConditionalGeneration),
}


def _draw(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    d_kv = model.config.d_kv
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "layer_norm" in name:
            value = 1 + 0.2 * noise
        elif "relative_attention_bias" in name or "shared" in name or "embed_tokens" in name:
            value = noise
        elif name.endswith("bias"):
            value = 0.5 * noise
        else:  # [out, in]
            value = noise * parameter.shape[-1] ** -0.5
            if ".q." in name:
                value = value * d_kv**-0.5
        parameter.data.copy_(value)


def save_model(name: str, folder: pathlib.Path, seed: int = 1, **more_changes) -> pathlib.Path:
    """Writes the model `name` as save_pretrained does, and returns its directory."""
    model_type, changes = (MODELS | FAST_MODELS)[name]
    changes = changes | more_changes
    untied, own_tables = changes.pop("untied", False), changes.pop("own_tables", ())
    config_class, model_class = _CLASSES[model_type]
    model = model_class(config_class(**(_SHAPE | changes)))
    if untied and model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    for stack in own_tables:
        getattr(model, stack).embed_tokens.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    _draw(model, seed)
    for stack in {"encoder", "decoder"} - set(own_tables):
        # An untied config unties them from Switch's input tables as well: here they are equal.
        getattr(model, stack).embed_tokens.weight.data.copy_(model.shared.weight.data)
    model.save_pretrained(folder)
    return folder


def open_model(folder: pathlib.Path, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, dict]:
    """The model as transformers reads it, and its report of what it found."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    model_class = _CLASSES[model_type][1]
    return model_class.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True, local_files_only=True
    )


def load_model(folder: pathlib.Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model in evaluation mode, every weight found and none left over."""
    model, report = open_model(folder, dtype)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report[kind], f"transformers, reading {folder}: {kind} {report[kind]}"
    if dtype == torch.float64:
        _compute_in_double(model)
    return model.eval()


def _compute_in_double(model: torch.nn.Module) -> None:
    """transformers takes norm statistics and routes in float32 whatever the model's dtype; a float64 model should not."""

    def norm(module, hidden):
        return module.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)

    for module in model.modules():
        if type(module).__name__.endswith("LayerNorm"):
            module.forward = norm.__get__(module)
        elif type(module).__name__.endswith("Top1Router"):
            module.dtype = torch.float64
