"""Names of vision transformers in PyTorch projects: timm, facebookresearch/dino and dinov2, Hugging Face."""

from __future__ import annotations

from protloc_jax.convert.rules import Layout, Rule

CLASSIFIERS = (r"(head|fc|classifier|head\.fc|pre_logits\.fc)\.(weight|bias)",)


def linear(target: str, *sources: str, when=None) -> tuple[Rule, Rule]:
    """Kernel and bias of a linear map; several sources are joined along the outputs."""
    return (
        Rule(f"{target}/kernel", tuple(f"{source}.weight" for source in sources), "transpose", when),
        Rule(f"{target}/bias", tuple(f"{source}.bias" for source in sources), "vector", when),
    )


def norm(target: str, source: str, when=None) -> tuple[Rule, Rule]:
    """Scale and bias of a layer norm."""
    return (
        Rule(f"{target}/scale", (f"{source}.weight",), "vector", when),
        Rule(f"{target}/bias", (f"{source}.bias",), "vector", when),
    )


def stem(source: str) -> tuple[Rule, Rule]:
    """The patch convolution."""
    return (
        Rule("backbone/stem/kernel", (f"{source}.weight",), "convolution"),
        Rule("backbone/stem/bias", (f"{source}.bias",), "vector"),
    )


BLOCKS = "backbone/blocks"
# facebookresearch/dino named these; timm and DINOv2 follow.
_SHARED = (
    Rule("backbone/cls", ("cls_token",), "rows"),
    Rule("backbone/pos", ("pos_embed",), "rows"),
    *stem("patch_embed.proj"),
    *norm(f"{BLOCKS}/norm1", "blocks.{n}.norm1"),
    *linear(f"{BLOCKS}/attn/qkv", "blocks.{n}.attn.qkv"),
    *linear(f"{BLOCKS}/attn/proj", "blocks.{n}.attn.proj"),
    *norm(f"{BLOCKS}/norm2", "blocks.{n}.norm2"),
    *linear(f"{BLOCKS}/mlp/fc1", "blocks.{n}.mlp.fc1"),
    *linear(f"{BLOCKS}/mlp/fc2", "blocks.{n}.mlp.fc2"),
    *norm("backbone/norm", "norm"),
)
_SCALES = (
    Rule(f"{BLOCKS}/ls1", ("blocks.{n}.ls1.gamma",), "vector"),
    Rule(f"{BLOCKS}/ls2", ("blocks.{n}.ls2.gamma",), "vector"),
)
# Three maps with GELUs between them lie at 0, 2, 4 of a sequence; torch has had two spellings of weight norm.
_DINO_HEAD = (
    *(rule for i in range(6) for rule in linear(f"head/mlp_{i}", f"head.mlp.{2 * i}")),
    *linear("head/mlp_0", "head.mlp"),
    Rule("head/last/v", ("head.last_layer.weight_v",), "transpose"),
    Rule("head/last/g", ("head.last_layer.weight_g",), "column"),
    Rule("head/last/v", ("head.last_layer.parametrizations.weight.original1",), "transpose"),
    Rule("head/last/g", ("head.last_layer.parametrizations.weight.original0",), "column"),
)
_NOT_OURS = (
    (r"head\.mlp\.\d+\.(running_mean|running_var|num_batches_tracked)", "a DINO head with batch norm"),
    (r"attn_pool\..*", "attention pooling"),
    (r"blocks\.\d+\.attn\.(q|k)_norm\..*", "normed queries and keys"),
    (r"blocks\.\d+\.(attn|mlp)\.norm\..*", "norms inside attention or MLP"),
    (r"blocks\.\d+\.(attns|ffns)\..*", "parallel blocks"),
    (r"blocks\.\d+\.(in_proj|in_norm|attn_out_proj|mlp_out_proj|mlp_bias|q_norm|k_norm)(\..*)?", "parallel blocks"),
    (r"blocks\.\d+\.attn\.(lambda_.*|sub_norm\..*)", "differential attention"),
    (r"(blocks\.\d+\.attn\.)?(rel_pos|relative_position).*", "relative positions"),
    (r"(dist_token|head_dist\..*)", "a distillation token"),
    (r"(blocks\.\d+\.attn\.)?rope.*", "rotary positions"),
    (r"blocks\.\d+\.mlp\.fc1_[gx]\..*", "a gated MLP in two unpacked halves"),
)

TIMM = Layout(
    "timm",
    rules=(
        *_SHARED,
        *_SCALES,
        Rule("backbone/registers", ("reg_token",), "rows"),
        *norm("backbone/norm_pre", "norm_pre"),
        *norm("backbone/norm", "fc_norm", when=("final_norm", "pooled")),
    ),
    extras=CLASSIFIERS,
    refused=_NOT_OURS,
)

DINO = Layout(
    "dino",
    rules=(*_SHARED, *_DINO_HEAD),
    extras=(r"head\.(weight|bias)", r"masked_embed"),
    claims={"norm_eps": 1e-6, "mlp": "gelu", "position": "dino"},
    refused=_NOT_OURS,
)

DINOV2 = Layout(
    "dinov2",
    rules=(
        *_SHARED,
        *_SCALES,
        Rule("backbone/registers", ("register_tokens",), "rows"),
        *linear(f"{BLOCKS}/mlp/fc1", "blocks.{n}.mlp.w12", when=("mlp", "swiglu")),
        *linear(f"{BLOCKS}/mlp/fc2", "blocks.{n}.mlp.w3", when=("mlp", "swiglu")),
        *_DINO_HEAD,
    ),
    # Trained in chunks, a block's number is its place in the whole network; the chunk's number says nothing more.
    aliases=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."), (r"^dino_head\.", "head.")),
    extras=(r"mask_token", r"(linear_)?head\.(weight|bias)", r"ibot_head\..*"),
    claims={
        "norm_eps": 1e-6,
        "colour": "imagenet",
        "mlp": "gelu",
        "gate": "swiglu",
        "position": "dino",
        "position_with_registers": "dinov2_registers",
    },
    needs=(r"mask_token|register_tokens|(dino|ibot)_head\..*|blocks\.\d+\.\d+\..*|blocks\.\d+\.mlp\.w12\..*",),
    refused=_NOT_OURS,
)


def _hf(
    name: str, prefix: str, block: str, *, norms: tuple[str, str], rules: tuple[Rule, ...], aliases=(), **more
) -> Layout:
    attention = f"{block}.attention"
    return Layout(
        name,
        rules=(
            Rule("backbone/cls", ("embeddings.cls_token",), "rows"),
            Rule("backbone/pos", ("embeddings.position_embeddings",), "rows"),
            *stem("embeddings.patch_embeddings.projection"),
            *norm(f"{BLOCKS}/norm1", f"{block}.{norms[0]}"),
            *linear(f"{BLOCKS}/attn/qkv", *(f"{attention}.attention.{part}" for part in ("query", "key", "value"))),
            *linear(f"{BLOCKS}/attn/proj", f"{attention}.output.dense"),
            *norm(f"{BLOCKS}/norm2", f"{block}.{norms[1]}"),
            *rules,
            *norm("backbone/norm", "layernorm"),
        ),
        aliases=((rf"^{prefix}\.", ""), *_HF_NEW_NAMES, *aliases),
        extras=(r"pooler\.dense\.(weight|bias)", r"classifier\.(weight|bias)", r"embeddings\.mask_token"),
        **more,
    )


# The attributes of transformers 5, which its own files do not use but a saved state dict does.
_HF_NEW_NAMES = (
    (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
_HF_BLOCK = "encoder.layer.{n}"
_HF_DINOV2 = (
    Rule(f"{BLOCKS}/ls1", (f"{_HF_BLOCK}.layer_scale1.lambda1",), "vector"),
    Rule(f"{BLOCKS}/ls2", (f"{_HF_BLOCK}.layer_scale2.lambda1",), "vector"),
    *linear(f"{BLOCKS}/mlp/fc1", f"{_HF_BLOCK}.mlp.fc1"),
    *linear(f"{BLOCKS}/mlp/fc2", f"{_HF_BLOCK}.mlp.fc2"),
    *linear(f"{BLOCKS}/mlp/fc1", f"{_HF_BLOCK}.mlp.weights_in", when=("mlp", "swiglu")),
    *linear(f"{BLOCKS}/mlp/fc2", f"{_HF_BLOCK}.mlp.weights_out", when=("mlp", "swiglu")),
    *linear(f"{BLOCKS}/mlp/fc1", f"{_HF_BLOCK}.mlp.gate_proj", f"{_HF_BLOCK}.mlp.up_proj", when=("mlp", "swiglu")),
    *linear(f"{BLOCKS}/mlp/fc2", f"{_HF_BLOCK}.mlp.down_proj", when=("mlp", "swiglu")),
)

HF_VIT = _hf(
    "hf_vit",
    "vit",
    _HF_BLOCK,
    norms=("layernorm_before", "layernorm_after"),
    rules=(
        *linear(f"{BLOCKS}/mlp/fc1", f"{_HF_BLOCK}.intermediate.dense"),
        *linear(f"{BLOCKS}/mlp/fc2", f"{_HF_BLOCK}.output.dense"),
    ),
    aliases=(
        (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
    claims={"position": "hf"},
)
HF_DINOV2 = _hf(
    "hf_dinov2",
    "dinov2",
    _HF_BLOCK,
    norms=("norm1", "norm2"),
    rules=_HF_DINOV2,
    claims={"position": "hf", "colour": "imagenet", "gate": "swiglu"},
)
HF_DINOV2_WITH_REGISTERS = _hf(
    "hf_dinov2_with_registers",
    "dinov2_with_registers",
    _HF_BLOCK,
    norms=("norm1", "norm2"),
    rules=(Rule("backbone/registers", ("embeddings.register_tokens",), "rows"), *_HF_DINOV2),
    # modeling_dinov2_with_registers resizes as DINOv2 does with registers: by size, with antialias.
    claims={"position": "dinov2_registers", "colour": "imagenet", "gate": "swiglu"},
    needs=(r".*register_tokens",),
)
