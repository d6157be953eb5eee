"""The most memory that one device of a run holds at once, by its parts: an estimate from formulas. Pure.

AdamW in mixed precision takes 16 bytes a trained parameter, which ZeRO shares out over n devices (Rajbhandari et al.,
arXiv 1910.02054, sections 3.1 and 5); which of the 16 where, by the study's precision: see deepspeed_config.py.
Activations are counted layer by layer as by Korthikanti et al. (arXiv 2205.05198, section 4.1), but for what llama and
t5 keep here: see `_Kept`. docs/performance.md compares the whole with measured peaks.
"""

from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from showhow.machines import machine
from showhow.machines.deepspeed_config import deepspeed_config
from showhow.machines.layout import Layout
from showhow.models.lengths import Lengths
from showhow.models.sizes import ModelSizes, held_bits
from showhow.sections.resources import Offload
from showhow.sections.trial import Trial

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
    def parts(self) -> dict[str, int]:
        """Bytes on the device, by what they are for."""
        return {name: size for name, size in asdict(self).items() if name != "host"}

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Load:
    """What a model computes at once: rows, of so many tokens of question and of target, in numbers of so many bytes;
    stream: bytes of a number of the hidden states from layer to layer. is_lean: training/cpu/loss.py trains."""

    sizes: ModelSizes
    rows: int
    prompt: int
    target: int
    number: int
    stream: int
    is_lean: bool
    on_gpu: bool

    @property
    def is_frozen(self) -> bool:
        """True with an adapter."""
        return self.sizes.trained < self.sizes.parameters

    @property
    def is_half(self) -> bool:
        """True where trained weights themselves are in 16 bits: DeepSpeed's float16."""
        return self.stream == 2 and not self.is_frozen

    @property
    def own(self) -> int:
        """Bytes of a trained weight."""
        return 2 if self.is_half else 4


def memory_of(trial: Trial, sizes: ModelSizes, lengths: Lengths, layout: Layout, on_gpu: bool) -> Memory:
    """Estimate the memory of a device of a run, when its longest rows come together."""
    load = _load(trial, sizes, lengths, layout, on_gpu)
    weights, gradients, optimizer, host = _states(trial, load, layout)
    heap = 1.0 if on_gpu else _HEAP_RECOMPUTED if layout.recompute_activations else _HEAP
    activations, logits = round(heap * _activations(load, layout)), round(heap * _logits(load))
    is_one_pass = trial.recipe.batch_size <= layout.devices * layout.micro_batch_size
    if is_one_pass and sizes.trained > _END_TO_END and not layout.needs_deepspeed:
        activations = max(0, activations - gradients)  # gradients come as activations go
    asked = replace(load, rows=min(layout.asked_at_once or trial.evaluation.batch_size, trial.data.eval_examples))
    process = _PROCESS + _WITH_DEEPSPEED * layout.needs_deepspeed + _WITH_ADAPTER * load.is_frozen
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        buckets=_buckets(trial, load, layout),
        replies=max(0, _replies(asked) - activations - logits),
        process=_ON_A_GPU if on_gpu else process,
        host=host,
    )


def _load(trial: Trial, sizes: ModelSizes, lengths: Lengths, layout: Layout, on_gpu: bool) -> _Load:
    number = 2 if machine.computes_narrow(trial.recipe.precision, on_gpu) else 4
    is_half = trial.recipe.precision == "float16" and layout.needs_deepspeed and on_gpu
    return _Load(
        sizes=sizes,
        rows=layout.micro_batch_size,
        prompt=lengths.longest_prompt,
        target=lengths.longest_target,
        number=number,
        stream=number if is_half or sizes.trained < sizes.parameters else 4,
        # Weights that are shared out, and recomputation, are left to transformers.
        is_lean=sizes.kept_lean and not (on_gpu or layout.recompute_activations or layout.zero_stage == 3),
        on_gpu=on_gpu,
    )


def _states(trial: Trial, load: _Load, layout: Layout) -> tuple[int, int, int, int]:
    """Return the bytes of weights, gradients and optimizer, as the layout shares and offloads them, and those of the
    machine's memory beside a GPU's."""
    trained, stage = load.sizes.trained, layout.zero_stage
    shared = [1 / layout.devices if stage >= least else 1.0 for least in (1, 2, 3)]
    # From stage 1 on DeepSpeed steps a copy in float32, but for stage 3 without half precision, whose part is one.
    copy = 4 if load.is_half or stage in (1, 2) else 0
    held = (load.own * trained + _frozen(trial, load)) * shared[2]
    weights, away = _placed(held, layout.offload_parameters, load.on_gpu)
    optimizer, further = _placed((copy + 8) * trained * shared[0], layout.offload_optimizer, load.on_gpu)
    return (
        round(weights + _copies(load)),
        round(load.own * trained * shared[1]),
        round(optimizer),
        round(away + further),
    )


def _placed(held: float, offload: Offload, on_gpu: bool) -> tuple[float, float]:
    """Return how many of some bytes stay on the device, and how many of the machine's memory a GPU's take."""
    if offload == "nvme":
        return 0.0, 0.0
    return (0.0, held) if offload == "cpu" and on_gpu else (held, 0.0)


def _frozen(trial: Trial, load: _Load) -> float:
    """Bytes of what an adapter leaves as it is; embeddings are never held in few bits."""
    sizes, bits = load.sizes, held_bits(trial.model)
    if not load.is_frozen:
        return 0.0
    if bits is None:
        return load.number * sizes.parameters
    return (sizes.parameters - sizes.embedded) * (bits + _SCALE_BITS[bits]) / 8 + load.number * sizes.embedded


def _copies(load: _Load) -> int:
    """Bytes of weights in the type that products are computed in, where they are held in another (autocast casts each
    once and keeps it until the backward pass); in float32 the lean layers join matrices that are read together."""
    sizes = load.sizes
    if load.number == 2:
        return 0 if load.stream == 2 else 2 * sizes.multiplied
    turned = sizes.layers * sizes.hidden * sizes.inner * (sizes.family == "llama")
    return 4 * load.is_lean * (_joined(sizes) + turned + 3 * sizes.encoder_layers * sizes.hidden * sizes.inner)


def _joined(sizes: ModelSizes) -> int:
    """Numbers in a decoder's matrices that are read together: queries, keys and values, gate and up."""
    attention = (5 if sizes.encoder_layers else 3) * sizes.hidden * sizes.inner
    return sizes.layers * (attention + sizes.is_gated * 2 * sizes.hidden * sizes.mlp)


def _buckets(trial: Trial, load: _Load, layout: Layout) -> int:
    """Bytes of what is communicated at once: DeepSpeed's two buckets of gradients, and what stage 3 has gathered: all
    weights up to its bound, as they are needed again in the backward pass."""
    sizes, stage = load.sizes, layout.zero_stage
    if not layout.needs_deepspeed:
        return 0
    if stage == 0:
        return load.own * sizes.trained * (layout.devices > 1)
    zero = deepspeed_config(trial.recipe, layout, "float32", sizes.trained)["zero_optimization"]
    buckets = (1 + bool(zero.get("overlap_comm"))) * min(sizes.trained, int(zero["reduce_bucket_size"]))
    gathered = min(sizes.parameters, int(zero.get("stage3_max_live_parameters", 1e9))) if stage == 3 else 0
    return load.own * (buckets + gathered)


class _Kept(NamedTuple):
    """Bytes that the forward pass keeps for the backward pass: of each number of the stream at a norm; again for each
    product that reads what was normed; of each unit of the feed-forward part; of each attention score. Queries, keys,
    values and results are kept as they are computed. Measured by the storages of saved tensors, to 1%."""

    norm: float
    read: float
    unit: float
    score: float


def _kept(load: _Load) -> _Kept:
    sizes, number, narrow = load.sizes, load.number, load.number == 2
    unit = (4 if sizes.is_gated else 1) * number
    if load.is_lean:
        return _Kept(6, 0, unit, 6) if narrow else _Kept(8, 0, unit, 4)
    is_t5, dropped = sizes.family == "t5", number * sizes.has_dropout
    if is_t5 and sizes.is_gated:  # an approximate GELU in single operations
        unit *= 2
    return _Kept(
        norm=dropped + (12 if not narrow else 10 if is_t5 and load.stream == 2 else 8),
        read=2 * (narrow and not load.is_half),
        unit=unit + 2 * dropped + 2 * (narrow and load.is_frozen),  # peft hands each adapter a copy of its own
        score=_score(load) + 2 * dropped,
    )


def _score(load: _Load) -> float:
    """SDPA keeps no scores but a mask, one for all heads; T5's has a part that learns, one for each."""
    if load.on_gpu or not load.sizes.kept_lean:
        return load.number if load.sizes.family == "t5" else load.number / load.sizes.heads
    return 6 if load.number == 2 else 4  # eager


def _activations(load: _Load, layout: Layout) -> int:
    """Bytes kept for the backward pass, and what the largest layer needs in passing. Recomputed, each layer keeps what
    it reads, and one at a time the rest."""
    sizes, kept = load.sizes, _kept(load)
    if sizes.encoder_layers:
        decoder = _layer(load, kept, load.target) + _crossing(load, kept)
        encoder = _layer(load, kept, load.prompt)
        stacks = [(sizes.layers, load.target, decoder), (sizes.encoder_layers, load.prompt, encoder)]
    else:
        length = load.prompt + load.target
        stacks = [(sizes.layers, length, _layer(load, kept, length))]
    passing = _passing(load, max(length for _, length, _ in stacks)) + _biases(load)
    if not layout.recompute_activations:
        return round(sum(layers * layer for layers, _, layer in stacks) + passing)
    read = load.rows * load.stream * sizes.hidden * sum(layers * length for layers, length, _ in stacks)
    return round(read + max(layer for _, _, layer in stacks) + passing)


def _layer(load: _Load, kept: _Kept, length: int) -> float:
    """Bytes of self-attention and feed-forward, each behind its norm, over rows of so many tokens."""
    sizes = load.sizes
    norms = 2 * kept.norm + kept.read * (3 + (2 if sizes.is_gated else 1))
    stream = norms * sizes.hidden + 4 * load.number * sizes.inner + kept.unit * sizes.mlp
    return load.rows * length * (stream + kept.score * sizes.heads * length)


def _crossing(load: _Load, kept: _Kept) -> float:
    """Bytes of a decoder layer's attention to the encoder's outputs."""
    sizes, own, other = load.sizes, load.rows * load.target, load.rows * load.prompt
    queries = own * ((kept.norm + kept.read) * sizes.hidden + 2 * load.number * sizes.inner)
    keys = other * (2 * kept.read * sizes.hidden + 2 * load.number * sizes.inner)
    return queries + keys + kept.score * own * load.prompt * sizes.heads


def _biases(load: _Load) -> int:
    """Bytes of what T5 adds to its scores, positions and masks, which is made once for all layers."""
    if load.sizes.family != "t5":
        return 0
    pairs = load.prompt**2 + load.target**2 + load.target * load.prompt
    return 4 * load.rows * load.sizes.heads * pairs


def _passing(load: _Load, length: int) -> int:
    """Bytes that a layer's backward pass holds for a moment: gradients of its units or scores, twice over."""
    return 2 * load.rows * length * max(load.number * load.sizes.mlp, 4 * load.sizes.heads * length)


def _logits(load: _Load) -> int:
    """Bytes of the logits of target tokens, in the type computed in, in float32, as log-probabilities and as their
    gradient; and the gradient of the matrix that made them. Where transformers makes them, those of questions too."""
    sizes, targets = load.sizes, load.rows * load.target
    is_spared = sizes.encoder_layers > 0 or (sizes.kept_lean and not load.on_gpu)
    questions = 0 if is_spared else load.rows * load.prompt
    made = sizes.vocabulary * (12 * targets + load.number * (2 * targets + questions))
    return made + 4 * sizes.embedded * (not load.is_frozen)


def _replies(asked: _Load) -> int:
    """Bytes of evaluation: keys and values of all layers, logits of a token a row; lean decoders copy the weights."""
    sizes, prompts = asked.sizes, asked.rows * asked.prompt
    number = asked.number if asked.on_gpu or not sizes.kept_lean else 4
    cached = prompts + asked.rows * (asked.target + _TOKENS_BESIDE) + prompts * (sizes.encoder_layers > 0)
    cache = 2 * cached * sizes.inner * sizes.layers * number
    copies = asked.number * (sizes.multiplied if asked.number == 2 else _joined(sizes)) * sizes.kept_lean
    reading = prompts * (2 * sizes.mlp + 4 * sizes.inner) * asked.number
    return cache + copies + reading + 8 * asked.rows * sizes.vocabulary
