"""The most memory that one device of a run holds at once, by its parts: an estimate from formulas. Pure.

AdamW in mixed precision takes 16 bytes a trained parameter, which ZeRO shares out over n devices (Rajbhandari et al.,
arXiv 1910.02054, sections 3.1 and 5); which of the 16 where, by the study's precision: see deepspeed_config.py.
Activations are counted layer by layer as by Korthikanti et al. (arXiv 2205.05198, section 4.1), but for what llama and
t5 keep here: see `_Kept`. docs/performance.md compares the whole with measured peaks.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from showhow.study import machine
from showhow.study.deepspeed_config import deepspeed_config
from showhow.study.layout import Layout
from showhow.study.lengths import Lengths
from showhow.study.model_sizes import ModelSizes, held_bits
from showhow.study.trial import Trial

# Measured: a process that has imported what it trains with and taken a step, resident; what DeepSpeed and peft add to
# it. On a GPU, not measured here: the context and the libraries of CUDA.
_PROCESS, _WITH_DEEPSPEED, _WITH_ADAPTER, _ON_A_GPU = 500_000_000, 150_000_000, 40_000_000, 600_000_000
# Measured: on CPUs the C library's heap grows to so many times what is in use, as glibc before 2.38 does not find a
# freed block for an aligned one of the same size; the many short-lived tensors of recomputation leave more.
_HEAP, _HEAP_RECOMPUTED = 1.2, 2.1
# Scales of weights in few bits: 4 bits in blocks of 64 (QLoRA, arXiv 2305.14314, section 3, with the scales quantised),
# 8 bits by rows (arXiv 2208.07339).
_SCALE_BITS = {4: 0.127, 8: 0.01}
_TOKENS_BESIDE = 4  # a reply may be so much longer than a target (training/evaluate.py)
# From how many parameters on each has a gradient of its own, which is freed after each step (training/engine.py).
_END_TO_END = 100_000_000


@dataclass(frozen=True)
class Memory:
    """Peak bytes on one device. weights: with copies in the type computed in. replies: what evaluation needs beyond
    what training has freed. process: the program itself. host: of the machine's memory, for what a GPU offloads."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buckets: int
    replies: int
    process: int
    host: int = 0

    @property
    def total(self) -> int:
        """Bytes on the device."""
        of_program = self.process + self.buckets + self.replies
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + of_program


class _Kept(NamedTuple):
    """Bytes that the forward pass keeps for the backward pass: of each number of the stream at a norm; again for each
    product that reads what was normed; of each query, key, value and result; of each unit of the feed-forward part; of
    each attention score. Measured by the storages of saved tensors, to 1%."""

    norm: float
    read: float
    product: float
    unit: float
    score: float


@dataclass(frozen=True)
class _Load:
    """What is computed at once: examples, tokens of their questions and targets, in numbers of so many bytes; `stream`:
    of the hidden states from layer to layer."""

    rows: int
    prompt: int
    target: int
    number: int
    stream: int
    on_gpu: bool


def memory_of(trial: Trial, sizes: ModelSizes, lengths: Lengths, layout: Layout, on_gpu: bool) -> Memory:
    """Estimate the memory of a device of a run, when its longest rows come together."""
    is_half = _is_half(trial, layout, on_gpu)
    number = 2 if is_half or _computes_narrow(trial, on_gpu) else 4
    is_frozen = sizes.trained < sizes.parameters
    load = _Load(
        rows=layout.micro_batch_size,
        prompt=lengths.longest_prompt,
        target=lengths.longest_target,
        number=number,
        stream=number if is_half or is_frozen else 4,
        on_gpu=on_gpu,
    )
    states = _states(trial, sizes, layout, load)
    heap = 1.0 if on_gpu else _HEAP_RECOMPUTED if layout.recompute_activations else _HEAP
    kept = round(heap * _activations(sizes, load, layout))
    if _frees_gradients(trial, sizes, layout):
        kept = max(0, kept - states.gradients)  # gradients come as activations go
    logits = round(heap * _logits(sizes, load))
    asked = replace(load, rows=min(trial.evaluation.batch_size, trial.data.eval_examples))
    return replace(
        states,
        activations=kept,
        logits=logits,
        replies=max(0, _replies(sizes, asked) - kept - logits),
        process=_ON_A_GPU if on_gpu else _process(layout, is_frozen),
    )


def _process(layout: Layout, has_adapter: bool) -> int:
    return _PROCESS + _WITH_DEEPSPEED * layout.needs_deepspeed + _WITH_ADAPTER * has_adapter


def _computes_narrow(trial: Trial, on_gpu: bool) -> bool:
    if trial.recipe.precision == "auto":
        return on_gpu or machine.computes_in_bfloat16()
    return trial.recipe.precision != "float32"


def _is_half(trial: Trial, layout: Layout, on_gpu: bool) -> bool:
    """True where the weights themselves are in 16 bits: DeepSpeed's float16."""
    return trial.recipe.precision == "float16" and layout.needs_deepspeed and on_gpu


def _frees_gradients(trial: Trial, sizes: ModelSizes, layout: Layout) -> bool:
    is_one_pass = trial.recipe.batch_size <= layout.devices * layout.micro_batch_size
    return is_one_pass and sizes.trained > _END_TO_END and not layout.needs_deepspeed


def _states(trial: Trial, sizes: ModelSizes, layout: Layout, load: _Load) -> Memory:
    """Weights, gradients and optimizer, as the layout shares and offloads them."""
    trained, stage, devices = sizes.trained, layout.zero_stage, layout.devices
    is_half = load.stream == 2 and trained == sizes.parameters
    own = 2 if is_half else 4
    share = [1 / devices if stage >= least else 1.0 for least in (1, 2, 3)]
    weights = own * trained * share[2] + _frozen(trial, sizes, load) * share[2]
    gradients = own * trained * share[1]
    # From stage 1 on DeepSpeed steps a copy in float32, but for stage 3 without half precision, whose part is one.
    copy = 4 if is_half or stage in (1, 2) else 0
    optimizer = (copy + 8) * trained * share[0]
    copies = _copies(sizes, load, layout)
    host = 0.0
    if load.on_gpu:
        host += optimizer * (layout.offload_optimizer == "cpu")
        host += weights * (layout.offload_parameters == "cpu")
    if layout.offload_optimizer == "nvme" or (load.on_gpu and layout.offload_optimizer == "cpu"):
        optimizer = 0.0
    if layout.offload_parameters == "nvme" or (load.on_gpu and layout.offload_parameters == "cpu"):
        weights = 0.0
    buckets = _buckets(trial, sizes, layout, own)
    return Memory(round(weights + copies), round(gradients), round(optimizer), 0, 0, buckets, 0, 0, round(host))


def _frozen(trial: Trial, sizes: ModelSizes, load: _Load) -> float:
    """Bytes of what an adapter leaves as it is; embeddings are never held in few bits."""
    if sizes.trained == sizes.parameters:
        return 0.0
    bits = held_bits(trial.model)
    if bits is None:
        return load.number * sizes.parameters
    return (sizes.parameters - sizes.embedded) * (bits + _SCALE_BITS[bits]) / 8 + load.number * sizes.embedded


def _copies(sizes: ModelSizes, load: _Load, layout: Layout) -> int:
    """Bytes of weights in the type that products are computed in, where they are held in another (autocast casts each
    once and keeps it until the backward pass); in float32 the lean layers join matrices that are read together."""
    if load.stream == load.number == 2 or (load.number == 4 and not _is_lean(sizes, load, layout)):
        return 0
    if load.number == 2:
        return 2 * sizes.multiplied
    turned = sizes.layers * sizes.hidden * sizes.inner * (sizes.family == "llama")
    return 4 * (_joined(sizes) + turned + 3 * sizes.encoder_layers * sizes.hidden * sizes.inner)


def _joined(sizes: ModelSizes) -> int:
    """Numbers in a decoder's matrices that are read together: queries, keys and values, gate and up."""
    attention = (5 if sizes.encoder_layers else 3) * sizes.hidden * sizes.inner
    return sizes.layers * (attention + sizes.is_gated * 2 * sizes.hidden * sizes.mlp)


def _buckets(trial: Trial, sizes: ModelSizes, layout: Layout, own: int) -> int:
    """Bytes of what is communicated at once: DeepSpeed's two buckets of gradients, and what stage 3 has gathered: all
    weights up to its bound, as they are needed again in the backward pass."""
    if not layout.needs_deepspeed:
        return 0
    if layout.zero_stage == 0:
        return own * sizes.trained if layout.devices > 1 else 0
    zero = deepspeed_config(trial.recipe, layout, "float32", sizes.trained)["zero_optimization"]
    bucket = min(sizes.trained, int(zero["reduce_bucket_size"]))
    gathered = 0
    if layout.zero_stage == 3:
        gathered = min(sizes.parameters, int(zero.get("stage3_max_live_parameters", 1e9)))
    return own * ((1 + bool(zero.get("overlap_comm"))) * bucket + gathered)


def _is_lean(sizes: ModelSizes, load: _Load, layout: Layout) -> bool:
    """True where training/lean.py trains: weights that are shared out, and recomputation, are left to transformers."""
    return sizes.kept_lean and not (load.on_gpu or layout.recompute_activations or layout.zero_stage == 3)


def _activations(sizes: ModelSizes, load: _Load, layout: Layout) -> int:
    """Bytes kept for the backward pass, and what the largest layer needs in passing. Recomputed, each layer keeps what
    it reads, and one at a time the rest."""
    kept = _kept(sizes, load, _is_lean(sizes, load, layout))
    own, other = load.rows * load.target, load.rows * load.prompt
    if not sizes.encoder_layers:
        own, other = own + other, 0
    decoder = _layer(sizes, kept, own, load.prompt + load.target if not other else load.target)
    encoder = _layer(sizes, kept, other, load.prompt)
    if other:
        decoder += _crossing(sizes, kept, load)
    passing = max(_passing(sizes, load, own), _passing(sizes, load, other)) + _biases(sizes, load)
    if layout.recompute_activations:
        stream = load.stream * sizes.hidden
        return round(stream * (own * sizes.layers + other * sizes.encoder_layers) + max(decoder, encoder) + passing)
    return round(decoder * sizes.layers + encoder * sizes.encoder_layers + passing)


def _kept(sizes: ModelSizes, load: _Load, is_lean: bool) -> _Kept:
    narrow, is_t5 = load.number == 2, sizes.family == "t5"
    units = (4 if sizes.is_gated else 1) * load.number
    if is_lean:
        return _Kept(6, 0, 2, units, 6) if narrow else _Kept(8, 0, 4, units, 4)
    if is_t5 and sizes.is_gated:  # an approximate GELU in single operations
        units *= 2
    if sizes.has_dropout:
        units += 2 * load.number
    dropped = 2 * load.number * sizes.has_dropout
    score = _score(sizes, load) + dropped
    if not narrow:
        return _Kept(12 + dropped / 2, 0, 4, units, score)
    if sizes.trained < sizes.parameters:  # peft hands each adapter a copy of its own
        return _Kept((10 if is_t5 else 8) + dropped / 2, 2, 2, units + 2, score)
    if load.stream == 2:
        return _Kept((10 if is_t5 else 8) + dropped / 2, 0, 2, units, score)
    return _Kept(8 + dropped / 2, 2, 2, units, score)


def _score(sizes: ModelSizes, load: _Load) -> float:
    """SDPA keeps no scores but a mask, one for all heads; T5's has a part that learns, one for each."""
    if load.on_gpu or not sizes.kept_lean:
        return load.number if sizes.family == "t5" else load.number / sizes.heads
    return 6 if load.number == 2 else 4  # eager


def _layer(sizes: ModelSizes, kept: _Kept, tokens: int, length: int) -> float:
    """Bytes of self-attention and feed-forward, each behind its norm."""
    norms = 2 * kept.norm + kept.read * (3 + (2 if sizes.is_gated else 1))
    stream = norms * sizes.hidden + 4 * kept.product * sizes.inner + kept.unit * sizes.mlp
    return tokens * (stream + kept.score * sizes.heads * length)


def _crossing(sizes: ModelSizes, kept: _Kept, load: _Load) -> float:
    """Bytes of a decoder layer's attention to the encoder's outputs."""
    own, other = load.rows * load.target, load.rows * load.prompt
    queries = own * ((kept.norm + kept.read) * sizes.hidden + 2 * kept.product * sizes.inner)
    keys = other * (2 * kept.read * sizes.hidden + 2 * kept.product * sizes.inner)
    return queries + keys + kept.score * own * load.prompt * sizes.heads


def _biases(sizes: ModelSizes, load: _Load) -> int:
    """Bytes of what T5 adds to its scores, positions and masks, which is made once for all layers."""
    if sizes.family != "t5":
        return 0
    pairs = load.prompt**2 + load.target**2 + load.target * load.prompt
    return 4 * load.rows * sizes.heads * pairs


def _passing(sizes: ModelSizes, load: _Load, tokens: int) -> float:
    """Bytes that a layer's backward pass holds for a moment: gradients of its units or scores, twice over."""
    length = tokens / load.rows
    return 2 * tokens * max(load.number * sizes.mlp, 4 * sizes.heads * length)


def _logits(sizes: ModelSizes, load: _Load) -> int:
    """Bytes of the logits of target tokens, in the type computed in, in float32, as log-probabilities and as their
    gradient; and the gradient of the matrix that made them. Where transformers makes them, those of questions too."""
    targets = load.rows * load.target
    is_spared = sizes.encoder_layers > 0 or (sizes.kept_lean and not load.on_gpu)
    made = targets if is_spared else targets + load.rows * load.prompt
    return round(
        sizes.vocabulary * (12 * targets + load.number * (made + targets))
        + 4 * sizes.embedded * (sizes.trained == sizes.parameters)
    )


def _replies(sizes: ModelSizes, asked: _Load) -> int:
    """Bytes of evaluation: keys and values of all layers, logits of a token a row; lean decoders copy the weights."""
    length = asked.prompt + asked.target + _TOKENS_BESIDE
    number = asked.number if asked.on_gpu or not sizes.kept_lean else 4
    cache = 2 * asked.rows * length * sizes.inner * sizes.layers * number
    if sizes.encoder_layers:
        cache += 2 * asked.rows * asked.prompt * sizes.inner * sizes.layers * number
    copied = sizes.multiplied if asked.number == 2 else _joined(sizes)
    copies = asked.number * copied * sizes.kept_lean
    reading = asked.rows * asked.prompt * (2 * sizes.mlp + 4 * sizes.inner) * asked.number
    return round(cache + copies + reading + 8 * asked.rows * sizes.vocabulary)
